"""Mitigations by captions: each caption is shown equally often; variants of captions; masked tokens."""

import math
import sys
from collections import Counter

import numpy as np
import pytest
import torch

from clipmem.base.errors import InputError
from clipmem.base.mitigations import CaptionVariantsSection, ImageVariantsSection, TextMaskingSection
from clipmem.base.random import derive_seed, uniform
from clipmem.base.recipes import load_recipe
from clipmem.data.views import pair_keys
from clipmem.mitigate import CaptionSampling, sample_captions
from clipmem.mitigate.base import captions_in_training
from clipmem.mitigate.captions import (
    CaptionVariants,
    TextMasking,
    choose_variant,
    drop_tokens,
    make_variants,
    rewrite,
    variants_of,
)
from clipmem.mitigate.image_variants import ImageVariants
from clipmem.models import openclip
from clipmem.train.hooks import Hooks, Moment
from clipmem.train.loop import train
from clipmem.train.objectives import Towers
from tests.unit.mitigate.test_base import KEYS as FEW_KEYS
from tests.unit.mitigate.test_base import fit
from tests.unit.train.test_loop import PIXELS, N, data_of, plan_of, section, uid


def test_caption_sampling_shows_each_caption_equally_often():
    pairs = [(f"image {k}", [f"{k} {c}" for c in range(5)]) for k in range(100)]
    data, seen = CaptionSampling(pairs, seed=4, keys=KEYS[:100]), Counter()
    for epoch in range(60):
        data.set_epoch(epoch)
        items = [data[k] for k in range(len(data))]
        assert [image for image, _ in items] == [image for image, _ in pairs]
        assert [c for _, c in items] == sample_captions([c for _, c in pairs], KEYS[:100], epoch=epoch, seed=4)
        seen.update(caption.split()[1] for _, caption in items)
    assert sum(seen.values()) == 6000
    assert all(abs(count - 1200) < 5 * math.sqrt(6000 * 0.2 * 0.8) for count in seen.values())


def test_caption_sampling_is_what_the_loop_draws():
    captions = [[f"{k} {c}" for c in range(k % 4 + 1)] for k in range(50)]
    for k, chosen in enumerate(sample_captions(captions, KEYS[:50], epoch=2, seed=9)):
        u = uniform(KEYS[k : k + 1], derive_seed(9, "caption", 2), 1)[0, 0]
        assert chosen == captions[k][int(u * len(captions[k]))]


def test_a_pair_without_captions_is_refused():
    with pytest.raises(InputError) as caught:
        sample_captions([["a"], []], KEYS[:2], epoch=0)
    assert str(caught.value) == "captions of pair 1: got none, expected one or more. Leave the pair out."


def test_captions_in_training_and_in_scores_are_two_settings():
    assert captions_in_training(load_recipe("[train]\ncaptions = 3")) == 3
    assert captions_in_training(load_recipe("[train]\ncaptions = 3\n[mitigate.captions]\ncount = 5")) == 5


KEYS = pair_keys([uid(k) for k in range(400)])
TAGS = "red, round, fruit, food"


def moment(slots, epoch=0, seed=0):
    slots = np.asarray(slots)
    return Moment(seed, epoch, epoch, slots, KEYS[slots])


def words(*kinds, **changes):
    return CaptionVariantsSection(kinds=kinds, **changes)


def test_variants_are_different_take_turns_and_follow_the_caption_alone():
    settings = words("dropout", "reorder", "templates", count=6)
    made = variants_of([TAGS, "a cat", "one"], settings)
    assert [kind for kind, _ in made[TAGS]] == ["dropout", "reorder", "templates"] * 2
    for caption, own in made.items():
        texts = [text.lower() for _, text in own]
        assert len({caption, *texts}) == len(texts) + 1
    assert [kind for kind, _ in made["one"]] == ["templates"] * 4
    assert variants_of(["a cat"], settings)["a cat"] == made["a cat"]
    more = variants_of([TAGS], words("dropout", "reorder", "templates", count=3))
    assert more[TAGS] == made[TAGS][:3]
    assert (
        variants_of([TAGS], words("dropout", "reorder", count=6, seed=1))[TAGS]
        != variants_of([TAGS], words("dropout", "reorder", count=6))[TAGS]
    )


@pytest.mark.parametrize("probability", [0.25, 1.0])
def test_choice_against_the_slow_loop(probability):
    rng = np.random.default_rng(0)
    u, counts = rng.random(500), rng.integers(0, 4, 500)
    for k, number in enumerate(choose_variant(u, counts, probability)):
        expected = -1
        if counts[k] and u[k] < probability:
            expected = next(
                v for v in range(counts[k]) if u[k] < probability * (v + 1) / counts[k] or v == counts[k] - 1
            )
        assert number == expected


