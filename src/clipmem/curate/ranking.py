"""The ranked list of suspect captions."""

from typing import Any, NamedTuple

import polars as pl


class Curation(NamedTuple):
    """Suspect captions of a data set.

    Attributes:
        table: One row per pair in the order of the signals: `uid`, `score` (higher = more suspect), `is_suspect`,
            `probability` (that the caption is wrong, calibrated), `kind` (exchanged, vague, duplicate, hygiene; null),
            `reason` and `second_reason` (ids of templates), `neighbors` (uids that testify), `suggested_caption` (or
            null), and one column `NAME_score` per detector.
        document: Numbers for readers: detectors used, expected number of wrong captions with its interval, precision
            at several lengths of the list, seconds.
    """

    table: pl.DataFrame
    document: dict[str, Any]
