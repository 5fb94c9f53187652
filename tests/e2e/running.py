"""Command lines in this process and in processes of their own, and studies made once to compare others with."""

import contextlib
import io
import os
import resource
import subprocess
import sys
from typing import NamedTuple

import clipmem
from clipmem.base.progress import Quiet
from clipmem.base.recipes import dump_recipe
from clipmem.cli import main
from tests.e2e.test_study import contents
from tests.tiny import tiny_recipe


class Done(NamedTuple):
    """How a command line ended, and what it wrote."""

    returncode: int
    stdout: str
    stderr: str


def clip(*arguments):
    """Run a command line in this process, where torch is imported and the training processes are kept."""
    code, streams = 0, [io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True) for _ in range(2)]
    with contextlib.redirect_stdout(streams[0]), contextlib.redirect_stderr(streams[1]):
        try:
            main([str(one) for one in arguments])
        except SystemExit as end:
            code = end.code or 0
    return Done(code, *(stream.buffer.getvalue().decode() for stream in streams))


def clip_alone(*arguments, **options):
    """Run a command line in a process of its own."""
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "check": False} | options
    return subprocess.run([sys.executable, "-m", "clipmem", *map(str, arguments)], **options)


def processor_time(cache, *arguments):
    """Exit code and processor seconds (the clock counts others, too) of a Python, compiled as pip does it."""
    compiled = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    compiled["PYTHONPYCACHEPREFIX"] = str(cache)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, *arguments], env=compiled, cwd=cache, capture_output=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return done.returncode, after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


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


def recipe_file(folder, settings):
    """Write the recipe of a tiny study; return its file."""
    recipe = folder / "study.toml"
    recipe.write_text(dump_recipe(tiny_recipe(*settings)))
    return recipe


def undisturbed_study(folder, settings):
    """Make a tiny study in this process; return its recipe's file and the contents of its folder."""
    recipe = recipe_file(folder, settings)
    return recipe, contents(clipmem.run(recipe, folder / "run").path)


class Saboteur(Quiet):
    """Does something when a stage begins, once: a stage may say again how much there is to do."""

    def __init__(self, stage, act):
        self.stage, self.act, self.begun = stage, act, False

    def begin(self, stage, total=None, unit=""):
        if stage == self.stage and not self.begun:
            self.begun = True
            self.act()
