"""Near rows among many: rows in cells, each compared with the rows of the nearest cells only.

Time O(n^1.5 d) instead of O(n² d), memory O(block). Neighbors beyond the nearest cells are missed: `experiments/curate/
scale.py` measures how many, and what it costs the list of suspects.
"""

import warnings
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple, cast

import numpy as np
import torch
from jaxtyping import Float32, Int
from threadpoolctl import threadpool_limits

from clipmem.base import slices
from clipmem.base.errors import require_range
from clipmem.base.random import derive_seed
from clipmem.base.tables import scratch_array
from clipmem.stats.checks import Groups

EXACT = 30_000  # most rows of which each is compared with all others
PROBES = 32  # a row is compared with the nearest cells that have as many rows as so many cells of mean size
WIDEST = 4  # times that number: of more rows, evenly spaced ones are compared
_CELLS, _FEWEST, _LEARNED = 4, 8, 24  # times √n cells; fewest rows a cell; rows a cell to learn the cells from
_PRODUCTS, _ROWS = 2**22, 65_536  # at once
# a thread's, for all its cells, as new memory costs a page fault per page: compared rows, products
_Memory = tuple[list[torch.Tensor], torch.Tensor]


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
    """A partition of unit rows into about 4√n cells by k-means, in `order` cell after cell, and the nearest of each.

    Args:
        unit: Rows of length 1, or 0; an array or a memory map, shape (n, p).
        probes: Number of cells of mean size that a row is compared with.

    Raises:
        InputError: There are fewer than 2 rows, or `probes` is not positive.

    Example:
        >>> east, north = np.eye(2, dtype=np.float32)
        >>> cells = Cells(np.stack([east, east, north, north]))
        >>> found = list(cells.means(np.float32([[1], [2], [3], [4]]), 1, temperature=0.01))
        >>> sorted((int(row), float(mean[0])) for one in found for row, mean in zip(one.rows, one.mean))
        [(0, 2.0), (1, 1.0), (2, 4.0), (3, 3.0)]
    """

    def __init__(self, unit: Float32[np.ndarray, "n p"], *, probes: int = PROBES) -> None:
        from sklearn.cluster import KMeans  # slow to import

        n = len(unit)
        require_range("rows", n, 2, hint="Give more rows.")
        require_range("probes", probes, 1, hint="Use 32.")
        count = max(1, round(min(_CELLS * n**0.5, n / _FEWEST)))
        learned = np.unique(np.linspace(0, n - 1, min(n, _LEARNED * count)).astype(np.int64))
        start, once = derive_seed(0, "cells") % 2**32, cast("str", 1)
        # from random rows: k-means++ takes longer than all the rest, and cells hold about as many of the nearest rows
        cluster = KMeans(count, init="random", n_init=once, max_iter=10, random_state=start, copy_x=False)
        # sums of two threads are the same in any order
        with warnings.catch_warnings(), threadpool_limits(2, "openmp"):
            warnings.filterwarnings("ignore", "Number of distinct clusters")  # fewer different rows than cells
            centers = np.asarray(cluster.fit(unit[learned]).cluster_centers_, dtype=np.float32)
        # by direction: by distance, a center near 0 is near all rows that have little in common with others
        centers /= np.maximum(np.linalg.norm(centers, axis=1, keepdims=True), 1e-12)
        cell = np.empty(n, dtype=np.int64)
        for part in slices(n, _PRODUCTS // count):
            cell[part] = (np.asarray(unit[part]) @ centers.T).argmax(axis=1)
        self.order = np.argsort(cell, kind="stable")
        self._cells = np.split(np.arange(n), np.flatnonzero(np.diff(cell[self.order])) + 1)  # places in this order
        self._centers = centers[cell[self.order[[places[0] for places in self._cells]]]]
        self._unit, self._most = unit, probes * -(-n // len(self._cells))

    def __iter__(self) -> Iterator[tuple[Int[np.ndarray, " b"], Int[np.ndarray, " c"]]]:
        """Yield the places in `order` of each cell, and of the rows that these are compared with."""
        sizes = np.array([len(places) for places in self._cells])
        for places, center in zip(self._cells, self._centers, strict=True):
            nearest = np.argsort(-(self._centers @ center))
            enough = 1 + int(np.searchsorted(np.cumsum(sizes[nearest]), self._most))
            others = np.concatenate([self._cells[cell] for cell in np.sort(nearest[:enough])])
            yield places, others[:: -(-len(others) // (WIDEST * self._most))]

    def _by_cell(self, x: Float32[np.ndarray, "n _"]) -> torch.Tensor:
        """Return rows in the order of the cells, so that near cells are few pieces, in half the memory of files."""
        copy, position = torch.from_numpy(scratch_array(x.shape, np.float16)), torch.from_numpy(np.argsort(self.order))
        for rows in slices(len(x), _ROWS):
            copy.index_copy_(0, position[rows], torch.from_numpy(np.asarray(x[rows])).half())
        return copy

    def means(
        self,
        value: Float32[np.ndarray, "n d"],
        k: int,
        group: Groups = None,
        *,
        temperature: float,
        device: str = "cpu",
    ) -> Iterator[NearMeans]:
        """Yield P_i = Σ_j softmax_j(q_i·q_j / τ) t_j over the compared rows j of other groups, with t those of `value`.

        By default each row is a group. A row compared with no other has the mean 0. Rows and values are rounded to half
        precision. Products are taken on `device`.
        """
        order = self.order
        group = np.arange(len(order)) if group is None else np.unique(group[order], return_inverse=True)[1]
        members, ends = np.argsort(group, kind="stable"), np.cumsum(np.bincount(group))
        most, memory = min(len(group), WIDEST * self._most), list[_Memory]()
        sources = [self._by_cell(x) for x in (self._unit, value)]

        def near(rows: Int[np.ndarray, " b"], others: Int[np.ndarray, " c"]) -> list[NearMeans]:
            torch.set_num_threads(1)
            (room, products), blocks, index = memory.pop(), list[NearMeans](), torch.from_numpy(others)
            compared, targets = (out[: len(others)].copy_(x[index]) for x, out in zip(sources, room, strict=True))
            for part in (rows[some] for some in slices(len(rows), max(1, _PRODUCTS // len(others)))):
                query = sources[0][torch.from_numpy(part)].to(device).float() / temperature
                logit, weight = (x[: len(part) * len(others)].view(len(part), -1) for x in products)
                _multiply(query, compared.T, logit)
                # the row's own group, found among its members: comparing with all others takes as long as the products
                last, size = ends[group[part]], np.diff(ends, prepend=0)[group[part]]
                inside = members[np.repeat(last - np.cumsum(size), size) + np.arange(size.sum())]
                column = np.minimum(np.searchsorted(others, inside), len(others) - 1)
                hidden = np.stack([np.repeat(np.arange(len(part)), size), column])[:, others[column] == inside]
                logit[tuple(torch.from_numpy(hidden).to(device))] = -torch.inf
                top = logit.topk(min(k, len(others)), dim=1)
                nearest = np.full((len(part), k), -1)
                columns = order[others[top.indices.cpu().numpy()]]
                nearest[:, : columns.shape[1]] = np.where((top.values > -torch.inf).cpu(), columns, -1)
                mean = targets.new_empty(len(part), targets.shape[1])
                _multiply(torch.softmax(logit, dim=1, out=weight), targets, mean)
                blocks.append(NearMeans(order[part], mean.nan_to_num_().cpu().numpy(), nearest))  # NaN: no other row
            memory.append((room, products))
            return blocks

        threads, pending = torch.get_num_threads(), deque[Future[list[NearMeans]]]()
        workers = threads if device == "cpu" else 1
        for _ in range(workers):
            rows = [torch.empty(most, x.shape[1], device=device) for x in sources]
            memory.append((rows, torch.empty(2, _PRODUCTS + most, device=device)))
        # a cell per thread: threads that share a product also wait for the next one, in the way of other libraries'
        try:
            with threadpool_limits(1), ThreadPoolExecutor(workers) as pool:
                for cell in self:
                    pending.append(pool.submit(near, *cell))
                    if len(pending) > 8 * workers:
                        yield from pending.popleft().result()
                while pending:
                    yield from pending.popleft().result()
        finally:
            torch.set_num_threads(threads)


def _multiply(a: torch.Tensor, b: torch.Tensor, out: torch.Tensor) -> None:
    """Take a matrix product, on CPUs by numpy: its library is up to 1.5 times as fast as torch's on an AMD EPYC."""
    if out.device.type == "cpu":
        np.matmul(a.numpy(), b.numpy(), out=out.numpy())
    else:
        torch.mm(a, b, out=out)
