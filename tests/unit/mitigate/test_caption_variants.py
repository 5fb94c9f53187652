"""Variants of captions and images: what they are, how often they are shown, and that f, g and all batches agree."""

import json
import math
import re
from collections import Counter
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from clipmem.base.errors import InputError
from clipmem.base.folder import RunFolder
from clipmem.base.mitigations import CaptionVariantsSection, ImageVariantsSection
from clipmem.base.random import derive_seed, uniform
from clipmem.base.recipes import load_recipe
from clipmem.base.sections import DataSection
from clipmem.data.decoding import Geometry, decode
from clipmem.data.sources import open_source
from clipmem.data.views import distort, draw_crops, pair_keys, render
from clipmem.mitigate import Preparation, Training, wordings
from clipmem.mitigate.caption_variants import CaptionVariants, choose_variant, variants_of
from clipmem.mitigate.image_variants import ImageVariants
from clipmem.mitigate.wordings import WORDINGS, make_variants
from clipmem.models import openclip
from clipmem.train.hooks import Hooks, Moment
from clipmem.train.loop import train
from tests.tiny import encoded_image
from tests.unit.train.test_loop import PIXELS, N, data_of, plan_of, section, uid

KEYS = pair_keys([uid(k) for k in range(400)])
PAGE = Path(__file__).parents[3] / "docs" / "mitigate.md"
TAGS = "red, round, fruit, food"


def moment(slots, epoch=0, seed=0):
    slots = np.asarray(slots)
    return Moment(seed, epoch, epoch, slots, KEYS[slots])


def words(*kinds, **changes):
    return CaptionVariantsSection(kinds=kinds, **changes)


def wording(kind, **changes):
    return WORDINGS[kind](words(kind, **changes))


# ---- wordings


def test_dropout_leaves_out_words_as_often_as_it_says():
    caption, dropped = " ".join(f"w{k}" for k in range(20)), Counter()
    made = wording("dropout", dropout=0.3)
    for number in range(2000):
        left = made.variant(caption, number, 0).split()
        assert left == [word for word in caption.split() if word in left]
        dropped.update(set(caption.split()) - set(left))
    spread = math.sqrt(2000 * 0.3 * 0.7)
    assert all(abs(dropped[word] - 600) < 5 * spread for word in caption.split())
    assert all(wording("dropout", dropout=0.99).variant("a b", k, 0) in {"a", "b"} for k in range(50))
    assert wording("dropout").variant("alone", 0, 0) == ""


def test_reorder_is_a_uniform_permutation_of_tags():
    seen = Counter(wording("reorder").variant("a, b, c", number, 1) for number in range(3000))
    assert len(seen) == 6
    assert all(abs(count - 500) < 5 * math.sqrt(3000 / 6 * 5 / 6) for count in seen.values())
    assert wording("reorder").variant("a cat on a mat", 0, 0) == ""
    assert sorted(wording("reorder").variant("x |y", 1, 0).split(" | ")) == ["x", "y"]


def test_templates_are_each_used_once_before_one_comes_again():
    made = wording("templates")
    texts = [made.variant("{} cat", number, 0) for number in range(8)]
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
    seen = Counter(made.variant("a red Car", number, 0) for number in range(400))
    assert set(seen) == {"a red auto", "a red automobile"}
    assert all(abs(count - 200) < 5 * 10 for count in seen.values())
    assert made.variant("a dog", 0, 0) == ""  # its only synonym is no single word


def test_without_wordnet_it_is_said_how_to_get_it(wordnet, tmp_path):
    with pytest.raises(InputError) as caught:
        wording("synonyms")
    assert str(caught.value) == (
        f"[mitigate.caption_variants] kinds: synonyms: got no English lexicon in {tmp_path / 'wn'}, expected one, such "
        "as the Open English WordNet. Download it once: python -m wn download oewn:2024"
    )


