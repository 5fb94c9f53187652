"""What a recipe asks of the data that only the data can tell: checked right after the pairs are read, all in one place.

Whoever has a need declares it (an objective its labels, an alignment its views, a mitigation its other captions and
images); nothing has been written when one is not met.
"""

import polars as pl

from clipmem.base.errors import InputError
from clipmem.base.recipes import Recipe
from clipmem.mitigate.base import check as check_mitigations
from clipmem.score.alignments import check_views
from clipmem.score.protocol import Protocol
from clipmem.train.objectives import OBJECTIVES


def check(recipe: Recipe, protocol: Protocol, pairs: pl.DataFrame) -> None:
    """Check the pairs of a source against what a recipe needs of them.

    Args:
        recipe: The recipe.
        protocol: Its protocol.
        pairs: The pairs, with the columns of the `pairs` table.

    Raises:
        InputError: A need is not met.
    """
    if protocol.trains and OBJECTIVES[recipe.train.objective].needs_labels:
        _check_labels(recipe, pairs["label"])
    used = [texts[: recipe.train.captions] for texts in pairs["captions"].to_list()]
    # the roles are not drawn yet: pairs without views may be among those that no role takes
    check_views(recipe, used, pairs["uid"].to_list(), spare=pairs.height - protocol.used_pairs(pairs))
    check_mitigations(recipe, pairs)


def _check_labels(recipe: Recipe, labels: pl.Series) -> None:
    what, n = f"[train] objective = {recipe.train.objective!r}", len(labels)
    bare = int((labels == "").sum())
    if bare:
        column = recipe.data.label_column
        raise InputError(
            what,
            got=f"{bare:,} of {n:,} pairs without a label (data.label_column = {column!r})",
            expected="a label for every pair",
            hint="Set data.label_column to a column that labels every pair, or choose another train.objective.",
        )
    if labels.n_unique() < 2:
        raise InputError(
            what,
            got=f"the label {labels[0]!r} for all {n:,} pairs",
            expected="two labels or more",
            hint="Set data.label_column to a column that tells pairs apart, or choose another train.objective.",
        )
