"""How a long piece of work tells of its progress, without knowing who listens."""

from typing import Protocol, runtime_checkable


@runtime_checkable
class Reporter(Protocol):
    """Listens to a study: stages begin, advance and end."""

    def begin(self, stage: str, total: int, unit: str) -> None:
        """A stage begins that has `total` units of work (`unit` names them, for example `pairs`)."""
        ...

    def advance(self, amount: int, note: str = "") -> None:
        """`amount` more units are done; `note` is a short extra (a loss)."""
        ...

    def note(self, text: str) -> None:
        """One line about the stage that is ending, for example what it was bound by."""
        ...

    def end(self, stage: str, seconds: float, *, skipped: bool = False) -> None:
        """The stage is over; `skipped` says that it was finished by an earlier run."""
        ...


class Quiet:
    """A reporter that says nothing: the default in Python."""

    def begin(self, stage: str, total: int, unit: str) -> None:
        """Say nothing."""

    def advance(self, amount: int, note: str = "") -> None:
        """Say nothing."""

    def note(self, text: str) -> None:
        """Say nothing."""

    def end(self, stage: str, seconds: float, *, skipped: bool = False) -> None:
        """Say nothing."""
