"""`report.run.Run`: a run folder is read once, by name, and its summary by attribute or by key."""

import json
from collections.abc import Callable

import polars as pl
import pytest
from tests.report.run_folder import Built

from clipmem.base.errors import InputError
from clipmem.report.run import Run


def test_the_summary_is_the_file_by_attribute_or_by_key(two_seeds: Built) -> None:
    summary = Run(two_seeds.folder).summary
    assert summary == two_seeds.summary
    assert summary.roles["candidate"].mean == summary["roles"]["candidate"]["mean"]
    assert summary.noise_floor is not None
    assert dict(summary.noise_floor) == two_seeds.summary["noise_floor"]
    assert (summary.dejavu, "dejavu" in summary, summary.get("dejavu", 1)) == (None, False, 1)
    with pytest.raises(KeyError):
        _ = summary["dejavu"]


@pytest.mark.parametrize(
    ("change", "got"),
    [
        ({"seeds": "0"}, "seeds = '0'"),
        ({"roles": {"candidate": {"n": 3, "low": 0.1, "high": 0.2}}}, "no roles.candidate.mean"),
        ({"noise_floor": {"center": 0.1, "half_width": [0.2], "confidence": 0.95}}, "noise_floor.half_width"),
    ],
)
def test_a_field_of_another_type_is_refused(build: Callable[..., Built], change: dict[str, object], got: str) -> None:
    built = build(seeds=(0,))
    (built.folder / "summary.json").write_text(json.dumps({**built.summary, **change}), encoding="utf-8")
    with pytest.raises(InputError) as error:
        _ = Run(built.folder).summary
    assert error.value.what == str(built.folder / "summary.json")
    assert error.value.got.startswith(got)
    assert error.value.expected
    assert error.value.hint


def test_an_older_format_names_the_version_that_reads_it(build: Callable[..., Built]) -> None:
    built = build(seeds=(0,))
    (built.folder / "summary.json").write_text(json.dumps({**built.summary, "format": 1}), encoding="utf-8")
    with pytest.raises(InputError) as error:
        _ = Run(built.folder).summary
    assert error.value.got == "format 1, made by clipmem 0.1.0"
    assert "clipmem 0.1.0" in error.value.hint


def test_a_table_is_read_once(build: Callable[..., Built]) -> None:
    built = build(seeds=(0,))
    run = Run(built.folder)
    assert (run.has("scores"), run.has("localize/units")) == (True, False)
    first = run.scores
    (built.folder / "scores.parquet").unlink()
    assert run.table("scores") is first
    assert not Run(built.folder).has("scores")
    assert run.uids("candidate") == set(built.scores.filter(pl.col("role") == "candidate")["uid"])
    assert run.document("evaluate/utility.json") == {}
