"""The callbacks in a training by two processes: the same values and weights in both; a failure in one ends none."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

for _package in ("transformers", "accelerate"):
    pytest.importorskip(_package, reason="needs the extra `hf` and accelerate")

ROOT = Path(__file__).parents[2]


def train(out, *words):
    out.mkdir()
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m"]
    done = subprocess.run(
        [*launch, "tests.trained_by_two", out, *words], capture_output=True, text=True, check=False, cwd=ROOT,
        timeout=300, env={**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads((out / f"rank-{rank}.json").read_text()) for rank in (0, 1)], done.stderr


@pytest.mark.slow
def test_two_processes(tmp_path):
    (first, second), _ = train(tmp_path / "whole")
    assert first == second
    assert first["steps"] == 9
    assert first["recorded"] == 3 * 24  # of both processes
    assert min(first["weights"]) < 0.2
    assert [row["epoch"] for row in first["history"]] == [0, 1, 2, 3]
    (first, second), stderr = train(tmp_path / "broken", "--broken")
    assert first["steps"] == second["steps"] == 9
    assert first["history"] == second["history"] == []
    assert stderr.count("clipmem measures nothing more") == 1
