"""Regrouping: the most memorized pairs in batches of their own (after MultiMem, ECCV 2026).

A contrastive loss compares a pair with the others of its batch. Of an epoch's B batches, round(share B) (at least one)
hold the most memorized pairs and nobody else, at places drawn for each epoch; all batches keep their sizes, and every
pair is still shown once an epoch. In the epochs between two regroupings the batches are the ordinary ones.

Who is memorized, CLIPMem of a parent run says. f and g group the same slots, those of f's pairs: a shared pair is in
the same batch of both, and an independent pair of g goes where the candidate of its slot goes in f.
"""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from jaxtyping import Float64

from clipmem.base.errors import InputError
from clipmem.base.mitigations import RegroupSection
from clipmem.base.random import generator
from clipmem.mitigate.base import MITIGATIONS, Mitigation, Preparation, Training
from clipmem.mitigate.parent import parents_of
from clipmem.train.hooks import Batches

TABLE = "mitigate/regroup"


def regroup(batches: Batches, badness: Float64[np.ndarray, " n"], *, share: float, seed: int, epoch: int) -> Batches:
    """Lay batches anew so that the worst pairs have batches of their own.

    Example:
        >>> laid = regroup([np.array([3, 0]), np.array([1, 2])], np.array([9.0, 1, 8, 2]), share=0.5, seed=0, epoch=0)
        >>> sorted(sorted(batch.tolist()) for batch in laid)
        [[0, 2], [1, 3]]
    """
    count = len(batches)
    if count < 2:
        raise InputError(
            "[mitigate.regroup] share",
            got="one batch an epoch",
            expected="two or more",
            hint="Set train.batch_size to less than half of the training pairs.",
        )
    own = min(count - 1, max(1, round(share * count)))
    places = set(generator(seed, "regroup", epoch).permutation(count)[:own].tolist())
    order = np.concatenate(batches)
    room = sum(len(batches[place]) for place in places)
    known = np.where(np.isnan(badness), -np.inf, badness)[order]
    # equal ones: those whose turn it is first
    worst = np.zeros(len(order), dtype=np.bool_)
    worst[np.lexsort((np.arange(len(order)), -known))[:room]] = True
    kinds = {True: order[worst], False: order[~worst]}
    used = {True: 0, False: 0}
    laid: Batches = []
    for place, batch in enumerate(batches):
        kind = place in places
        laid.append(kinds[kind][used[kind] : used[kind] + len(batch)])
        used[kind] += len(batch)
    return laid


@MITIGATIONS.register("regroup")
class Regroup(Mitigation):
    """`[mitigate.regroup]`, by the scores of a parent."""

    name = "regroup"

    def __init__(self, section: RegroupSection, badness: Float64[np.ndarray, " n"], seed: int) -> None:
        self._section, self._badness, self._seed = section, badness, seed

    @classmethod
    def prepare(cls, given: Preparation) -> list[Path]:
        """Keep the parent's scores, so that trainings need nothing but the run folder."""
        parent = parents_of(given.recipe).get(cls.name)
        return [] if parent is None else [given.folder.write(TABLE, parent.table.select("uid", "badness").sort("uid"))]

    @classmethod
    def create(cls, training: Training) -> "Regroup":
        """Make it for a training: g's slots have the scores of f's pairs in them."""
        plan, splits, section = training.plan, training.splits, training.recipe.mitigate.regroup
        values = dict(training.folder.read(TABLE).iter_rows())
        uids = list(plan.uids)
        if plan.side == "g":
            uids[plan.shared :] = splits.filter(pl.col("role") == "candidate")["uid"].sort().to_list()
        badness = np.array([values.get(uid, np.nan) for uid in uids], dtype=np.float64)
        return cls(section, badness, plan.seed)

    def facts(self) -> dict[str, Any]:
        """Return the settings."""
        return self._section.model_dump(mode="json")

    def content(self) -> str:
        """Hash the slots' scores."""
        return hashlib.sha256(self._badness.tobytes()).hexdigest()

    def batches(self, batches: Batches, epoch: int) -> Batches:
        """Lay the batches of every `every`-th epoch anew."""
        if epoch % self._section.every:
            return batches
        return regroup(batches, self._badness, share=self._section.share, seed=self._seed, epoch=epoch)
