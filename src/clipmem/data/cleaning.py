"""Write a data set without suspect pairs, or with other captions, in the format that it came in, or as Parquet.

The output is read again before it gets its name: a pair or record too many or too few is an error, and nothing is
written. The input is only read.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from clipmem.base.atomic import atomic_folder, check_place, is_free
from clipmem.base.errors import InputError, RunError, shorten
from clipmem.base.require import require
from clipmem.base.sections import DataSection
from clipmem.data.export import export_pairs
from clipmem.data.sources.base import SOURCES, Source
from clipmem.data.sources.cleaned import Cleaned
from clipmem.data.sources.records import Part, Record


class Written(NamedTuple):
    """What was written; read = kept + corrected + removed.

    Attributes:
        path: The path to open.
        format: Name of the source that reads it.
        same_format: Whether this is the format that the data came in.
        read: Pairs of the input.
        kept: Pairs that did not change.
        corrected: Pairs with another caption.
        removed: Pairs that are left out.
        unusable: Unusable records, which are in the output as they were; not in another format.
        records: Records of the input.
        removed_records: Records of the removed pairs, copies included.
    """

    path: Path
    format: str
    same_format: bool
    read: int
    kept: int
    corrected: int
    removed: int
    unusable: int
    records: int
    removed_records: int


def check_output(source: Source, out: Path) -> None:
    """Raise an `InputError` unless a new folder can be written at `out`, outside of the data."""
    hint = "Choose another folder."
    free = is_free(out) and not out.is_file()
    require(free, f"--write {out}", "an existing file or folder", "a new or empty folder", hint)
    source.check_outside(out, "--write")
    try:
        check_place(out.resolve().parent)
    except InputError as error:
        raise InputError(f"--write {out}", got=error.got, expected=error.expected, hint=hint) from error


def write_cleaned(
    source: Source, out: Path, removed: Collection[str], captions: Mapping[str, str] | None = None
) -> Written:
    """Write a copy of the data into the new folder `out`: in the same format, or as Parquet with images.

    Parquet has the columns of `export_pairs`, so every pair keeps its uid and the key of its record.

    Args:
        source: The data.
        out: A new or empty folder. An unfinished output of an earlier call is written anew.
        removed: Pairs to leave out, with other records of the same image and captions.
        captions: New caption of pairs, by uid.

    Raises:
        InputError: A uid is not in the data, no pair stays, or the place is wrong.
        RunError: The disk is full, or the output does not hold what it should; nothing is left of it.
    """
    check_output(source, out)
    change = {**(captions or {}), **dict.fromkeys(removed, "")}
    places, expected, gone = dict[str, str](), set[str](), 0

    def watch(record: Record) -> None:
        nonlocal gone
        uid = record.uid()
        if uid not in change:
            return
        places.update(dict.fromkeys(record.places, change[uid]))
        if change[uid] and not isinstance(record.image, str):
            expected.add(record.image.uid([change[uid]]))
        gone += 0 if change[uid] else len(record.parts)

    uids = set(source.pairs(watch)["uid"])
    source.check_outside(out, "--write")  # again: the folders of images are known
    before, unusable = source.ledger.read, source.ledger.left_out
    unknown = [uid for uid in change if uid not in uids]
    got = f"unknown uid {', '.join(map(shorten, unknown[:1]))} ({len(unknown):,} of {len(change):,})"
    require(not unknown, "pairs to remove", got, "uids of the data's pairs", "Use a list made from the same data.")
    expected |= uids - set(change)
    require(expected, "pairs to remove", f"all {len(uids):,} pairs", "pairs that stay", "Remove fewer.")
    with atomic_folder(out) as partial:
        name = source.write_kept(Cleaned(partial, places))
        same = name is not None
        lost = 0  # images that do not decode, which the export leaves out
        if not same:
            export_pairs(_Changed(source, change), partial, "parquet")
            lost = source.ledger.undecodable
        opened = _opened(source, partial / (name or ""), same=same)
        found = set(opened.pairs()["uid"])
        _check(out, expected, found, (opened.ledger.read + gone if same else before, before), lost)
    corrected = sum(bool(caption) for caption in change.values())
    left = len(change) - corrected
    counts = (len(uids) - lost, len(uids) - len(change) - lost, corrected, left, unusable + lost, before, gone)
    return Written(out / (name or ""), opened.section.source, same, *counts)


def _check(out: Path, expected: set[str], found: set[str], records: tuple[int, int], lost: int) -> None:
    if found - expected or len(expected - found) != lost or records[0] != records[1]:
        differ = f"{len(expected - found):,} pairs are missing, {len(found - expected):,} are new"
        told = f"{differ}, {records[0]:,} of {records[1]:,} records"
        raise RunError(f"{out}: {told}. Nothing was written. This is a bug in clipmem; please report it.")


def _opened(source: Source, path: Path, *, same: bool) -> Source:
    """Open the output as the input was opened; exported Parquet has columns of its own."""
    kept = source.section if same else DataSection.model_validate({})
    name = source.name if same else "parquet"
    return SOURCES[name](kept.model_copy(update={"path": f"{path}", "image_root": "", "source": name}))


class _Changed(Source):
    """A source without some pairs, and with other captions; unusable records stay in the list of problems."""

    def __init__(self, source: Source, change: Mapping[str, str]) -> None:
        self._source, self._change = source, change
        self.section, self.settings, self.ledger = source.section, source.settings, source.ledger

    def records(self) -> Iterator[Record]:
        """Yield the records that stay."""
        for record in self._source.records():
            change = self._change.get(record.uid())
            if change == "":
                self.ledger.read -= len(record.parts)
                continue
            if change:
                record.parts = [Part(part.key, [change]) for part in record.parts]
            yield record

    def read(self, references: Sequence[str]) -> list[bytes]:
        """Return the encoded images."""
        return self._source.read(references)

    def storage_order(self, references: Sequence[str]) -> list[int]:
        """Return the source's order."""
        return self._source.storage_order(references)
