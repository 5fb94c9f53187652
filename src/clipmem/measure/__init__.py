"""What models can do and where they memorize: utility, retrieval, Déjà Vu, towers, layers, units."""

from typing import NamedTuple


class Measure(NamedTuple):
    """A utility measure: the prefix of its metrics, a one-line summary, its range and direction."""

    name: str
    summary: str
    low: float | None = 0.0
    high: float | None = 1.0
    higher_is_better: bool = True


class LocalMeasure(NamedTuple):
    """A localization measure, as in `localize/settings.json`: column, title, range, meaning of a higher value."""

    name: str
    title: str
    low: float
    high: float
    higher: str
