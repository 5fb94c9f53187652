"""Near rows among many: rows in cells, each compared with the rows of the nearest cells only.

Time O(n^1.5 d) instead of O(n² d), memory O(block). Neighbors beyond the nearest cells are missed: `experiments/curate/
scale.py` measures how many, and what it costs the list of suspects.
"""

from collections.abc import Iterator
from typing import NamedTuple, cast

import numpy as np
import torch
from jaxtyping import Float32, Int

from clipmem.base import slices
from clipmem.base.errors import require_range
from clipmem.base.random import derive_seed

PROBES = 32  # a row is compared with the nearest cells that have as many rows as so many cells of mean size
WIDEST = 4  # times that number: of more rows, evenly spaced ones are compared
_CELLS, _FEWEST, _LEARNED = 4, 8, 24  # times √n cells; fewest rows a cell; rows a cell to learn the cells from
_BLOCK, _PRODUCTS = 16_384, 2**22  # rows assigned at once; products


class NearMeans(NamedTuple):
    """Softmax-weighted means of the values of near rows, and the nearest rows, for some rows.

    Attributes:
        rows: The rows, shape (b,).
        mean: Their means, not of length 1, shape (b, d).
        near: Their nearest other rows, nearest first; -1 where there are fewer, shape (b, k).
    """

    rows: Int[np.ndarray, " b"]
    mean: Float32[np.ndarray, "b d"]
    near: Int[np.ndarray, "b k"]


class Cells:
    """A partition of unit rows into about 4√n cells by k-means, and the nearest cells of each.

    Args:
        unit: Rows of length 1, or 0; an array or a memory map, shape (n, p).
        probes: Number of cells of mean size that a row is compared with.
        seed: Of the rows that the cells are learned from.

    Raises:
        InputError: There are fewer than 2 rows, or `probes` is not positive.

    Example:
        >>> east, north = np.eye(2, dtype=np.float32)
        >>> cells = Cells(np.stack([east, east, north, north]))
        >>> found = list(cells.means(np.float32([[1], [2], [3], [4]]), 1, temperature=0.01))
        >>> sorted((int(row), float(mean[0])) for one in found for row, mean in zip(one.rows, one.mean))
        [(0, 2.0), (1, 1.0), (2, 4.0), (3, 3.0)]
    """

    def __init__(self, unit: Float32[np.ndarray, "n p"], *, probes: int = PROBES, seed: int = 0) -> None:
        from sklearn.cluster import MiniBatchKMeans  # slow to import

        n = len(unit)
        require_range("rows", n, 2, hint="Give more rows.")
        require_range("probes", probes, 1, hint="Use 32.")
        count = max(1, round(min(_CELLS * n**0.5, n / _FEWEST)))
        learned = np.unique(np.linspace(0, n - 1, min(n, _LEARNED * count)).astype(np.int64))
        # k-means++ on three rows a cell: on 12,288 it takes longer than all the rest
        start, once = derive_seed(seed, "cells") % 2**32, cast("str", 1)
        cluster = MiniBatchKMeans(count, batch_size=4096, n_init=once, init_size=3 * count, random_state=start)
        trained = cluster.fit(unit[learned])
        centers = np.asarray(trained.cluster_centers_, dtype=np.float32)
        # the nearest center by distance: rows have the same length
        offset = (centers * centers).sum(axis=1) / 2
        cell = np.empty(n, dtype=np.int64)
        for part in slices(n, _BLOCK):
            cell[part] = (np.asarray(unit[part]) @ centers.T - offset).argmax(axis=1)
        order = np.argsort(cell, kind="stable")
        self._rows = np.split(order, np.flatnonzero(np.diff(cell[order])) + 1)
        self._centers = centers[cell[[rows[0] for rows in self._rows]]]
        self._unit, self._most = unit, probes * -(-n // len(self._rows))

    def __iter__(self) -> Iterator[tuple[Int[np.ndarray, " b"], Int[np.ndarray, " c"]]]:
        """Yield the rows of each cell with the rows that these are compared with, both in order."""
        sizes, offset = np.array([len(rows) for rows in self._rows]), (self._centers**2).sum(axis=1) / 2
        for rows, center in zip(self._rows, self._centers, strict=True):
            nearest = np.argsort(offset - self._centers @ center)
            enough = 1 + int(np.searchsorted(np.cumsum(sizes[nearest]), self._most))
            others = np.sort(np.concatenate([self._rows[cell] for cell in nearest[:enough]]))
            yield rows, others[:: -(-len(others) // (WIDEST * self._most))]

    def means(
        self,
        value: Float32[np.ndarray, "n d"],
        k: int,
        group: Int[np.ndarray, " n"] | None = None,
        *,
        temperature: float,
        device: str = "cpu",
    ) -> Iterator[NearMeans]:
        """Yield P_i = Σ_j softmax_j(q_i·q_j / τ) t_j over the compared rows j of other groups, with t those of `value`.

        By default each row is a group. A row that is compared with no other has the mean 0. The products are taken on
        `device`.
        """
        group = np.arange(len(self._unit)) if group is None else np.unique(group, return_inverse=True)[1]
        members, ends = np.argsort(group, kind="stable"), np.cumsum(np.bincount(group))
        column = np.full(len(group), -1)  # of each row among the compared ones
        for rows, others in self:
            compared, targets = (torch.from_numpy(np.asarray(x[others])).to(device) for x in (self._unit, value))
            column[others] = np.arange(len(others))
            size = max(1, _PRODUCTS // len(others))
            for part in (rows[some] for some in slices(len(rows), size)):
                query = torch.from_numpy(np.asarray(self._unit[part])).to(device)
                cosine = query @ compared.T
                # those of the row's own group, found among its members: a comparison with all others takes as long as
                # the products
                last = ends[group[part]]
                count = np.diff(ends, prepend=0)[group[part]]
                inside = members[np.repeat(last - np.cumsum(count), count) + np.arange(count.sum())]
                hidden = np.stack([np.repeat(np.arange(len(part)), count), column[inside]])[:, column[inside] >= 0]
                cosine[tuple(torch.from_numpy(hidden).to(device))] = -torch.inf
                top = cosine.topk(min(k, len(others)), dim=1)
                near = np.full((len(part), k), -1)
                nearest = np.where((top.values > -torch.inf).cpu(), others[top.indices.cpu().numpy()], -1)
                near[:, : nearest.shape[1]] = nearest
                mean = torch.softmax(cosine.div_(temperature), dim=1) @ targets
                yield NearMeans(part, mean.nan_to_num_().cpu().numpy(), near)  # NaN: no other row
            column[others] = -1
