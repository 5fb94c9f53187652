"""What UnitMem takes beside the model: the script behind the number in experiments/validation/RESULTS.md."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "experiments" / "localize" / "memory.py"


def measured(*arguments):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, SCRIPT, *arguments], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.slow
def test_the_script_passes_every_view_once():
    found = measured("--model", "clipmem-micro", "--pairs", "30", "--views", "2")
    assert found["images_per_pair"] == 3.0
    assert found["units"] > 0
    assert 0 <= found["extra_mib"] < 1024
    assert found["peak_mib"] >= found["loaded_mib"] > 100


def test_the_documented_numbers_are_the_measured_ones():
    found = json.loads((ROOT / "experiments" / "localize" / "memory.json").read_text(encoding="utf-8"))
    assert (found["model"], found["pairs"], found["views"]) == ("ViT-B-32", 1000, 10)
    assert found["images_per_pair"] == 11.0
    assert found["extra_mib"] < 1024
    text = (ROOT / "experiments" / "validation" / "RESULTS.md").read_text(encoding="utf-8")
    assert f"**{found['extra_mib']:.0f} MiB**" in text
    assert f"{found['units']:,} units" in text
    assert f"{found['seconds']:,.0f} s with one thread" in text


@pytest.mark.slow
def test_a_large_model_takes_less_than_a_gib_beside_itself():
    """A tenth of the documented pairs: only the pages of decoded pixels grow with their number."""
    found = measured("--model", "ViT-B-32", "--pairs", "100", "--views", "10")
    assert found["parameters"] > 150_000_000
    assert found["images_per_pair"] == 11.0
    pages = 900 * 224 * 224 * 3 / 2**20  # of the other pairs
    assert found["extra_mib"] + pages < 1024
