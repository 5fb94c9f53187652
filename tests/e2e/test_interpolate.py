"""Interpolation of a fine-tuned run with its pretrained model, and of two checkpoints, as a user does it."""

import json
import shutil

import polars as pl
import pytest
import torch
from safetensors.torch import load_file, save_file

import clipmem
from clipmem.base.folder import RunFolder
from clipmem.mitigate import interpolate_weights
from clipmem.models import given, openclip
from tests.e2e.running import Saboteur, clip
from tests.e2e.test_study import contents
from tests.tiny import tiny_recipe, write_parquet

pytestmark = pytest.mark.slow

WEIGHTS = "open_clip_model.safetensors"


def weights(folder):
    return load_file(folder / WEIGHTS)


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return clipmem.run(tiny_recipe("train.seeds=[5]"), tmp_path_factory.mktemp("base") / "run").path


@pytest.fixture(scope="module")
def model(base):
    return base / "models" / "g" / "seed-5"


@pytest.fixture(scope="module")
def settings(model):
    return ("model.name=''", f"model.pretrained={model}")


@pytest.fixture(scope="module")
def tuned(settings, tmp_path_factory):
    return clipmem.run(tiny_recipe(*settings), tmp_path_factory.mktemp("tuned") / "run").path


@pytest.fixture(scope="module")
def compared(tuned, tmp_path_factory):
    out = tmp_path_factory.mktemp("compared") / "out"
    done = clip("evaluate", tuned, "--interpolate", "0,0.5,1", "--out", out)
    assert done.returncode == 0, done.stderr
    return out, done.stdout


@pytest.mark.parametrize("side", ["f", "g"])
def test_the_models_are_those_between(compared, tuned, model, side):
    end = weights(tuned / "models" / side / "seed-0")
    for alpha in (0.0, 0.5):
        place = tuned / "interpolate" / f"alpha-{alpha:g}" / "models" / side / "seed-0"
        assert same(weights(place), interpolate_weights(weights(model), end, alpha))
        record, parent = (
            json.loads((one / "record.json").read_text()) for one in (place, tuned / "models" / side / "seed-0")
        )
        assert record["mitigate"] == {"interpolate": {"alpha": alpha, "run": str(tuned)}}
        changed = {"mitigate", "final_sha256"}
        assert {key: value for key, value in record.items() if key not in changed} == {
            key: value for key, value in parent.items() if key not in changed
        }
        assert record["final_sha256"] != parent["final_sha256"]


def test_the_curve_goes_from_0_to_the_fine_tuned_run(compared, tuned):
    out, printed = compared
    document = json.loads((out / "compare.json").read_text())
    assert document["curve"]["setting"] == "mitigate.interpolate.alpha"
    rows = document["curve"]["rows"]
    scores = {row["value"]: row for row in rows if row["measure"] == "clipmem"}
    assert list(scores) == [0.0, 0.5, 1.0]
    # f and g are one model
    assert (scores[0.0]["mean"], scores[0.0]["low"]) == (0.0, None)
    run = clipmem.load_run(tuned)
    assert scores[1.0]["mean"] == pytest.approx(run.summary.half_difference.mean)
    assert abs(scores[0.5]["mean"]) < abs(scores[1.0]["mean"])
    names = {row["measure"] for row in rows}
    assert {"zero_shot_acc1", "image_retrieval_recall@5", "clipmem"} <= names
    assert len(rows) == 3 * len(names)
    page = (out / "index.html").read_text()
    assert 'id="curve"' in page
    assert "mitigate.interpolate.alpha" in printed


def test_models_that_were_not_trained_have_no_cost(compared, tuned):
    document = json.loads((compared[0] / "compare.json").read_text())
    assert document["cost"] == []
    assert {"kind": "not_trained", "runs": ["alpha-0", "alpha-0.5"]} in document["notes"]
    marker = json.loads((tuned / "interpolate" / "alpha-0" / "stages" / "train-f-seed-0.json").read_text())
    assert marker["made_from"] == str(tuned / "models" / "f" / "seed-0")
    assert "pairs_per_second" not in marker


