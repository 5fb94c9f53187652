"""The subsample protocol (after Feldman & Zhang 2020): R models on random subsets of the pairs; every pair is scored.

score(pair) = mean A over the models that trained on it - mean A over those that did not. The pool is all pairs except
the external ones, which are the bank; as a control, external pairs get a placebo membership, under which their scores
must be about 0.

Unlike in Feldman & Zhang, the subsets are balanced: each pair is in exactly k = round(p R) models, and the models'
sizes differ by at most one pair. Near-duplicates (groups of the split table) are in or out together, so that the score
of such a pair is that of its group.

When not to trust it: with few models. With R = 8 and p = 0.7, only two models have not seen a pair.
"""

import numpy as np
import polars as pl

from clipmem.base.errors import RunError, require
from clipmem.base.random import generator
from clipmem.scoring.design import Design
from clipmem.scoring.protocols.base import PROTOCOLS, Protocol, Records
from clipmem.train.paired import TrainingSet

SIDE = "r"


@PROTOCOLS.register("subsample")
class Subsample(Protocol):
    """In/out means over R models, each with a random initialization and subset of the pool."""

    random_members = True
    epsilon_attack = "cosine"  # the training sets of the references determine the target's
    summary = "Many models on random subsets of the pairs: measures every pair."

    @property
    def count(self) -> int:
        return self.recipe.subsample.models

    @property
    def pool(self) -> int:
        """Number of pairs that are not external."""
        split = self.recipe.split
        return split.shared + split.candidate + split.independent

    @property
    def trained_pairs(self) -> int:
        """A fraction of the pool."""
        return round(self.pool * self.times / self.count)

    @property
    def times(self) -> int:
        """k, the number of models that train on each pair: `subsample.fraction` of them, rounded."""
        settings = self.recipe.subsample
        times = round(settings.fraction * settings.models)
        got = f"{settings.fraction:g} of {settings.models} models, or {times} per pair"
        expected = f"1 to {settings.models - 1} of {settings.models} models per pair"
        hint = "Set subsample.fraction closer to 0.5, or increase subsample.models."
        require(0 < times < settings.models, "[subsample] fraction", got, expected, hint)
        return times

    def check_pairs(self, pairs: pl.DataFrame) -> None:
        """Also check that a pair can be in some models and not in others."""
        _ = self.times
        super().check_pairs(pairs)

    def roles(self, splits: pl.DataFrame) -> pl.DataFrame:
        """Make every pair of the pool a candidate."""
        pool = pl.when(pl.col("role") == "external").then("role").otherwise(pl.lit("candidate"))
        return splits.with_columns(pool.alias("role"))

    def design(self, splits: pl.DataFrame) -> Design:
        """Sample each model's subset of the pool, and placebo memberships; all models have the steps of the largest."""
        uids, member = self._draw(splits, "candidate", "subsample")
        external, placebo = self._draw(splits, "external", "placebo")
        largest = int(member.sum(axis=1).max())
        models = [TrainingSet(SIDE, k, tuple(uids[row].tolist()), 0, largest=largest) for k, row in enumerate(member)]
        index = {uid: at for at, uid in enumerate([*uids, *external])}
        order = np.array([index[uid] for uid in splits["uid"]])
        return Design(models, np.where(np.hstack([member, placebo])[:, order], 1, -1).astype(np.int8))

    def _draw(self, splits: pl.DataFrame, role: str, stream: str) -> tuple[np.ndarray, np.ndarray]:
        """Sample memberships; return the role's uids, sorted, and the memberships, shape (model, n)."""
        rows = splits.filter(pl.col("role") == role).sort("uid")
        group = group_numbers(rows)
        member = balanced_draw(
            np.bincount(group), self.count, self.times, generator(self.recipe.split.seed, stream, "balanced")
        )
        return rows["uid"].to_numpy(), member[:, group]

    def check(self, design: Design, records: Records) -> None:
        """Check that all models have the same settings and steps, and the pairs that this version samples."""
        super().check(design, records)
        for model in design.models:
            if records[model.side, model.seed].get("uids_sha256") != model.uids_sha256:
                raise RunError(
                    f"model {model.side} of seed {model.seed} was trained on other pairs than this version of clipmem "
                    "samples. Finish the study with the version that started it, or run it again in a new folder."
                )


def group_numbers(rows: pl.DataFrame) -> np.ndarray:
    """Number the groups by their smallest uid, so that row order and group names do not matter."""
    return rows.select(pl.col("uid").min().over("group").rank("dense") - 1).to_series().to_numpy()


def balanced_draw(sizes: np.ndarray, models: int, times: int, stream: np.random.Generator) -> np.ndarray:
    """Sample for each group exactly `times` models that train on it, with models of nearly equal size.

    Each group's models are sampled uniformly and independently. Then random groups move from larger to smaller models
    until sizes differ by at most one pair, or no group is small enough to move. That changes few memberships (0.6% for
    1,700 pairs in 16 models) and treats all models alike, so that the marginal distribution stays uniform.

    Example:
        >>> drawn = balanced_draw(np.ones(10, dtype=int), 4, 2, np.random.default_rng(0))
        >>> drawn.sum(axis=0).tolist(), drawn.sum(axis=1).tolist()
        ([2, 2, 2, 2, 2, 2, 2, 2, 2, 2], [5, 5, 5, 5])
    """
    member = stream.permuted(np.tile(np.arange(models) < times, (len(sizes), 1)), axis=1).T.copy()
    totals = member @ sizes
    goal = totals.mean()
    while True:
        large, small = int(totals.argmax()), int(totals.argmin())
        gap = int(totals[large] - totals[small])
        # moving a group of `gap` pairs or more would not reduce the gap
        movable = np.flatnonzero(member[large] & ~member[small] & (sizes < gap))
        if gap <= 1 or len(movable) == 0:
            # argmax and argmin prefer the first of equal models: shuffle the models
            return member[stream.permutation(models)]
        movable = stream.permutation(movable)
        surplus = min(totals[large] - goal, goal - totals[small])
        moved = movable[: max(1, int(np.searchsorted(sizes[movable].cumsum(), surplus, side="right")))]
        member[large, moved], member[small, moved] = False, True
        totals[large] -= sizes[moved].sum()
        totals[small] += sizes[moved].sum()
