"""The verbs in Python do what the commands of the same name do, also with tables in memory."""

import json
import shutil
from dataclasses import asdict
from inspect import signature

import polars as pl
import pytest

import clipmem
from clipmem.cli.score import Scoring
from clipmem.study.score_inputs import Settings
from tests.e2e.running import clip
from tests.tiny import tiny_recipe, write_parquet

ROLES = ("split.shared=12", "split.candidate=8", "split.independent=8", "split.external=12", "split.planted=0")


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    words = ("red", "green", "blue", "small", "large", "old", "new")
    captions = [[f"a {words[k % 7]} thing on a {words[k % 5]} one"] for k in range(210)]
    return write_parquet(tmp_path_factory.mktemp("data") / "pairs.parquet", 210, captions=captions)


def test_one_model_or_none_ranks(table, tmp_path):
    out = tmp_path / "scores.parquet"
    done = clip("score", "--data", table, "--out", out)
    assert done.returncode == 0, done.stderr
    scores = clipmem.score(data=clipmem.load_pairs(pl.read_parquet(table)))
    assert scores.equals(pl.read_parquet(out))
    assert set(scores.columns) == {"uid", "estimator", "score", "stderr"}


def test_score_has_the_same_defaults_everywhere():
    settings, parameters = Settings().model_dump(), signature(clipmem.score).parameters
    assert {name: parameters[name].default for name in settings} == settings
    assert asdict(Scoring()).items() <= settings.items()


@pytest.mark.slow
def test_evaluate(finished, tmp_path):
    run = shutil.copytree(finished.path, tmp_path / "run")
    evaluated = clipmem.evaluate(run, name="mine")
    assert evaluated.file == run / "evaluate" / "mine.json"
    assert clip("evaluate", run, "--name", "again").returncode == 0
    assert json.loads((run / "evaluate" / "again.json").read_text()) == json.loads(evaluated.file.read_text())


def test_a_study_of_a_table_in_memory(table, tmp_path):
    recipe = tiny_recipe(*ROLES, "train.seeds=[0]", "train.epochs=1")
    pairs = clipmem.load_pairs(pl.read_parquet(table).head(40))
    run = clipmem.run(recipe, tmp_path / "run", data=pairs)
    assert set(run.pairs["uid"]) == set(pairs.pairs()["uid"])
    # the table is kept, so that the run can show its pairs
    del pairs
    assert len(run.images(run.scores["uid"].head(2).to_list())) == 2


@pytest.mark.parametrize(
    ("call", "what"),
    [
        (lambda: clipmem.evaluate(), "clipmem evaluate"),
        (lambda: clipmem.evaluate(model="."), "--model"),
        (lambda: clipmem.evaluate("run", data="emoji", interpolate=[0.5]), "--interpolate"),
        (lambda: clipmem.audit(), "clipmem audit"),
        (lambda: clipmem.audit(model="."), "--members"),
        (lambda: clipmem.audit("run", members="emoji"), "--members"),
        (lambda: clipmem.score(), "--data"),
        (lambda: clipmem.score("a", "b", "emoji", model="c"), "--model"),
        (lambda: clipmem.score(data="emoji", model="c", views=2, bank=["x"]), "--views, --bank"),
        (lambda: clipmem.run("quick", "new", budget=-1.0), "--budget"),
    ],
)
def test_what_verbs_refuse(call, what, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(clipmem.InputError) as caught:
        call()
    assert caught.value.what == what