def test_again_it_does_nothing(compared, tuned, tmp_path):
    place = tuned / "interpolate"
    before = {file: file.stat().st_mtime_ns for file in place.rglob("*") if file.is_file() and file.name != ".lock"}
    done = clip("evaluate", tuned, "--interpolate", "0.5,0", "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert {file: file.stat().st_mtime_ns for file in before} == before
    again, first = (json.loads((out / "compare.json").read_text()) for out in (tmp_path / "out", compared[0]))
    assert again["curve"] == first["curve"]


def test_training_with_interpolation_gives_the_same_models(compared, tuned, settings, tmp_path):
    run = clipmem.run(tiny_recipe(*settings, "mitigate.interpolate.alpha=0.5"), tmp_path / "run")
    there = tuned / "interpolate" / "alpha-0.5"
    assert run.scores.equals(clipmem.load_run(there).scores)
    for side in ("f", "g"):
        places = (root / "models" / side / "seed-1" / WEIGHTS for root in (run.path, there))
        assert len({place.read_bytes() for place in places}) == 1


def interpolated(settings, run, *more, alpha=0.5):
    return tiny_recipe(*settings, f"mitigate.interpolate.run={run}", f"mitigate.interpolate.alpha={alpha}", *more)


class Stopped(Exception):
    """Ends a study."""


def stop():
    raise Stopped


def test_the_parent_is_that_of_the_start(tuned, settings, tmp_path):
    parent = tmp_path / "parent"
    shutil.copytree(tuned, parent, ignore=shutil.ignore_patterns("interpolate"))
    recipe = interpolated(settings, parent)
    with pytest.raises(Stopped):
        clipmem.run(recipe, tmp_path / "run", reporter=Saboteur("train", stop))
    file = parent / "models" / "f" / "seed-0" / WEIGHTS
    state = load_file(file)
    save_file({name: weight + (name == "logit_scale") for name, weight in state.items()}, file)
    with pytest.raises(clipmem.InputError) as caught:
        clipmem.run(recipe, tmp_path / "run")
    assert "was made with other models ([mitigate.interpolate])" in caught.value.what
    known = json.loads((tmp_path / "run" / "manifest.json").read_text())["parents"]["interpolate"]
    assert known["models_sha256"][:16] in caught.value.got
    assert known["data_sha256"] == RunFolder(tuned).read_json("manifest.json")["data_sha256"]
    shutil.copy(tuned / "models" / "f" / "seed-0" / WEIGHTS, file)
    clipmem.run(recipe, tmp_path / "run")
    shutil.rmtree(parent)
    before = contents(tmp_path / "run")
    RunFolder(tmp_path / "run").marker("score").unlink()
    clipmem.run(recipe, tmp_path / "run")
    assert contents(tmp_path / "run") == before


@pytest.mark.parametrize(
    ("more", "key"),
    [
        ("train.epochs=3", "train.epochs = 2 there, 3 now"),
        ("train.seeds=[0]", "train.seeds"),
        ("split.seed=4", "split.seed"),
        ("protocol=subsample", "protocol"),
        ("mitigate.text_noise.std=0.1", "mitigate.text_noise.std"),
    ],
)
def test_a_run_with_other_settings_is_refused(tuned, settings, tmp_path, more, key):
    with pytest.raises(clipmem.InputError) as caught:
        clipmem.run(interpolated(settings, tuned, more), tmp_path / "run")
    assert caught.value.what.startswith("[mitigate.interpolate] run")
    assert key in caught.value.got
    assert not (tmp_path / "run").exists()


def test_a_run_from_another_base_or_unfinished_or_interpolated_is_refused(tuned, base, settings, tmp_path):
    def refused(recipe):
        with pytest.raises(clipmem.InputError) as caught:
            clipmem.run(recipe, tmp_path / "run")
        assert not (tmp_path / "run").exists()
        return caught.value

    parent = tmp_path / "parent"
    shutil.copytree(tuned, parent, ignore=shutil.ignore_patterns("interpolate"))
    other = tmp_path / "other"
    shutil.copytree(base / "models" / "f" / "seed-5", other)
    text = (parent / "recipe.toml").read_text()
    (parent / "recipe.toml").write_text(text.replace(str(base / "models" / "g" / "seed-5"), str(other)))
    assert "other files" in refused(interpolated((*settings, f"model.pretrained={other}"), parent)).what
    (parent / "recipe.toml").write_text(text)
    (parent / "models" / "g" / "seed-1" / WEIGHTS).unlink()
    assert refused(interpolated(settings, parent)).got == "a run without all of its models"
    # no interpolation of an interpolation
    (parent / "recipe.toml").write_text(text.replace("alpha = 1.0", "alpha = 0.5"))
    assert "mitigate.interpolate.alpha = 0.5 there, 1.0 now" in refused(interpolated(settings, parent)).got
    assert "no such folder" in refused(interpolated(settings, tmp_path / "none")).got


# ---- two checkpoints


@pytest.fixture(scope="module")
def labeled(tmp_path_factory):
    file = write_parquet(tmp_path_factory.mktemp("data") / "pairs.parquet", 40)
    names = pl.Series("label", [f"kind {k % 3}" for k in range(40)])
    pl.read_parquet(file).with_columns(names).write_parquet(file)
    return file


def test_two_checkpoints_alone(tuned, model, labeled, tmp_path):
    end = tuned / "models" / "f" / "seed-0"
    file = tmp_path / "between.json"
    done = clip("evaluate", "--model", model, end, "--interpolate", "1,0.5,0", "--data", labeled, "--out", file)
    assert done.returncode == 0, done.stderr
    found = json.loads(file.read_text())
    assert list(found["metrics"]) == ["alpha 0", "alpha 0.5", "alpha 1"]
    done = clip("evaluate", "--model", model, end, "--data", labeled, "--out", tmp_path / "ends.json")
    assert done.returncode == 0, done.stderr
    ends = json.loads((tmp_path / "ends.json").read_text())["metrics"]
    for alpha, address in (("alpha 0", model), ("alpha 1", end)):
        assert found["metrics"][alpha] == ends[str(address)]
    assert {"zero_shot_acc1", "image_retrieval_recall@5"} <= set(found["metrics"]["alpha 0.5"])


def test_checkpoints_of_other_shapes_are_refused_by_name(tuned, labeled, tmp_path):
    openclip.create("clipmem-tiny", seed=0).save(tmp_path / "other")
    ends = tmp_path / "other", tuned / "models" / "f" / "seed-0"
    done = clip("evaluate", "--model", *ends, "--interpolate", "0.5", "--data", labeled, "--out", tmp_path / "out")
    assert done.returncode == 2
    assert "parameter positional_embedding" in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ("RUN", "--interpolate", "0,2"),
        ("RUN", "--interpolate", "0,x"),
        ("RUN", "--interpolate", "1"),
        ("RUN", "--data", "emoji", "--interpolate", "0.5"),
        ("--model", "RUN/models/f/seed-0", "--data", "emoji", "--interpolate", "0.5"),
    ],
)
def test_command_lines_that_are_refused(tuned, arguments, tmp_path):
    done = clip("evaluate", *(one.replace("RUN", str(tuned)) for one in arguments), "--out", tmp_path / "out")
    assert done.returncode == 2
    assert "--interpolate" in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_run_from_scratch_is_refused(base, tmp_path):
    done = clip("evaluate", base, "--interpolate", "0.5", "--out", tmp_path / "out")
    assert done.returncode == 2
    assert "models trained from scratch" in done.stderr
    assert not (base / "interpolate").exists()


