"""Progress reporting of long work."""

from typing import Protocol, runtime_checkable


@runtime_checkable
class Reporter(Protocol):
    """Progress reporter of a study."""

    def begin(self, stage: str, total: int, unit: str) -> None:
        """Start a stage of `total` units of work (`unit` names them, such as `pairs`)."""

    def advance(self, amount: int, note: str = "") -> None:
        """Add finished units; `note` is a short extra, such as the loss."""

    def note(self, text: str) -> None:
        """Show one line about the stage."""

    def end(self, stage: str, seconds: float, *, skipped: bool = False) -> None:
        """End the stage; `skipped`: an earlier run finished it."""


class Quiet(Reporter):
    """A reporter that shows nothing: the default in Python."""
