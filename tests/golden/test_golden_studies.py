"""Numbers of small studies are those on record (`python -m tests.golden`); and the comparison sees what it must."""

import copy
import json

import pytest

from tests.golden.__main__ import GOLDEN, compared
from tests.golden.digest import differences
from tests.golden.studies import compute, fine_tuned, formats, scored

RECORD = json.loads(GOLDEN.read_text(encoding="utf-8"))["studies"]


def test_formats_and_scores_are_those_on_record(tmp_path):
    made = RECORD | {"formats": formats(tmp_path / "formats"), "scored": scored(tmp_path)}
    assert compared(made) == []


@pytest.mark.slow
def test_shadow_models_of_a_fine_tuning_are_those_on_record(tmp_path):
    assert compared(RECORD | fine_tuned(tmp_path, ["halves"])) == []


@pytest.mark.slow
def test_all_studies_are_those_on_record(tmp_path):
    assert compared(compute(tmp_path)) == []


def changed(change):
    record = copy.deepcopy(RECORD)
    change(record["four-way"])
    return differences(RECORD, record, same_machine=True)


@pytest.mark.slow
def test_what_changed_is_seen():
    scores = "scores.parquet"

    def one_score(study):
        column = study["tables"][scores]["clipmem"]
        column[0], column[2] = "another", column[2] + 1e-4

    assert [line[:34] for line in changed(one_score)] == ["four-way: scores.parquet:clipmem: "]
    assert len(changed(lambda study: study["tables"].pop(scores))) == len(RECORD["four-way"]["tables"][scores])
    assert len(changed(lambda study: study["numbers"].pop(7))) == 1
    weights = next(iter(RECORD["four-way"]["weights"]))
    assert changed(lambda study: study["weights"].update({weights: "another"})) == [f"four-way: weights of {weights}"]


@pytest.mark.slow
def test_a_new_name_and_a_last_digit_are_no_change():
    def renamed(study):
        study["tables"]["scores.parquet"]["memorization"] = study["tables"]["scores.parquet"].pop("clipmem")

    def last_digit(study):
        column = study["tables"]["scores.parquet"]["clipmem"]
        column[0], column[2] = "another", column[2] + 1e-9
        study["numbers"] = [value * (1 + 1e-9) for value in study["numbers"]]

    assert changed(renamed) == changed(last_digit) == []
