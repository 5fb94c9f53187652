"""Twenty kills of one tiny study at random moments, twenty times the bytes of the undisturbed one (slow)."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from clipmem.base.folder import RunFolder
from clipmem.base.recipes import dump_recipe
from tests.e2e.running import ends_well, start
from tests.e2e.test_study import contents
from tests.tiny import tiny_recipe

KILLS = int(os.environ.get("CLIPMEM_KILLS", "20"))
SEED = int(os.environ.get("CLIPMEM_KILLS_SEED", "0"))


def stage_of(folder):
    """The finished stages, and the models that are finished within an unfinished one."""
    stages = sorted((folder.path / "stages").glob("*.json"), key=lambda file: file.stat().st_mtime_ns)
    return stages[-1].stem if stages else "nothing"


def killed(recipe, out, rng, duration):
    """Start a study and kill it at a uniformly random moment; one that ended before gives the next duration."""
    for attempt in range(10):
        folder = out.with_name(f"{out.name}-{attempt}")
        moment, started = rng.uniform(0, duration), time.monotonic()
        process = start(recipe, folder)
        try:
            process.communicate(timeout=moment)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            return moment, folder
        duration = time.monotonic() - started
    raise AssertionError("every study had ended before it was killed")


@pytest.mark.slow
def test_twenty_kills_at_random_moments(tmp_path, capsys):
    recipe = tmp_path / "study.toml"
    recipe.write_text(dump_recipe(tiny_recipe("train.seeds=[0]", "train.epochs=10")))
    started = time.monotonic()
    ends_well(start(recipe, tmp_path / "undisturbed"))
    duration = time.monotonic() - started
    expected = contents(tmp_path / "undisturbed")
    rng = np.random.default_rng(SEED)
    alike = 0
    with capsys.disabled():
        sys.stdout.write(f"\nundisturbed: {duration:.1f} s\n")
    for number in range(1, KILLS + 1):
        moment, out = killed(recipe, tmp_path / f"run-{number}", rng, duration)
        after = stage_of(RunFolder(out))
        ends_well(start(recipe, out))
        found = {name: data for name, data in contents(out).items() if not name.endswith(".tmp")}
        same = found == expected
        alike += same
        with capsys.disabled():  # one line a kill, at once: the whole takes minutes
            sys.stdout.write(
                f"kill {number:2} at {moment:5.1f} s, after {after}: {'same bytes' if same else 'OTHER BYTES'}\n"
            )
            sys.stdout.flush()
    assert alike == KILLS
