"""Progress and results on a terminal, or as plain lines in a log."""

import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from clipmem.report.escape import visible
from clipmem.study import api
from clipmem.study.engines import is_first

_LINE_EVERY = 15.0


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        unit = task.fields.get("unit", "")
        return Text(f"{task.speed:,.0f} {unit}/s" if task.speed else f"- {unit}/s", style="progress.data.speed")


class TerminalReporter:
    """Progress reporter: a bar with rate and time left on a terminal, a line every 15 s elsewhere."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._progress: Progress | None = None
        self._stage, self._unit = "", ""
        self._total, self._done = 0, 0
        self._since = self._shown = 0.0

    def begin(self, stage: str, total: int, unit: str) -> None:
        """Start a bar."""
        self._close()
        self._stage, self._unit, self._total, self._done = stage, unit, total, 0
        self._since = self._shown = time.monotonic()
        if self._console.is_terminal:
            self._progress = Progress(
                TextColumn("{task.description:<9}"),
                BarColumn(bar_width=30),
                TextColumn("{task.percentage:>3.0f} %"),
                _Rate(),
                TimeRemainingColumn(compact=True),
                TextColumn("left  {task.fields[note]}"),
                console=self._console,
                transient=True,
                # rates over half a minute: several models report in bursts
                speed_estimate_period=30,
            )
            self._progress.add_task(stage, total=total, unit=unit, note="")
            self._progress.start()

    def advance(self, amount: int, note: str = "") -> None:
        """Move the bar, or print a line if the last one is old."""
        self._done += amount
        if self._progress is not None:
            task = self._progress.task_ids[0]
            self._progress.update(task, advance=amount, note=note)
            return
        now = time.monotonic()
        if now - self._shown >= _LINE_EVERY and self._done:
            rate = self._done / (now - self._since)
            left = max(0, self._total - self._done) / rate
            self._line(
                f"{self._stage:<9} {100 * self._done / self._total:3.0f} %  {rate:,.0f} {self._unit}/s  "
                f"{left:.0f} s left  {note}"
            )
            self._shown = now

    def note(self, text: str) -> None:
        """Print a line."""
        self._close()
        self._line(text)

    def end(self, stage: str, seconds: float, *, skipped: bool = False) -> None:
        """Print the duration of the stage."""
        self._close()
        self._line(f"{stage:<9} {'done before' if skipped else f'{seconds:.1f} s'}")

    def _line(self, text: str) -> None:
        # notes may quote the data; a line stays one line in a log file
        self._console.print(visible(text), markup=False, highlight=False, soft_wrap=True)

    def _close(self) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = None

    def __enter__(self) -> "TerminalReporter":
        return self

    def __exit__(self, *_: object) -> None:
        self._close()


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
    else:  # without half-models
        from clipmem.study.estimating_one import estimates_of

        print_screen("estimated", estimates_of(out), Console(), f"Scores: {out / 'estimates.parquet'}")
