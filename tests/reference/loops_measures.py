"""Slow references of the measures beside CLIPMem: each written from its equation as plain loops over Python floats.

As `tests.reference.loops`: no code in common with `clipmem.functional`.
"""

from collections.abc import Sequence
from itertools import pairwise
from math import exp, fsum, sqrt
from statistics import median

from tests.reference.loops_score import similarity

Row = Sequence[float]
Objects = set[int] | set[str]


def _mean(values: Sequence[float]) -> float:
    return fsum(values) / len(values)


def _variance(values: Sequence[float]) -> float:
    mean = _mean(values)
    return fsum((value - mean) ** 2 for value in values) / (len(values) - 1)


def view_distance(clean: Row, views: Sequence[Row]) -> float:
    """L of one input: mean over views of the distance of the unit vectors."""

    def unit(row: Row) -> list[float]:
        length = sqrt(fsum(value * value for value in row))
        return [value / length for value in row]

    origin = unit(clean)
    return _mean([sqrt(fsum((a - b) ** 2 for a, b in zip(origin, unit(view), strict=True))) for view in views])


def range_normalize(values: Row) -> list[float]:
    """Divide by max - min, without a shift: the last lines of the published SSLMem and LayerMem scripts."""
    spread = max(values) - min(values)
    return [value / spread for value in values]


def class_probability(logits: Row, label: int) -> float:
    """Softmax probability of a class, for logits that do not overflow."""
    return exp(logits[label]) / fsum(exp(value) for value in logits)


def unitmem(activations: Row, *, rest: str = "mean") -> tuple[float, int]:
    """UnitMem of one unit and its first largest point; (0, -1) for a dead unit."""
    top = max(activations)
    argmax = list(activations).index(top)
    if top == 0:
        return 0.0, -1
    others = [value for i, value in enumerate(activations) if i != argmax]
    middle = median(others) if rest == "median" else _mean(others)
    return (top - middle) / (top + middle), argmax


def nearest(query: Row, public: Sequence[Row], k: int) -> list[int]:
    """Rows of the k largest cosines; of equal ones (to 12 decimals) the lower row first."""
    return sorted(range(len(public)), key=lambda j: (-round(similarity(query, public[j]), 12), j))[:k]


def dejavu_gaps(
    true: Sequence[Objects], target: Sequence[Objects], reference: Sequence[Objects]
) -> tuple[float, float, float]:
    """Return the population precision, population recall and AUC gaps, pair by pair, area by its rectangles."""
    rates: list[list[tuple[float, float]]] = []
    for predicted in (target, reference):
        rows = [(own, guess) for own, guess in zip(true, predicted, strict=True) if own]
        rates.append(
            [(len(own & guess) / len(guess) if guess else 0.0, len(own & guess) / len(own)) for own, guess in rows]
        )
    gaps: list[float] = []
    for kind in (0, 1):
        signs = [float(f[kind] > g[kind]) - float(f[kind] < g[kind]) for f, g in zip(*rates, strict=True)]
        gaps.append(_mean(signs))
    areas: list[float] = []
    for side in rates:
        steps = sorted({0.0, *(recall for _, recall in side)})
        areas.append(
            fsum(
                (high - low) * _mean([1.0 if recall >= high else 0.0 for _, recall in side])
                for low, high in pairwise(steps)
            )
        )
    return gaps[0], gaps[1], areas[0] - areas[1]


def in_out(values: Row, member: Sequence[bool]) -> float:
    """Mean over the models that trained on the pair, minus that over the others."""
    inside = [value for value, had in zip(values, member, strict=True) if had]
    outside = [value for value, had in zip(values, member, strict=True) if not had]
    return _mean(inside) - _mean(outside)


def jackknife_stderr(values: Row, member: Sequence[bool]) -> float:
    """Leave out each model on its own side: sqrt of Σ_sides (c - 1)/c Σ_r (θ_(r) - θ_(.))²."""
    total = 0.0
    for side in (True, False):
        rows = [r for r, had in enumerate(member) if had == side]
        left: list[float] = []
        for out in rows:
            keep = [r for r in range(len(values)) if r != out]
            left.append(in_out([values[r] for r in keep], [member[r] for r in keep]))
        center = _mean(left)
        total += (len(rows) - 1) / len(rows) * fsum((value - center) ** 2 for value in left)
    return sqrt(total)


def welch_df(values: Row, member: Sequence[bool]) -> float:
    """Degrees of freedom of Welch and Satterthwaite for the difference of the two sides."""
    groups = [[v for v, had in zip(values, member, strict=True) if had == side] for side in (True, False)]
    parts = [_variance(group) / len(group) for group in groups]
    below = fsum(part**2 / (len(group) - 1) for part, group in zip(parts, groups, strict=True))
    return fsum(parts) ** 2 / below


def holm(p: Row) -> list[float]:
    """Adjusted p of test i: the largest (m - rank) p over the tests that come no later, at most 1."""
    order = sorted(range(len(p)), key=lambda i: p[i])
    adjusted = [0.0] * len(p)
    for place, i in enumerate(order):
        adjusted[i] = max(min(1.0, (len(p) - j) * p[order[j]]) for j in range(place + 1))
    return adjusted
