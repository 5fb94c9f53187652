"""What was left out of a study and why: one `Problem` a record that could not be used, and how to say it.

A source collects the problems that it meets while it reads its pairs; decoding adds the pictures that fail. A study
writes all of them to `quarantine.parquet` and goes on with the rest.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import polars as pl

from clipmem.base.errors import InputError
from clipmem.base.recipes import DataSection

_NAMED = 6  # reasons that a sentence lists


class Problem(NamedTuple):
    """A record of the data that takes no part.

    Attributes:
        source: File or shard in which it lies.
        key: Which record of it: a row, a member, a path, or the uid.
        reason: What is wrong with it, in a few words that are the same for all records with that problem.
    """

    source: str
    key: str
    reason: str


def quarantine_table(problems: Iterable[Problem]) -> pl.DataFrame:
    """Make the table `quarantine`: source, key and reason of each problem, sorted, each once."""
    rows = sorted({Problem(*map(_storable, problem)) for problem in problems})
    return pl.DataFrame(rows, schema={"source": pl.String, "key": pl.String, "reason": pl.String}, orient="row")


def reasons_of(table: pl.DataFrame) -> dict[str, int]:
    """Count the records of a `quarantine` table by reason, the most frequent first."""
    counted = Counter(table["reason"].to_list())
    return dict(sorted(counted.items(), key=lambda item: (-item[1], item[0])))


def summarize(table: pl.DataFrame, used: int) -> dict[str, Any]:
    """Say what the summary of a study says: how many pairs are used, how many records left out, and why.

    A caption of a pair that has others is a record too: without it the pair is still used.

    Args:
        table: The table `quarantine`.
        used: How many pairs are left.
    """
    return {"used": used, "left_out": table.height, "reasons": reasons_of(table)}


def left_out_sentence(counts: Mapping[str, Any]) -> str:
    """Word what `summarize` counts; empty when nothing was left out.

    Example:
        >>> left_out_sentence({"used": 988, "left_out": 12, "reasons": {"truncated picture": 7, "empty file": 5}})
        '12 records left out, 988 pairs used: 7 truncated picture, 5 empty file'
    """
    if not counts["left_out"]:
        return ""
    reasons: Sequence[tuple[str, int]] = list(counts["reasons"].items())
    named = [f"{count:,} {reason}" for reason, count in reasons[:_NAMED]]
    rest = sum(count for _, count in reasons[_NAMED:])
    named += [f"{rest:,} for other reasons"] if rest else []
    left_out = f"{counts['left_out']:,} record{'s' * (counts['left_out'] > 1)} left out"
    return f"{left_out}, {counts['used']:,} pairs used: {', '.join(named)}"


def source_name(section: DataSection) -> str:
    """Name the data as a recipe does: their path, or the source where they have none."""
    return section.path or ("emoji" if section.source in {"", "auto"} else section.source)


def stop_at(problem: Problem) -> InputError:
    """Return the error with which a strict study stops at its first problem."""
    return InputError(
        f"{problem.source}, record {problem.key!r}",
        got=problem.reason,
        expected="a record that can be used",
        todo="Mend or remove it, or leave out --strict: the study then goes on without it and lists it.",
    )


def _storable(text: str) -> str:
    """Return text that a Parquet file can hold: a lone surrogate (a file name that is not UTF-8) is written out."""
    return text.encode("utf-8", "backslashreplace").decode()
