"""docs/mitigate.md shows what the stored measurements give, and its examples run."""

import importlib.util
import json
import re
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from clipmem.base.folder import RunFolder
from clipmem.base.recipes import load_recipe
from clipmem.base.sections import DataSection
from clipmem.data.decoding import Geometry, decode
from clipmem.data.sources import open_source
from clipmem.mitigate import Preparation
from clipmem.mitigate.image_variants import ImageVariants
from tests.tiny import encoded_image

ROOT = Path(__file__).parents[2]
ROWS = json.loads((ROOT / "experiments" / "curate" / "acting.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def acting():
    spec = importlib.util.spec_from_file_location("acting", ROOT / "experiments" / "curate" / "acting.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_has_the_tables_of_the_kept_rows(acting):
    page = (ROOT / "docs" / "mitigate.md").read_text(encoding="utf-8")
    for table in (acting.by_rate(ROWS), acting.by_method(ROWS)):
        assert f"-->\n{table}\n<!-- end -->" in page


def test_the_rows_agree(acting):
    found = {(row["kind"], row["rate"], row["method"]): row for row in ROWS}
    for (kind, rate, method), row in found.items():
        nothing, oracle = found[kind, rate, "everything"], found.get((kind, rate, "oracle"))
        assert row["seeds"] == 8
        assert row["gain"] == pytest.approx(row["recall"] - nothing["recall"])
        if method != "everything" and oracle is not None:
            assert row["share"] == pytest.approx(row["gain"] / oracle["gain"])
            low, high = row["gain_interval"]
            assert low < row["gain"] < high


PAGE = ROOT / "docs" / "mitigate.md"


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
