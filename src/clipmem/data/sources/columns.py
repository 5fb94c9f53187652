"""Which column of a table is the image and which the caption: the recipe's names, or those that people use."""

import functools
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from clipmem.base.errors import InputError
from clipmem.base.recipes import DataSection
from clipmem.base.require import require
from clipmem.base.suggest import did_you_mean
from clipmem.data.objects import split_objects

# open_clip's first names are filepath and title, img2dataset's jpg and caption, Hugging Face's image and text
IMAGES = (
    "image", "filepath", "image_path", "file_name", "filename", "path", "img", "picture", "jpg", "jpeg", "png", "webp",
)  # fmt: skip
CAPTIONS = ("captions", "caption", "title", "text", "sentences", "txt")
KEYS = frozenset(name for name in DataSection.model_fields if name.endswith("_column"))


class Columns(NamedTuple):
    """The columns of a table that are read; empty where there is none."""

    image: str
    captions: str
    group: str = ""
    label: str = ""
    objects: str = ""

    @property
    def used(self) -> list[str]:
        """Every column that is read, once."""
        return list(dict.fromkeys(name for name in self if name))


def chosen(names: Iterable[str], wanted: str, key: str, usual: Iterable[str]) -> str:
    """Return the column that a recipe names, or without a choice the first usual one; empty if there is none.

    Example:
        >>> chosen(["filepath", "Title"], "captions", "caption_column", CAPTIONS)
        'Title'
    """
    return _chosen(tuple(names), wanted, key, tuple(usual))


@functools.lru_cache(maxsize=256)
def _chosen(there: tuple[str, ...], wanted: str, key: str, usual: tuple[str, ...]) -> str:
    if wanted in there:
        return wanted
    if wanted != DataSection.model_fields[key].default:
        return ""
    by_lower = {name.lower(): name for name in reversed(there)}
    return next((by_lower[name] for name in usual if name in by_lower), "")


def recognized(names: Iterable[str], section: DataSection) -> tuple[str, str]:
    """Return the image and the caption column by which a table is recognized; empty where there is none.

    A column that a recipe names and that is not there does not make it another format: `find_columns` refuses it.
    """
    there = tuple(names)
    image, captions = (
        chosen(there, wanted, key, usual) or chosen(there, DataSection.model_fields[key].default, key, usual)
        for wanted, key, usual in (
            (section.image_column, "image_column", IMAGES),
            (section.caption_column, "caption_column", CAPTIONS),
        )
    )
    return image, captions


def named_columns(section: DataSection) -> dict[str, str]:
    """Return the columns that a recipe names itself, by their keys."""
    found = {key: str(getattr(section, key)) for key in DataSection.model_fields if key in KEYS}
    return {key: name for key, name in found.items() if name != DataSection.model_fields[key].default}


def no_such_column(key: str, name: str, there: Iterable[str], *, what: str) -> InputError:
    """Make the error for a column that a recipe names and that is not there."""
    known = sorted(set(there))
    suggested = did_you_mean(name, known, kind="name") if known else "There is nothing that has columns."
    return InputError(
        f"[data] {key}", got=f"{name!r}, which is not in {what}", hint=f"{suggested} Else remove data.{key}."
    )


class KeysSeen:
    """Which of the names in a recipe occur in data whose records each have keys of their own (JSON beside images)."""

    def __init__(self, section: DataSection) -> None:
        self._missing = named_columns(section)
        self._known: set[str] = set()

    def see(self, names: Iterable[str]) -> None:
        """Note the keys of a record. An image is never named by one."""
        if self._missing:
            self._known.update(names)
            self._missing = {
                key: name for key, name in self._missing.items() if name not in self._known or key == "image_column"
            }

    def check(self, what: str) -> None:
        """Refuse a name that no record had."""
        for key, name in self._missing.items():
            raise no_such_column(key, name, self._known - {name}, what=what)


def find_columns(names: Iterable[str], section: DataSection, *, what: str) -> Columns:
    """Return the columns of a table that a recipe asks for."""
    there = list(names)
    found = Columns(
        chosen(there, section.image_column, "image_column", IMAGES),
        chosen(there, section.caption_column, "caption_column", CAPTIONS),
        section.group_column,
        section.label_column,
        section.object_column,
    )
    missing = [
        wanted
        for wanted, name in ((section.caption_column, found.captions), (section.image_column, found.image))
        if not name
    ]
    missing += [name for name in (found.group, found.label, found.objects) if name and name not in there]
    for name in missing:
        raise InputError(what, got=f"no column {name!r}", hint=did_you_mean(name, there, kind="column"))
    twice = next((name for name in found.used if there.count(name) > 1), "")
    require(not twice, what, f"{there.count(twice)} columns {twice!r}", "one", "Give them different names.")
    return found


def text_of(row: Mapping[str, object], name: str) -> str:
    """Return a group or label as text; empty where the row has none."""
    value = row.get(name) if name else None
    return "" if value is None else str(value)


def objects_of(row: Mapping[str, object], name: str) -> list[str]:
    """Return the objects of a row: a list of texts, or one text with commas between them.

    Example:
        >>> objects_of({"things": "cat, sofa,cat"}, "things")
        ['cat', 'sofa']
    """
    return split_objects(row.get(name) if name else None)