def test_captions_and_variants_are_shown_as_often_as_they_say():
    n, captions, p = 400, ["c0", "c1"], 0.6
    uids = [uid(k) for k in range(n)]
    variants = {(one, "c0"): ["c0 a", "c0 b", "c0 c"] for one in uids}  # the other caption has none
    hook = CaptionVariants(words("dropout", probability=p), 3, variants)
    texts = Hooks((hook,)).captions([captions] * n, uids)
    assert texts[5] == ["c0", "c1", "c0 a", "c0 b", "c0 c"]
    seen = Counter()
    for epoch in range(50):
        chosen = np.arange(n) % 2
        rows = hook.choose(chosen, moment(np.arange(n), epoch))
        assert (rows[1::2] == 1).all()
        seen.update(texts[k][row] for k, row in enumerate(rows) if k % 2 == 0)
        some = np.array([7, 8, 300])
        assert hook.choose(chosen[some], moment(some, epoch)).tolist() == rows[some].tolist()
    total = 50 * n // 2
    assert abs(seen["c0"] - total * (1 - p)) < 5 * math.sqrt(total * p * (1 - p))
    for text in ("c0 a", "c0 b", "c0 c"):
        assert abs(seen[text] - total * p / 3) < 5 * math.sqrt(total * p / 3 * (1 - p / 3))


def test_texts_of_several_hooks_stand_one_after_the_other():
    first, second = (
        CaptionVariants(words("dropout", probability=1.0), 1, {(uid(0), "a"): own, (uid(1), "b"): own[:1]})
        for own in (["x", "y"], ["z"])
    )
    texts = Hooks((first, second)).captions([["a"], ["a", "b"]], [uid(0), uid(1)])
    assert texts == [["a", "x", "y", "z"], ["a", "b", "x", "z"]]
    assert texts[0][second.choose(np.array([0]), moment([0]))[0]] == "z"
    assert texts[1][second.choose(np.array([1]), moment([1]))[0]] == "z"
    assert texts[1][first.choose(np.array([0]), moment([1]))[0]] == "a"


def hook_of(source, n, probability=0.4, **changes):
    others = 255 - PIXELS[:7]
    rows = [[k % 7, (k + 1) % 7] if k % 3 else [] for k in range(n)]
    settings = ImageVariantsSection(probability=probability, source=source, **changes)
    return ImageVariants(settings, 2, section(), None if source == "augment" else others, rows), others, rows


def test_never_is_bitwise_no_mitigation(tmp_path):
    def final(name, *hooks):
        encoder = openclip.create("clipmem-micro", seed=7)
        train(Towers(encoder, hooks=Hooks(hooks)), data_of(range(N)), plan_of(range(N)), section(), tmp_path / name)
        return (tmp_path / name / "open_clip_model.safetensors").read_bytes()

    plain = final("plain")
    never = ImageVariants(ImageVariantsSection(source="augment"), 0, section(), None, [[]] * N)
    unworded = CaptionVariants(words("dropout"), 0, {})  # no caption has variants
    assert final("never", never, unworded) == plain
    some, _, _ = hook_of("given", N)
    assert final("some", some) != plain


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("caption_variants]\ntemplates = ['an image']",
         "recipe: [mitigate.caption_variants] template 'an image' must "
         "have {} exactly once, in place of the caption."),
        ("caption_variants]\nkinds = ['dropout', 'dropout']", "recipe: [mitigate.caption_variants] kinds = ['dropout', "
         "'dropout'] has duplicates; name each kind once."),
        ("remove]\ncount = 3", "recipe: [mitigate.remove] by = 'clipmem' needs scores; set it to the run folder that "
         "measured them."),
        ("regroup]\nshare = 0.3", "recipe: [mitigate.regroup] share needs scores; set scores to the run folder that "
         "measured them."),
        ("text_noise]\nstdd = 0.3", "recipe: [mitigate.text_noise] stdd: got an unknown key, expected a key of "
         "[mitigate.text_noise]. Did you mean 'std'?"),
        ("text_noize]\nstd = 0.3", "recipe: [mitigate] text_noize: got an unknown key, expected a key of "
         "[mitigate]. Did you mean 'text_noise'?"),
        ("text_noise]\nstart = 1.0", "recipe: [mitigate.text_noise] start: got 1.0, expected less than 1. "
         "`clipmem init` prints every key with its meaning."),
        ("early_stopping]\nshare = 0.0", "recipe: [mitigate.early_stopping] share: got 0.0, expected more than 0. "
         "`clipmem init` prints every key with its meaning."),
        ("text_noise]\nstd = 0.1\n[train]\nobjective = 'simclr'\n[score]\nalignment = 'sslmem-image'",
         "recipe: [mitigate.text_noise] is set and objective = 'simclr' trains no text tower; omit it, or set "
         "train.objective = 'clip'."),
        ("image_noise]\nstd = 0.1\n[train]\nobjective = 'supervised'\n[score]\nalignment = 'sslmem-image'",
         "recipe: [mitigate.image_noise] is set and objective = 'supervised' does not normalize its embeddings; omit "
         "it, or set train.objective = 'clip'."),
    ],
)  # fmt: skip
def test_wrong_sections_are_explained(text, message):
    with pytest.raises(InputError) as caught:
        load_recipe(f"[mitigate.{text}")
    assert str(caught.value) == message


