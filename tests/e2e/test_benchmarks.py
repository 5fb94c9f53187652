"""Every suite of the benchmarks runs, at its smallest: what it measures then means nothing (slow)."""

import json
import math
import re
import subprocess
import sys
from pathlib import Path

import pytest

RUN = Path(__file__).parents[2] / "benchmarks" / "run.py"
SUITES = re.findall(r'^    "(\w+)",$', RUN.read_text(encoding="utf-8"), flags=re.MULTILINE)


def test_every_suite_is_listed():
    assert set(SUITES) == {file.stem for file in RUN.with_name("suites").glob("*.py")} - {"__init__", "bare"}


@pytest.mark.slow
@pytest.mark.parametrize("suite", SUITES)
def test_a_suite_runs(suite, tmp_path):
    pytest.importorskip("pandas", reason="the extra bench is not installed")
    pytest.importorskip("webdataset", reason="the extra bench is not installed")
    result = tmp_path / "result.json"
    command = [sys.executable, RUN, "--suite", suite, "--smallest", "--json", result]
    done = subprocess.run(command, cwd=RUN.parents[1], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    document = json.loads(result.read_text(encoding="utf-8"))
    assert document["machine"]["cores"] > 0
    assert document["rows"]
    for row in document["rows"]:
        numbers = [row[name] for name in (("ratio", "ours", "theirs") if "ratio" in row else ("auroc", "precision"))]
        assert all(math.isfinite(number) and number > 0 for number in numbers), row
