"""Near rows among many: rows in cells, each compared with the rows of the nearest cells only.

Time O(n^1.5 d) instead of O(n² d), memory O(block). Neighbors beyond the nearest cells are missed: `experiments/curate/
scale.py` measures how many, and what it costs the list of suspects.
"""

import itertools
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
_COMPARED = 4096  # rows that a row is compared with, or more
Values = Float32[np.ndarray, "n d"]
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


class Sorted(NamedTuple):
    """What near means are computed from, as arrays: rows cell after cell, so that near cells are few pieces.

    Attributes:
        order: The row at each place, shape (n,).
        sizes: Number of rows of each cell, shape (c,).
        centers: Directions of their centers, shape (c, p).
        rows: The rows at the places, in half the memory of files, shape (n, p).
        values: Their values, likewise, shape (n, d).
        group: The number of their group, in 0..g-1, shape (n,).
        members: The places by group, shape (n,).
        ends: Number of places up to the last one of each group, shape (g,).
        most: A row is compared with as many cells as have so many rows, shape (1,).
    """

    order: np.ndarray
    sizes: np.ndarray
    centers: np.ndarray
    rows: np.ndarray
    values: np.ndarray
    group: np.ndarray
    members: np.ndarray
    ends: np.ndarray
    most: np.ndarray


class Cells:
    """A partition of unit rows into about 4√n cells by k-means, in `order` cell after cell, and the nearest of each.

    Args:
        unit: Rows of length 1, or 0; an array or a memory map, shape (n, p).
        probes: Number of cells of mean size that a row is compared with; by default 32, or more that have 4,096 rows.

    Raises:
        InputError: There are fewer than 2 rows, or `probes` is not positive.

    Example:
        >>> east, north = np.eye(2, dtype=np.float32)
        >>> cells = Cells(np.stack([east, east, north, north]))
        >>> found = list(cells.means(np.float32([[1], [2], [3], [4]]), 1, temperature=0.01))
        >>> sorted((int(row), float(mean[0])) for one in found for row, mean in zip(one.rows, one.mean))
        [(0, 2.0), (1, 1.0), (2, 4.0), (3, 3.0)]
    """

    def __init__(self, unit: Float32[np.ndarray, "n p"], *, probes: int | None = None) -> None:
        from sklearn.cluster import KMeans  # slow to import

        n = len(unit)
        require_range("rows", n, 2, hint="Give more rows.")
        require_range("probes", PROBES if probes is None else probes, 1, hint="Use 32.")
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
        self.order, sizes = np.argsort(cell, kind="stable"), np.bincount(cell, minlength=count)
        self._unit, self._centers, self._sizes = unit, centers[sizes > 0], sizes[sizes > 0]
        mean = -(-n // len(self._sizes))
        self._most = max(PROBES * mean, _COMPARED) if probes is None else probes * mean

    def __iter__(self) -> Iterator[tuple[Int[np.ndarray, " b"], Int[np.ndarray, " c"]]]:
        """Yield the places in `order` of each cell, and of the rows that these are compared with."""
        return _compared(self._sizes, self._centers, self._most, slice(None))

    def sorted(self, value: Values, group: Groups = None) -> Sorted:
        """Return what near means of some values are computed from; by default each row is a group."""
        order = self.order
        codes = np.arange(len(order)) if group is None else np.unique(group[order], return_inverse=True)[1]
        position, copies = torch.from_numpy(np.argsort(order)), list[np.ndarray]()
        for x in (self._unit, value):
            copies.append(scratch_array(x.shape, np.float16))
            for rows in slices(len(x), _ROWS):
                halves = torch.from_numpy(np.asarray(x[rows])).half()
                torch.from_numpy(copies[-1]).index_copy_(0, position[rows], halves)
        grouped = codes, np.argsort(codes, kind="stable"), np.cumsum(np.bincount(codes))
        return Sorted(order, self._sizes, self._centers, copies[0], copies[1], *grouped, np.array([self._most]))

    def means(
        self, value: Values, k: int, group: Groups = None, *, temperature: float, device: str = "cpu"
    ) -> Iterator[NearMeans]:
        """Yield P_i = Σ_j softmax_j(q_i·q_j / τ) t_j over the compared rows j of other groups, with t those of `value`.

        By default each row is a group. A row compared with no other has the mean 0. Rows and values are rounded to half
        precision. Products are taken on `device`.
        """
        return near_means(self.sorted(value, group), k, temperature=temperature, device=device)


def _compared(
    sizes: Int[np.ndarray, " c"], centers: Float32[np.ndarray, "c p"], most: int, cells: slice
) -> Iterator[tuple[Int[np.ndarray, " b"], Int[np.ndarray, " c"]]]:
    """Yield the places of some cells, and of the rows that these are compared with."""
    ends = np.cumsum(sizes).tolist()
    places = [np.arange(start, end) for start, end in itertools.pairwise([0, *ends])]
    for cell in range(len(sizes))[cells]:
        nearest = np.argsort(-(centers @ centers[cell]))
        enough = 1 + int(np.searchsorted(np.cumsum(sizes[nearest]), most))
        others = np.concatenate([places[near] for near in np.sort(nearest[:enough])])
        yield places[cell], others[:: -(-len(others) // (WIDEST * most))]


def near_means(
    by_cell: Sorted, k: int, *, temperature: float, device: str = "cpu", cells: slice = slice(None)
) -> Iterator[NearMeans]:
    """Yield the near means of the rows of some cells, in order (see `Cells.means`)."""
    order, sizes, centers, _, _, group, members, ends, (most,) = by_cell
    widest, memory = min(len(group), WIDEST * int(most)), list[_Memory]()
    sources = torch.from_numpy(by_cell.rows), torch.from_numpy(by_cell.values)

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
        rows = [torch.empty(widest, x.shape[1], device=device) for x in sources]
        memory.append((rows, torch.empty(2, _PRODUCTS + widest, device=device)))
    # a cell per thread: threads that share a product also wait for the next one, in the way of other libraries'
    try:
        with threadpool_limits(1), ThreadPoolExecutor(workers) as pool:
            for cell in _compared(sizes, centers, int(most), cells):
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
