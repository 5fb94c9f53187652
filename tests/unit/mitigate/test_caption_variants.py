"""Variants of captions: how often they are shown, and that f, g and all batches agree."""

import math
from collections import Counter

import numpy as np
import pytest

from clipmem.base.errors import InputError
from clipmem.base.mitigations import CaptionVariantsSection, ImageVariantsSection
from clipmem.base.recipes import load_recipe
from clipmem.data.views import pair_keys
from clipmem.mitigate.caption_variants import CaptionVariants, choose_variant, variants_of
from clipmem.mitigate.image_variants import ImageVariants
from clipmem.models import openclip
from clipmem.train.hooks import Hooks, Moment
from clipmem.train.loop import train
from tests.unit.train.test_loop import PIXELS, N, data_of, plan_of, section, uid

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
        train(
            encoder, data_of(range(N)), plan_of(range(N)), section(), folder=tmp_path / name, precision="fp32",
            hooks=Hooks(hooks),
        )  # fmt: skip
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


@pytest.mark.parametrize(
    ("key", "value", "instead"),
    [
        ("caption_variants.provider", "transformers:models/my-model", "mitigate.captions.count"),
        ("image_variants.provider", "diffusers:models/my-pipeline", "source = 'given'"),
        ("image_variants.source", "generated", "source = 'given'"),
        ("image_variants.seed", "1", "Remove it"),
    ],
)
def test_what_made_variants_inside_a_study_is_refused_with_what_replaces_it(key, value, instead):
    with pytest.raises(InputError) as caught:
        load_recipe("", [f"mitigate.{key}={value}"])
    section, _, name = key.partition(".")
    assert caught.value.what == f"recipe: [mitigate.{section}] {name}"
    assert caught.value.got
    assert caught.value.expected
    assert instead in caught.value.hint
