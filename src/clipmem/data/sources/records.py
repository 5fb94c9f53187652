"""Records of a source, the columns that they come from, and the checks that turn them into the pairs table."""

import functools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import NamedTuple, TypedDict

import polars as pl
import pyarrow as pa

from clipmem.base.errors import InputError, did_you_mean, require
from clipmem.base.hashing import ImageHash
from clipmem.base.remote import AnyPath
from clipmem.base.sections import DataSection
from clipmem.base.tables import SCHEMAS
from clipmem.data.decoding import EMPTY, MANY_BYTES, MAX_BYTES, UNKNOWN, image_format
from clipmem.data.skipped import Ledger
from clipmem.data.user_tables import split_objects, text_of

MAX_CAPTION = 100_000
_CHUNK = 8192  # pairs held as Python objects before they become columns
# open_clip uses filepath and title, img2dataset jpg and caption, Hugging Face image and text
IMAGES = (
    "image", "filepath", "image_path", "file_name", "filename", "path", "img", "picture", "jpg", "jpeg", "png", "webp",
)  # fmt: skip
CAPTIONS = ("captions", "caption", "title", "text", "sentences", "txt")
_USUAL = {"image_column": IMAGES, "caption_column": CAPTIONS}
_DEFAULT_COLUMNS: Mapping[str, str] = {
    name: key.default for name, key in DataSection.model_fields.items() if name.endswith("_column")
}
KEYS = frozenset(_DEFAULT_COLUMNS)

# reasons, counted over records
NO_PATH = "no image path"
NO_FILE = "no such image file"
NO_IMAGE = "no image"
NOT_A_FILE = "not a regular file"
NO_CAPTION = "no caption"
EMPTY_CAPTION = "empty caption"
NAN_CAPTION = "caption is NaN"
NOT_TEXT = "caption is not text"
NOT_UNICODE = "caption is not valid Unicode (save the file as UTF-8)"
LONG_CAPTION = f"caption of more than {MAX_CAPTION:,} characters"
NAME_NOT_UNICODE = "name, group, label, role or object is not valid Unicode"
DUPLICATE = "same image and captions as an earlier record"
OTHER_VALUES = "group, label, role or objects differ from those of the first record of the image"

_LISTS = ("captions", "variants", "objects")
_ARROW = pa.schema([(name, pa.list_(pa.string()) if name in _LISTS else pa.string()) for name in SCHEMAS["pairs"]])


class Part(NamedTuple):
    """The captions of one record of the data.

    Attributes:
        key: The record, for messages.
        captions: Its captions, not checked yet.
        why: The reason for having none.
        place: Identifies the record for `Source.write_kept`; by default the key of its image's `Record`.
    """

    key: str
    captions: Sequence[object]
    why: str = ""
    place: str = ""


@dataclass(slots=True)
class Record:
    """One image with its captions, from one or more records of the data.

    Attributes:
        source: File or shard, for messages.
        key: Record in that file, for messages.
        reference: Identifies the image in `Source.read`.
        image: The hash of its bytes (see `examine`), or the reason why it cannot be used.
        parts: The captions of each record, at least one.
        group: Its group, or empty.
        label: Its class, or empty; `sublabel` is a finer one.
        objects: Objects in the image.
        variants: References of other images of the same object.
        credit: Attribution, or empty.
        role: Its role in the study, or empty.
    """

    source: str
    key: str
    reference: str
    image: ImageHash | str
    parts: Sequence[Part]
    group: str = ""
    label: str = ""
    objects: Sequence[str] = field(default_factory=list)
    variants: Sequence[str] = field(default_factory=list)
    sublabel: str = ""
    credit: str = ""
    role: str = ""

    def uid(self) -> str:
        """Return the uid of its image with its usable captions; "" if it is no pair."""
        usable = [str(caption) for part in self.parts for caption in part.captions if not caption_problem(caption)]
        return "" if isinstance(self.image, str) or not usable else self.image.uid(list(dict.fromkeys(usable)))

    def join(self, other: "Record", ledger: Ledger) -> None:
        """Add another record of the image; report values that differ from the first."""
        fields, others = ((record.group, record.label, record.role, record.objects) for record in (self, other))
        if any(value and value != first for first, value in zip(fields, others, strict=True)):
            ledger.note(other.source, other.parts[0].key, OTHER_VALUES)
        self.parts = [*self.parts, *other.parts]


