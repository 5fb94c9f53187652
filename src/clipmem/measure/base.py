"""Declaration of a utility measure."""

from typing import NamedTuple


class Measure(NamedTuple):
    """A measure: the prefix of its metrics, a one-line summary, its range and direction."""

    name: str
    summary: str
    low: float | None = 0.0
    high: float | None = 1.0
    higher_is_better: bool = True
