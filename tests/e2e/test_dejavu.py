"""Déjà Vu in a tiny study: its files, its numbers from the stored embeddings, and folders and protocols without it."""

import json
import shutil

import numpy as np
import polars as pl
import pytest
from rich.console import Console

import clipmem
from clipmem.base.errors import InputError
from clipmem.base.tables import SCHEMAS
from clipmem.cli.shell import printing
from clipmem.models import passes
from clipmem.report.terminal import print_run
from tests.e2e.running import clip
from tests.reference import loops_dejavu as loops
from tests.tiny import tiny_recipe, write_parquet

pytestmark = pytest.mark.slow


def test_the_files_and_the_summary(finished, capsys):
    document = json.loads((finished.path / "evaluate" / "dejavu.json").read_text())
    assert finished.summary.dejavu == document
    assert (document["neighbors"], document["public"], document["seeds"]) == (10, 20, [[0, 0], [1, 1]])
    assert set(document["two_model"]["roles"]) == {"candidate", "candidate, not mismatched", "independent", "shared"}
    assert document["two_model"]["planted"]["n"] == 4
    table = pl.read_parquet(finished.path / "evaluate" / "dejavu.parquet")
    assert table.columns == list(SCHEMAS["evaluate/dejavu"])
    assert table["uid"].is_sorted()
    assert table.height == 100
    page = (finished.path / "report" / "index.html").read_text(encoding="utf-8")
    assert '<section id="dejavu"' in page
    assert "0.1% is 1 pair" in page
    with printing(json=False, verbose=True):
        print_run("report", finished.path, Console(width=100))
    assert "(20 held-out images, k = 10)" in capsys.readouterr().out


def test_the_gaps_are_those_of_the_loops(finished):
    splits = finished.splits
    role = splits["role"].to_numpy()
    own = dict(finished.pairs.select("uid", "objects").iter_rows())
    objects = [set(own[uid]) for uid in splits["uid"]]
    public = [objects[row] for row in np.flatnonzero(role == "external")]
    for name in ("candidate", "independent", "shared"):
        rows = np.flatnonzero(role == name)
        gaps = []
        for seed in (0, 1):
            sides = []
            for side in ("f", "g"):
                one = passes.load(finished.path / "embeddings" / side / f"seed-{seed}")
                captions = [one.text[one.text_pair == int(row)].double().tolist() for row in rows]
                sides.append(
                    (captions, [one.image[int(row)].double().tolist() for row in np.flatnonzero(role == "external")])
                )
            gaps.append(loops.dejavu_study(*sides, [objects[row] for row in rows], public, 10))
        entry = finished.summary.dejavu["two_model"]["roles"][name]
        ours = [entry[gap]["mean"] for gap in ("precision_gap", "recall_gap", "auc_gap")]
        assert ours == pytest.approx(np.mean(gaps, axis=0).tolist(), abs=1e-12)


def test_a_folder_of_before_is_reported_without_it(finished, tmp_path):
    old = tmp_path / "old"
    shutil.copytree(finished.path, old)
    for file in ("dejavu.json", "dejavu.parquet"):
        (old / "evaluate" / file).unlink()
    pl.read_parquet(old / "pairs.parquet").drop("objects").write_parquet(old / "pairs.parquet")
    recipe = (old / "recipe.toml").read_text().split("\n[dejavu]")[0].replace('object_column = ""\n', "")
    assert "object_column" not in recipe
    (old / "recipe.toml").write_text(recipe)
    assert "Déjà Vu" not in clip("view", old, "--report", "--verbose").stdout
    assert clipmem.load_run(old).summary.dejavu is None
    assert 'id="dejavu"' not in (old / "report" / "index.html").read_text(encoding="utf-8")
    assert clipmem.load_run(old).pairs["objects"].to_list() == [[]] * 1914


def test_a_protocol_without_f_and_g_says_why(tmp_path):
    recipe = tiny_recipe("protocol=subsample", "subsample.models=4", "train.epochs=1")
    run = clipmem.run(recipe, tmp_path / "run")
    skipped = run.summary.dejavu["skipped"]
    assert skipped.startswith("not defined for protocol 'subsample'")
    assert not (run.path / "evaluate" / "dejavu.parquet").exists()
    page = run.report.read_text(encoding="utf-8")
    assert "Déjà Vu memorization was not measured: not defined for protocol" in page
    assert "Déjà Vu memorization was not measured" in clip("view", run.path, "--report", "--verbose").stdout


def test_objects_of_the_user(tmp_path):
    data = str(write_parquet(tmp_path / "pairs.parquet", 40))
    roles = ("split.shared=12", "split.candidate=8", "split.independent=8", "split.external=12", "split.planted=0")
    settings = ("data.source=parquet", f"data.path={data}", *roles, "train.seeds=[3]", "train.epochs=1")
    without = clipmem.run(tiny_recipe(*settings), tmp_path / "without")
    assert without.summary.dejavu is None  # no pair has an object: nothing to measure, nothing to say
    assert not (without.path / "evaluate" / "dejavu.json").exists()
    uids = without.pairs["uid"].to_list()
    files = {name: str(tmp_path / f"{name}.parquet") for name in ("objects", "wrong")}
    hostile = '<script>alert("cat")</script>'
    pl.DataFrame({"uid": uids, "objects": [f"{hostile},{i % 3}" for i in range(40)]}).write_parquet(files["objects"])
    own = (*settings, f"dejavu.objects={files['objects']}")
    run = clipmem.run(tiny_recipe(*own, "dejavu.neighbors=3"), tmp_path / "with")
    found = run.summary.dejavu
    assert (found["objects"]["names"], found["floor"]) == (4, None)
    assert "needs two seeds" in run.report.read_text(encoding="utf-8")
    assert hostile not in run.report.read_text(encoding="utf-8")
    # nothing else changed
    assert run.scores.equals(without.scores)
    # k > public: said in the document, the study goes through
    few = clipmem.run(tiny_recipe(*own, "dejavu.neighbors=13"), tmp_path / "few").summary.dejavu
    assert few["skipped"].startswith("dejavu.neighbors = 13 is more than the 12 held-out images")
    # a wrong file is refused before anything is made
    pl.DataFrame({"uid": ["0" * 32], "objects": ["x"]}).write_parquet(files["wrong"])
    with pytest.raises(InputError, match="unknown uid"):
        clipmem.run(tiny_recipe(*settings, f"dejavu.objects={files['wrong']}"), tmp_path / "refused")
    assert not (tmp_path / "refused").exists()
