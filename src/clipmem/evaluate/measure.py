"""What a measure of utility says of itself, for whoever shows or compares it."""

from typing import NamedTuple


class Measure(NamedTuple):
    """A measure: the name that its metrics begin with, what it is in one line, and what its values mean."""

    name: str
    summary: str
    low: float | None = 0.0
    high: float | None = 1.0
    higher_is_better: bool = True
