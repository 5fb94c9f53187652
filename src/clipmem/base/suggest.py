"""Near names for a name that does not exist."""

import difflib
from collections.abc import Iterable

from clipmem.base.errors import shorten_text

_LONGEST = 200  # characters of a name that is compared: the cost grows with the square
_SHOWN = 40  # names of a list


def near_names(name: str, known: Iterable[str]) -> list[str]:
    """Return at most two known names that are near a name, the nearest first; case does not count.

    Example:
        >>> near_names("vit-b-32", ["ViT-B-32", "RN50"])
        ['ViT-B-32']
    """
    if len(name) > _LONGEST:
        return []
    by_lower = {one.lower(): one for one in sorted(known) if len(one) <= _LONGEST}
    return [by_lower[match] for match in difflib.get_close_matches(name.lower(), by_lower, n=2, cutoff=0.6)]


def did_you_mean(name: str, known: Iterable[str], *, kind: str = "name") -> str:
    """Return a sentence that suggests what was meant: the nearest known name, or the list of all."""
    names = sorted(known)
    near = near_names(name, names)
    if near:
        return f"Did you mean {' or '.join(map(repr, near))}?"
    shown = [shorten_text(one) for one in names[:_SHOWN]]
    more = f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else ""
    return f"Known {kind}s: {', '.join(shown)}{more}."
