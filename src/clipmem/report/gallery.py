"""Choose the candidates that a report shows with their pictures: the most and the least memorized.

The order is that of the score alone. Neighbours in it differ by less than their error: read the gallery as a
group.
"""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from clipmem.base.errors import InputError, shorten
from clipmem.report.escape import CAPTION_LIMIT, visible
from clipmem.report.localized import unit_owners
from clipmem.report.numbers import interval, plain, signed
from clipmem.store.tables import read_table

SHOWN = 24
_CAPTIONS_SHOWN = 3
_MAGIC = ((b"\x89PNG\r\n\x1a\n", "image/png"), (b"\xff\xd8\xff", "image/jpeg"))


@dataclass(frozen=True)
class Captions:
    """The captions of a pair that a card shows, and how many more there are."""

    shown: tuple[str, ...]
    more: int


@dataclass(frozen=True)
class Strip:
    """Where a score lies on the axis that all cards share, in per cent of its width."""

    zero: float
    dot: float
    left: float
    width: float


@dataclass(frozen=True)
class Card:
    """One pair of the gallery, ready to be shown."""

    rank: int
    uid: str
    key: str
    label: str
    picture: str | None
    alt: str
    score: str
    error: str
    range: str
    planted: bool
    trained_with: Captions
    own: Captions
    strip: Strip


def ranked_candidates(scores: pl.DataFrame) -> pl.DataFrame:
    """Return the scored candidates, most memorized first; ties are ordered by uid.

    Args:
        scores: The table `scores` of a run folder.

    Returns:
        The candidates' rows, those without a finite score left out.
    """
    scored = scores.filter((pl.col("role") == "candidate") & pl.col("clipmem").is_finite())
    return scored.sort(["clipmem", "uid"], descending=[True, False])


def pick(ranked: pl.DataFrame, shown: int = SHOWN) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return the most and the least memorized rows, each at most `shown`, never one row in both.

    Args:
        ranked: Rows, most memorized first.
        shown: How many of each kind at most.

    Returns:
        The most memorized, highest score first, and the least memorized, lowest score first.
    """
    most = min(shown, (ranked.height + 1) // 2)
    least = min(shown, ranked.height - most)
    return ranked.head(most), ranked.tail(least).reverse()


def gallery_uids(run_dir: Path) -> list[str]:
    """Name the pairs whose pictures `write_report` will ask for, so that only these are decoded.

    Args:
        run_dir: A run folder with `scores.parquet`.

    Returns:
        Each uid once: at most 48 candidates, the most memorized, then the least; then the pairs that the shown units
        respond to, where the run was localized.
    """
    most, least = pick(ranked_candidates(read_table(run_dir / "scores.parquet", "scores")))
    return list(dict.fromkeys([*most["uid"].to_list(), *least["uid"].to_list(), *unit_owners(run_dir)]))


def picture_uri(data: bytes | None) -> str | None:
    r"""Render encoded picture bytes as a `data:` address, by their first bytes; None for any other format.

    Example:
        >>> picture_uri(b"\xff\xd8\xff\xe0")
        'data:image/jpeg;base64,/9j/4A=='
        >>> picture_uri(b"<svg onload=x>") is None
        True
    """
    if data is None:
        return None
    kind = next((kind for magic, kind in _MAGIC if data.startswith(magic)), None)
    if kind is None and data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        kind = "image/webp"
    return None if kind is None else f"data:{kind};base64,{base64.b64encode(data).decode()}"


def captions_by_uid(pairs: pl.DataFrame) -> dict[str, list[str]]:
    """Map the uid of every pair to its own captions."""
    return {uid: captions or [] for uid, captions in pairs.select("uid", "captions").iter_rows()}


def captions_sources(splits: pl.DataFrame) -> dict[str, str]:
    """Map the uid of every pair to the uid of the pair whose captions it was trained with."""
    return dict(splits.select("uid", "captions_from").iter_rows())


def trained_captions(uid: str, captions: Mapping[str, Sequence[str]], sources: Mapping[str, str]) -> list[str]:
    """Return the captions that a pair was trained with: another pair's if it was planted.

    Raises:
        InputError: The tables of the folder do not belong together.
    """
    source = sources.get(uid, uid)
    if source not in captions:
        raise InputError(
            "splits.parquet column captions_from",
            got=shorten(source),
            expected="the uid of a pair in pairs.parquet",
            hint="Make the run folder again: its tables do not belong together.",
        )
    return list(captions[source])


def make_cards(
    rows: pl.DataFrame,
    ranked: pl.DataFrame,
    pairs: pl.DataFrame,
    splits: pl.DataFrame,
    images: Mapping[str, bytes],
    used: int | None = None,
    no_error: str = "one seed",
) -> list[Card]:
    """Make the cards of some candidates.

    Args:
        rows: The rows of `ranked` to show.
        ranked: All candidates, most memorized first: they give rank and axis.
        pairs: The table `pairs`.
        splits: The table `splits`.
        images: Encoded pictures by uid; a pair without one is shown without.
        used: How many captions of a pair training used (the recipe's `train.captions`); None for all.
        no_error: Why a score without an error has none.
    """
    captions, sources = captions_by_uid(pairs), captions_sources(splits)
    about = {row["uid"]: row for row in pairs.select("uid", "key", "label").iter_rows(named=True)}
    ranks = {uid: rank for rank, uid in enumerate(ranked["uid"].to_list(), start=1)}
    ends = [
        0.0,
        *(float(v) for name in ("clipmem", "low", "high") for v in ranked[name].drop_nulls().drop_nans()),
    ]
    cards: list[Card] = []
    for row in rows.iter_rows(named=True):
        uid = str(row["uid"])
        trained = trained_captions(uid, captions, sources)[:used]
        own = captions.get(uid, [])
        facts = about.get(uid, {"key": "", "label": ""})
        cards.append(
            Card(
                rank=ranks[uid],
                uid=uid,
                key=facts["key"] or "",
                label=facts["label"] or "",
                picture=picture_uri(images.get(uid)),
                alt=visible(own[0], CAPTION_LIMIT) if own else "picture without a caption",
                score=signed(row["clipmem"]),
                error="" if row["stderr"] is None else f"± {plain(row['stderr'])}",
                range=f"{no_error}: no error" if row["stderr"] is None else interval(row, sign=True),
                planted=bool(row["planted"]),
                trained_with=_shown(trained),
                own=_shown(own, 1),
                strip=_strip(row, min(ends), max(ends)),
            )
        )
    return cards


def _shown(captions: Sequence[str], count: int = _CAPTIONS_SHOWN) -> Captions:
    return Captions(
        tuple(visible(caption, CAPTION_LIMIT) for caption in captions[:count]), max(0, len(captions) - count)
    )


def _strip(row: Mapping[str, Any], start: float, end: float) -> Strip:
    span = (end - start) or 1.0

    def place(value: float) -> float:
        return round(100 * (value - start) / span, 2)

    score = float(row["clipmem"])
    low, high = (float(row[key]) if row[key] is not None else score for key in ("low", "high"))
    return Strip(zero=place(0.0), dot=place(score), left=place(low), width=round(place(high) - place(low), 2))
