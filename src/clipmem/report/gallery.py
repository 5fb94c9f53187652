"""Choose the pairs that a report shows with their images, and describe them.

Pairs are ordered by score alone. Neighbors in that order differ by less than their error: read the gallery as a group.
"""

import base64
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import polars as pl

from clipmem.data.decoding import image_format
from clipmem.report.run import Run

SHOWN = 24
EXAMPLES = 5  # of these, on the first screen
UNITS_SHOWN = 6
CORNER_SHOWN = 3  # pairs at each corner of learned against memorized
TOWERS = ("image", "text")
UNITS_TABLE = "localize/units"


class Card(NamedTuple):
    """What a report shows of a pair: its scores and rank, image, captions, and its interval on an axis, in percent."""

    uid: str
    clipmem: float
    low: float | None
    high: float | None
    stderr: float | None
    learned: float | None
    planted: bool
    rank: int
    image: str | None
    trained_with: list[str]
    captions: list[str]
    strip: Mapping[str, float]


def ranked_candidates(scores: pl.DataFrame) -> pl.DataFrame:
    """Return the candidates with a finite score, most memorized first; ties are ordered by uid."""
    scored = scores.filter((pl.col("role") == "candidate") & pl.col("clipmem").is_finite())
    return scored.sort(["clipmem", "uid"], descending=[True, False])


def pick(ranked: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return the most memorized rows, and the least memorized, lowest first; no row is in both."""
    most = min(SHOWN, (ranked.height + 1) // 2)
    least = min(SHOWN, ranked.height - most)
    return ranked.head(most), ranked.tail(least).reverse()


def corners(ranked: pl.DataFrame, count: int = CORNER_SHOWN) -> list[pl.DataFrame]:
    """Return the pairs at the four corners of learned against memorized, each in one corner, by sums of ranks.

    The corners are most learned and most memorized, least and most, most and least, least and least. Each has at most
    `count` rows, and at most a quarter of the pairs. Ties are ordered by uid. Empty from scratch.

    Example:
        >>> table = pl.DataFrame({"uid": list("abcd"), "clipmem": [3, 4, 1, 2], "learned": [4, 1, 3, 2]})
        >>> [corner["uid"].to_list() for corner in corners(table, 1)]
        [['a'], ['b'], ['c'], ['d']]
    """
    rest = ranked.filter(pl.col("learned").is_finite())
    most = min(count, -(-rest.height // 4))
    frames: list[pl.DataFrame] = []
    for learned, memorized in ((1, 1), (-1, 1), (1, -1), (-1, -1)):
        ranks = learned * pl.col("learned").rank("average") + memorized * pl.col("clipmem").rank("average")
        frames.append(rest.sort(-ranks, "uid").head(most))
        rest = rest.join(frames[-1], on="uid", how="anti")
    return frames


def gallery_uids(run: Run) -> list[str]:
    """Return the pairs whose images `write_report` needs, so that only these are decoded."""
    owners = top_units(run.table(UNITS_TABLE))["uid"].to_list() if run.has(UNITS_TABLE) else []
    return list(dict.fromkeys([*_shown(run.scores), *owners]))


def _shown(scores: pl.DataFrame) -> list[str]:
    ranked = ranked_candidates(scores)
    return [uid for rows in (*pick(ranked), *corners(ranked)) for uid in rows["uid"]]


def top_units(units: pl.DataFrame) -> pl.DataFrame:
    """Return the units of f in each tower with the largest UnitMem; ties by seed, layer, kind and unit."""
    alive = units.filter((pl.col("side") == "f") & pl.col("unitmem").is_finite() & pl.col("uid").is_not_null())
    ordered = alive.sort("unitmem", "seed", "layer", "kind", "unit", descending=[True, False, False, False, False])
    return pl.concat([ordered.filter(pl.col("tower") == tower).head(UNITS_SHOWN) for tower in TOWERS])


def image_uri(data: bytes | None) -> str | None:
    r"""Encode image bytes as a `data:` URI; None for any format other than PNG, JPEG and WebP.

    Example:
        >>> image_uri(b"\xff\xd8\xff\xe0")
        'data:image/jpeg;base64,/9j/4A=='
        >>> image_uri(b"<svg onload=x>") is None
        True
    """
    if data is None or (kind := image_format(data).lower()) not in {"png", "jpeg", "webp"}:
        return None
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def cards(run: Run, rows: pl.DataFrame, ranked: pl.DataFrame) -> list[Card]:
    """Return what is shown of some ranked candidates; the axis of their scores has 0 and all intervals."""
    ranks = {uid: rank for rank, uid in enumerate(ranked["uid"], start=1)}
    ends = [0.0, *(float(v) for name in ("clipmem", "low", "high") for v in ranked[name].drop_nulls().drop_nans())]
    start, width = min(ends), (max(ends) - min(ends)) or 1.0
    entries: list[Card] = []
    for row in rows.iter_rows(named=True):
        values = (0.0, *(row["clipmem"] if row[name] is None else row[name] for name in ("clipmem", "low", "high")))
        zero, dot, low, high = (round(100 * (float(value) - start) / width, 2) for value in values)
        strip = {"zero": zero, "dot": dot, "left": low, "width": round(high - low, 2)}
        uid, image = row["uid"], image_uri(run.gallery.get(row["uid"]))
        texts = run.trained_captions(uid)[: run.recipe.train.captions], run.own_captions.get(uid, [])
        score, errors = row["clipmem"], (row["low"], row["high"], row["stderr"])
        entries.append(Card(uid, score, *errors, row["learned"], row["planted"], ranks[uid], image, *texts, strip))
    return entries


def shown_credits(run: Run) -> Sequence[str]:
    """Return the source's credits, then those of the pairs in the gallery."""
    uids = set(_shown(run.scores))
    named = {credit for uid, credit in run.pairs.select("uid", "credit").iter_rows() if uid in uids and credit}
    return list(dict.fromkeys([*run.credits, *sorted(named)]))
