"""Suggestions for misspelled names."""

import difflib
from collections.abc import Iterable

from clipmem.base.errors import shorten_text

_LONGEST = 200  # characters of a name to compare: the cost is quadratic
_SHOWN = 40  # names in a list


def near_names(name: str, known: Iterable[str]) -> list[str]:
    """Return up to two similar known names, most similar first, ignoring case.

    Example:
        >>> near_names("vit-b-32", ["ViT-B-32", "RN50"])
        ['ViT-B-32']
    """
    if len(name) > _LONGEST:
        return []
    by_lower = {one.lower(): one for one in sorted(known) if len(one) <= _LONGEST}
    return [by_lower[match] for match in difflib.get_close_matches(name.lower(), by_lower, n=2, cutoff=0.6)]


def did_you_mean(name: str, known: Iterable[str], *, kind: str = "name", otherwise: str = "") -> str:
    """Suggest the most similar known names; if none is similar, say `otherwise`, by default a list of all."""
    names = sorted(known)
    near = near_names(name, names)
    if near:
        return f"Did you mean {' or '.join(map(repr, near))}?"
    if otherwise:
        return otherwise
    shown = [shorten_text(one) for one in names[:_SHOWN]]
    more = f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else ""
    return f"Known {kind}s: {', '.join(shown)}{more}."