def examine(data: bytes | None) -> ImageHash | str:
    """Hash an image, or return why it cannot be used."""
    if not data or len(data) > MAX_BYTES:
        return NO_IMAGE if data is None else MANY_BYTES if data else EMPTY
    return ImageHash(data) if image_format(data) else UNKNOWN


def read_file(path: AnyPath, *, most: int = MAX_BYTES) -> bytes | str:
    """Read a regular file of at most `most` bytes, or return why it cannot be read."""
    try:
        if not path.is_file():
            return NOT_A_FILE if path.exists() else NO_FILE
        return path.read_bytes() if path.stat().st_size <= most else MANY_BYTES
    except (OSError, ValueError):  # no permission, a NUL in the path, or too long
        return NO_FILE


def examine_file(path: AnyPath) -> ImageHash | str:
    """Hash an image file, or return why it cannot be used."""
    data = read_file(path)
    return data if isinstance(data, str) else examine(data)


def listed_captions(value: object) -> list[object]:
    """Return the captions in a value: a caption, a list of captions, or of dictionaries with captions."""
    if value is None:
        return []
    if isinstance(value, dict):
        return listed_captions(next((value[name] for name in ("raw", "caption", "text") if name in value), None))
    if isinstance(value, list | tuple):
        return [caption for item in value for caption in (isinstance(item, dict) and listed_captions(item)) or [item]]
    return [value]


def replaced(value: object, caption: str, times: int = 1) -> object:
    """Return a caption cell (see `listed_captions`) of the same form with one new caption, in a list `times` times."""
    if isinstance(value, dict):
        key = next((name for name in ("raw", "caption", "text") if name in value), "caption")
        return {**{name: cell for name, cell in value.items() if name != "tokens"}, key: caption}
    if isinstance(value, list | tuple):
        return [replaced(value[0], caption) if value and isinstance(value[0], dict) else caption] * times
    return caption


