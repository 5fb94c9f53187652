"""Results of a study on a terminal."""

import json
from pathlib import Path
from typing import Any

from rich.console import Console

from clipmem.report.progress import TerminalReporter
from clipmem.study import api
from clipmem.study.engines import is_first

__all__ = ["TerminalReporter", "run_and_show"]


def run_and_show(recipe: str | Path, out: Path, **options: Any) -> None:
    """Run a study (see `api.run`) with progress on stderr, then print its tables and the report's path on stdout."""
    if not is_first():  # only the first process under torchrun prints
        api.run(recipe, out, **options)
        return
    with TerminalReporter(Console(stderr=True)) as reporter:
        api.run(recipe, out, reporter=reporter, **options)
    from clipmem.report.terminal import print_run, print_screen

    if (out / "scores.parquet").is_file():
        print_run("report", out, Console())
    elif not (out / "estimates.parquet").is_file():
        measured = out / "evaluate" / "utility.json"
        print_screen("evaluated", json.loads(measured.read_text(encoding="utf-8")), Console(), f"Utility: {measured}")
    else:  # without half-models
        from clipmem.study.estimating_one import estimates_of

        print_screen("estimated", estimates_of(out), Console(), f"Scores: {out / 'estimates.parquet'}")
