"""The pages about mitigations, and their results, show what the stored measurements give; their examples run."""

import json
import re
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
import torch
import torch.nn.functional as F
from scipy.stats import t

from clipmem import AlignmentRecorder
from clipmem.base.folder import RunFolder
from clipmem.base.recipes import load_recipe
from clipmem.base.sections import DataSection
from clipmem.data.decoding import Geometry, decode
from clipmem.data.sources import open_source
from clipmem.mitigate import Preparation, pair_weights
from clipmem.mitigate.image_variants import ImageVariants
from clipmem.mitigate.reweight import neighbor_agreement
from clipmem.models.signals import Signals
from clipmem.train.objectives.contrastive import blocked_contrastive_loss
from tests.scripts import load_script
from tests.tiny import encoded_image

ROOT = Path(__file__).parents[2]
ROWS = json.loads((ROOT / "experiments" / "curate" / "acting.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def acting():
    return load_script(ROOT / "experiments" / "curate" / "acting.py")


def test_the_page_has_the_tables_of_the_kept_rows(acting):
    page = acting.PAGE.read_text(encoding="utf-8")
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


def test_the_page_has_the_table_of_the_callbacks(acting, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "experiments" / "curate")
    callbacks = load_script(ROOT / "experiments" / "mitigate" / "callbacks.py")
    rows = json.loads(callbacks.RECORD.read_text(encoding="utf-8"))
    table = callbacks.table(rows)
    assert f"-->\n{table}\n<!-- end -->" in callbacks.PAGE.read_text(encoding="utf-8")
    # by hand: paired differences of R@5 in points, and the mean share of time
    recall = {(row["trainer"], row["arm"], row["seed"]): 100 * row["recall"] for row in rows}
    assert len(recall) == len(rows) == 4 * 2 * callbacks.SEEDS
    for name, line in zip((callbacks.OWN, *callbacks.TRAINERS), table.splitlines()[2:], strict=True):
        gains = [recall[name, "reweight", k] - recall[name, "plain", k] for k in range(callbacks.SEEDS)]
        own = [recall[callbacks.OWN, "reweight", k] - recall[callbacks.OWN, "plain", k] for k in range(callbacks.SEEDS)]
        cells = [cell.strip() for cell in line.split("|")[3:6]]
        half = t.ppf(0.975, len(gains) - 1) * np.std(gains, ddof=1) / len(gains) ** 0.5
        mean = np.mean(gains)
        assert cells[0] == f"{mean:+.1f} [{mean - half:.1f}, {mean + half:.1f}]"
        if name != callbacks.OWN:
            assert cells[1].startswith(f"{np.mean(np.subtract(gains, own)):+.1f} [")
            watched = [row["watched"] for row in rows if row["trainer"] == name]
            assert cells[2] == f"{100 * sum(watched) / len(watched):.1f}%"


def test_the_how_to_tells_the_kept_gain_and_cost_of_reweighting():
    [row] = [row for row in ROWS if (row["kind"], row["rate"], row["method"]) == ("random", 0.2, "reweight")]
    low, high = (100 * end for end in row["share_interval"])
    page = " ".join((ROOT / "docs" / "noisy-captions.md").read_text(encoding="utf-8").split())
    gain = f"{100 * row['share']:.0f}% (95% interval {low:.0f} to {high:.0f}) of the gain in R@5 (recall at 5)"
    gain += " that oracle removal brings"
    assert f"20% of the captions were swapped at random. Reweighting achieved {gain}" in page
    assert f"at {100 * (row['cost'] - 1):.0f}% more compute" in page


def test_the_how_to_tells_in_words_what_the_kept_rows_show():
    rows = {(row["kind"], row["rate"], row["method"]): row for row in ROWS}
    at_random = {method: row for (kind, rate, method), row in rows.items() if (kind, rate) == ("random", 0.2)}
    assert 0.4 < at_random["free:curate"]["share"] < 0.6 < at_random["reweight"]["share"]
    assert at_random["clipmem"]["gain_interval"][1] < 0
    assert abs(at_random["clipmem"]["gain"] - at_random["random"]["gain"]) < 0.002
    for rate in (0.1, 0.2, 0.4):
        low, high = rows["category", rate, "free:curate"]["gain_interval"]
        assert low < 0 < high
        assert rows["category", rate, "reweight"]["gain_interval"][0] > 0
    assert rows["random", 0.0, "reweight"]["gain_interval"][0] < 0 < rows["random", 0.0, "reweight"]["gain_interval"][1]
    assert rows["random", 0.0, "free:curate"]["gain_interval"][1] < 0.001


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


def run_example(name, folder, monkeypatch):
    """Run an example of the page in a folder; return what it defines."""
    monkeypatch.chdir(folder)
    names = {"__name__": "example"}
    exec(compile((ROOT / "examples" / f"{name}.py").read_text(encoding="utf-8"), name, "exec"), names)
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
def test_written_paraphrases_are_captions_of_the_same_pairs(captioned, monkeypatch):
    tiny_language_model(captioned / "models/my-model")
    run_example("paraphrase_captions", captioned, monkeypatch)
    before, after = (dict(pairs_of(captioned / name).select("key", "captions").iter_rows())
                     for name in ("captions.csv", "paraphrased.csv"))  # fmt: skip
    assert after.keys() == before.keys()
    for image, texts in after.items():
        assert texts[0] == before[image][0]
        assert set(before[image]) < set(texts)


@pytest.mark.filterwarnings("ignore")  # what diffusers and transformers say to each other
def test_images_are_generated(captioned, monkeypatch):
    (captioned / "models").mkdir()
    tiny_pipeline(captioned / "tiny").rename(captioned / "models/my-pipeline")
    run_example("generate_images", captioned, monkeypatch)
    files = sorted((captioned / "generated").iterdir())
    assert [file.name for file in files] == [f"{image}-{number}.png" for image in range(3) for number in range(4)]
    assert len({file.read_bytes() for file in files}) == 12
    assert all(decode(file.read_bytes(), 16).shape == (16, 16, 3) for file in files)


def test_generated_images_are_shown_by_the_source_of_the_example(captioned, monkeypatch):
    (captioned / "generated").mkdir()
    others = {f"generated/{image}-{number}.png": encoded_image(10 + 4 * image + number)
              for image in (0, 2) for number in range(4)}  # fmt: skip
    for name, data in others.items():
        (captioned / name).write_bytes(data)
    kind = run_example("with_generated", captioned, monkeypatch)["WithGenerated"]
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


def blocks_of(page):
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    return re.findall(r"^```python[^\n]*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


@pytest.mark.slow
@pytest.mark.parametrize("number", [0, 1, 2])
def test_blocks_of_the_reference_run(number, capsys):
    blocks = [*blocks_of("mitigations.md"), *blocks_of("export.md")]
    assert len(blocks) == 3
    exec(compile(blocks[number], "docs", "exec"), {})
    out = capsys.readouterr().out
    assert out.startswith(("['a ", "10 True", "shape: (3, 3)")[number])


@pytest.fixture
def some(monkeypatch):
    """Names that the hooks of the how-to use: images and captions of 64 emoji, and a small model."""
    monkeypatch.syspath_prepend(ROOT / "examples")
    from emoji_pairs import emoji

    pairs = emoji(64)
    return {"images": [pair.decode() for pair in pairs], "captions": [pair.captions[0] for pair in pairs]}


def test_the_loss_of_the_hooks_is_that_of_the_mitigation(some):
    from clipmem.mitigate import Reweighting

    loss_of, drawn = Reweighting(**some, share=0.4), torch.Generator().manual_seed(0)
    pixels = np.stack([np.asarray(image.resize((64, 64))) for image in some["images"]])
    known = Signals(
        [*map(str, range(64))], [[one] for one in some["captions"]], np.arange(64), pixels=lambda k: pixels[k]
    )
    agreement, recorder = neighbor_agreement(known), AlignmentRecorder(64)
    for epoch in range(3):
        weights = torch.from_numpy(pair_weights(agreement, recorder.margin[:epoch], share=0.4))
        for index in torch.randperm(64, generator=drawn).split(32):
            u, v = (F.normalize(torch.randn(32, 8, generator=drawn), dim=1).requires_grad_() for _ in "uv")
            expected = blocked_contrastive_loss(u, v, torch.tensor(10.0), weights[index])
            torch.testing.assert_close(loss_of(index, u, v, 10.0, epoch), expected)
            recorder.update(index, u, v, epoch)
    assert weights.min() < 0.1


def test_the_hook_of_a_loop_runs(some):
    def model(pixels, tokens):
        return *(F.normalize(rows, dim=-1) for rows in (pixels @ weight, tokens @ weight)), 10.0

    weight, rows = torch.eye(8, requires_grad=True), torch.arange(64)
    loader = [(index, torch.randn(32, 8), torch.randn(32, 8)) for index in rows.split(32)]
    names = some | {"model": model, "loader": loader, "epochs": 2}
    exec(compile(blocks_of("noisy-captions.md")[0], "noisy-captions.md", "exec"), names)
    assert weight.grad.isfinite().all()
    assert weight.grad.any()
    assert names["loss_of"].recorder.margin.shape == (2, 64)


def trainer_of(some, folder):
    """transformers' Trainer with a small model of these pairs."""
    for package in ("transformers", "accelerate"):
        pytest.importorskip(package, reason="needs the extra `hf` and accelerate")
    from transformers import Trainer, TrainingArguments
    from transformers_trainer import batch_of, items, small_clip

    settings = TrainingArguments(
        folder, per_device_train_batch_size=32, num_train_epochs=2, report_to=[], use_cpu=True, save_strategy="no",
        remove_unused_columns=False,
    )  # fmt: skip
    return Trainer(small_clip(), settings, batch_of, items(**some))


@pytest.mark.filterwarnings("ignore")  # what transformers says
def test_the_hook_of_transformers_runs(some, tmp_path):
    trainer = trainer_of(some, tmp_path)
    exec(compile(blocks_of("noisy-captions.md")[1], "noisy-captions.md", "exec"), some | {"trainer": trainer})
    trainer.train()
    [margin] = [one.loss.recorder.margin for one in trainer.callback_handler.callbacks if hasattr(one, "loss")]
    assert margin.shape == (2, 64)
    assert not np.isnan(margin).any()


@pytest.mark.filterwarnings("ignore")  # what transformers says
def test_the_monitor_of_transformers_runs(some, tmp_path):
    trainer = trainer_of(some, tmp_path)
    reweight = {"trainer": trainer, "held_out": trainer.train_dataset[:20]}
    trainer.data_collator = lambda rows: batch_of([{k: v for k, v in row.items() if k != "index"} for row in rows])
    from transformers_trainer import batch_of

    exec(compile(blocks_of("finetune.md")[0], "finetune.md", "exec"), reweight)
    [monitor] = [one.monitor for one in trainer.callback_handler.callbacks if hasattr(one, "monitor")]
    assert not monitor.failure
    assert monitor.history


@pytest.mark.parametrize("page", ["noisy-captions.md", "finetune.md"])
def test_the_hooks_of_open_clip_run(page, monkeypatch):
    for package in ("pandas", "webdataset"):
        pytest.importorskip(package, reason="open_clip's trainer needs the extra `bench`: pip install '.[bench]'")
    import open_clip_train.main as trainer

    plain, seen = trainer.train_one_epoch, []
    monkeypatch.setattr(trainer, "train_one_epoch", plain)  # restored afterwards
    monkeypatch.setattr(trainer, "main", seen.append)
    names = {"open_clip_train": SimpleNamespace(main=trainer), "arguments": ["--model", "ViT-B-32"]}
    if page == "finetune.md":
        [line] = re.findall(r"`(open_clip_train\.main\.\S+ = [^`]+)`", (ROOT / "docs" / page).read_text())
        names["MemorizationCallback"] = import_module("clipmem.integrations.open_clip").MemorizationCallback
        exec(line, names)
    else:
        exec(compile(blocks_of(page)[2], page, "exec"), names)
        assert seen == [["--model", "ViT-B-32"]]
    assert trainer.train_one_epoch.__wrapped__ is plain
