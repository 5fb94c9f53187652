"""Studies that start from a pretrained model: what is trained, what is refused, what a kill leaves."""

import json
import os
import shutil
import signal
import time

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import clipmem
from clipmem.base.errors import InputError
from clipmem.base.recipes import dump_recipe
from clipmem.data.sources import open_data
from clipmem.models import given, openclip
from clipmem.models.names import SHIPPED
from clipmem.stats.alignment import alignment
from clipmem.study.api import FINETUNE_RECIPES, find_recipe
from clipmem.study.data_commands import Inspecting, inspect
from clipmem.study.plan import PlannedStudy
from tests.e2e.running import clip, start, undisturbed_study
from tests.e2e.test_study import contents
from tests.tiny import tiny_recipe

WEIGHTS = "open_clip_model.safetensors"


@pytest.fixture(scope="module")
def base(finished):
    return finished.path / "models" / "f" / "seed-0"


@pytest.fixture(scope="module")
def tuned(base, tmp_path_factory):
    """Fine-tuned with a frozen image tower."""
    settings = (f"model.pretrained={base}", "train.freeze=[image]")
    return clipmem.run(tiny_recipe(*settings), tmp_path_factory.mktemp("tuned") / "run")


def weights(run, side, seed):
    return load_file(run.path / "models" / side / f"seed-{seed}" / WEIGHTS)


def test_the_frozen_tower_keeps_its_bytes_and_the_other_learns(tuned, base):
    before = load_file(base / WEIGHTS)
    for side in "fg":
        for seed in (0, 1):
            after = weights(tuned, side, seed)
            moved = {name for name in before if not torch.equal(before[name], after[name])}
            assert moved
            assert not {name for name in moved if name.startswith("visual.")}
            assert {name for name in before if not name.startswith("visual.")} == moved
    assert not torch.equal(weights(tuned, "f", 0)["text_projection"], weights(tuned, "f", 1)["text_projection"])


def test_the_manifest_and_the_records_name_the_base(tuned, base):
    described = json.loads((tuned.path / "manifest.json").read_text())["base"]
    assert described["files"] == given.content(given.find(str(base)))
    assert described["address"] == str(base)
    records = [json.loads(file.read_text()) for file in tuned.path.glob("models/*/*/record.json")]
    assert len(records) == 4
    assert len({record["init_sha256"] for record in records}) == 1


@pytest.mark.slow
def test_halves_from_a_base_model(base, tmp_path):
    """f and its shadow models are fine-tuned; the base is none of them, and the table of scores has its alignment."""
    sizes = ("split.shared=1", "split.candidate=110", "split.independent=110", "split.external=40", "split.planted=0")
    recipe = tiny_recipe(f"model.pretrained={base}", *sizes, "train.epochs=2")
    run = clipmem.run(recipe, tmp_path / "run", budget=2.0)
    assert sorted(file.parent.parent.name for file in run.path.glob("models/*/*/record.json")) == sorted(
        ["f", "half-a", "half-a", "half-b", "half-b"]
    )
    study = PlannedStudy(run.path)
    assert (study.base is not None, study.base in study.models, len(study.embedded)) == (True, False, 6)
    scores = run.scores.filter(role="candidate")
    assert scores.height == 221
    assert np.isfinite(scores.select("clipmem", "stderr", "a_base", "learned").to_numpy()).all()
    # external pairs keep the mean raw difference of the halves: each A from the stored embeddings
    parts = study.aligned(study.embedded)
    a = np.stack([alignment(part, weight=recipe.score.weight).numpy() for part in parts])
    position = {uid: row for row, uid in enumerate(study.pair_uids)}
    for row in run.scores.iter_rows(named=True):
        column = position[row["uid"]]
        assert row["a_base"] == pytest.approx(a[-1, column], abs=1e-6)
        if row["role"] == "external":
            signed = [a[k, column] * study.design.sign[k, column] for k in range(1, 5)]
            assert row["clipmem"] == pytest.approx(sum(signed) / 2, abs=1e-6)
    assert 0 < json.loads((run.path / "estimate.json").read_text())["cost"] <= 2


