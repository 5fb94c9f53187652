"""From records as a source holds them to the pairs table: every check that needs no decoder, in one place.

A source gives one `Record` a picture, one at a time; what is kept of its bytes is their hash. A record that cannot be
used becomes a `Problem` and the others go on. Whether a picture decodes is not asked here: only its first bytes are
looked at.
"""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl
import pyarrow as pa

from clipmem.base.errors import InputError, shorten
from clipmem.data.decoding import EMPTY, MANY_BYTES, MAX_BYTES, UNKNOWN
from clipmem.data.quarantine import Problem
from clipmem.store.hashing import PictureHash, begin_uid
from clipmem.store.tables import SCHEMAS

MAX_CAPTION = 100_000
_CHUNK = 8192  # pairs that are held as Python objects before they become columns

# the reasons, each the same text for all records with that problem, so that they can be counted
NO_PATH = "no picture path"
NO_FILE = "no such picture file"
NO_PICTURE = "no picture"
NOT_A_FILE = "not a regular file"
NO_CAPTION = "no caption"
EMPTY_CAPTION = "empty caption"
NAN_CAPTION = "caption is NaN"
NOT_TEXT = "caption is not text"
NOT_UNICODE = "caption is not valid Unicode"
LONG_CAPTION = f"caption of more than {MAX_CAPTION:,} characters"
NAME_NOT_UNICODE = "name is not valid Unicode"
DUPLICATE = "same picture and captions as an earlier record"

_LISTS = ("captions", "variants", "objects")
_ARROW = pa.schema([(name, pa.list_(pa.string()) if name in _LISTS else pa.string()) for name in SCHEMAS["pairs"]])
_FIRST_BYTES = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a", b"BM", b"II*\x00", b"MM\x00*")


@dataclass(slots=True)
class Record:
    """One picture with its captions, as a source holds them.

    Attributes:
        source: File or shard, for messages.
        key: Which record of it.
        reference: What `Source.read` finds the picture by.
        picture: The hash of its bytes (see `examine`), or the reason why there are none.
        captions: Captions as found; they need not be text.
        caption_keys: Which record each caption comes from, where they come from several.
        group: Its group, or empty for one of its own.
        label: Its class, or empty.
        objects: What is in it.
    """

    source: str
    key: str
    reference: str
    picture: PictureHash | str
    captions: Sequence[object]
    caption_keys: Sequence[str] = ()
    group: str = ""
    label: str = ""
    objects: Sequence[str] = field(default_factory=list)


def looks_like_a_picture(data: bytes) -> bool:
    """Tell by the first bytes whether these are JPEG, PNG, GIF, WebP, BMP or TIFF."""
    return data.startswith(_FIRST_BYTES) or (data[:4] == b"RIFF" and data[8:12] == b"WEBP")


def examine(data: bytes | None) -> PictureHash | str:
    """Hash a picture, or say why the bytes are none."""
    if data is None:
        return NO_PICTURE
    if not data:
        return EMPTY
    if len(data) > MAX_BYTES:
        return MANY_BYTES
    return begin_uid(data) if looks_like_a_picture(data) else UNKNOWN


def read_file(path: Path, *, most: int = MAX_BYTES) -> bytes | str:
    """Read a file of at most `most` bytes, or say why it cannot be read.

    Only regular files are opened: a table may name a pipe or a device.
    """
    try:
        if not path.is_file():
            return NOT_A_FILE if path.exists() else NO_FILE
        return path.read_bytes() if path.stat().st_size <= most else MANY_BYTES
    except (OSError, ValueError):  # no permission; a path with a NUL, or longer than the system allows
        return NO_FILE


def examine_file(path: Path) -> PictureHash | str:
    """Hash the picture in a file, or say why it cannot be used."""
    data = read_file(path)
    return data if isinstance(data, str) else examine(data)


def listed_captions(value: object) -> list[object]:
    """Return the captions of a value that is one, or a list of them, or of dictionaries with one.

    Example:
        >>> listed_captions("a"), listed_captions([{"raw": "a", "tokens": ["a"]}, "b"]), listed_captions(None)
        (['a'], ['a', 'b'], [])
    """
    if value is None:
        return []
    if isinstance(value, dict):
        return listed_captions(next((value[name] for name in ("raw", "caption", "text") if name in value), None))
    if isinstance(value, list | tuple):
        return [one for item in value for one in (listed_captions(item) if isinstance(item, dict) else [item])]
    return [value]


