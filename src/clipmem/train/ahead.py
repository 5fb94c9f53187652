"""Prefetch batches in a thread while the model computes.

The items and their order do not change. A thread helps only if it has a core of its own (see
`clipmem.study.execution.batches_ahead`). The iterator must not use global random state, or read what the training
changes.
"""

from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

T = TypeVar("T")
_END = object()


def made_ahead(items: Iterator[T], *, depth: int) -> Generator[T]:
    """Yield the items of an iterator; a thread makes up to `depth` of them in advance."""
    if not depth:
        yield from items
        return
    settings = (_flushes_denormals(), _cuda_device())
    maker = ThreadPoolExecutor(1, "clipmem batches", initializer=_compute_alike, initargs=settings)
    try:
        futures = deque(maker.submit(next, items, _END) for _ in range(depth + 1))
        while (item := futures.popleft().result()) is not _END:
            futures.append(maker.submit(next, items, _END))
            yield item  # pyright: ignore[reportReturnType]
            del item  # do not hold a further batch while the thread makes the next
    finally:
        maker.shutdown(cancel_futures=True)


def _compute_alike(flush: bool, device: int | None) -> None:
    # both settings are per thread
    torch.set_flush_denormal(flush)
    if device is not None:
        torch.cuda.set_device(device)


def _flushes_denormals() -> bool:
    """Return whether this thread flushes denormal numbers to 0, which torch can set but not report."""
    return not bool(torch.tensor(1e-310, dtype=torch.float64).mul(1.0).gt(0))


def _cuda_device() -> int | None:
    return torch.cuda.current_device() if torch.cuda.is_initialized() else None
