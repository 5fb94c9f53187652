"""Documents with numbers, compared to rounding: processors differ in the last digit."""

import math


def alike(a, b, *, relative=1e-9):
    """Return whether two JSON documents are equal, numbers to `relative`."""
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(alike(a[key], b[key], relative=relative) for key in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(alike(x, y, relative=relative) for x, y in zip(a, b, strict=True))
    if isinstance(a, float) and isinstance(b, float):
        return math.isclose(a, b, rel_tol=relative, abs_tol=1e-12)
    return type(a) is type(b) and a == b
