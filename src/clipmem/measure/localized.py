"""Declaration of a localization measure, as in `localize/settings.json`."""

from typing import NamedTuple


class Measure(NamedTuple):
    """A measure: its column, title, range, and the meaning of a higher value."""

    name: str
    title: str
    low: float
    high: float
    higher: str