def caption_problem(caption: object) -> str:
    """Return what is wrong with a caption, or an empty text.

    Example:
        >>> caption_problem(" "), caption_problem(float("nan")), caption_problem("a cat")
        ('empty caption', 'caption is NaN', '')
    """
    if caption is None:
        return EMPTY_CAPTION
    if not isinstance(caption, str):
        return NAN_CAPTION if isinstance(caption, float) and math.isnan(caption) else NOT_TEXT
    if not caption.strip():
        return EMPTY_CAPTION
    if len(caption) > MAX_CAPTION:
        return LONG_CAPTION
    return "" if is_unicode(caption) else NOT_UNICODE


def is_unicode(text: str) -> bool:
    """Tell whether a text has no lone surrogates, which no table can hold."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def problem(source: str, key: str, reason: str) -> Problem:
    """Make a `Problem` whose texts any table can hold."""
    return Problem(*(text.encode("utf-8", "backslashreplace").decode() for text in (source, key, reason)))


def collect(records: Iterable[Record], problems: list[Problem], *, what: str) -> pl.DataFrame:
    """Check records and make the pairs table of the good ones, sorted by uid.

    Captions stand in order of appearance, exact duplicates of one picture once. Of pairs with the same picture and
    captions the first is kept.

    Args:
        records: The records, in the source's order.
        problems: Where what is left out is listed.
        what: The data's name, for messages.

    Raises:
        InputError: No record can be used.
    """
    seen: set[str] = set()
    chunks: list[pl.DataFrame] = []
    rows: list[tuple[object, ...]] = []
    for record in records:
        row = _row(record, seen, problems)
        if row is not None:
            rows.append(row)
        if len(rows) == _CHUNK:
            chunks.append(_frame(rows))
            rows = []
    chunks.append(_frame(rows))
    table = pl.concat(chunks).sort("uid")
    if not table.height:
        raise InputError(
            "[data] path",
            got=f"{what} without a usable pair ({_counted(problems)})",
            expected="at least one picture with a caption",
            todo="Check data.path, data.image_root and the columns; docs/data.md has an example of every format.",
        )
    return table


def _row(record: Record, seen: set[str], problems: list[Problem]) -> tuple[object, ...] | None:
    if isinstance(record.picture, str):
        problems.append(problem(record.source, record.key, record.picture))
        return None
    if not is_unicode(record.key + record.reference):
        problems.append(problem(record.source, record.key, NAME_NOT_UNICODE))
        return None
    captions = _good_captions(record, problems)
    if not captions:
        return None
    uid = record.picture.uid(captions)
    if uid in seen:
        problems.append(problem(record.source, record.key, DUPLICATE))
        return None
    seen.add(uid)
    return (
        uid, record.key, record.reference, captions, [], record.group or uid, record.label, "", "", list(record.objects)
    )  # fmt: skip


def _good_captions(record: Record, problems: list[Problem]) -> list[str]:
    if not record.captions:
        problems.append(problem(record.source, record.key, NO_CAPTION))
        return []
    good: dict[str, None] = {}
    for number, caption in enumerate(record.captions):
        reason = caption_problem(caption)
        if not reason:
            good[str(caption)] = None
            continue
        key = record.key if len(record.captions) == 1 else f"{record.key}, caption {number + 1}"
        problems.append(problem(record.source, record.caption_keys[number] if record.caption_keys else key, reason))
    return list(good)


def _frame(rows: Sequence[tuple[object, ...]]) -> pl.DataFrame:
    # through Arrow: polars takes lists of lists ten times as long
    columns = zip(*rows, strict=True) if rows else [[] for _ in _ARROW]
    table = pa.table([pa.array(values, field.type) for values, field in zip(columns, _ARROW, strict=True)], _ARROW)
    return pl.DataFrame(table, schema=dict(SCHEMAS["pairs"]))


def _counted(problems: Sequence[Problem], *, most: int = 3) -> str:
    counts = Counter(one.reason for one in problems).most_common(most)
    first = f", the first {shorten(problems[0].key)}" if problems else ""
    return (", ".join(f"{count:,} x {reason}" for reason, count in counts) or "no records") + first