def test_without_the_package_the_extra_is_named(monkeypatch):
    monkeypatch.setattr(wordings.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError) as caught:
        wording("synonyms")
    assert str(caught.value) == (
        "[mitigate.caption_variants] kinds: synonyms: got no package wn, expected the extra wordnet. "
        "Install it in the checkout: pip install '.[wordnet]'."
    )


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


def test_a_kind_that_repeats_itself_ends():
    assert make_variants("a", {"same": lambda text, number, seed: "A "}, count=3, seed=0) == []


# ---- how often


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


# ---- images


def views(n, moment_, size=32):
    pixels = torch.from_numpy(PIXELS[np.arange(n) % N])
    crops = draw_crops(moment_.keys, seed=5, size=32, scale=(0.5, 1.0), ratio=(0.75, 4 / 3), flip=0.5)
    return render(pixels, crops, size=size), pixels, crops


def hook_of(source, n, probability=0.4, **changes):
    others = 255 - PIXELS[:7]
    rows = [[k % 7, (k + 1) % 7] if k % 3 else [] for k in range(n)]
    settings = ImageVariantsSection(probability=probability, source=source, **changes)
    return ImageVariants(settings, 2, section(), None if source == "augment" else others, rows), others, rows


def test_given_images_against_the_slow_loop():
    hook, others, rows = hook_of("given", 60)
    here = moment(np.arange(60), epoch=4)
    values, pixels, crops = views(60, here)
    found, before = hook.images(values, pixels, crops, here, 0), values.clone()
    replaced = 0
    for k in range(60):
        u = uniform(KEYS[k : k + 1], derive_seed(2, "image variant", 4, 0), 1)[0, 0]
        expected = before[k]
        if rows[k] and u < 0.4:
            replaced += 1
            image = torch.from_numpy(others[rows[k][int(2 * u / 0.4)]])[None]
            expected = render(image, type(crops)(*(one[k : k + 1] for one in crops)), size=32)[0]
        assert torch.allclose(found[k], expected, atol=1e-6)
    assert 5 < replaced < 30
    assert torch.equal(values, before)


def test_augmented_images_against_the_slow_loop():
    hook, _, _ = hook_of("augment", 40, crop_scale=(0.1, 0.3), color=1.0)
    here = moment(np.arange(40), epoch=1)
    values, pixels, crops = views(40, here)
    found = hook.images(values, pixels, crops, here, 1)
    for k in range(40):
        key = KEYS[k : k + 1]
        u = uniform(key, derive_seed(2, "image variant", 1, 1), 1)[0, 0]
        expected = values[k : k + 1]
        if u < 0.4:
            seed = derive_seed(2, "strong view", 1, 1)
            strong = draw_crops(key, seed=seed, size=32, scale=(0.1, 0.3), ratio=section().crop_ratio, flip=0.0)
            assert strong.height * strong.width <= 0.35 * 32 * 32
            expected = render(pixels[k : k + 1], strong, size=32)
            expected = distort(
                expected, key, seed=derive_seed(2, "strong colour", 1, 1), strength=1.0, gray=0.0, blur=0.0
            )
        assert torch.allclose(found[k : k + 1], expected, atol=1e-5)


@pytest.mark.parametrize("source", ["given", "augment"])
def test_images_are_replaced_as_often_as_they_say_in_any_batch(source):
    hook, _, rows = hook_of(source, 300)
    share, times = 0, 0
    for epoch in range(8):
        here = moment(np.arange(300), epoch)
        values, pixels, crops = views(300, here, size=8)
        found = hook.images(values, pixels, crops, here, 0)
        changed = (found != values).flatten(1).any(1).numpy()
        able = np.array([bool(own) or source == "augment" for own in rows])
        assert not changed[~able].any()
        share, times = share + changed[able].sum(), times + able.sum()
        some = np.array([3, 40, 41, 299])
        part = hook.images(
            values[some], pixels[some], type(crops)(*(one[some] for one in crops)), moment(some, epoch), 0
        )
        assert torch.allclose(part, found[some], atol=1e-6)
    assert abs(share - 0.4 * times) < 5 * math.sqrt(times * 0.4 * 0.6) + 0.01 * times


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


