"""A killed study leaves no process behind: what it had started ends with it, whatever that is doing.

Ten moments are `slow`: `pytest -m slow tests/e2e/test_survival_parent.py`.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from clipmem.base.recipes import dump_recipe
from tests.e2e.running import ends_well, start
from tests.tiny import tiny_recipe

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are listed through /proc")
PATIENCE = 5.0  # seconds until the last one must be gone
MOMENTS = 10
# a training that takes longer than any test
LONG = ("train.seeds=[0]", "train.epochs=20000")
# as many epochs as a recipe may have: the order of batches alone takes long to make, and nothing is said before
ABSURD = ("train.seeds=[0]", "train.epochs=100000")


def living():
    """Return parent, by process: the number and the time of its start, as numbers are used again. No zombies."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except (FileNotFoundError, ProcessLookupError):
                continue
            if fields[0] not in "ZX":
                found[int(entry.name), fields[19]] = int(fields[1])
    return found


def descendants(pid):
    now, wanted, found = living(), {pid}, set()
    while wanted:
        below = {one for one, parent in now.items() if parent in wanted}
        found |= below
        wanted = {number for number, _ in below}
    return found


def title(pid):
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def workers(pid):
    return [one for one, _ in descendants(pid) if "popen_loky" in title(one)]


def all_end_with(process, wanted=lambda title: True):
    """Kill a process alone, not its group; all that descend from it must end. Returns how many there were."""
    below = {one for one in descendants(process.pid) if wanted(title(one[0]))}
    os.kill(process.pid, signal.SIGKILL)
    until = time.monotonic() + PATIENCE
    process.wait()
    while left := below & living().keys():
        if time.monotonic() > until:
            names = [title(pid) for pid, _ in left]
            for pid, _ in left:
                os.kill(pid, signal.SIGKILL)
            raise AssertionError(f"still alive after {PATIENCE} s: {names}")
        time.sleep(0.05)
    process.stderr.close()
    return len(below)


def wait_for(process, condition):
    until = time.monotonic() + 240
    while not condition():
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < until
        time.sleep(0.02)


def recipe_of(folder, *settings):
    file = folder / "study.toml"
    file.write_text(dump_recipe(tiny_recipe(*settings)))
    return file


@pytest.fixture
def begin(tmp_path):
    """Start a study of these settings; whatever a failed test leaves of it is killed."""
    begun = []

    def start_one(*settings, more=(), **options):
        begun.append(start(recipe_of(tmp_path, *settings), tmp_path / "run", *more, **options))
        return begun[0]

    yield start_one
    for process in begun:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        process.stderr.close()


@pytest.mark.slow
def test_a_long_training_ends_with_its_parent(begin, tmp_path):
    process = begin(*LONG, every=1)
    wait_for(process, lambda: list(tmp_path.glob("run/models/*/*/checkpoint.safetensors")))
    assert all_end_with(process)


@pytest.mark.slow
@pytest.mark.parametrize("delay", [0.0, 15.0])
def test_workers_that_have_not_begun_to_train_end_with_their_parent(begin, delay):
    process = begin(*ABSURD)
    wait_for(process, lambda: workers(process.pid))
    time.sleep(delay)  # they import torch; then they prepare the training
    assert all_end_with(process)


def test_a_step_that_takes_long_is_not_waited_for():
    # it takes the signal as a training does, only to look at it when its step is done
    work = (
        "import hashlib, os, signal, sys; from clipmem.study import child; signal.signal(signal.SIGTERM, lambda *_: 0);"
        "child.watch(int(sys.argv[1])); print('at work', flush=True); hashlib.pbkdf2_hmac('sha256', b'', b'', 10**9)"
    )
    parent = subprocess.Popen(
        [
            sys.executable,
            "-c",
            f"import os, subprocess, sys;subprocess.run([sys.executable, '-c', {work!r}, str(os.getpid())])",
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert parent.stdout.readline() == "at work\n"
    assert all_end_with(parent) == 1
    parent.stdout.close()


def threads(pid):
    return len(list(Path(f"/proc/{pid}/task").iterdir()))


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["start-up", "training"])
def test_processes_of_torchrun_end_with_it(tmp_path, moment):
    recipe, out = recipe_of(tmp_path, *LONG), tmp_path / "run"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    process = subprocess.Popen(
        [*command, "-m", "clipmem", "run", str(recipe), "--out", str(out)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "CLIPMEM_CHECKPOINT_SECONDS": "1"},
    )
    wait_for(process, lambda: len(descendants(process.pid)) == 2)
    # a process that has a second thread watches; torch has more
    wait_for(process, lambda: all(threads(pid) > 1 for pid, _ in descendants(process.pid)))
    if moment == "training":
        wait_for(process, lambda: list(out.glob("models/f/*/checkpoint.safetensors")))
    assert all_end_with(process) == 2


@pytest.mark.slow
def test_tasks_of_ray_end_with_the_command(begin, tmp_path):
    pytest.importorskip("ray", reason="the extra `ray` is not installed")
    process = begin(*LONG, more=("--engine", "ray"), every=1)
    wait_for(process, lambda: list(tmp_path.glob("run/models/*/*/checkpoint.safetensors")))
    # Ray's own agents take some seconds more
    assert all_end_with(process, lambda title: title.startswith("ray::train ")) >= 1


@pytest.mark.slow
def test_ten_moments_of_a_study(tmp_path, capsys):
    recipe = recipe_of(tmp_path, "train.seeds=[0]", "train.epochs=60", "embed.views=10")
    began = time.monotonic()
    ends_well(start(recipe, tmp_path / "undisturbed"))
    duration, rng, met = time.monotonic() - began, np.random.default_rng(0), []
    for k in range(MOMENTS):
        out = tmp_path / f"run-{k}"
        moment = duration * (k + rng.random()) / (MOMENTS + 1)
        began, process = time.monotonic(), start(recipe, out)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(moment)
        if process.poll() is not None:  # the machine was busier during the undisturbed run
            ends_well(process)
            duration = time.monotonic() - began
            met.append(0)
            continue
        count = all_end_with(process)
        met.append(count)
        with capsys.disabled():
            done = sorted(file.stem for file in out.glob("stages/*.json"))
            sys.stdout.write(f"\nkilled at {moment:4.1f} of {duration:4.1f} s, {count} children, done: {done}")
    assert sum(count > 0 for count in met) >= 2  # some of the moments fell into the training
    assert 0 in met  # and some before or after it
