"""Records left out of a study, with their reasons."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, TypedDict

import polars as pl

from clipmem.base.errors import InputError, RunError, require, shorten
from clipmem.base.sections import DataSection
from clipmem.base.summary import Records
from clipmem.base.tables import read_table, write_table

_NAMED = 6  # reasons listed in a sentence
_ENDING = 12  # maximum characters of a usual file extension


class Problem(NamedTuple):
    """A record that cannot be used."""

    source: str
    key: str
    reason: str


@dataclass
class Ledger:
    """Counts of a source's records: read = pairs + merged + left_out."""

    problems: list[Problem] = field(default_factory=list)
    read: int = 0
    pairs: int = 0
    merged: int = 0
    left_out: int = 0
    unnamed: int = 0
    undecodable: int = 0  # of `left_out`
    ignored: Counter[str] = field(default_factory=Counter)
    folders: set[str] = field(default_factory=set)  # of image files, absolute

    def clear(self) -> None:
        """Reset the counts, and the list of problems in place."""
        self.problems.clear()
        self.ignored.clear()
        self.folders.clear()
        self.read = self.pairs = self.merged = self.left_out = self.unnamed = self.undecodable = 0

    def leave_out(self, source: str, key: str, reason: str, *, records: int = 1) -> None:
        """Add an unusable record, or `records` of them as one entry."""
        self.left_out += records
        self.note(source, key, reason)

    def drop(self, source: str, key: str, reason: str) -> None:
        """Leave out a pair whose image turns out not to decode."""
        self.pairs -= 1
        self.undecodable += 1
        self.leave_out(source, key, reason)

    def note(self, source: str, key: str, reason: str) -> None:
        """Add a problem with something other than a record: a caption, a value, a file."""
        self.problems.append(Problem(*map(_storable, (source, key, reason))))

    def ignore(self, name: str) -> None:
        """Count a file that is not a record by its extension (names are untrusted)."""
        _, dot, ending = name.rpartition(".")
        usual = dot and ending.isascii() and ending.isalnum() and len(ending) <= _ENDING
        self.ignored[f".{ending.lower()}" if usual else "other extensions"] += 1

    def check(self, name: str) -> None:
        """Check that every record is accounted for."""
        if self.read != self.pairs + self.merged + self.left_out:
            tally = f"{self.pairs:,} pairs, {self.merged:,} merged, {self.left_out:,} left out of {self.read:,} records"
            raise RunError(f"{name}: {tally}. This is a bug in clipmem; please report it.")

    def require_pairs(self, subject: str) -> None:
        """Raise an `InputError` with the most frequent problems if no record is a usable pair."""
        reasons = Counter(problem.reason for problem in self.problems).most_common(3)
        counted = ", ".join(f"{count:,} x {reason}" for reason, count in reasons) or "no records"
        counted += f", the first {shorten(self.problems[0].key)}" if self.problems else ""
        got = f"{subject} without a usable pair ({counted})"
        hint = "Check data.path, data.image_root and the columns; docs/data.md has examples of all formats."
        require(self.pairs, "[data] path", got, "at least one image with a caption", hint)

    def add(self, counts: "Counts") -> None:
        """Add the counts of other records."""
        self.ignored.update(counts["ignored"])
        for name in counts.keys() - {"ignored"}:
            setattr(self, name, getattr(self, name) + counts[name])

    def facts(self) -> "Counts":
        """Return the counts as plain data."""
        return {
            "read": self.read,
            "pairs": self.pairs,
            "merged": self.merged,
            "left_out": self.left_out,
            "unnamed": self.unnamed,
            "ignored": dict(sorted(self.ignored.items(), key=lambda item: (-item[1], item[0]))),
        }


class Counts(TypedDict):
    """Counts of a `Ledger`; files that are not records by extension, most frequent first."""

    read: int
    pairs: int
    merged: int
    left_out: int
    unnamed: int
    ignored: dict[str, int]


def records_sentence(counts: Counts) -> str:
    """Describe the counts of a `Ledger`."""
    merged = f", {counts['merged']:,} merged into the pair of their image" if counts["merged"] else ""
    more = f"; {_times(counts['unnamed'], 'image')} that no record names" if counts["unnamed"] else ""
    read, pairs = _times(counts["read"], "record"), _times(counts["pairs"], "pair")
    return f"{read} read: {pairs}{merged}, {counts['left_out']:,} left out{more}"


def ignored_sentence(counts: Mapping[str, int]) -> str:
    """Describe the number of files that are not records; empty if there are none."""
    kinds = [f"{kind} {count:,}" for kind, count in list(counts.items())[:_NAMED]]
    kinds += [f"other kinds {sum(list(counts.values())[_NAMED:]):,}"] if len(counts) > _NAMED else []
    total = sum(counts.values())
    noun = "file or member" if total == 1 else "files or members"
    return f"{total:,} other {noun} ignored: {', '.join(kinds)}" if total else ""


def _times(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'s' * (count != 1)}"


def skipped_table(problems: Iterable[Problem]) -> pl.DataFrame:
    """Return the table `skipped`: source, key and reason of each problem, sorted."""
    rows = sorted(Problem(*map(_storable, problem)) for problem in problems)
    return pl.DataFrame(rows, schema={"source": pl.String, "key": pl.String, "reason": pl.String}, orient="row")


def write_skipped(path: Path, problems: Sequence[Problem]) -> None:
    """Write skipped records, each once; if there are none, remove the list of an earlier call."""
    if problems:
        write_table(path, "skipped", skipped_table(dict.fromkeys(problems)))
    else:
        path.unlink(missing_ok=True)


def read_skipped(path: Path) -> list[Problem]:
    """Read skipped records; empty if there is no such file."""
    return [Problem(*row) for row in read_table(path, "skipped").iter_rows()] if path.is_file() else []


def summarize(table: pl.DataFrame, used: int) -> Records:
    """Count used pairs, listed problems, and reasons, for the summary of a study."""
    reasons = table["reason"].value_counts().sort(pl.col("count"), pl.col("reason"), descending=[True, False])
    return Records(used=used, problems=table.height, reasons=dict(reasons.iter_rows()))


def left_out_sentence(counts: Records) -> str:
    """Describe the counts of `summarize`; empty if there are no problems."""
    reasons = list(counts.reasons.items())
    named = [f"{count:,} {reason}" for reason, count in reasons[:_NAMED]]
    rest = sum(count for _, count in reasons[_NAMED:])
    named += [f"{rest:,} for other reasons"] if rest else []
    problems = _times(sum(counts.reasons.values()), "problem")
    return f"{problems}, {counts.used:,} pairs used: {', '.join(named)}" if reasons else ""


def source_name(section: DataSection) -> str:
    """Return the path of the data, or the source if it has none."""
    return section.path or ("emoji" if section.source in {"", "auto"} else section.source)


def stop_at(problem: Problem) -> InputError:
    """Return the error of a strict study's first problem."""
    subject, hint = f"{problem.source}, record {problem.key!r}", "Fix or remove it, or omit --strict to leave it out."
    return InputError(subject, got=problem.reason, expected="a usable record", hint=hint)


def _storable(text: str) -> str:
    """Escape lone surrogates (from file names that are not UTF-8), which Parquet cannot store."""
    return text.encode("utf-8", "backslashreplace").decode()
