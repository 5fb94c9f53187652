"""The examples run as they stand, with their quick flag, and the noise in them does something."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LINE = re.compile(r"(\d+) steps; loss ([0-9.]+) at the start, ([0-9.]+) at the end")


def run(name, *arguments):
    done = subprocess.run(
        [sys.executable, ROOT / "examples" / name, "--quick", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    steps, first, last = LINE.search(done.stdout).groups()
    return int(steps), float(first), float(last)


def test_plain_loop(finished):
    steps, first, _ = run("plain_loop.py", "--std", 0)
    assert steps == 4
    assert 3 < first < 5  # log 64 = 4.2 at chance
    _, noisy, _ = run("plain_loop.py", "--std", 2.0, "--remove", finished.path, "--count", 3)
    assert noisy > first + 1


def test_open_clip_trainer():
    for package in ("pandas", "webdataset"):
        pytest.importorskip(package, reason="open_clip's trainer needs the extra `bench`: pip install 'clipmem[bench]'")
    steps, first, _ = run("open_clip_trainer.py", "--std", 0)
    assert steps == 4
    assert 3 < first < 5
    _, noisy, _ = run("open_clip_trainer.py", "--std", 2.0)
    assert noisy > first + 1
