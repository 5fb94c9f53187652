"""The examples run as they stand, with their quick flag, and the noise in them does something."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

ROOT = Path(__file__).parents[2]
LINE = re.compile(r"(\d+) steps; loss ([0-9.]+) at the start, ([0-9.]+) at the end")
AVERAGE = re.compile(r"the average is ([0-9.]+) from the last weights")
LOUD = 2.0  # logits with a standard deviation of 28: no loss without noise is near the one with it


def output(name, *arguments):
    done = subprocess.run(
        [sys.executable, ROOT / "examples" / name, "--quick", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def run(name, *arguments):
    steps, first, last = LINE.search(output(name, *arguments)).groups()
    return int(steps), float(first), float(last)


def test_plain_loop(finished, monkeypatch):
    steps, first, last = run("plain_loop.py", "--std", LOUD, "--remove", finished.path, "--count", 3)
    assert steps == 4
    assert first < 8  # the noise starts after a third of the steps
    assert last > 15
    monkeypatch.syspath_prepend(ROOT / "examples")
    import plain_loop

    with torch.random.fork_rng(devices=[]):
        losses = plain_loop.main(["--quick"])
    assert len(losses) == 4
    assert all(3 < loss < 8 for loss in losses)  # log 64 = 4.2 at chance


def test_open_clip_trainer(tmp_path):
    for package in ("pandas", "webdataset"):
        pytest.importorskip(package, reason="open_clip's trainer needs the extra `bench`: pip install '.[bench]'")
    steps, first, last = run("open_clip_trainer.py", "--std", LOUD, "--record", tmp_path / "record.npz")
    assert steps == 4
    assert first < 8
    assert last > 15
    check_record(tmp_path / "record.npz")


def test_open_clip_trainer_with_reweighting(tmp_path):
    for package in ("pandas", "webdataset"):
        pytest.importorskip(package, reason="open_clip's trainer needs the extra `bench`: pip install '.[bench]'")
    steps, first, last = run("open_clip_trainer.py", "--reweight", 0.4, "--record", tmp_path / "record.npz")
    assert steps == 4
    assert last < first
    check_record(tmp_path / "record.npz")


def test_the_average_of_an_optimizer_is_that_of_a_loop(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "examples")
    import averaging

    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(model.parameters(), 0.1)
    averaged, by_hand = averaging.average(model, optimizer, 0.75), model.weight.detach().clone()
    for step in range(4):
        model(torch.full((1, 3), float(step))).square().sum().backward()
        optimizer.step()
        by_hand = 0.75 * by_hand + 0.25 * model.weight.detach()
    torch.testing.assert_close(averaged.module.weight.detach(), by_hand)
    assert averaging.distance(averaged, model) > 0


@pytest.mark.parametrize("name", ["open_clip_trainer.py", "transformers_trainer.py"])
def test_trainers_with_an_average(name):
    for package in ("pandas", "webdataset") if name.startswith("open") else ("transformers", "accelerate"):
        pytest.importorskip(package, reason="needs the extra `bench`, or `hf` and accelerate")
    at_once, later = (float(AVERAGE.search(output(name, "--average", decay))[1]) for decay in (0, 0.9))
    assert at_once == 0 < later


def test_reweighting():
    steps, first, last = run("reweighting.py")
    assert steps == 4
    assert last < first


def check_record(file):
    """All 128 pairs were recorded in both epochs."""
    with np.load(file) as record:
        assert record["margin"].shape == (2, 128) == record["similarity"].shape
        assert not np.isnan(record["margin"]).any()
        # the margin is the similarity minus that of the best other pair, which can be negative
        best = record["similarity"] - record["margin"]
        assert np.abs(record["similarity"]).max() <= 1.001
        assert np.abs(best).max() <= 1.001
        assert best.any()
        assert len(set(record["uids"].tolist())) == 128
        assert record["similarity"].std(1).min() > 0


@pytest.mark.parametrize("share", [0.0, 0.4])
def test_transformers_trainer(tmp_path, share):
    for package in ("transformers", "accelerate"):
        pytest.importorskip(package, reason="needs the extra `hf` and accelerate")
    steps, first, last = run("transformers_trainer.py", "--reweight", share, "--record", tmp_path / "record.npz")
    assert steps == 4
    assert last < first
    check_record(tmp_path / "record.npz")
