"""Marks: what people decided about pairs, as an append-only file of JSON lines.

A line is {"uid", "mark", "time", "note"}; the last line of a uid counts, and the mark null clears it. Lines are written
at once and flushed to disk, so that they survive a kill, and several processes may append.
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
_NOTE = 2000  # characters


class Mark(NamedTuple):
    """The decision about a pair: one of `MARKS`, its time (ISO 8601, UTC) and a note."""

    mark: str
    time: str
    note: str | None


def marks_file(path: Path) -> Path:
    """Return the file of marks: in a run folder, also for its `curate/suspects.parquet`; or next to a table."""
    run = path.absolute().parent.parent
    if path.absolute() == run / "curate" / "suspects.parquet" and (run / "recipe.toml").is_file():
        path = run
    return path / "marks.jsonl" if path.is_dir() else path.with_suffix(".marks.jsonl")


def append_marks(file: Path, marks: Iterable[tuple[str, str | None, str | None]]) -> None:
    """Append uid, mark (None clears it) and note of some pairs; they are on disk when this returns."""
    lines, time = "", datetime.now(UTC).isoformat(timespec="seconds")
    for uid, mark, note in marks:
        if mark is not None:
            require_one_of("mark", mark, MARKS)
        lines += json.dumps({"uid": uid, "mark": mark, "time": time, "note": note and shorten_text(note, _NOTE)}) + "\n"
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
            fields = [entry.get(name) for name in ("time", "note")]  # UTF-8 has no lone surrogates, JSON does
            time, note = (field if field is None else str(field).encode(errors="replace").decode() for field in fields)
            marks[str(uid)] = Mark(mark, time or "", note)
    return marks


def latest_marks(*paths: Path) -> dict[str, str]:
    """Read the marks of run folders and tables, by uid; of a pair with several the latest."""
    entries = [entry for path in paths for entry in read_marks(marks_file(path)).items()]
    return {uid: mark.mark for uid, mark in sorted(entries, key=lambda entry: entry[1].time)}
