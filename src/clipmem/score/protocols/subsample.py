"""The subsample protocol (after Feldman & Zhang 2020): R models on random parts of the pairs; every pair is scored.

score(pair) = mean A over the models that trained on it - mean A over those that did not. It costs R models for all
pairs together, where leaving out one pair at a time costs a model a pair. The pool is all pairs but the external ones,
which are the bank; as a control, each external pair gets a placebo membership (as if drawn, though no model saw it),
under which its score must be about 0.

Feldman & Zhang draw each model's part by itself. Here the draw is balanced: each pair is in exactly k = round(p R)
models, so every pair has a score and all scores rest on equally many models, and the models' sizes are equal to within
a pair. Near-duplicates (one group of the split table) are in or out together: a model that trained on a copy of a pair
did see it, and the score of such a pair is that of its group.

Not to be trusted with few models: with R = 8 and p = 0.7 a pair is missing from two.
"""

import numpy as np
import polars as pl

from clipmem.base.errors import RunError
from clipmem.base.random import generator
from clipmem.base.require import require
from clipmem.score.design import Design
from clipmem.score.protocols.base import PROTOCOLS, Protocol, Records
from clipmem.train.paired import TrainingSet

SIDE = "r"


@PROTOCOLS.register("subsample")
class Subsample(Protocol):
    """In/out means over R models, each with a random start and a random part of the pool."""

    summary = "Many models on random parts of the pairs: every pair is measured."

    @property
    def count(self) -> int:
        """`subsample.models`."""
        return self.recipe.subsample.models

    @property
    def trained_pairs(self) -> int:
        """A fraction of the pool: of all pairs but the external ones."""
        split = self.recipe.split
        pool = split.shared + split.candidate + split.independent
        return round(pool * self.times / self.count)

    @property
    def times(self) -> int:
        """k, the number of models that train on each pair: `subsample.fraction` of them, to the nearest whole model."""
        settings = self.recipe.subsample
        times = round(settings.fraction * settings.models)
        require(
            0 < times < settings.models,
            "[subsample] fraction",
            f"{settings.fraction:g} of {settings.models} models, which is {times} of them for each pair",
            f"1 to {settings.models - 1} of {settings.models} models",
            "Set subsample.fraction nearer to 0.5, or set subsample.models to more models.",
        )
        return times

    def check_pairs(self, pairs: pl.DataFrame) -> None:
        """Check that a pair can be in some models and out of others, and that the data have enough pairs."""
        _ = self.times
        super().check_pairs(pairs)

    def roles(self, splits: pl.DataFrame) -> pl.DataFrame:
        """Make every pair of the pool a candidate: all of them are measured."""
        pool = pl.when(pl.col("role") == "external").then("role").otherwise(pl.lit("candidate"))
        return splits.with_columns(pool.alias("role"))

    def design(self, splits: pl.DataFrame) -> Design:
        """Draw each model's part of the pool; all models have as many steps as the largest.

        External pairs, which no model saw, get a placebo membership, drawn in the same way.
        """
        uids, member = self._draw(splits, "candidate", "subsample")
        external, placebo = self._draw(splits, "external", "placebo")
        largest = int(member.sum(axis=1).max())
        models = [TrainingSet(SIDE, k, tuple(uids[had].tolist()), 0, largest=largest) for k, had in enumerate(member)]
        place = {uid: at for at, uid in enumerate([*uids, *external])}
        order = np.array([place[uid] for uid in splits["uid"]])
        return Design(models, np.where(np.hstack([member, placebo])[:, order], 1, -1).astype(np.int8))

    def _draw(self, splits: pl.DataFrame, role: str, stream: str) -> tuple[np.ndarray, np.ndarray]:
        """Draw who is in which model: the role's uids, sorted, and the memberships, shape (model, n)."""
        rows = splits.filter(pl.col("role") == role).sort("uid").with_row_index()
        # groups are numbered by their smallest uid: neither row order nor group names reach the draw
        group = rows.select(pl.col("index").min().over("group").rank("dense") - 1).to_series().to_numpy()
        drawn = balanced_draw(
            np.bincount(group), self.count, self.times, generator(self.recipe.split.seed, stream, "balanced")
        )
        return rows["uid"].to_numpy(), drawn[:, group]

    def check(self, design: Design, records: Records) -> None:
        """All models must have the same settings and number of steps, and the pairs that this version draws."""
        super().check(design, records)
        for model in design.models:
            if records[model.side, model.seed].get("uids_sha256") != model.uids_sha256:
                raise RunError(
                    f"model {model.side} of seed {model.seed} was trained on other pairs than this version of clipmem "
                    "draws. Finish the study with the version that began it, or run it again in a new folder."
                )


def balanced_draw(sizes: np.ndarray, models: int, times: int, stream: np.random.Generator) -> np.ndarray:
    """Draw for each group the models that train on it: exactly `times` of them, all models about equally large.

    Each group's models are a uniform draw, independent of the other groups'. Then groups move, at random, from larger
    to smaller models until the sizes differ by at most one pair, or until no group that the largest model has and the
    smallest has not is small enough to bring the two nearer (where groups are large, rarely). That changes few
    memberships (0.6 % of those of 1,700 pairs in 16 models) and treats all models alike, so each group's models, looked
    at alone, are still a uniform draw.

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
        # a group of `gap` pairs or more would only turn the two round
        movable = np.flatnonzero(member[large] & ~member[small] & (sizes < gap))
        if gap <= 1 or len(movable) == 0:
            # argmax and argmin prefer the first of equal models: no model's number may matter
            return member[stream.permutation(models)]
        movable = stream.permutation(movable)
        surplus = min(totals[large] - goal, goal - totals[small])
        moved = movable[: max(1, int(np.searchsorted(sizes[movable].cumsum(), surplus, side="right")))]
        member[large, moved], member[small, moved] = False, True
        totals[large] -= sizes[moved].sum()
        totals[small] += sizes[moved].sum()
