"""Regrouping: put the most memorized pairs in batches of their own (after MultiMem, ECCV 2026).

A contrastive loss compares a pair with the others of its batch. Of an epoch's B batches, round(share B) (at least one)
hold only the most memorized pairs, at positions drawn for each epoch. Batch sizes do not change, and every pair is
shown once per epoch. Every `every`-th epoch is regrouped.
"""

import hashlib
import itertools
from pathlib import Path

import numpy as np
import polars as pl
from jaxtyping import Float64

from clipmem.base.errors import require
from clipmem.base.mitigations import RegroupSection
from clipmem.base.random import generator
from clipmem.base.recipes import Recipe
from clipmem.mitigate.base import MITIGATIONS, Mitigation, Parent, Preparation, Training, read_parent
from clipmem.train.hooks import Batches

TABLE = "mitigate/regroup"


def regroup(batches: Batches, score: Float64[np.ndarray, " n"], *, share: float, seed: int, epoch: int) -> Batches:
    """Rearrange batches so that the pairs with the highest scores have batches of their own."""
    count = len(batches)
    hint = "Set train.batch_size to less than half of the training pairs."
    require(count >= 2, "[mitigate.regroup] share", "one batch an epoch", "two or more", hint)
    reserved = min(count - 1, max(1, round(share * count)))
    places = set(generator(seed, "regroup", epoch).permutation(count)[:reserved].tolist())
    order = np.concatenate(batches)
    room = sum(len(batches[index]) for index in places)
    scores = np.where(np.isnan(score), -np.inf, score)[order]
    # ties go to the pair that comes first in the epoch
    worst = np.zeros(len(order), dtype=np.bool_)
    worst[np.lexsort((np.arange(len(order)), -scores))[:room]] = True
    queues = {True: iter(order[worst]), False: iter(order[~worst])}
    return [
        np.fromiter(itertools.islice(queues[index in places], len(batch)), batch.dtype)
        for index, batch in enumerate(batches)
    ]


@MITIGATIONS.register("regroup")
class Regroup(Mitigation):
    """`[mitigate.regroup]`; `removal_score` is the parent's score of each slot."""

    summary = "Put the most memorized pairs of a parent run in batches of their own."

    def __init__(self, section: RegroupSection, seed: int, removal_score: Float64[np.ndarray, " n"]) -> None:
        super().__init__(section, seed)
        self._removal_score = removal_score

    @classmethod
    def parent(cls, recipe: Recipe) -> Parent:
        return read_parent(cls.section_of(recipe).scores, "clipmem", "[mitigate.regroup]")

    @classmethod
    def prepare(cls, preparation: Preparation) -> list[Path]:
        """Store the parent's scores, so that trainings need only the run folder."""
        scores = cls.parent(preparation.recipe).table.select("uid", "removal_score").sort("uid")
        return [preparation.folder.write(TABLE, scores)]

    @classmethod
    def hook(cls, training: Training) -> "Regroup":
        """Create the hook; g's slots have the scores of the corresponding pairs of f."""
        plan, splits = training.plan, training.splits
        values = dict(training.folder.read(TABLE).iter_rows())
        uids = list(plan.uids)
        if plan.side == "g":
            uids[plan.shared :] = splits.filter(pl.col("role") == "candidate")["uid"].sort().to_list()
        removal_score = np.array([values.get(uid, np.nan) for uid in uids], dtype=np.float64)
        return cls(cls.section_of(training.recipe), plan.seed, removal_score)

    def content(self) -> str:
        return hashlib.sha256(self._removal_score.tobytes()).hexdigest()

    def batches(self, batches: Batches, epoch: int) -> Batches:
        if epoch % self.section.every:
            return batches
        return regroup(batches, self._removal_score, share=self.section.share, seed=self.seed, epoch=epoch)
