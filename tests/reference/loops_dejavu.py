"""Slow references of a study's Déjà Vu memorization: captions, nearest images, objects, gaps, tops.

As `tests.reference.loops`: plain loops; no code in common with `clipmem.functional` or
`clipmem.evaluate`.
"""

from collections.abc import Sequence
from math import fsum, sqrt

from tests.reference.loops_measures import dejavu_gaps, nearest

Row = Sequence[float]


def _mean_unit(rows: Sequence[Row]) -> list[float]:
    """Mean of the rows after each is divided by its length."""
    units = [[value / sqrt(fsum(x * x for x in row)) for value in row] for row in rows]
    return [fsum(column) / len(units) for column in zip(*units, strict=True)]


def dejavu_study(
    target: tuple[Sequence[Sequence[Row]], Sequence[Sequence[Row]]],
    reference: tuple[Sequence[Sequence[Row]], Sequence[Sequence[Row]]],
    true: Sequence[set[str]],
    public: Sequence[set[str]],
    k: int,
) -> tuple[float, float, float]:
    """Population precision, population recall and AUC gap of f and g, from their embeddings on.

    Args:
        target: Under f, the captions of each pair and the views of each public image.
        reference: The same under g.
        true: Objects in the image of each pair.
        public: Objects in each public image.
        k: Neighbors.

    Returns:
        The three gaps.
    """
    guesses: list[list[set[str]]] = []
    for captions, images in (target, reference):
        means = [_mean_unit(views) for views in images]
        near = [nearest(_mean_unit(own), means, k) for own in captions]
        guesses.append([set().union(*(public[row] for row in rows)) for rows in near])
    return dejavu_gaps(true, guesses[0], guesses[1])


def top_gaps(copies: Sequence[tuple[float, float, float, float]], fraction: float) -> tuple[float, float, float]:
    """Gaps of mean precision, mean recall and F-score over the first pairs of a ranking.

    Args:
        copies: Precision of f and g, recall of f and g, of every pair in the order of the ranking; a pair that was
            drawn several times stands there several times.
        fraction: Share of the pairs.

    Returns:
        The three gaps.
    """
    size = max(1, int(len(copies) * fraction))
    p_f, p_g, r_f, r_g = (fsum(column) / size for column in zip(*copies[:size], strict=True))

    def f_score(precision: float, recall: float) -> float:
        return 2 * precision * recall / (precision + recall) if precision + recall else 0.0

    return p_f - p_g, r_f - r_g, f_score(p_f, r_f) - f_score(p_g, r_g)
