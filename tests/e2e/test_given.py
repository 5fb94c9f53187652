"""Studies of models that exist already: the numbers of a four-way run again, other architectures, what is refused."""

import io
import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from PIL import Image

import clipmem
from clipmem.base.errors import ClipmemWarning, InputError
from clipmem.base.folder import RunFolder
from clipmem.data.cache import open_cache
from clipmem.data.views import as_float, normalize_pixels
from clipmem.models import openclip, passes
from clipmem.study.localizing import localize_run
from clipmem.train.record import state_hash
from tests.e2e.test_study import contents
from tests.reference import loops_score as reference
from tests.tiny import tiny_recipe, write_parquet


def recipe_of(target, reference, *settings):
    lists = (f"given.target={[*map(str, target)]}", f"given.reference={[*map(str, reference)]}")
    return tiny_recipe("protocol=given", *lists, *settings)


@pytest.mark.slow
def test_the_models_of_a_four_way_run_score_as_they_did_there(finished, tmp_path):
    sides = [[finished.path / "models" / side / f"seed-{seed}" for seed in (0, 1)] for side in "fg"]
    again = clipmem.run(recipe_of(*sides, f"given.roles={finished.path / 'splits.parquet'}"), tmp_path / "run")
    assert again.splits.equals(finished.splits)
    assert again.scores["planted"].sum() == 4
    for table in ("scores", "seed_scores"):
        ours, theirs = getattr(again, table), getattr(finished, table)
        assert ours.select(pl.exclude(pl.Float64)).equals(theirs.select(pl.exclude(pl.Float64)))
        values = [one.select(pl.col(pl.Float64)).to_numpy() for one in (ours, theirs)]
        np.testing.assert_allclose(*values, rtol=0, atol=1e-6)
    assert again.summary.retrieval.f == finished.summary.retrieval.f
    assert again.summary.planted == finished.summary.planted
    assert list(again.summary.seconds) == ["decode", "plan", "embed", "score", "evaluate", "report"]
    assert not (again.path / "models").exists()
    assert state_hash(again.model("g", 1).module) == state_hash(finished.model("g", 1).module)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Forty pairs, and two models that differ in everything: size of image, width, statistics."""
    folder = tmp_path_factory.mktemp("world")
    write_parquet(folder / "pairs.parquet", 40)
    openclip.create("clipmem-micro", seed=1).save(folder / "small")
    openclip.create("clipmem-tiny", seed=2).save(folder / "large")
    config = json.loads((folder / "large" / "open_clip_config.json").read_text())
    config["preprocess_cfg"] |= {"mean": [0.1, 0.2, 0.3], "std": [0.5, 0.6, 0.7]}
    (folder / "large" / "open_clip_config.json").write_text(json.dumps(config))
    return folder


DATA = ("data.source=parquet", "data.path=pairs.parquet", "split.external=6", "train.captions=2")


@pytest.fixture(scope="module")
def mixed(world):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(world)
        return clipmem.run(recipe_of(["small"], ["large"], *DATA), world / "run")


def test_models_of_two_sizes_read_their_own_images(world, mixed):
    assert mixed.manifest["given"]["target"][0]["image_size"] == 32
    shapes = {name: open_cache(mixed.path / "cache" / name).shape for name in ("pixels.npy", "pixels-64.npy")}
    assert shapes == {"pixels.npy": (40, 32, 32, 3), "pixels-64.npy": (40, 64, 64, 3)}
    assert mixed.scores["role"].value_counts().sort("role").rows() == [("candidate", 34), ("external", 6)]
    row = {uid: k for k, uid in enumerate(mixed.pairs["uid"])}
    rows = [row[uid] for uid in mixed.splits["uid"]]
    captions = [mixed.pairs["captions"].to_list()[k] for k in rows]
    external = np.flatnonzero((mixed.splits["role"] == "external").to_numpy())
    expected = {}
    for side, name, cache in (("f", "small", "pixels.npy"), ("g", "large", "pixels-64.npy")):
        model = openclip.load(world / name)
        model.module.eval()
        with torch.inference_mode():
            pixels = as_float(torch.from_numpy(open_cache(mixed.path / "cache" / cache)[rows]))
            image = model.encode_image(normalize_pixels(pixels, model.mean, model.std))[:, None].tolist()
            text = [model.encode_text(model.tokenize(own)).tolist() for own in captions]
        expected[side] = [
            reference.alignment(
                image[k],
                text[k],
                [image[b] for b in external if b != k],
                [text[b] for b in external if b != k],
                weight=1.0,
            )
            for k in range(40)
        ]
    np.testing.assert_allclose(mixed.seed_scores["f"], expected["f"], atol=1e-5)
    np.testing.assert_allclose(mixed.seed_scores["g"], expected["g"], atol=1e-5)
    assert model.mean == (0.1, 0.2, 0.3)
    widths = [passes.load(mixed.path / "embeddings" / side / "seed-0").image.shape[-1] for side in "fg"]
    assert widths[0] != widths[1]


def test_one_pair_of_models_has_no_error(world, mixed):
    for column in ("stderr", "low", "high"):
        assert mixed.scores[column].null_count() == 40
    assert mixed.summary.noise_floor is None  # fewer than 19 held-out pairs
    assert set(mixed.summary.roles) == {"candidate", "external"}
    assert [(one.a, one.b) for one in mixed.summary.tests] == [("candidate", "external")]
    page = mixed.report.read_text(encoding="utf-8")
    for said in (
        "every other difference counts as memorization here",
        "which no model trained on, according to the user",
        "Bank pairs that a model trained on",
        "This run trained no models",
        "images of 64 pixels",
        "needs two targets",
    ):
        assert said in page, said
    for unsaid in (
        "differ in a few training pairs only",
        "f only",
        "one seed",
        "f against f",
        "steps per model",
    ):
        assert unsaid not in page, unsaid


def test_a_finished_run_is_not_made_again_and_a_stage_gives_the_same_bytes(world, mixed, monkeypatch):
    monkeypatch.chdir(world)
    before = contents(mixed.path)
    for stage in ("embed", "score", "evaluate", "report"):
        RunFolder(mixed.path).marker(stage).unlink()
    clipmem.run(mixed.recipe, mixed.path)
    assert contents(mixed.path) == before


def test_models_are_loaded_from_wherever_one_is(world, mixed, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    read = clipmem.load_run(mixed.path)
    assert read.model("g", 0).image_size == 64
    with pytest.raises(InputError) as error:
        read.model("f", 1)
    assert str(error.value) == (
        "model 'f', seed 1: got no such model in this run, expected side 'f' (a target) or 'g' (a reference), "
        "seed 0 to 0. Use the position in the lists of [given] as seed."
    )
    with pytest.raises(InputError, match="got no such model in this run"):
        read.model("target", 0)


def copied(world, tmp_path):
    shutil.copytree(world, tmp_path / "world", ignore=shutil.ignore_patterns("run"))
    return tmp_path / "world"


def test_changed_weights_are_refused(world, mixed, tmp_path, monkeypatch):
    place = copied(world, tmp_path)
    monkeypatch.chdir(place)
    run = clipmem.run(recipe_of(["small"], ["large"], *DATA), place / "run")
    known = run.manifest["given"]["target"][0]["files"]["open_clip_model.safetensors"]
    assert known == mixed.manifest["given"]["target"][0]["files"]["open_clip_model.safetensors"]
    before = contents(run.path)
    openclip.create("clipmem-micro", seed=5).save(place / "small")
    with pytest.raises(InputError) as error:
        clipmem.run(run.recipe, run.path)
    assert error.value.what == f"run folder {run.path} was made with other files (target 0, small)"
    there, now = error.value.got.removesuffix(" now").split(" there, ")
    assert there == f"open_clip_model.safetensors = {known[:8]}\N{HORIZONTAL ELLIPSIS}"
    assert now not in there
    with pytest.raises(InputError, match="was made with other files"):
        run.model("f", 0)
    assert contents(run.path) == before


def test_changed_roles_are_refused(world, mixed, tmp_path, monkeypatch):
    monkeypatch.chdir(world)
    roles = mixed.splits.select("uid", "role")
    roles.write_csv(tmp_path / "roles.csv")
    run = clipmem.run(recipe_of(["small"], ["large"], *DATA, f"given.roles={tmp_path / 'roles.csv'}"), tmp_path / "run")
    assert run.scores.equals(mixed.scores)
    roles.with_columns(role=pl.col("role").replace({"candidate": "shared"})).head(30).vstack(roles.tail(10)).write_csv(
        tmp_path / "roles.csv"
    )
    with pytest.raises(InputError, match=r"was made with other files \(roles\): got .*roles\.csv = "):
        clipmem.run(run.recipe, run.path)


@pytest.mark.parametrize(
    ("target", "settings", "message"),
    [
        ("nowhere", (), r"^model 'nowhere': got no such folder, expected a folder of open_clip, "),
        ("broken", (), r"^checkpoint .*broken/open_clip_model\.safetensors: got a file that does not load"),
        ("ViT-B-32/openai", (), r"Use ViT-B-32-quickgelu/openai\."),
        ("small", ("split.external=40",), r"^\[split\] external: got 40 of 40 pairs in the data"),
        ("small", ("given.roles=none.csv",), r"^\[given\] roles none\.csv: got No such file"),
    ],
)
def test_what_cannot_work_leaves_nothing_behind(world, tmp_path, monkeypatch, target, settings, message):
    place = copied(world, tmp_path)
    monkeypatch.chdir(place)
    shutil.copytree(place / "small", place / "broken")
    (place / "broken" / "open_clip_model.safetensors").write_bytes(b"no weights")
    with pytest.raises(InputError, match=message):
        clipmem.run(recipe_of([target], ["large"], *DATA, *settings), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_the_example_of_the_docs_runs(tmp_path):
    page = (Path(__file__).parents[2] / "docs" / "score.md").read_text(encoding="utf-8")
    text = page.partition("\n## A study of existing models\n")[2].partition("\n## ")[0]
    [recipe] = re.findall(r"<!-- file: given\.toml -->\n```toml\n(.*?)```", text, flags=re.DOTALL)
    (tmp_path / "given.toml").write_text(recipe, encoding="utf-8")
    [commands] = re.findall(r"```sh\n(.*?)```", text, flags=re.DOTALL)
    train, score = commands.splitlines()
    # the same commands on the smallest model: what is shown takes half a minute
    quick = ["--set", "model.name=clipmem-micro", "--set", "train.epochs=1"]
    for command in ([*shlex.split(train), *quick], shlex.split(score)):
        assert command[0] == "clipmem"
        done = subprocess.run(
            [sys.executable, "-m", *command], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
    assert "caption scored with" in done.stdout
    assert "cannot verify how the two models were trained" in " ".join(done.stdout.split())
    trained, scored = clipmem.load_run(tmp_path / "trained"), clipmem.load_run(tmp_path / "scored")
    np.testing.assert_allclose(scored.scores["clipmem"], trained.scores["clipmem"], rtol=0, atol=1e-6)


def test_models_of_every_address_in_one_study(world, tmp_path, monkeypatch):
    """A checkpoint of a trainer with its averaged weights, and a model that squashes images of the same size."""
    place = copied(world, tmp_path)
    monkeypatch.chdir(place)
    state = openclip.load(place / "small").module.state_dict()
    averaged = openclip.create("clipmem-micro", seed=7).module.state_dict()
    name = "2024_01_01-model_ViT-B-32-quickgelu"
    torch.save({"epoch": 1, "name": name, "state_dict": state, "state_dict_ema": averaged}, place / "epoch_1.pt")
    squash = openclip.create("clipmem-micro", seed=2).save(place / "squash")[0]
    document = json.loads(squash.read_text())
    document["preprocess_cfg"] |= {"resize_mode": "squash", "interpolation": "bilinear"}
    squash.write_text(json.dumps(document))
    wide = pl.read_parquet("pairs.parquet")
    images = [widened(one["bytes"] if isinstance(one, dict) else one) for one in wide["image"]]
    wide.with_columns(image=pl.Series(images, dtype=pl.Binary)).write_parquet("wide.parquet")
    targets = ["clipmem-micro@epoch_1.pt", "clipmem-micro@epoch_1.pt#ema"]
    settings = [*DATA[:1], "data.path=wide.parquet", *DATA[2:]]
    with pytest.warns(ClipmemWarning, match="suggests that it was trained with QuickGELU"):
        run = clipmem.run(recipe_of(targets, ["small", "local-dir:squash"], *settings), tmp_path / "run")
    known = run.manifest["given"]
    assert [entry["address"] for entry in known["target"]] == [
        f"clipmem-micro@{place}/epoch_1.pt{x}" for x in ("", "#ema")
    ]
    assert set(known["target"][1]["files"]) == {"config of clipmem-micro", "epoch_1.pt#ema"}
    assert [entry["resize_mode"] for entry in known["reference"]] == ["shortest", "squash"]
    assert sorted(file.name for file in (run.path / "cache").glob("*.npy")) == [
        "pixels-32-squash-bilinear.npy",
        "pixels.npy",
    ]
    expected = {}
    for seed, (encoder, cache) in enumerate([("small", "pixels.npy"), ("squash", "pixels-32-squash-bilinear.npy")]):
        model = openclip.load(place / encoder)
        model.module.eval()
        row = {uid: k for k, uid in enumerate(run.pairs["uid"])}
        values = as_float(torch.from_numpy(open_cache(run.path / "cache" / cache)[[row[u] for u in run.splits["uid"]]]))
        with torch.inference_mode():
            expected[seed] = model.encode_image(normalize_pixels(values, model.mean, model.std))
        found = passes.load(run.path / "embeddings" / "g" / f"seed-{seed}").image[:, 0]
        torch.testing.assert_close(found, expected[seed], rtol=0, atol=1e-5)
    # the first target and the first reference have the same weights
    same = [passes.load(run.path / "embeddings" / side / "seed-0").image for side in "fg"]
    assert torch.equal(*same)
    with pytest.warns(ClipmemWarning):
        again = clipmem.load_run(run.path).model("f", 0)
    assert state_hash(again.module) == state_hash(openclip.load(place / "small").module)


def widened(data):
    image = Image.open(io.BytesIO(data)).convert("RGB")
    stream = io.BytesIO()
    image.resize((image.width * 2, image.height)).save(stream, "PNG")
    return stream.getvalue()


@pytest.mark.slow
def test_a_warning_is_a_line_on_the_command_line(world, tmp_path):
    place = copied(world, tmp_path)
    weights = place / "epoch_1-quickgelu.pt"
    torch.save({"state_dict": openclip.create("clipmem-micro", seed=7).module.state_dict()}, weights)
    (place / "given.toml").write_text(
        f'protocol = "given"\n[data]\nsource = "parquet"\npath = "pairs.parquet"\n[split]\nexternal = 6\n'
        f'[given]\ntarget = ["clipmem-micro@{weights.name}"]\nreference = ["small"]\n'
    )
    done = subprocess.run(
        [sys.executable, "-m", "clipmem", "run", "given.toml", "--set", "train.captions=2", "--out", "run"],
        cwd=place, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (
        "clipmem: warning: model 'clipmem-micro@epoch_1-quickgelu.pt': 'epoch_1-quickgelu.pt' suggests that it was "
        "trained with QuickGELU, which clipmem-micro does not have. If so, its embeddings are wrong: use "
        "clipmem-micro-quickgelu instead.\n"
    ) in done.stderr
    assert "stacklevel" not in done.stderr


def test_localize_wants_a_four_way_study(mixed):
    with pytest.raises(InputError, match="got protocol 'given', expected a four-way study"):
        localize_run(mixed.path)
