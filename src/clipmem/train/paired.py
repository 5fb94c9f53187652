"""f and g from one plan: same initial weights, same steps, same slots for the shared pairs; only the data differs.

Both models train on `shared + own` pairs, own being the candidates for f and the independents for g. A *slot* is a
place in the training set: slot k is the k-th shared pair in both, or the k-th own pair of each. The order of slots is
drawn once for both, so that a shared pair is in the same batch of the same step in f and in g.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from jaxtyping import Int

from clipmem.base.errors import RunError
from clipmem.base.random import derive_seed
from clipmem.store.hashing import json_sha256
from clipmem.train.schedule import epoch_batches

OWN_ROLE = {"f": "candidate", "g": "independent"}


@dataclass(frozen=True)
class TrainingSet:
    """What one model trains on.

    Attributes:
        side: `f` or `g`, or another name that a protocol gives a kind of model.
        seed: The seed of this pair of models.
        uids: The pair in each slot: first the shared ones, then the model's own.
        shared: Number of shared slots.
        left_out: A pair that keeps its slot, and is never shown: all others are shown as if it were there.
        largest: Slots of the study's largest model, where the models' sizes differ: all of them have as many batches an
            epoch as that one. 0: as many as this model needs.
    """

    side: str
    seed: int
    uids: tuple[str, ...]
    shared: int
    left_out: str = ""
    largest: int = 0

    @property
    def init_seed(self) -> int:
        """Seed of the initial weights: the same for f and g."""
        return derive_seed(self.seed, "init")

    @property
    def uids_sha256(self) -> str:
        """Hash of the pairs that the model trains on."""
        return json_sha256(list(self.uids))

    def batch_count(self, batch_size: int) -> int:
        """Return how many batches an epoch has."""
        return math.ceil(max(len(self.uids), self.largest) / batch_size)

    def batches(self, batch_size: int, epoch: int) -> list[Int[np.ndarray, " size"]]:
        """Return the batches of one epoch, without the pair that is left out (see `epoch_batches`)."""
        batches = epoch_batches(len(self.uids), batch_size, seed=self.seed, epoch=epoch, largest=self.largest)
        if not self.left_out:
            return batches
        slot = self.uids.index(self.left_out)
        return [batch[batch != slot] for batch in batches]


def training_set(splits: pl.DataFrame, side: str, seed: int) -> TrainingSet:
    """Build the training set of one model from the split table."""
    by_role = {
        role: splits.filter(pl.col("role") == role)["uid"].sort().to_list() for role in ("shared", OWN_ROLE[side])
    }
    shared, own = by_role["shared"], by_role[OWN_ROLE[side]]
    return TrainingSet(side, seed, (*shared, *own), len(shared))


def check_paired(records: Mapping[str, Mapping[str, Any]]) -> None:
    """Check, from what both trainings recorded, that f and g differ in their own pairs and in nothing else."""
    f, g = records["f"], records["g"]
    for key in ("init_sha256", "steps", "shared_order_sha256", "settings_sha256"):
        if f[key] != g[key]:
            seed, differ = f["seed"], f"{key} is {f[key]} for f and {g[key]} for g"
            raise RunError(
                f"f and g of seed {seed} are not comparable: {differ}. Delete both model folders and run again."
            )


def check_alike(records: Mapping[tuple[str, int], Mapping[str, Any]]) -> None:
    """Check, from what the trainings recorded, that a study's models differ in their pairs and seeds only."""
    first = next(iter(records.values()))
    starts: dict[int, str] = {}
    for (side, seed), record in records.items():
        start = starts.setdefault(seed, record["init_sha256"])
        for key, value in (
            ("settings_sha256", first["settings_sha256"]),
            ("steps", first["steps"]),
            ("init_sha256", start),
        ):
            if record[key] != value:
                differ = f"{key} is {record[key]}, {value} elsewhere"
                raise RunError(
                    f"model {side} of seed {seed} differs from the others: {differ}. Delete it and run again."
                )