@pytest.mark.slow
def test_pretrained_with_its_own_initialization_gives_the_same_study(tmp_path):
    recipe = ("train.seeds=[3]", "model.name=clipmem-micro")
    scratch = clipmem.run(tiny_recipe(*recipe), tmp_path / "scratch")
    seed = PlannedStudy(scratch.path).models[0].init_seed
    openclip.create("clipmem-micro", seed=seed).save(tmp_path / "start")
    again = clipmem.run(tiny_recipe(*recipe, f"model.pretrained={tmp_path / 'start'}"), tmp_path / "again")
    for side in "fg":
        folder = f"models/{side}/seed-3/{WEIGHTS}"
        assert (scratch.path / folder).read_bytes() == (again.path / folder).read_bytes()
    columns = ["uid", "clipmem", "f_positive", "g_positive"]
    assert again.scores.select(columns).equals(scratch.scores.select(columns))


@pytest.mark.slow
def test_a_changed_base_is_refused_on_resume(base, tmp_path):
    shutil.copytree(base, tmp_path / "base")
    recipe = tiny_recipe(f"model.pretrained={tmp_path / 'base'}", "train.seeds=[0]", "train.epochs=1")
    run = clipmem.run(recipe, tmp_path / "run")
    before = contents(run.path)
    state = load_file(tmp_path / "base" / WEIGHTS)
    state["logit_scale"] += 1e-3
    save_file(state, tmp_path / "base" / WEIGHTS)
    with pytest.raises(InputError) as error:
        clipmem.run(recipe, run.path)
    assert WEIGHTS in error.value.got
    assert contents(run.path) == before


@pytest.mark.slow
def test_a_killed_fine_tuning_ends_with_the_same_bytes(base, tmp_path):
    settings = (f"model.pretrained={base}", "train.freeze=[image]", "train.seeds=[0]", "train.epochs=8")
    recipe, expected = undisturbed_study(tmp_path, settings)
    out = tmp_path / "killed"
    process = start(recipe, out, every=0)
    deadline = time.monotonic() + 120
    while not list(out.glob("models/f/seed-0/checkpoint.safetensors")):
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.002)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert not (out / "scores.parquet").exists()
    done = clip("run", recipe, "--out", out)
    assert done.returncode == 0, done.stderr
    assert contents(out) == expected


def broken(folder, kind):
    """Break a model's folder in one of the ways that users meet."""
    state = load_file(folder / WEIGHTS)
    config = json.loads((folder / "open_clip_config.json").read_text())
    if kind == "NaN":
        state["text_projection"][0, 0] = np.nan
    elif kind == "vocabulary":
        state["token_embedding.weight"] = state["token_embedding.weight"][:-5].clone()
    elif kind == "width":
        config["model_cfg"]["embed_dim"] //= 2
    elif kind == "layers":
        config["model_cfg"]["text_cfg"]["layers"] += 1
    save_file(state, folder / WEIGHTS)
    (folder / "open_clip_config.json").write_text(json.dumps(config))


@pytest.mark.parametrize("kind", ["NaN", "vocabulary", "width", "layers"])
def test_checkpoints_that_do_not_fit_are_refused_before_anything_is_written(base, tmp_path, kind):
    shutil.copytree(base, tmp_path / "base")
    broken(tmp_path / "base", kind)
    recipe = tmp_path / "study.toml"
    recipe.write_text(dump_recipe(tiny_recipe()))
    done = clip("run", recipe, "--set", f"model.pretrained={tmp_path / 'base'}", "--out", tmp_path / "run")
    assert done.returncode == 2, done.stderr
    assert str(tmp_path / "base") in done.stderr.replace("\n", "")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["model.pretrained=ViT-B-32-quickgelu/openai"], ["CLIPMEM_DOWNLOAD=1", "hf download"]),
        (["model.pretrained=ViT-B-99/openai"], ["ViT-B-99/openai"]),
        (["model.pretrained=BASE", "model.name=clipmem-tiny"], ["[model] name"]),
        (["model.pretrained=BASE", "train.freeze=[image,text]"], ["[train] freeze"]),
        (["model.pretrained=BASE", "train.freeze=[image.blocks.17]"], ["'image.blocks.17'"]),
        (["train.adapter=lora"], ["adapter"]),
    ],
)
def test_bad_input_exits_with_2(base, tmp_path, monkeypatch, settings, words):
    monkeypatch.delenv("CLIPMEM_DOWNLOAD", raising=False)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    recipe = tmp_path / "study.toml"
    recipe.write_text(dump_recipe(tiny_recipe()))
    given_settings = [part for one in settings for part in ("--set", one.replace("BASE", str(base)))]
    done = clip("run", recipe, *given_settings, "--out", tmp_path / "run")
    assert done.returncode == 2, done.stderr
    assert [word for word in words if word not in " ".join(done.stderr.split())] == []
    assert not (tmp_path / "run").exists()


