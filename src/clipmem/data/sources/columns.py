"""Image, caption and other columns of a table: named by the recipe, or by common names."""

import functools
from collections.abc import Iterable, Mapping
from typing import NamedTuple, TypedDict

from clipmem.base.errors import InputError
from clipmem.base.require import require
from clipmem.base.sections import DataSection
from clipmem.base.suggest import did_you_mean
from clipmem.data.objects import split_objects, text_of

# open_clip uses filepath and title, img2dataset jpg and caption, Hugging Face image and text
IMAGES = (
    "image", "filepath", "image_path", "file_name", "filename", "path", "img", "picture", "jpg", "jpeg", "png", "webp",
)  # fmt: skip
CAPTIONS = ("captions", "caption", "title", "text", "sentences", "txt")
_USUAL = {"image_column": IMAGES, "caption_column": CAPTIONS}
KEYS = frozenset(name for name in DataSection.model_fields if name.endswith("_column"))


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
def chosen(there: tuple[str, ...], name: str, key: str) -> str:
    """Return the column `name`, or for the default of `key` the first common name; "" if none exists."""
    if name in there:
        return name
    if name != DataSection.model_fields[key].default:
        return ""
    by_lower = {name.lower(): name for name in reversed(there)}
    return next((by_lower[name] for name in _USUAL[key] if name in by_lower), "")


def recognized(names: Iterable[str], section: DataSection) -> tuple[str, str]:
    """Return the image and the caption column that identify a table; empty if missing."""
    there = tuple(names)
    image, captions = (
        chosen(there, getattr(section, key), key) or chosen(there, DataSection.model_fields[key].default, key)
        for key in _USUAL
    )
    return image, captions


def named_columns(section: DataSection) -> dict[str, str]:
    """Return the columns that a recipe sets, by key."""
    found = {key: str(getattr(section, key)) for key in DataSection.model_fields if key in KEYS}
    return {key: name for key, name in found.items() if name != DataSection.model_fields[key].default}


def no_such_column(key: str, name: str, there: Iterable[str], *, what: str) -> InputError:
    """Return the error for a missing column that a recipe names."""
    known = sorted(set(there))
    suggestion = did_you_mean(name, known, kind="name") if known else "There are no columns."
    hint = f"{suggestion} Otherwise remove data.{key}."
    return InputError(f"[data] {key}", got=f"{name!r}, which is not in {what}", hint=hint)


class KeysSeen:
    """Columns of a recipe that occur in data without a common header (one JSON file per image)."""

    def __init__(self, section: DataSection) -> None:
        self._missing = named_columns(section)
        self._known: set[str] = set()

    def see(self, names: Iterable[str]) -> None:
        """Add the keys of a record, which never has the image column."""
        if self._missing:
            self._known.update(names)
            self._missing = {
                key: name for key, name in self._missing.items() if name not in self._known or key == "image_column"
            }

    def check(self, what: str) -> None:
        """Raise an error for a column that no record had."""
        for key, name in self._missing.items():
            raise no_such_column(key, name, self._known - {name}, what=what)


def find_columns(names: Iterable[str], section: DataSection, *, what: str) -> Columns:
    """Return the columns of a table that a recipe uses."""
    there = tuple(names)
    image, captions = (chosen(there, getattr(section, key), key) for key in _USUAL)
    own = section.group_column, section.label_column, section.object_column, section.role_column
    found = Columns(image, captions, *own)
    missing = [section.caption_column] * (not captions) + [section.image_column] * (not image)
    missing += [name for name in found[2:] if name and name not in there]
    for name in missing:
        raise InputError(what, got=f"no column {name!r}", hint=did_you_mean(name, there, kind="column"))
    twice = next((name for name in found.used if there.count(name) > 1), "")
    require(not twice, what, f"{there.count(twice)} columns {twice!r}", "one", "Give them different names.")
    return found


class About(TypedDict):
    """Fields of a record other than captions."""

    group: str
    label: str
    role: str
    objects: list[str]


def about(row: Mapping[str, object], section: DataSection) -> About:
    """Return group, label and role of a record as strings, empty if missing, and its objects."""
    names = section.group_column, section.label_column, section.role_column
    group, label, role = (text_of(row.get(name) if name else None) for name in names)
    return {
        "group": group,
        "label": label,
        "role": role,
        "objects": split_objects(row.get(section.object_column) if section.object_column else None),
    }
