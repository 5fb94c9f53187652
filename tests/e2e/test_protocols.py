"""Studies of the other protocols, tiny but real: they run, resume model by model, and read back."""

import shutil

import polars as pl
import pytest

import clipmem
from clipmem.base.errors import InputError, RunError
from clipmem.base.folder import RunFolder
from clipmem.report.comparison import compare_finished
from clipmem.report.run import read_finished
from clipmem.study import stages
from tests.e2e.running import clip
from tests.e2e.test_study import contents
from tests.tiny import tiny_recipe

pytestmark = pytest.mark.slow

STUDIES = {
    # 66 or 67 pairs a model, which by themselves would be two batches or three
    "subsample": ("protocol=subsample", "subsample.models=6", "train.epochs=1", "train.batch_size=33"),
    "subsample, confidence": (
        *("protocol=subsample", "subsample.models=6", "train.epochs=1"),
        *("train.objective=supervised", "score.alignment=confidence"),
    ),
    "leave-one-out, confidence": (
        *("protocol=leave-one-out", "leave_one_out.pairs=2", "train.epochs=1", "train.seeds=[0]"),
        *("train.objective=supervised", "score.alignment=confidence", "embed.views=2"),
    ),
    "leave-one-out": ("protocol=leave-one-out", "leave_one_out.pairs=2", "train.epochs=1", "train.seeds=[0]"),
}


@pytest.fixture(scope="module", params=sorted(STUDIES))
def study(request, tmp_path_factory):
    recipe = tiny_recipe(*STUDIES[request.param])
    return clipmem.run(recipe, tmp_path_factory.mktemp("study") / "run")


def test_it_runs_and_reads_back(study):
    assert set(study.summary.roles) == {"candidate", "external"}
    assert study.report.is_file()
    top = study.top(2)
    assert top["clipmem"].null_count() == 0
    assert set(study.scores["role"].unique()) == {"candidate", "external"}
    assert study.scores["clipmem"].null_count() == 0
    assert study.scores.height >= 20


def test_models_that_are_there_are_not_trained_again(study):
    folder = RunFolder(study.path)
    before = contents(study.path)
    weights = sorted(study.path.glob("models/*/seed-*/open_clip_model.safetensors"))
    times = [file.stat().st_mtime_ns for file in weights[1:]]
    weights[0].unlink()
    for stage in ("train", "embed", "score", "evaluate", "report"):
        folder.marker(stage).unlink()
    clipmem.run(study.recipe, study.path)
    assert contents(study.path) == before
    assert [file.stat().st_mtime_ns for file in weights[1:]] == times


@pytest.mark.parametrize("study", ["subsample"], indirect=True)
def test_near_duplicates_of_the_pool_are_in_the_same_models(study):
    groups = study.splits.select("uid", "group").join(study.seed_scores, on="uid")
    members = groups.group_by("group", "seed").agg(pl.col("f").is_not_null().n_unique())
    assert members["f"].to_list() == [1] * members.height
    assert study.splits["group"].n_unique() < study.splits.height  # there are some


@pytest.mark.parametrize("study", ["subsample"], indirect=True)
def test_models_that_another_version_drew_are_not_scored(study, tmp_path):
    folder = RunFolder(shutil.copytree(study.path, tmp_path / "run"))
    record = folder.path / "models" / "r" / "seed-0" / "record.json"
    # as a record of an earlier version, which does not name its pairs; of the same size, so that it counts as whole
    record.write_bytes(record.read_bytes().replace(b'"uids_sha256"', b'"unknown_key"'))
    folder.marker("score").unlink()
    with pytest.raises(RunError):
        clipmem.run(study.recipe, folder.path)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    place = tmp_path_factory.mktemp("runs")
    clipmem.run(tiny_recipe("train.seeds=[0,1]"), place / "four-way")
    clipmem.run(tiny_recipe("train.seeds=[0,1]", "protocol=f-only"), place / "f-only")
    return place


def test_f_only_trains_the_f_of_four_way(runs):
    four, alone = (RunFolder(runs / name) for name in ("four-way", "f-only"))
    for seed in (0, 1):
        record = f"models/f/seed-{seed}/record.json"
        assert alone.read_json(record) == four.read_json(record)
    assert not (runs / "f-only" / "models" / "g").exists()
    found, expected = (one.read_json("evaluate/utility.json")["metrics"] for one in (alone, four))
    assert found == {"f": expected["f"]}


def test_f_only_is_finished_without_scores(runs):
    alone, four = read_finished(runs / "f-only"), read_finished(runs / "four-way")
    assert alone.utility == four.utility
    assert alone.memorization(alone.uids("candidate")) == []
    assert clipmem.load_run(runs / "f-only").summary.roles == {}
    with pytest.raises(InputError) as caught:
        compare_finished([four, alone])
    assert caught.value.got == "protocol 'f-only', without scores"


@pytest.mark.parametrize("use", [stages.renew_run, lambda run: RunFolder(run).read("seed_scores")])
def test_f_only_says_that_it_has_no_scores(runs, use):
    with pytest.raises(InputError) as caught:
        use(runs / "f-only")
    assert caught.value.got == "protocol 'f-only', which measures utility alone"
    assert caught.value.expected == "a run with scores"


def test_f_only_resumes_and_prints_its_utility(runs):
    before = contents(runs / "f-only")
    folder = RunFolder(runs / "f-only")
    for stage in ("train", "embed", "evaluate"):
        folder.marker(stage).unlink()
    done = clip("run", folder.path / "recipe.toml", "--out", folder.path)
    assert done.returncode == 0
    assert contents(folder.path) == before
    shown = done.stdout
    assert "Utility on" in shown
    assert str(folder.path / "evaluate" / "utility.json") in shown.replace("\n", "")