# ---- variants made beforehand


def tiny_language_model(folder):
    transformers = pytest.importorskip("transformers", reason="needs the extra hf")
    tokenizers = pytest.importorskip("tokenizers", reason="needs the extra hf")
    vocabulary = ["<end>", "<unknown>", *"abcdefghijklmnopqrstuvwxyz", ":", "."]
    inner = tokenizers.Tokenizer(tokenizers.models.WordLevel({c: k for k, c in enumerate(vocabulary)}, "<unknown>"))
    inner.pre_tokenizer = tokenizers.pre_tokenizers.Split("", "isolated")
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=inner, eos_token="<end>", unk_token="<unknown>", pad_token="<end>"
    )
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=len(vocabulary), n_positions=256, n_embd=16, n_layer=1, n_head=2, bos_token_id=0, eos_token_id=0
    )
    transformers.GPT2LMHeadModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


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


def tiny_pipeline(folder):
    """A latent diffusion pipeline with random weights: 16 pixels, a few thousand parameters."""
    diffusers = pytest.importorskip("diffusers", reason="diffusers is not installed: pip install diffusers")
    transformers = pytest.importorskip("transformers", reason="needs the extra hf")
    letters = [f"{c}</w>" for c in "abcdefghijklmnopqrstuvwxyz"] + [*"abcdefghijklmnopqrstuvwxyz"]
    tokens = ["<|startoftext|>", "<|endoftext|>", *letters]
    folder.mkdir()
    (folder / "vocab.json").write_text(json.dumps({token: k for k, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    torch.manual_seed(0)
    config = transformers.CLIPTextConfig(
        vocab_size=len(tokens), hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=16, bos_token_id=0, eos_token_id=1, pad_token_id=1, projection_dim=8,
    )  # fmt: skip
    pipeline = diffusers.StableDiffusionPipeline(
        vae=diffusers.AutoencoderKL(
            block_out_channels=(8,), norm_num_groups=4, latent_channels=4, sample_size=16,
            down_block_types=("DownEncoderBlock2D",), up_block_types=("UpDecoderBlock2D",),
        ),
        text_encoder=transformers.CLIPTextModel(config),
        tokenizer=transformers.CLIPTokenizer(
            str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=16
        ),
        unet=diffusers.UNet2DConditionModel(
            block_out_channels=(8, 8), norm_num_groups=4, layers_per_block=1, sample_size=16, cross_attention_dim=8,
            attention_head_dim=2, down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        ),
        scheduler=diffusers.DDIMScheduler(),
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    pipeline.save_pretrained(folder / "pipeline", safe_serialization=True)
    return folder / "pipeline"


def run_block(number, folder, monkeypatch):
    """Run a Python block of docs/mitigate.md in a folder; return what it defines."""
    blocks = re.findall(r"^```python[^\n]*\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    monkeypatch.chdir(folder)
    names = {"__name__": "block"}
    exec(compile(blocks[number], "mitigate.md", "exec"), names)
    return names


@pytest.fixture
def captioned(tmp_path):
    """A CSV of three images, the first of which has two captions."""
    rows = ["0.png,a red cat", "0.png,the cat", "1.png,a dog", "2.png,a cup"]
    (tmp_path / "captions.csv").write_text("\n".join(["image,caption", *rows]))
    for k in range(3):
        (tmp_path / f"{k}.png").write_bytes(encoded_image(k))
    return tmp_path


def pairs_of(file):
    return open_source(DataSection(path=str(file))).pairs()


@pytest.mark.filterwarnings("ignore")  # what transformers says
def test_paraphrases_written_as_the_page_says_are_captions_of_the_same_pairs(captioned, monkeypatch):
    tiny_language_model(captioned / "models/my-model")
    run_block(0, captioned, monkeypatch)
    before, after = (dict(pairs_of(captioned / name).select("key", "captions").iter_rows())
                     for name in ("captions.csv", "paraphrased.csv"))  # fmt: skip
    assert after.keys() == before.keys()
    for image, texts in after.items():
        assert texts[0] == before[image][0]
        assert set(before[image]) < set(texts)


@pytest.mark.filterwarnings("ignore")  # what diffusers and transformers say to each other
def test_images_are_generated_as_the_page_says(captioned, monkeypatch):
    (captioned / "models").mkdir()
    tiny_pipeline(captioned / "tiny").rename(captioned / "models/my-pipeline")
    run_block(1, captioned, monkeypatch)
    files = sorted((captioned / "generated").iterdir())
    assert [file.name for file in files] == [f"{image}-{number}.png" for image in range(3) for number in range(4)]
    assert len({file.read_bytes() for file in files}) == 12
    assert all(decode(file.read_bytes(), 16).shape == (16, 16, 3) for file in files)


def test_generated_images_are_shown_by_the_source_of_the_page(captioned, monkeypatch):
    (captioned / "generated").mkdir()
    others = {f"generated/{image}-{number}.png": encoded_image(10 + 4 * image + number)
              for image in (0, 2) for number in range(4)}  # fmt: skip
    for name, data in others.items():
        (captioned / name).write_bytes(data)
    kind = run_block(2, captioned, monkeypatch)["WithGenerated"]
    source = kind(DataSection(path="captions.csv", source="csv"))
    pairs = source.pairs()
    assert pairs.drop("variants").equals(pairs_of("captions.csv").drop("variants"))
    splits = pairs.select("uid", role=pl.lit("shared"), captions_from="uid")
    recipe = load_recipe("[mitigate.image_variants]\nprobability = 1.0")
    ImageVariants.check(recipe, pairs)
    ImageVariants.prepare(Preparation(recipe, RunFolder(captioned), pairs, splits, Geometry(32), source.read))
    table = RunFolder(captioned).read("mitigate/image_variants").join(pairs.select("uid", "key"), on="uid")
    assert table.height == table["row"].n_unique() == 8
    assert all(reference.startswith(f"generated/{key[0]}-") for reference, key in table[["reference", "key"]].rows())
    cache = np.load(captioned / "cache/variants.npy")
    for row, reference in table[["row", "reference"]].iter_rows():
        assert np.array_equal(cache[row], decode(others[reference], 32))


def test_images_that_do_not_decode_are_listed_and_never_shown(tmp_path):
    images = {"a": encoded_image(1), "broken": b"no image", "b": encoded_image(2), "c": encoded_image(3)}
    recipe = load_recipe("[mitigate.image_variants]\nprobability = 1.0")
    uids = [uid(0), uid(1), uid(2)]
    pairs = pl.DataFrame({"uid": uids, "captions": [["x"]] * 3, "variants": [["a", "broken"], ["b"], ["c"]]})
    splits = pl.DataFrame({"uid": uids, "role": ["shared", "candidate", "external"], "captions_from": uids})
    folder = RunFolder(tmp_path)
    given = Preparation(recipe, folder, pairs, splits, Geometry(32), lambda names: [images[name] for name in names])
    assert ImageVariants.prepare(given) == [
        tmp_path / "cache/variants.npy",
        tmp_path / "mitigate/image_variants.parquet",
    ]
    table = folder.read("mitigate/image_variants")
    assert table["reference"].to_list() == ["a", "broken", "b"]
    assert table["row"].to_list() == [0, None, 1]
    assert [bool(problem) for problem in table["problem"]] == [False, True, False]
    cache = np.load(tmp_path / "cache/variants.npy")
    assert np.array_equal(cache, np.stack([decode(images[name], 32) for name in "ab"]))
    hook = ImageVariants.hook(Training(recipe, plan_of(range(2)), folder, splits))
    values, pixels, crops = views(2, moment([0, 1]))
    shown = hook.images(values, pixels, crops, moment([0, 1]), 0)
    assert torch.allclose(shown, render(torch.from_numpy(cache), crops, size=32))
