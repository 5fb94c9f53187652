"""What was decided before the runs: the sections of PLAN.md, deviations from them, and second looks."""

import hashlib
import json
import re
from pathlib import Path

import pytest

from clipmem_reproduce.finding import Context
from clipmem_reproduce.findings import FINDINGS
from clipmem_reproduce.findings.removal import Removal
from clipmem_reproduce.plan import PLANS, deviations, plan_changes, plan_hash
from clipmem_reproduce.reproduction import base_recipe, findings_of
from clipmem_reproduce.scales import SCALES

PLAN = Path(__file__).parents[1] / "PLAN.md"
PLANNED = [regime for regime, name in SCALES if name == "planned"]


def test_the_plan_names_what_is_planned_and_what_is_not():
    text = PLAN.read_text(encoding="utf-8")
    rules = text[text.index("Rules for all findings") : text.index("## Noise")]
    section = text[text.index("Noise on text embeddings (") : text.index("## Number of captions")]
    assert plan_hash("text-noise") == hashlib.sha256((rules + section).encode()).hexdigest()
    assert plan_hash("nothing") == ""
    for regime in PLANNED:
        scale = SCALES[regime, "planned"]
        assert scale.first >= 100  # earlier runs have the seeds 0 to 31
        assert all(f"(`{name}`)" in text for name in findings_of(scale))
        assert {*findings_of(scale), *scale.without} == set(FINDINGS)


def test_the_code_has_the_smallest_effects_of_the_plan():
    text = PLAN.read_text(encoding="utf-8")
    for name, finding in FINDINGS.items():
        [section] = re.findall(rf"^## .*\(`{name}`\)\n(.*?)(?=^## )", text, flags=re.MULTILINE | re.DOTALL)
        [(number, percent)] = re.findall(r"Smallest effect of interest\.\*\* (None|[\d.]*\d)(%?)", section)
        size = 0.0 if number == "None" else float(number) / (100 if percent else 1)
        assert finding.negligible == pytest.approx(size), name


def test_the_plan_of_a_regime_is_part_of_the_plan_of_its_findings(tmp_path):
    assert plan_hash("captions") == plan_hash("captions", "unique") != plan_hash("captions", "photographs")
    assert plan_hash("nothing", "photographs") == ""
    assert plan_changes(tmp_path, ["captions"], "photographs") == []
    assert plan_changes(tmp_path, ["captions"]) == ["the plan of captions was changed after its first run"]


def test_what_the_user_sets_is_a_deviation():
    scale = SCALES["redundant", "planned"]
    assert deviations(scale, None, ()) == deviations(scale, scale.seeds, ()) == []
    assert deviations(scale, 3, ["train.epochs=2"]) == ["3 seeds instead of 12", "set by the user: train.epochs=2"]
    assert deviations(SCALES["titles", "planned"], None, ["data.path=titles.parquet"]) == []  # it must be set


def test_a_plan_that_changes_after_its_first_run_is_a_deviation(tmp_path, monkeypatch):
    assert plan_changes(tmp_path, ["text-noise"]) == []
    stored = json.loads((tmp_path / PLANS).read_text(encoding="utf-8"))
    assert stored == {"text-noise": plan_hash("text-noise")}
    (tmp_path / PLANS).write_text(json.dumps({"text-noise": "another"}), encoding="utf-8")
    assert plan_changes(tmp_path, ["captions", "text-noise"]) == [
        "the plan of text-noise was changed after its first run"
    ]
    stored = json.loads((tmp_path / PLANS).read_text(encoding="utf-8"))
    assert stored == {"captions": plan_hash("captions"), "text-noise": "another"}  # the first one is kept


def test_a_second_look_has_seeds_of_its_own_and_a_level_for_two_looks():
    first, second = (
        Context(SCALES["redundant", name], base_recipe(name, "redundant")) for name in ("planned", "repeated")
    )
    runs = [Removal().runs(where) for where in (first, second)]
    seeds = [
        {run.study["split.seed"] for spec in specs.values() for run in where.replicates(spec)}
        for where, specs in zip((first, second), runs, strict=True)
    ]
    assert not seeds[0] & seeds[1]
    replicates = {name: len(second.replicates(spec)) for name, spec in runs[1].items()}
    assert replicates == {
        "main design, nothing removed": 60, "main design, removed by CLIPMem": 60, "main design, removed by random": 12,
        "main design, removed by low A(g)": 6, "main design, removed by the oracle": 6,
        "equal steps, removed by CLIPMem": 6,
    }  # fmt: skip
    assert findings_of(second.scale) == findings_of(first.scale)  # the level of one is that of all
    assert set(second.scale.looks.values()) == {2}
    assert plan_hash("removal", "redundant", "repeated") != plan_hash("removal", "redundant", "planned")
    section = PLAN.read_text(encoding="utf-8").partition("(`repeated`)")[2]
    assert f"two looks: {1 - 0.05 / len(findings_of(second.scale)) / 2:.2%}." in section
