"""Progress on a terminal, in a notebook, or as plain lines in a log."""

from importlib.util import find_spec
from threading import Event, Lock, Thread

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

from clipmem.base.progress import Quiet, Reporter
from clipmem.report.formats import visible

_FIRST, _EVERY = 2.0, 15.0  # seconds to the first line, and the most between two lines
_UNCOUNTED = 5.0  # seconds to the first line of a step without units: importing torch alone takes some
_RECENT = 0.75  # share of the time so far that the rate is of


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed, unit = task.speed or 0, task.fields["unit"]
        text = f"{speed:,.0f} {unit}/s" if speed >= 1 else f"{60 * speed:,.0f} {unit}/min" if speed else f"- {unit}/s"
        return Text(text, style="progress.data.speed")


class TerminalReporter:
    """Progress reporter: a bar with rate and time left on a terminal or in a notebook, lines with both elsewhere.

    The rate is that of the last three quarters of the time so far, from the first report on, so that it forgets what a
    step does once, such as reading a model. There is no time left before there are two reports. A step without units
    shows the time so far. No step is silent: a line comes after 2 s, or 5 s without units, even if nothing was
    reported.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._progress: Progress | None = None
        self._shown = 0.0
        self._closed, self._lock = Event(), Lock()

    def begin(self, stage: str, total: int | None = None, unit: str = "") -> None:
        """Start a bar."""
        self._close()
        self._shown = self._console.get_time()
        columns = (_Rate(), TimeRemainingColumn(compact=True), TextColumn("left  {task.fields[note]}", markup=False))
        self._progress = Progress(
            TextColumn("{task.description:<9}"),
            BarColumn(bar_width=30),
            *((TimeElapsedColumn(),) if total is None else (TextColumn("{task.percentage:>3.0f} %"), *columns)),
            console=self._console,
            transient=True,
            # rich draws bars in notebooks with ipywidgets
            disable=not (self._console.is_terminal or (self._console.is_jupyter and find_spec("ipywidgets"))),
        )
        self._progress.add_task(stage, total=total, unit=unit, note="")
        self._progress.start()
        if self._progress.disable:
            closed = self._closed = Event()

            def watch() -> None:
                """Print lines of a step that reports nothing."""
                while not closed.wait(_FIRST):
                    if (progress := self._progress) is not None:
                        self._tell(progress)

            Thread(target=watch, daemon=True).start()

    def advance(self, amount: int, note: str = "") -> None:
        """Move the bar, or print a line if the last one is old."""
        if self._progress is None:
            return
        task = self._progress.tasks[0]
        self._progress.speed_estimate_period = max(_FIRST, _RECENT * (task.elapsed or 0.0))
        self._progress.update(task.id, advance=amount, note=note)
        self._tell(self._progress)

    def _tell(self, progress: Progress) -> None:
        """Print a line where there is no bar, if the last one is old."""
        with self._lock:
            task, now = progress.tasks[0], self._console.get_time()
            since, first = task.start_time or 0.0, _UNCOUNTED if task.total is None else _FIRST
            if progress.disable and now - self._shown >= min(_EVERY, max(first, self._shown - since)):
                columns = (column for column in progress.columns if isinstance(column, ProgressColumn))
                self.note(" ".join(str(column(task)) for column in columns if not isinstance(column, BarColumn)))
                self._shown = now

    def note(self, text: str) -> None:
        """Print a line."""
        # notes may quote the data; a line stays one line in a log file
        self._console.print(visible(text), markup=False, highlight=False, soft_wrap=True)

    def end(self, stage: str, seconds: float, *, skipped: bool = False) -> None:
        """Print the duration of the stage."""
        self._close()
        self.note(f"{stage:<9} {'done before' if skipped else f'{seconds:.1f} s'}")

    def _close(self) -> None:
        self._closed.set()
        if self._progress is not None:
            self._progress.stop()
            self._progress = None

    def __enter__(self) -> "TerminalReporter":
        self.begin("read")  # what every command does first
        return self

    def __exit__(self, *_: object) -> None:
        self._close()


def reporter_here() -> Reporter:
    """Return the reporter of a call from Python: progress in a notebook, nothing elsewhere."""
    console = Console()
    return TerminalReporter(console) if console.is_jupyter else Quiet()
