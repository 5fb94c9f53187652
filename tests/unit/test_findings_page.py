"""docs/findings.md shows the kept verdicts and nothing else, and these are what the kept measurements give."""

import importlib.util
import json
import re
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from scipy import stats
from tests.close import alike

from clipmem.analysis.findings import ORDER
from clipmem.base.recipes import load_recipe
from clipmem.functional import Claim, verdict
from clipmem.study.reproduce import base_recipe

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "experiments" / "reproduce"
KEPT = FOLDER / "laptop"


@pytest.fixture(scope="module")
def record():
    spec = importlib.util.spec_from_file_location("record", FOLDER / "record.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def document():
    return json.loads((KEPT / "findings.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def runs():
    return pl.read_parquet(KEPT / "runs.parquet")


def test_the_page_shows_what_is_kept(record, document, tmp_path, monkeypatch):
    page = tmp_path / "findings.md"
    page.write_text(record.PAGE.read_text(encoding="utf-8"), encoding="utf-8")
    before = page.read_text(encoding="utf-8")
    monkeypatch.setattr(record, "PAGE", page)
    monkeypatch.setattr(record, "IMAGES", tmp_path)
    record.write_page(KEPT)
    assert page.read_text(encoding="utf-8") == before
    figures = {file.name for file in tmp_path.glob("finding-*.svg")}
    assert figures == {f"finding-{one['finding']}.svg" for one in document["findings"]}
    for name in figures:
        assert (record.DOCS / "images" / name).is_file()


def test_there_is_a_place_for_every_finding(record):
    marks = re.findall(r"<!-- finding: ([\w-]+) -->", record.PAGE.read_text(encoding="utf-8"))
    assert sorted(marks) == sorted([*ORDER, "summary"])


def test_the_base_study_is_that_of_the_scale(document):
    recipe = load_recipe((KEPT / "base.toml").read_text(encoding="utf-8"))
    assert recipe == base_recipe("laptop", len(document["seeds"]))


def test_verdicts_are_those_of_the_primary_effects(document):
    assert document["primaries"] == len(document["findings"]) == len(ORDER)
    for one in document["findings"]:
        primary, *others = one["effects"]
        assert (primary["primary"], {other["primary"] for other in others}) in ((True, {False}), (True, set()))
        claim = Claim(**primary["claim"])
        assert one["holds"] == primary["holds"] == verdict(primary["low"], primary["high"], claim)


def test_effects_follow_from_the_kept_measurements_by_hand(document, runs):
    """Change of CLIPMem and of the probe by five captions, with Student's interval written out."""
    [finding] = [one for one in document["findings"] if one["finding"] == "captions"]
    effects = {one["measure"]: one for one in finding["effects"]}
    changed = "mitigate.captions.count=5"
    for name, measure in (
        ("5 captions: relative change of CLIPMem", "clipmem candidate"),
        ("5 captions: change of linear probe", "linear_probe_acc1"),
    ):
        rows = runs.filter(pl.col("measure") == measure).sort("seed")
        with_it = rows.filter(pl.col("settings") == changed)["value"].to_list()
        without = rows.filter(pl.col("settings") == "")["value"].to_list()
        scale = abs(sum(without) / len(without)) if "relative" in name else 1.0
        d = [(a - b) / scale for a, b in zip(with_it, without, strict=True)]
        mean = sum(d) / len(d)
        error = (sum((x - mean) ** 2 for x in d) / (len(d) - 1) / len(d)) ** 0.5
        found = effects[name]
        # the primary is judged together with those of the other findings
        assert found["primary"] == ("relative" in name)
        level = 1 - 0.05 / document["primaries"] if found["primary"] else 0.95
        half = stats.t.ppf((1 + level) / 2, len(d) - 1) * error
        assert np.allclose(
            [found["estimate"], found["low"], found["high"]], [mean, mean - half, mean + half], atol=1e-9
        )


@pytest.mark.slow
def test_a_recorded_run_gives_the_same_numbers_again(runs, tmp_path):
    """The base study from its recipe; another processor rounds otherwise."""
    import clipmem
    from clipmem.report.read import read_finished

    path = clipmem.run(KEPT / "base.toml", tmp_path / "run").path
    again = read_finished(path).memorization(read_finished(path).uids("candidate"))
    rows = runs.filter((pl.col("settings") == "") & (pl.col("measure") == "clipmem candidate")).sort("seed")
    assert alike(again, rows["value"].to_list())