def wording(kind, **changes):
    return rewrite(kind, words(kind, **changes))


def test_dropout_leaves_out_words_as_often_as_it_says():
    caption, dropped = " ".join(f"w{k}" for k in range(20)), Counter()
    made = wording("dropout", dropout=0.3)
    for number in range(2000):
        left = made(caption, number, 0).split()
        assert left == [word for word in caption.split() if word in left]
        dropped.update(set(caption.split()) - set(left))
    spread = math.sqrt(2000 * 0.3 * 0.7)
    assert all(abs(dropped[word] - 600) < 5 * spread for word in caption.split())
    assert all(wording("dropout", dropout=0.99)("a b", k, 0) in {"a", "b"} for k in range(50))
    assert wording("dropout")("alone", 0, 0) == ""


def test_reorder_is_a_uniform_permutation_of_tags():
    seen = Counter(wording("reorder")("a, b, c", number, 1) for number in range(3000))
    assert len(seen) == 6
    assert all(abs(count - 500) < 5 * math.sqrt(3000 / 6 * 5 / 6) for count in seen.values())
    assert wording("reorder")("a cat on a mat", 0, 0) == ""
    assert sorted(wording("reorder")("x |y", 1, 0).split(" | ")) == ["x", "y"]


def test_templates_are_each_used_once_before_one_comes_again():
    made = wording("templates")
    texts = [made("{} cat", number, 0) for number in range(8)]
    assert texts[:4] == texts[4:]
    assert set(texts) == {"a picture of {} cat", "an image of {} cat", "this shows {} cat", "{} cat in a picture"}


def lexicon(folder):
    """A WordNet of two synsets, in the format that `wn` reads."""
    file = folder / "tiny.xml"
    entry = (
        '<LexicalEntry id="t-{w}"><Lemma writtenForm="{w}" partOfSpeech="n"/>'
        '<Sense id="t-{w}-1" synset="t-{s}-n"/></LexicalEntry>'
    )
    words_of = {"1": ("car", "auto", "automobile"), "2": ("dog", "hot dog")}
    entries = "".join(entry.format(w=word.replace(" ", "_"), s=s) for s, own in words_of.items() for word in own)
    file.write_text(
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        '<!DOCTYPE LexicalResource SYSTEM "http://globalwordnet.github.io/schemas/WN-LMF-1.1.dtd">\n'
        '<LexicalResource xmlns:dc="https://globalwordnet.github.io/schemas/dc/">'
        '<Lexicon id="tiny" label="Tiny" language="en" email="nobody@example.org" license="CC0" version="1">'
        f'{entries}<Synset id="t-1-n" ili="" partOfSpeech="n"/><Synset id="t-2-n" ili="" partOfSpeech="n"/>'
        "</Lexicon></LexicalResource>"
    )
    return file


@pytest.fixture
def wordnet(tmp_path, monkeypatch):
    wn = pytest.importorskip("wn", reason="needs the extra wordnet")
    before = wn.config.data_directory
    wn.config.data_directory = tmp_path / "wn"
    yield wn
    wn.config.data_directory = before


def test_synonyms_come_from_wordnet(wordnet, tmp_path):
    wordnet.add(lexicon(tmp_path), progress_handler=None)
    made = wording("synonyms")
    seen = Counter(made("a red Car", number, 0) for number in range(400))
    assert set(seen) == {"a red auto", "a red automobile"}
    assert all(abs(count - 200) < 5 * 10 for count in seen.values())
    assert made("a dog", 0, 0) == ""  # its only synonym is no single word


def test_without_wordnet_it_is_said_how_to_get_it(wordnet, tmp_path):
    with pytest.raises(InputError) as caught:
        wording("synonyms")
    assert str(caught.value) == (
        f"[mitigate.caption_variants] kinds: synonyms: got no English lexicon in {tmp_path / 'wn'}, expected one, such "
        "as the Open English WordNet. Download it once: python -m wn download oewn:2024"
    )


