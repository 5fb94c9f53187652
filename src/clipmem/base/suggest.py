"""Near names for a name that does not exist."""

import difflib
from collections.abc import Iterable


def did_you_mean(name: str, known: Iterable[str], *, kind: str = "name") -> str:
    """Return a sentence that suggests what was meant: the nearest known name, or the list of all.

    Args:
        name: What the user wrote.
        known: The names that exist.
        kind: What such a name is called in the sentence.

    Example:
        >>> did_you_mean("epoch", ["epochs", "lr"], kind="key")
        "Did you mean 'epochs'?"
    """
    names = sorted(known)
    # both sides in lower case: "vit-b-32" is ViT-B-32
    by_lower = {known_name.lower(): known_name for known_name in names}
    near = [by_lower[match] for match in difflib.get_close_matches(name.lower(), by_lower, n=2, cutoff=0.6)]
    if near:
        return f"Did you mean {' or '.join(map(repr, near))}?"
    return f"Known {kind}s: {', '.join(names)}."
