"""Near means (`clipmem.stats.cells`), as `clipmem curate` takes them of many pairs, against bare matrix products.

The bare products have the sizes of the near ones, cell by cell: rows by compared rows, and weights by values, with
tensors on the device. The ratio is the share of the time that is not spent on moving rows, hiding pairs of the same
fold, the softmax and the nearest rows. The cells are learned on the CPU, before any timing.
"""

from pathlib import Path

import numpy as np
import torch
from timing import Row, in_turn, seconds

from clipmem.scoring.evidence import NEAR, TOGETHER
from clipmem.stats.agreement import TEMPERATURE
from clipmem.stats.cells import Cells

SIZES, SMALLEST = {"cpu": (50_000,), "cuda": (50_000, 1_000_000)}, 500  # numbers of pairs
WIDTH, THINGS = 512, 2000


def measure(folder: Path, *, rounds: int, before: str, device: str, smallest: bool) -> list[Row]:  # noqa: ARG001
    """Compare by number of pairs, in pairs per second."""
    rows: list[Row] = []
    for pairs in (SMALLEST,) if smallest else SIZES[device]:
        work = _Work(pairs, device)
        rows.append(
            in_turn(
                "cells",
                f"near means of {pairs:,} pairs, {work.compared:,.0f} compared with each",
                "bare",
                lambda work=work, pairs=pairs: pairs / seconds(work.near),
                lambda work=work, pairs=pairs: pairs / seconds(work.bare),
                unit="pairs/s",
                rounds=rounds,
                more_is_better=True,
            )
        )
    return rows


class _Work:
    """The same products, with and without all else."""

    def __init__(self, pairs: int, device: str) -> None:
        self.device, self.fold = device, np.arange(pairs) % max(2, pairs // TOGETHER)
        self.value = _unit_rows(pairs, seed=1)
        query = _unit_rows(pairs, seed=0)
        self.cells = Cells(query)
        self.sizes = [(len(rows), len(others)) for rows, others in self.cells]
        self.compared = sum(rows * others for rows, others in self.sizes) / pairs
        self.query, self.values = (torch.from_numpy(x).to(device) for x in (query, self.value))
        self.bare()  # the first products on a device take longer

    def near(self) -> None:
        """Take the near means of all pairs."""
        found = self.cells.means(self.value, NEAR, self.fold, temperature=TEMPERATURE, device=self.device)
        assert sum(len(block.rows) for block in found) == len(self.fold)  # noqa: S101

    def bare(self) -> None:
        """Take products of the same sizes."""
        for rows, others in self.sizes:
            weight = self.query[:rows] @ self.query[:others].T
            torch.matmul(weight, self.values[:others])
        if self.device == "cuda":
            torch.cuda.synchronize()


def _unit_rows(pairs: int, *, seed: int) -> np.ndarray:
    """Return unit rows around the directions of things, with much noise."""
    stream = np.random.default_rng(seed)
    rows = stream.standard_normal((THINGS, WIDTH), dtype=np.float32)[stream.integers(THINGS, size=pairs)]
    rows += stream.standard_normal((pairs, WIDTH), dtype=np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)
