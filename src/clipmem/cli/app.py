"""The application and its subcommands. Heavy imports stay inside the commands, so that help is instant."""

from cyclopts import App

from clipmem._version import __version__
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
from clipmem.cli.reproduce import reproduce
from clipmem.cli.run import run
from clipmem.cli.score import score
from clipmem.cli.validate_estimators import validate_estimators

app = App(
    name="clipmem",
    help="Measure and show memorization in CLIP-style image-text models.",
    help_epilogue="Exit codes: 0 done, 1 the run failed, 2 the input is wrong. Start with: clipmem demo --quick",
    version=__version__,
    # main() handles errors and interrupts
    exit_on_error=True,
    suppress_keyboard_interrupt=False,
)
for command in (demo, init, run, score, estimate, embed, evaluate, localize, curate, audit, compare, reproduce):
    app.command(command)
app.command(report)
app.command(doctor)
app.command(data)
app.command(validate_estimators)
app.command(models)