# ---- adapters


def test_adapters_are_scaled_and_stay_adapters(settings, model, tmp_path):
    pytest.importorskip("peft")
    settings = (*settings, "train.adapter=lora", "train.lora.rank=2", "train.seeds=[0]")
    tuned = clipmem.run(tiny_recipe(*settings), tmp_path / "tuned").path
    recipes = interpolated(settings, tuned), tiny_recipe(*settings, "mitigate.interpolate.alpha=0.5")
    there, trained = (clipmem.run(recipe, tmp_path / f"{k}").path for k, recipe in enumerate(recipes))
    for side in ("f", "g"):
        states = []
        for root in (tuned, there, trained):
            folder = root / "models" / side / "seed-0"
            assert not (folder / WEIGHTS).exists()
            states.append(load_file(folder / "adapter_model.safetensors"))
        parent, found, at_once = states
        assert same(found, at_once)
        assert {"lora_A", "lora_B"} == {part for name in found for part in name.split(".") if part.startswith("lora_")}
        for name, weight in parent.items():
            assert torch.equal(found[name], weight * (0.5 if "lora_B" in name else 1))
    assert any(weight.any() for name, weight in parent.items() if "lora_B" in name)
    place = there / "models" / "f" / "seed-0"
    end = given.load_saved(tuned / "models" / "f" / "seed-0").module.state_dict()
    half = given.load_saved(place).module.state_dict()
    between = interpolate_weights(weights(model), end, 0.5)
    assert all(torch.allclose(half[name], between[name], atol=1e-6) for name in between)
