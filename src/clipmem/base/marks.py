"""Marks: what people decided about pairs, as an append-only file of JSON lines.

A line is {"uid", "mark", "time", "note", "caption"}; the last line of a uid counts, and the mark null clears it. In
cleaned data, pairs marked wrong are gone or have the captions of their marks. Lines are written at once and flushed to
disk, so that they survive a kill, and several processes may append.
"""

import json
import os
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from clipmem.base.errors import require, require_one_of, shorten, shorten_text
from clipmem.base.paths import explain_write_errors

MARKS = ("wrong", "memorized", "fine", "unsure")
_NOTE, _CAPTION = 2000, 10_000  # characters


class Mark(NamedTuple):
    """The decision about a pair: one of `MARKS`, its time (ISO 8601, UTC), a note, and a caption for a wrong pair."""

    mark: str
    time: str
    note: str | None
    caption: str | None = None


class Entry(NamedTuple):
    """A mark to append; a mark of None clears that of the pair."""

    uid: str
    mark: str | None
    note: str | None = None
    caption: str | None = None


def marks_file(path: Path) -> Path:
    """Return the file of marks: in a run folder, also for its `curate/suspects.parquet`; or next to a table."""
    run = path.absolute().parent.parent
    if path.absolute() == run / "curate" / "suspects.parquet" and (run / "recipe.toml").is_file():
        path = run
    return path / "marks.jsonl" if path.is_dir() else path.with_suffix(".marks.jsonl")


def append_marks(file: Path, entries: Iterable[tuple[str, str | None, str | None] | Entry]) -> None:
    """Append marks of some pairs; they are on disk when this returns.

    Raises:
        InputError: A mark is none of `MARKS`, or a caption is blank, too long, or not that of a pair marked wrong.
    """
    lines, time = "", datetime.now(UTC).isoformat(timespec="seconds")
    for entry in entries:
        uid, mark, note, caption = entry if isinstance(entry, Entry) else Entry(*entry)
        if mark is not None:
            require_one_of("mark", mark, MARKS)
        if caption is not None:
            expected = f"1 to {_CAPTION:,} characters, for a pair marked wrong"
            usable = mark == "wrong" and caption.strip() and len(caption) <= _CAPTION
            require(usable, "caption", f"{shorten(caption)} and the mark {mark}", expected, "Give another caption.")
        line = {"uid": uid, "mark": mark, "time": time, "note": note and shorten_text(note, _NOTE)}
        lines += json.dumps(line if caption is None else {**line, "caption": caption}) + "\n"
    # not through a link: in a folder that somebody sent it could name any file of this user
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW
    with explain_write_errors(file), os.fdopen(os.open(file, flags, 0o666), "a+b", buffering=0) as stream:
        size = stream.seek(0, os.SEEK_END)
        # a line that a kill cut short must not swallow the next one
        cut = size > 0 and os.pread(stream.fileno(), 1, size - 1) != b"\n"
        stream.write(("\n" * cut + lines).encode())
        os.fsync(stream.fileno())


def read_marks(file: Path) -> dict[str, Mark]:
    """Read the marks that count, by uid, in the order of marking; a line that a kill cut short is skipped.

    Raises:
        InputError: A line is not a mark, or one that a newer version of clipmem wrote.
    """
    marks: dict[str, Mark] = {}
    for number, line in enumerate(file.read_bytes().splitlines() if file.is_file() else [], 1):
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):
            continue
        entry = entry if isinstance(entry, dict) else {}
        uid, mark = entry.get("uid"), entry.get("mark", "")
        is_valid = isinstance(uid, str) and mark in [None, *MARKS]
        expected = f'an object with "uid" and "mark": one of {", ".join(MARKS)}, or null'
        hint = "Update clipmem, or fix the line."
        require(is_valid, f"{file}, line {number}", shorten(line.decode(errors="replace")), expected, hint)
        marks.pop(str(uid), None)
        if mark is not None:
            fields = [entry.get(name) for name in ("time", "note", "caption")]
            # UTF-8 has no lone surrogates, JSON does
            text = [field if field is None else str(field).encode(errors="replace").decode() for field in fields]
            marks[str(uid)] = Mark(mark, text[0] or "", text[1], text[2] if mark == "wrong" else None)
    return marks


def latest_marks(*paths: Path) -> dict[str, Mark]:
    """Read the marks of run folders and tables, by uid; of a pair with several the latest."""
    entries = [entry for path in paths for entry in read_marks(marks_file(path)).items()]
    return dict(sorted(entries, key=lambda entry: entry[1].time))
