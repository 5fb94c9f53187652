"""experiments/utility/RESULTS.md shows what the stored runs give; docs/metrics.md names the metrics that there are."""

from pathlib import Path

import polars as pl
import pytest

from clipmem.report.run import PRIMARY
from tests.scripts import load_script

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def power():
    return load_script(ROOT / "experiments" / "utility" / "power.py")


def test_the_results_have_the_table_and_words_of_the_stored_runs(power):
    table = power.table(pl.read_parquet(ROOT / "experiments" / "reproduce" / "redundant" / "runs.parquet"))
    page = power.PAGE.read_text(encoding="utf-8")
    assert f"<!-- power: redundant -->\n{table}\n<!-- end -->" in page
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines() if line.startswith("|")]
    rows = {name: values for name, *values in cells}
    sharp, plain = (rows[name] for name in ("mean memorization", "mean CLIPMem of candidates"))
    assert round(float(plain[1]) / float(sharp[1])) == 8  # "about eight times"
    assert round(100 * float(sharp[3]) / float(sharp[0])) == 2  # "a change of 2%"


def test_the_page_names_the_metrics_that_decide():
    page = " ".join((ROOT / "docs" / "metrics.md").read_text(encoding="utf-8").split())
    first, second, third = PRIMARY
    assert f"the first of these metrics that all runs have: `{first}`, `{second}`, `{third}`" in page
