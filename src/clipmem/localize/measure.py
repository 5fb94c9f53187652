"""What a measure of localization declares about itself; `localize/settings.json` holds it beside the numbers."""

from typing import NamedTuple


class Measure(NamedTuple):
    """One measure: its column, its words for a reader, its range, and what a higher value says."""

    name: str
    title: str
    low: float
    high: float
    higher: str