def test_without_the_package_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "wn", None)
    with pytest.raises(InputError) as caught:
        wording("synonyms")
    assert str(caught.value) == (
        "[mitigate.caption_variants] kinds: synonyms: got no package wn, expected the extra wordnet. "
        "Install it in the checkout: pip install '.[wordnet]'."
    )


def test_a_kind_that_repeats_itself_ends():
    assert make_variants("a", {"same": lambda text, number, seed: "A "}, count=3, seed=0) == []


def slow_drop(row, key, probability, seed, step):
    drawn = uniform(np.array([key]), derive_seed(seed, "text mask", step), len(row))[0]
    end = max((place for place, token in enumerate(row) if token), default=0)
    words = list(range(1, end))
    stay = [place for place in words if drawn[place] >= probability]
    if words and not stay:
        stay = [max(words, key=lambda place: drawn[place])]
    kept = [row[0], *(row[place] for place in stay), *([row[end]] if end else [])]
    return kept + [0] * (len(row) - len(kept))


@pytest.mark.parametrize("probability", [0.1, 0.5, 0.95])
def test_masking_against_the_slow_loop(probability):
    rng = np.random.default_rng(0)
    tokens = np.zeros((300, 12), dtype=np.int64)
    for row in tokens:
        length = rng.integers(0, 10)
        row[0], row[1 : 1 + length], row[1 + length] = 90, rng.integers(0, 80, length), 91  # 0 may be a word
    found = drop_tokens(torch.from_numpy(tokens), FEW_KEYS, probability=probability, seed=3, step=5)
    for row, key, got in zip(tokens.tolist(), FEW_KEYS, found.tolist(), strict=True):
        assert got == slow_drop(row, key, probability, 3, 5)


def test_masking_frequency_streams_and_zero():
    tokens = torch.tensor([[90, *range(1, 41), 91]]).repeat(300, 1)
    p, kept = 0.3, Counter()
    for step in range(20):
        found = drop_tokens(tokens, FEW_KEYS, probability=p, seed=1, step=step)
        kept.update(token for row in found.tolist() for token in row if 0 < token < 90)
    spread = math.sqrt(6000 * p * (1 - p))
    assert all(abs(kept[token] - 6000 * (1 - p)) < 5 * spread for token in range(1, 41))
    once = drop_tokens(tokens, FEW_KEYS, probability=p, seed=1, step=0)
    assert torch.equal(once[7:9], drop_tokens(tokens[7:9], FEW_KEYS[7:9], probability=p, seed=1, step=0))
    assert not torch.equal(once, drop_tokens(tokens, FEW_KEYS, probability=p, seed=1, step=1))
    assert not torch.equal(once, drop_tokens(tokens, FEW_KEYS, probability=p, seed=2, step=0))
    assert drop_tokens(tokens, FEW_KEYS, probability=0.0, seed=1, step=0) is tokens
    with pytest.raises(InputError) as caught:
        drop_tokens(tokens, FEW_KEYS, probability=1.0, seed=1, step=0)
    assert (caught.value.what, caught.value.got) == ("probability", "1.0")


def test_masking_refuses_what_it_cannot_read():
    """Tokens as of SigLIP (no start token, padding 1), as of RoBERTa (padding 1) and as of a masking tokenizer."""
    hook = TextMasking(TextMaskingSection(probability=0.5))
    moment = Moment(0, 0, 0, np.arange(3), FEW_KEYS[:3])
    fit = torch.tensor([[90, 5, 6, 91, 0], [90, 5, 91, 0, 0], [90, 5, 91, 91, 91]])
    assert hook.tokens(fit, moment).shape == fit.shape
    for other in (
        [[5, 6, 7, 1, 1], [6, 7, 1, 1, 1], [7, 1, 1, 1, 1]],
        [[0, 6, 2, 1, 1], [0, 7, 2, 1, 1], [0, 7, 7, 7, 2]],
        [[90, 5, 91, -1, -1], [90, 5, 91, -1, -1], [90, 5, 91, -1, -1]],
    ):
        with pytest.raises(InputError) as caught:
            hook.tokens(torch.tensor(other), moment)
        assert caught.value.what == "[mitigate.text_masking]"


def test_masking_in_the_loop_is_the_function(tmp_path):
    masked, _ = fit(tmp_path / "a", TextMasking(TextMaskingSection(probability=0.5)))
    plain, _ = fit(tmp_path / "b")
    assert masked["final_sha256"] != plain["final_sha256"]
    assert masked["mitigate"] == {"text_masking": {"probability": 0.5}}
