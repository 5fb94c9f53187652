"""Three paradigms, tiny but real: trained, localized over the same views and compared; and the refusals.

Takes minutes: `pytest -m slow tests/e2e/test_side_by_side.py`.
"""

import json
import re
import shutil
import tomllib

import polars as pl
import pytest

import clipmem
from clipmem.base.errors import InputError
from clipmem.base.folder import RunFolder
from clipmem.report.curves import CURVES_SCHEMA
from clipmem.study.localizing import localize_run
from tests.e2e.running import clip
from tests.tiny import tiny_recipe

pytestmark = pytest.mark.slow
OWN = ("localize.crop=own", "localize.views=2", "localize.pairs=8")
ONE_TOWER = ("score.alignment=sslmem-image", "embed.views=2")
STUDIES = {
    "clip": (),
    "supervised": ("train.objective=supervised", *ONE_TOWER),
    "simclr": ("train.objective=simclr", "train.crop_scale=[0.3, 1.0]", "train.color=0.5", *ONE_TOWER),
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    root = tmp_path_factory.mktemp("paradigms")
    for name, settings in STUDIES.items():
        clipmem.run(tiny_recipe(*settings, *OWN), root / name)
        localize_run(root / name)
    return root


@pytest.fixture
def copied(runs, tmp_path):
    for name in STUDIES:
        shutil.copytree(runs / name, tmp_path / name)
    return tmp_path


def test_a_text_tower_that_was_not_trained_is_left_out_with_its_reason(runs):
    for name in ("supervised", "simclr"):
        folder = runs / name
        assert set(pl.read_parquet(folder / "localize" / "units.parquet")["tower"]) == {"image"}
        assert set(pl.read_parquet(folder / "localize" / "layers.parquet")["tower"]) == {"image"}
        assert not list((folder / "localize").glob("towers.*"))
        reason = f"objective '{name}' trains no text tower: f and g have the same initial one"
        settings = json.loads((folder / "localize" / "settings.json").read_text())
        assert (settings["towers"], settings["untrained_text"]) == (["image"], reason)
        text = clip("localize", folder).stdout
        said = f"The text tower and the tower swap are left out: {reason}."
        assert said in " ".join(text.split())
        page = (folder / "report" / "index.html").read_text(encoding="utf-8")
        assert said.replace("'", "&#39;") in page
        assert "Shares of the towers" not in page
    assert set(pl.read_parquet(runs / "clip" / "localize" / "units.parquet")["tower"]) == {"image", "text"}
    assert (runs / "clip" / "localize" / "towers.parquet").is_file()


def test_all_three_are_localized_over_the_same_pairs_and_views(runs):
    found = [json.loads((runs / name / "localize" / "settings.json").read_text()) for name in STUDIES]
    for name in ("views", "points_sha256"):
        assert found[0][name] == found[1][name] == found[2][name]
    views = found[2]["views"]  # not those that SimCLR was trained with
    assert (views["crop_scale"], views["flip"], views["views"]) == ([0.9, 1.0], 0.0, 2)


def test_side_by_side_writes_the_curves_and_the_answer_into_the_page(copied):
    before = {file: file.stat().st_mtime_ns for file in (copied / "clip" / "localize").glob("*.parquet")}
    done = clip("localize", copied / "clip", "--compare-with", copied / "supervised", copied / "simclr")
    assert done.returncode == 0, done.stderr
    # not measured again
    assert {file: file.stat().st_mtime_ns for file in before} == before
    curves = pl.read_parquet(copied / "clip" / "localize" / "side_by_side.parquet")
    assert curves.schema == CURVES_SCHEMA
    assert curves["run"].unique(maintain_order=True).to_list() == ["CLIP", "supervised", "SimCLR"]
    units = pl.read_parquet(copied / "simclr" / "localize" / "units.parquet")
    own = units.filter(
        (pl.col("side") == "g") & (pl.col("seed") == 1) & (pl.col("kind") == "mlp") & (pl.col("layer") == 2)
    )
    row = curves.filter(
        (pl.col("run") == "SimCLR")
        & (pl.col("side") == "g")
        & (pl.col("seed") == 1)
        & (pl.col("kind") == "mlp")
        & (pl.col("layer") == 2)
    )
    assert row["unitmem"].item() == pytest.approx(own["unitmem"].mean())
    document = json.loads((copied / "clip" / "localize" / "side_by_side.json").read_text())
    assert len(document["between"]) == 4
    assert [run["presentations"] for run in document["runs"]] == [160, 160, 160]
    assert [run["views_a_presentation"] for run in document["runs"]] == [1, 1, 2]
    assert document["runs"][1]["differs"] == {}
    assert document["runs"][2]["differs"] == {"train.crop_scale": [[0.9, 1.0], [0.3, 1.0]], "train.color": [0.0, 0.5]}
    for name in ("supervised", "simclr"):  # the page stands alone
        shutil.rmtree(copied / name)
    assert clip("view", copied / "clip", "--report").returncode == 0
    page = (copied / "clip" / "report" / "index.html").read_text(encoding="utf-8")
    assert "Is CLIP between supervised and SimCLR in MLP units?" in page
    assert "Is CLIP between supervised and SimCLR in MLP units?" in " ".join(done.stdout.split())
    assert "SimCLR differs from CLIP in train.crop_scale" in page
    # measured over other views, the old comparison is no more
    assert clip("localize", copied / "clip", "--views", "3").returncode == 0
    assert not list((copied / "clip" / "localize").glob("side_by_side.*"))


def refused(root, what, got, *others):
    with pytest.raises(InputError) as error:
        localize_run(root / "clip", compare_with=[root / name for name in others or ("supervised",)])
    assert error.value.what.replace(str(root), "ROOT").endswith(what)
    assert re.fullmatch(got, error.value.got.replace(str(root), "ROOT")), error.value.got
    assert not (root / "clip" / "localize" / "side_by_side.json").exists()


def edit(path, **changes):
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_runs_that_do_not_compare_are_refused(copied):
    folder, other = RunFolder(copied / "supervised"), copied / "supervised"
    refused(copied, "--compare-with", r"\['ROOT/clip'\] twice", "clip")
    kept = {name: (other / name).read_bytes() for name in ("manifest.json", "splits.parquet", "recipe.toml")}
    edit(other / "manifest.json", data_sha256="0" * 64)
    refused(copied, "run folder ROOT/supervised: different data", "0{16}")
    (other / "manifest.json").write_bytes(kept["manifest.json"])
    folder.write("splits", folder.read("splits").with_columns(planted=~pl.col("planted")))
    refused(copied, "different split", r"120 pairs, \w+")
    (other / "splits.parquet").write_bytes(kept["splits.parquet"])
    text = kept["recipe.toml"].decode()
    assert tomllib.loads(text)["train"]["seeds"] == [0, 1]
    (other / "recipe.toml").write_text(text.replace("clipmem-micro", "clipmem-tiny"))
    refused(copied, "different architecture", "clipmem-tiny")
    (other / "recipe.toml").write_text(text.replace("seeds = [0, 1]", "seeds = [0]"))
    refused(copied, "different seeds", r"\[0\]")
    (other / "recipe.toml").write_bytes(kept["recipe.toml"])
    record = other / "models" / "f" / "seed-0" / "record.json"
    edit(record, presentations=80)
    refused(copied, "different presentations of pairs per model", "80")
    edit(record, presentations=160)
    localize_run(other, pairs=6)
    refused(copied, "different pairs of UnitMem", r"\w{16}")
    localize_run(other, views=3)
    refused(copied, "different views", r"\{'views': 3\}")
    (other / "stages" / "localize.json").unlink()
    refused(copied, "run folder ROOT/supervised", "a run that is not localized")
    shutil.copytree(copied / "clip", copied / "more" / "clip")
    refused(copied, "--compare-with", ".*CLIP .clip.*CLIP .clip.*", "more/clip")
