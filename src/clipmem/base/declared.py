"""Facts about protocols, alignments, objectives, mitigations and sources that recipes need before torch is imported.

A declaration is a class, and its `Settings` are a table of the recipe. The built-in classes import torch, so the facts
that validate a recipe are repeated here (a test compares them); plugins are imported when a recipe names them.
"""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from clipmem.base.errors import InputError, shorten, shorten_text


@dataclass(frozen=True)
class Facts:
    """Attributes of a declaration that validate a recipe; each kind has a subset of them."""

    trains: bool = True
    paired: bool = False
    scored: bool = True
    needs: tuple[str, ...] = ()
    uses_text: bool = True
    class_head: bool = False
    normalizes: bool = True
    weighs: bool = False


# kind → name → facts; mitigations and sources have tables only
BUILT_IN: dict[str, dict[str, Facts]] = {
    "protocols": {
        "four-way": Facts(paired=True),
        "f-only": Facts(paired=True, scored=False),
        "subsample": Facts(),
        "leave-one-out": Facts(),
        "halves": Facts(),
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
        "clip": Facts(weighs=True),
        "siglip": Facts(),
        "supervised": Facts(uses_text=False, class_head=True, normalizes=False),
        "simclr": Facts(uses_text=False),
    },
}


def plugins(kind: str) -> Mapping[str, EntryPoint]:
    """Return the entry points of a kind by name, without importing them."""
    return _plugins(kind, tuple(sys.path))


@cache
def _plugins(kind: str, _path: tuple[str, ...]) -> Mapping[str, EntryPoint]:
    # reading the metadata of all packages takes longer than all else that loads a recipe
    return {point.name: point for point in entry_points(group=f"clipmem.{kind}")}


def load(point: EntryPoint) -> Any:
    """Import a declaration from another package."""
    try:
        return point.load()
    except (ImportError, AttributeError, SyntaxError) as error:
        package = point.dist.name if point.dist else "a package"
        subject, hint = f"{point.group} {shorten(point.name)} from {package}", f"Update or uninstall {package}."
        got = f"code that cannot be imported ({shorten_text(str(error), 160)})"
        raise InputError(subject, got=got, expected=point.value, hint=hint) from error


def declared(kind: str, name: str) -> Any:
    """Return an object with the attributes of `Facts` that apply to the kind."""
    return BUILT_IN[kind][name] if name in BUILT_IN[kind] else load(plugins(kind)[name])


def key_of(name: str) -> str:
    """Return the name of a declaration's table in a recipe.

    Example:
        >>> key_of("leave-one-out")
        'leave_one_out'
    """
    return name.replace("-", "_")


def own_settings(section: Any, name: str) -> Any:
    """Return a declaration's table in a section of a recipe, or None."""
    return getattr(section, key_of(name), None)
