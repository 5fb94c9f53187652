"""Killed at any moment, a study that is run again ends with the bytes of an undisturbed one.

Most moments are `slow`: `pytest -m slow tests/e2e/test_survival.py`.
"""

import os
import re
import signal
import subprocess
import time

import pytest

from clipmem.base.folder import RunFolder
from clipmem.report.run import STAGES
from tests.e2e.running import clip, start, undisturbed_study
from tests.e2e.test_study import contents

STUDY = ("train.seeds=[0]", "train.epochs=12")
CHECKPOINT = "models/*/*/checkpoint.safetensors"


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    return undisturbed_study(tmp_path_factory.mktemp("undisturbed"), STUDY)


def resumed(recipe, out):
    """Run the study again, in this process; return what it wrote to stderr."""
    done = clip("run", recipe, "--out", out)
    assert done.returncode == 0, done.stderr
    return done.stderr


# the stage whose marker must be there before the kill, and how long after it
@pytest.mark.slow
@pytest.mark.parametrize(
    ("after", "delay"),
    [
        (None, 1.0),
        ("decode", 0.0),
        ("plan", 0.3),
        ("plan", 3.0),
        ("train-f-seed-0", 0.1),
        ("train", 0.05),
        ("embed", 0.0),
    ],
)
def test_killed_and_run_again(undisturbed, tmp_path, after, delay):
    recipe, expected = undisturbed
    out = tmp_path / "run"
    process = start(recipe, out)
    deadline = time.monotonic() + 120
    while after and not RunFolder(out).marker(after).is_file():
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.005)
    time.sleep(delay)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    resumed(recipe, out)
    found = {name: data for name, data in contents(out).items() if not name.endswith(".tmp")}
    assert found == expected


def wait_for_a_checkpoint(process, out):
    deadline = time.monotonic() + 300
    while not list(out.glob(CHECKPOINT)):
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.002)


@pytest.mark.parametrize("delay", [0.0, 0.4])
@pytest.mark.slow
def test_killed_between_checkpoints_and_run_again(undisturbed, tmp_path, delay):
    recipe, expected = undisturbed
    out = tmp_path / "run"
    process = start(recipe, out, every=0)
    wait_for_a_checkpoint(process, out)
    time.sleep(delay)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    resumed(recipe, out)
    assert contents(out) == expected  # without a checkpoint, or a half-written one


@pytest.mark.slow
def test_ctrl_c_at_a_terminal_keeps_the_state_and_the_run_goes_on(undisturbed, tmp_path):
    recipe, expected = undisturbed
    out = tmp_path / "run"
    process = start(recipe, out, every=0)
    wait_for_a_checkpoint(process, out)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the whole group
    stderr = process.communicate(timeout=120)[1]
    assert process.returncode == 130
    assert stderr.strip().splitlines()[-1] == ("clipmem: stopped. Run the same command again: finished parts are used.")
    assert "Traceback" not in stderr
    assert list(out.glob(CHECKPOINT))
    alive = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    assert str(out) not in alive
    resumed(recipe, out)
    assert contents(out) == expected


@pytest.mark.slow
def test_ctrl_c_in_every_stage_in_turn(undisturbed, tmp_path):
    recipe, expected = undisturbed
    out = tmp_path / "run"
    for before in (None, *STAGES[:-1]):
        process, told = start(recipe, out), ""
        if before is None:
            while not (out / "manifest.json").is_file():
                assert process.poll() is None, process.stderr.read()
                time.sleep(0.002)
        while before and not re.match(rf"{before} +([0-9.]+ s|done before)$", told):
            told = process.stderr.readline()
            assert told, f"{before} never ended"
        os.killpg(process.pid, signal.SIGINT)
        stderr = process.communicate(timeout=120)[1]
        assert process.returncode == 130, stderr
        said = [line for line in stderr.splitlines() if not line.startswith("read ")]  # how long, on a slow machine
        assert len(said) == 1
        assert said[0].startswith("clipmem: stopped. ")
        assert sum(RunFolder(out).is_done(stage) for stage in STAGES) == (STAGES.index(before) + 1 if before else 0)
        assert not list(out.rglob("*.tmp"))
    resumed(recipe, out)
    assert contents(out) == expected


@pytest.mark.slow
def test_an_interrupt_ends_the_workers_and_says_how_to_go_on(undisturbed, tmp_path):
    recipe, _ = undisturbed
    out = tmp_path / "run"
    process = start(recipe, out)
    while not RunFolder(out).marker("plan").is_file():
        time.sleep(0.005)
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    stderr = process.communicate(timeout=60)[1]
    assert process.returncode == 130
    assert "stopped. Run the same command again: finished parts are used." in stderr
    assert "Traceback" not in stderr
    alive = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    assert str(out) not in alive
