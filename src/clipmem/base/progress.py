"""Progress reporting of long work."""

from collections.abc import Callable, Mapping
from typing import Protocol, runtime_checkable

Advance = Callable[[int], object]  # takes the number of units that were finished
Report = Callable[[int, str], object]  # the same, and a note


@runtime_checkable
class Reporter(Protocol):
    """Progress reporter of a study."""

    def begin(self, stage: str, total: int | None = None, unit: str = "") -> None:
        """Start a stage of `total` units of work (`unit` names them, such as `pairs`); None: uncounted."""

    def advance(self, amount: int, note: str = "") -> None:
        """Add finished units; `note` is a short extra, such as the loss."""

    def note(self, text: str) -> None:
        """Show one line about the stage."""

    def end(self, stage: str, seconds: float, *, skipped: bool = False) -> None:
        """End the stage; `skipped`: an earlier run finished it."""


def by_work(
    reporter: Reporter, stage: str, total: int, unit: str, work: Mapping[str, float]
) -> Callable[[str, float], None]:
    """Begin a stage of steps that take different time; return what reports a finished share of a step, in (0, 1].

    The units of the stage are finished as the work is: `work` has the relative time of each step.
    """
    shares = dict.fromkeys(work, 0.0)
    reporter.begin(stage, total, unit)

    def finished() -> int:
        return round(total * sum(work[step] * share for step, share in shares.items()) / sum(work.values()))

    def advance(step: str, share: float) -> None:
        before = finished()
        shares[step] = min(1.0, shares[step] + share)
        reporter.advance(finished() - before, step)

    return advance


class Quiet(Reporter):
    """A reporter that shows nothing: the default in Python."""
