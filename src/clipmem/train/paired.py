"""Training sets of f and g: the same initial weights, steps, and slots of the shared pairs.

Both models train on the shared pairs and on their own: candidates for f, independent pairs for g. A *slot* is an index
in the training set: the shared pairs first, then the model's own. The order of slots is drawn once for both, so that a
shared pair is in the same batch of the same step in f and g.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl
from jaxtyping import Int

from clipmem.base.errors import RunError
from clipmem.base.hashing import json_sha256
from clipmem.base.random import derive_seed, generator

OWN_ROLE = {"f": "candidate", "g": "independent"}


@dataclass(frozen=True)
class TrainingSet:
    """The training set of one model.

    Attributes:
        side: `f`, `g`, or another kind of model of a protocol.
        seed: Seed of this pair of models.
        uids: The pair in each slot: first the shared ones, then the model's own.
        shared: Number of shared slots.
        left_out: A pair that keeps its slot but is never shown; the others are shown as if it were there.
        largest: Number of slots of the study's largest model, which determines the number of batches per epoch if the
            models differ in size; 0: that of this model.
        model: Its architecture, if it is not the recipe's.
        exists: Whether it is an existing model, which the study does not train.
    """

    side: str
    seed: int
    uids: tuple[str, ...]
    shared: int
    left_out: str = ""
    largest: int = 0
    model: str = ""
    exists: bool = False

    @property
    def init_seed(self) -> int:
        """Seed of the initial weights, the same for f and g."""
        return derive_seed(self.seed, "init")

    @property
    def uids_sha256(self) -> str:
        """Hash of the training pairs."""
        return json_sha256(list(self.uids))

    def batch_count(self, batch_size: int) -> int:
        """Return the number of batches per epoch: ceil(max(n, largest) / batch_size)."""
        return math.ceil(max(len(self.uids), self.largest) / batch_size)

    def batches(self, batch_size: int, epoch: int) -> list[Int[np.ndarray, " size"]]:
        """Divide an epoch's random order of slots into batches, without the left-out pair.

        There are `batch_count` of them, whose sizes differ by at most one, so every pair is shown exactly once.
        """
        order = generator(self.seed, "order", epoch).permutation(len(self.uids))
        batches = np.array_split(order, self.batch_count(batch_size))
        if not self.left_out:
            return batches
        slot = self.uids.index(self.left_out)
        return [batch[batch != slot] for batch in batches]


def training_set(splits: pl.DataFrame, side: str, seed: int) -> TrainingSet:
    """Build the training set of one model from the split table."""
    shared, exclusive = (splits.filter(role=role)["uid"].sort().to_list() for role in ("shared", OWN_ROLE[side]))
    return TrainingSet(side, seed, (*shared, *exclusive), len(shared))


def check_paired(records: Mapping[str, Mapping[str, object]]) -> None:
    """Check by their records that f and g differ only in their own pairs."""
    f, g = records["f"], records["g"]
    for key in ("init_sha256", "steps", "shared_order_sha256", "settings_sha256"):
        if f[key] != g[key]:
            differ = f"f and g of seed {f['seed']} are not comparable: {key} is {f[key]} for f and {g[key]} for g"
            raise RunError(f"{differ}. Delete both model folders and run again.")


def check_alike(records: Mapping[tuple[str, int], Mapping[str, object]]) -> None:
    """Check by their records that a study's models differ only in their pairs and seeds."""
    first = next(iter(records.values()))
    starts: dict[int, object] = {}
    for (side, seed), record in records.items():
        expected = {key: first[key] for key in ("settings_sha256", "steps")}
        expected["init_sha256"] = starts.setdefault(seed, record["init_sha256"])
        for key, value in expected.items():
            if record[key] != value:
                differ = f"differs from the others: {key} is {record[key]}, {value} elsewhere"
                raise RunError(f"model {side} of seed {seed} {differ}. Delete it and run again.")