def caption_problem(caption: object) -> str:
    """Return what is wrong with a caption; "" if nothing."""
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
    """Return whether a text has no lone surrogates, which tables cannot store."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def collect(
    records: Iterable[Record], ledger: Ledger, *, subject: str, watch: Callable[[Record], object] = lambda _: None
) -> pl.DataFrame:
    """Return the pairs table of the usable records, sorted by uid; `Ledger.require_pairs` refuses an empty one."""
    seen: set[str] = set()
    chunks: list[pl.DataFrame] = []
    rows: list[tuple[object, ...]] = []
    for record in records:
        watch(record)
        row = _row(record, seen, ledger)
        if row is not None:
            rows.append(row)
        if len(rows) == _CHUNK:
            chunks.append(_frame(rows))
            rows = []
    chunks.append(_frame(rows))
    ledger.check(subject)
    return pl.concat(chunks).sort("uid")


def _row(record: Record, seen: set[str], ledger: Ledger) -> tuple[object, ...] | None:
    """Return the row of an image; None if it is left out with its records, as one entry."""
    names = (record.key, record.reference, record.group, record.label, record.role, *record.objects)
    if isinstance(record.image, str) or not is_unicode("".join(names)):
        reason = record.image if isinstance(record.image, str) else NAME_NOT_UNICODE
        return ledger.leave_out(record.source, record.key, reason, records=len(record.parts))
    good: list[list[str]] = []
    for part in record.parts:
        if not part.captions:
            key = record.key if len(record.parts) == 1 else part.key
            ledger.leave_out(record.source, key, part.why or NO_CAPTION)
            continue
        reasons = [caption_problem(caption) for caption in part.captions]
        texts = [str(caption) for caption, reason in zip(part.captions, reasons, strict=True) if not reason]
        listed = [(number, reason) for number, reason in enumerate(reasons, 1) if reason]
        for index, (number, reason) in enumerate(listed):
            key = part.key if len(reasons) == 1 else f"{part.key}, caption {number}"
            (ledger.note if texts or index else ledger.leave_out)(record.source, key, reason)
        good += [texts] if texts else []
    if not good:
        return None
    captions = list(dict.fromkeys(caption for texts in good for caption in texts))
    uid = record.image.uid(captions)
    if uid in seen:
        return ledger.leave_out(record.source, record.key, DUPLICATE, records=len(good))
    seen.add(uid)
    ledger.pairs += 1
    ledger.merged += len(good) - 1
    about = (record.group or uid, record.label, record.sublabel, record.credit, list(record.objects), record.role)
    return (uid, record.key, record.reference, captions, list(record.variants), *about)


def _frame(rows: Sequence[tuple[object, ...]]) -> pl.DataFrame:
    # through Arrow: ten times faster than polars for lists of lists
    columns = zip(*rows, strict=True) if rows else [[] for _ in _ARROW]
    table = pa.table([pa.array(values, field.type) for values, field in zip(columns, _ARROW, strict=True)], _ARROW)
    return pl.DataFrame(table, schema=dict(SCHEMAS["pairs"]))


class Columns(NamedTuple):
    """The columns to read; empty for none."""

    image: str
    captions: str
    group: str = ""
    label: str = ""
    objects: str = ""
    role: str = ""

    @property
    def used(self) -> list[str]:
        """The unique columns."""
        return list(dict.fromkeys(name for name in self if name))


@functools.lru_cache(maxsize=256)
def chosen(names: tuple[str, ...], name: str, key: str) -> str:
    """Return the column `name`, or for the default of `key` the first common name; "" if none exists."""
    if name in names:
        return name
    if name != _DEFAULT_COLUMNS[key]:
        return ""
    by_lower = {name.lower(): name for name in reversed(names)}
    return next((by_lower[name] for name in _USUAL[key] if name in by_lower), "")


def recognized(names: Iterable[str], section: DataSection) -> tuple[str, str]:
    """Return the image and the caption column that identify a table; empty if missing."""
    columns = tuple(names)
    image, captions = (
        chosen(columns, getattr(section, key), key) or chosen(columns, _DEFAULT_COLUMNS[key], key) for key in _USUAL
    )
    return image, captions


def named_columns(section: DataSection) -> dict[str, str]:
    """Return the columns that a recipe sets, by key."""
    return {key: name for key, default in _DEFAULT_COLUMNS.items() if (name := getattr(section, key)) != default}


def no_such_column(key: str, name: str, columns: Iterable[str], *, source: str) -> InputError:
    """Return the error for a missing column that a recipe names."""
    names = sorted(set(columns))
    suggestion = did_you_mean(name, names, kind="name") if names else "There are no columns."
    hint = f"{suggestion} Otherwise remove data.{key}."
    return InputError(f"[data] {key}", got=f"{name!r}, which is not in {source}", hint=hint)


def check_keys(section: DataSection, keys: Set[str], source: str) -> None:
    """Raise an error for a column that no record had, in data of one JSON file per image, without an image column."""
    for key, name in named_columns(section).items():
        if name not in keys or key == "image_column":
            raise no_such_column(key, name, keys - {name}, source=source)


def find_columns(names: Iterable[str], section: DataSection, *, subject: str) -> Columns:
    """Return the columns of a table that a recipe uses."""
    available = tuple(names)
    image, captions = (chosen(available, getattr(section, key), key) for key in _USUAL)
    optional = section.group_column, section.label_column, section.object_column, section.role_column
    columns = Columns(image, captions, *optional)
    missing = [section.caption_column] * (not captions) + [section.image_column] * (not image)
    missing += [name for name in columns[2:] if name and name not in available]
    for name in missing:
        raise InputError(subject, got=f"no column {name!r}", hint=did_you_mean(name, available, kind="column"))
    twice = next((name for name in columns.used if available.count(name) > 1), "")
    require(not twice, subject, f"{available.count(twice)} columns {twice!r}", "one", "Give them different names.")
    return columns


class About(TypedDict):
    """Fields of a record other than captions."""

    group: str
    label: str
    role: str
    objects: list[str]


def about(row: Mapping[str, object], section: DataSection) -> About:
    """Return group, label and role of a record as strings, empty if missing, and its objects."""
    names = section.group_column, section.label_column, section.role_column, section.object_column
    group, label, role, objects = (row.get(name) if name else None for name in names)
    return About(group=text_of(group), label=text_of(label), role=text_of(role), objects=split_objects(objects))