# ---- looking at a model and at data


def test_models_show(base):
    done = clip("inspect", base, "--set", "train.freeze=[image,text.embeddings]", "--json")
    found = json.loads(done.stdout)
    frozen = [one for one in found["parts"] if one["part"].startswith("image") or one["part"] == "text.embeddings"]
    assert [one["trained"] for one in frozen] == [0] * len(frozen)
    assert all(one["trained"] == one["parameters"] for one in found["parts"] if one not in frozen)
    for name in SHIPPED:
        lines = clip("inspect", name).stdout.splitlines()
        assert max(map(len, lines)) <= 100
    assert clip("inspect", base, "--names").stdout.count("visual.") > 20
    assert clip("inspect", "ViT-B-99").returncode == 2


@pytest.mark.slow
def test_inspect_finds_the_pairs_that_a_model_aligns_like_members(finished, base, tmp_path):
    found = inspect("emoji", lambda: open_data("emoji"), Inspecting(against=str(base)))["against"]
    members = set(finished.splits.filter(finished.splits["role"].is_in(["shared", "candidate"]))["uid"])
    images, texts = reference_nearest(finished, base)
    assert set(found["uids"]) == images & texts
    assert found["aligned"] == len(found["uids"])
    assert found["searched"] == finished.pairs.height
    if found["uids"]:
        share = len(members & set(found["uids"])) / len(found["uids"])
        assert share >= len(members) / found["searched"]


def reference_nearest(finished, base):
    """The pairs whose caption is the nearest to their image, and the other way round, one by one."""
    from clipmem.data.cache import open_cache
    from clipmem.data.views import as_float, normalize_pixels

    encoder = given.load(given.find(str(base)))
    pixels = open_cache(finished.path / "cache" / "pixels.npy")
    with torch.no_grad():
        values = normalize_pixels(as_float(torch.from_numpy(np.array(pixels))), encoder.mean, encoder.std)
        u = torch.nn.functional.normalize(encoder.module.encode_image(values).double(), dim=-1)
        tokens = encoder.tokenize([own[0] for own in finished.pairs["captions"]])
        v = torch.nn.functional.normalize(encoder.encode_text(tokens).double(), dim=-1)
    uids = finished.pairs["uid"].to_list()
    nearest_text, nearest_image = set(), set()
    for k, uid in enumerate(uids):
        own = float(u[k] @ v[k])
        if int((v @ u[k] >= own - 1e-12).sum()) == 1:
            nearest_text.add(uid)
        if int((u @ v[k] >= own - 1e-12).sum()) == 1:
            nearest_image.add(uid)
    return nearest_image, nearest_text


@pytest.mark.parametrize("name", FINETUNE_RECIPES)
def test_presets_are_recipes_that_fine_tune(name):
    recipe = find_recipe(name)
    assert (recipe.model.name, bool(recipe.model.pretrained)) == ("", True)
    assert recipe.train.epochs <= 10
    assert recipe.train.lr <= 2e-4
    assert (recipe.train.freeze, recipe.train.adapter, recipe.train.objective) == {
        "finetune-vit-b-32": ((), "none", "clip"),
        "finetune-lit": (("image",), "none", "clip"),
        "finetune-lora": ((), "lora", "clip"),
        "finetune-siglip": ((), "none", "siglip"),
    }[name]
    with pytest.raises(InputError) as error:  # the weights are not here
        given.find(recipe.model.pretrained, download=False)
    assert "hf download" in error.value.hint


def test_a_preset_written_for_data(tmp_path):
    done = clip(
        "init", tmp_path / "study.toml", "--preset", "finetune-lit", "--data", "emoji", "--set", "train.lr=3e-5"
    )
    assert done.returncode == 0, done.stderr
    recipe = find_recipe(tmp_path / "study.toml")
    assert (recipe.train.freeze, recipe.train.lr, recipe.data.source) == (("image",), 3e-5, "emoji")
    assert recipe.train.epochs == find_recipe("finetune-lit").train.epochs
    assert recipe.split.shared > 1000
    assert clip("init", "-", "--preset", "quick", "--data", "emoji").returncode == 2
