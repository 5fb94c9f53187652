"""Studies in processes of their own: started, waited for, and made once to compare others with."""

import os
import subprocess
import sys

from clipmem.base.progress import Quiet
from clipmem.base.recipes import dump_recipe
from clipmem.testing.tiny import tiny_recipe
from tests.e2e.test_study import contents


def start(recipe, out, *more, every=60, python=(), environment=None):
    """Start `clipmem run` in a process group of its own."""
    return subprocess.Popen(
        [sys.executable, *python, "-m", "clipmem", "run", str(recipe), "--out", str(out), *more],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
        text=True,
        env={**(environment or os.environ), "CLIPMEM_CHECKPOINT_SECONDS": str(every)},
    )


def ends_well(process):
    """Wait for a process; it must succeed. Returns what it wrote to stderr."""
    stderr = process.communicate()[1]
    assert process.returncode == 0, stderr
    return stderr


def undisturbed_study(folder, settings, start=start):
    """Make a tiny study; return its recipe's file and the contents of its folder."""
    recipe = folder / "study.toml"
    recipe.write_text(dump_recipe(tiny_recipe(*settings)))
    ends_well(start(recipe, folder / "run"))
    return recipe, contents(folder / "run")


class Saboteur(Quiet):
    """Does something when a stage begins."""

    def __init__(self, stage, act):
        self.stage, self.act = stage, act

    def begin(self, stage, total, unit):
        if stage == self.stage:
            self.act()
