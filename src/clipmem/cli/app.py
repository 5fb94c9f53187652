"""The application and its subcommands. Heavy imports stay inside the commands, so that help is instant."""

import platform
from importlib.metadata import PackageNotFoundError, version

from cyclopts import App

from clipmem._version import __version__
from clipmem.base.declared import load, plugins
from clipmem.cli.audit import audit
from clipmem.cli.compare import compare
from clipmem.cli.curate import curate
from clipmem.cli.data import data
from clipmem.cli.demo import demo
from clipmem.cli.doctor import doctor
from clipmem.cli.embed import embed
from clipmem.cli.estimate import estimate
from clipmem.cli.evaluate import evaluate
from clipmem.cli.init import init
from clipmem.cli.localize import localize
from clipmem.cli.models import models
from clipmem.cli.report import report
from clipmem.cli.run import run
from clipmem.cli.score import score
from clipmem.cli.tables import prints_tables
from clipmem.cli.validate_estimators import validate_estimators
from clipmem.cli.view import view


def installed(package: str) -> str:
    """Return the version of an installed package from its metadata, without importing it, or `missing`."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "missing"


def versions() -> str:
    """Return the versions that a bug report needs, in one line."""
    models = f"torch {installed('torch')}, open_clip {installed('open_clip_torch')}"
    return f"clipmem {__version__} ({models}, Python {platform.python_version()})"


app = App(
    name="clipmem",
    help="Measure and show memorization in CLIP-style image-text models.",
    help_epilogue="Exit codes: 0 done, 1 the run failed, 2 the input is wrong. Start with: clipmem demo --quick",
    version=versions,
    # main() handles errors and interrupts
    exit_on_error=True,
    suppress_keyboard_interrupt=False,
)
for command in (
    *(demo, run, score, estimate, evaluate, localize, curate, audit, compare, report, doctor),
    validate_estimators,
    *(load(point) for point in plugins("commands").values()),
):
    app.command(prints_tables(command))
for command in (init, embed, data, models, view):
    app.command(command)
app.register_install_completion_command(help="Install the shell completion of clipmem (bash, zsh or fish).")
