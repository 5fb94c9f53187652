"""docs/mitigate.md shows what the kept measurements of acting on wrong captions give."""

import importlib.util
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROWS = json.loads((ROOT / "experiments" / "curate" / "acting.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def acting():
    spec = importlib.util.spec_from_file_location("acting", ROOT / "experiments" / "curate" / "acting.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_has_the_tables_of_the_kept_rows(acting):
    page = (ROOT / "docs" / "mitigate.md").read_text(encoding="utf-8")
    for table in (acting.by_rate(ROWS), acting.by_method(ROWS)):
        assert f"-->\n{table}\n<!-- end -->" in page


def test_the_rows_agree(acting):
    found = {(row["kind"], row["rate"], row["method"]): row for row in ROWS}
    for (kind, rate, method), row in found.items():
        nothing, oracle = found[kind, rate, "everything"], found.get((kind, rate, "oracle"))
        assert row["seeds"] == 8
        assert row["gain"] == pytest.approx(row["recall"] - nothing["recall"])
        if method != "everything" and oracle is not None:
            assert row["share"] == pytest.approx(row["gain"] / oracle["gain"])
            low, high = row["gain_interval"]
            assert low < row["gain"] < high
