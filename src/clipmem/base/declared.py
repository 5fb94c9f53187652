"""What recipes know of protocols, alignments, objectives, mitigations and sources before torch is imported.

A declaration is a class. Those of this package import torch, so the few facts that a recipe is judged by stand here
too (a test compares them with the classes); those of installed packages are asked themselves, and an entry point is
imported only when a recipe names it. A class brings a table of the recipe as its `Settings`.
"""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from pydantic_core import PydanticCustomError

from clipmem.base.errors import InputError, shorten, shorten_text


@dataclass(frozen=True)
class Facts:
    """The attributes of declarations that recipes ask for; each kind has some of them, with these defaults."""

    trains: bool = True
    paired: bool = False
    needs: tuple[str, ...] = ()
    uses_text: bool = True
    class_head: bool = False
    normalizes: bool = True


# kind → name → facts; mitigations and sources have no facts besides their tables
BUILT_IN: dict[str, dict[str, Facts]] = {
    "protocols": {
        "four-way": Facts(paired=True),
        "subsample": Facts(),
        "leave-one-out": Facts(),
        "given": Facts(trains=False),
    },
    "alignments": {
        "clip": Facts(needs=("image views", "captions", "held-out pairs")),
        "cmc": Facts(needs=("image views", "captions", "held-out pairs")),
        "sslmem-image": Facts(needs=("clean image", "image views")),
        "sslmem-text": Facts(needs=("captions", "caption variants")),
        "confidence": Facts(needs=("labels", "class head")),
    },
    "objectives": {
        "clip": Facts(),
        "siglip": Facts(),
        "supervised": Facts(uses_text=False, class_head=True, normalizes=False),
        "simclr": Facts(uses_text=False),
    },
}


def plugins(kind: str) -> Mapping[str, EntryPoint]:
    """Return what installed packages declare of a kind, by name; nothing of it is imported."""
    return _plugins(kind, tuple(sys.path))


@cache
def _plugins(kind: str, _path: tuple[str, ...]) -> Mapping[str, EntryPoint]:
    # a recipe asks for every kind, and each time the metadata of all packages on the path would be read
    return {point.name: point for point in entry_points(group=f"clipmem.{kind}")}


def load(point: EntryPoint) -> Any:
    """Import a declaration of another package."""
    try:
        return point.load()
    except (ImportError, AttributeError, SyntaxError) as error:
        package = point.dist.name if point.dist else "a package"
        raise InputError(
            f"{point.group} {shorten(point.name)}, of {package}",
            got=f"code that cannot be imported ({shorten_text(str(error), 160)})",
            expected=point.value,
            hint=f"Update or uninstall {package}.",
        ) from error


def declared(kind: str, name: str) -> Any:
    """Return the facts of a declaration: an object with the attributes that its kind has of `Facts`."""
    return BUILT_IN[kind][name] if name in BUILT_IN[kind] else load(plugins(kind)[name])


def known(kind: str, name: str) -> str:
    """Check a name in a recipe."""
    names = [*BUILT_IN[kind], *(one for one in plugins(kind) if one not in BUILT_IN[kind])]
    if name not in names:
        expected = f"{', '.join(map(repr, names[:-1]))} or {names[-1]!r}"
        raise PydanticCustomError("literal_error", "an unknown name", {"expected": expected})
    return name


def key_of(name: str) -> str:
    """Return what the table of a declaration is called in a recipe.

    Example:
        >>> key_of("leave-one-out")
        'leave_one_out'
    """
    return name.replace("-", "_")


def own_settings(section: Any, name: str) -> Any:
    """Return the table of a declaration in a section of a recipe; None where it brings none."""
    return getattr(section, key_of(name), None)
