"""Twenty kills of one tiny study at random moments, twenty times the bytes of the undisturbed one (slow)."""

import os
import signal
import sys
import time

import numpy as np
import pytest

from clipmem.base.recipes import dump_recipe
from clipmem.store.folder import RunFolder
from clipmem.testing.tiny import tiny_recipe
from tests.e2e.test_study import contents
from tests.e2e.test_survival import start

KILLS = int(os.environ.get("CLIPMEM_KILLS", "20"))
SEED = int(os.environ.get("CLIPMEM_KILLS_SEED", "0"))


def stage_of(folder):
    """The finished stages, and the models that are finished within an unfinished one."""
    stages = sorted((folder.path / "stages").glob("*.json"), key=lambda file: file.stat().st_mtime_ns)
    return stages[-1].stem if stages else "nothing"


@pytest.mark.slow
def test_twenty_kills_at_random_moments(tmp_path, capsys):
    recipe = tmp_path / "study.toml"
    recipe.write_text(dump_recipe(tiny_recipe("train.seeds=[0]", "train.epochs=10")))
    started = time.monotonic()
    process = start(recipe, tmp_path / "undisturbed")
    complaints = process.communicate()[1]
    assert process.returncode == 0, complaints
    duration = time.monotonic() - started
    expected = contents(tmp_path / "undisturbed")
    moments = np.random.default_rng(SEED).uniform(0, duration, size=KILLS)
    alike = 0
    with capsys.disabled():
        sys.stdout.write(f"\nundisturbed: {duration:.1f} s\n")
    for number, moment in enumerate(moments, start=1):
        out = tmp_path / f"run-{number}"
        process = start(recipe, out)
        time.sleep(moment)
        running = process.poll() is None
        if running:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        after = stage_of(RunFolder(out))
        again = start(recipe, out)
        complaints = again.communicate()[1]
        assert again.returncode == 0, complaints
        found = {name: data for name, data in contents(out).items() if not name.endswith(".tmp")}
        same = found == expected
        alike += same
        with capsys.disabled():  # one line a kill, at once: the whole takes minutes
            sys.stdout.write(
                f"kill {number:2} at {moment:5.1f} s{'' if running else ' (had ended)'}, after {after}: "
                f"{'same bytes' if same else 'OTHER BYTES'}\n"
            )
            sys.stdout.flush()
    assert alike == KILLS
