"""Batches made ahead, in a thread, while the model computes on the one before.

What comes out is what the iterator gives, in its order: only the time at which it is made changes. A thread needs a
core of its own to help: on one that computes already it takes as much as it gives, and on two cores with two training
processes there is none (see `clipmem.study.execution.batches_ahead`). Do not give it an iterator that draws from
global random state, or that reads what the training changes.
"""

from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

T = TypeVar("T")
_END = object()


def made_ahead(items: Iterator[T], *, depth: int) -> Generator[T]:
    """Yield the items of an iterator, of which up to `depth` are made in advance by a thread."""
    if not depth:
        yield from items
        return
    settings = (_flushes_denormals(), _cuda_device())
    maker = ThreadPoolExecutor(1, "clipmem batches", initializer=_compute_alike, initargs=settings)
    try:
        made = deque(maker.submit(next, items, _END) for _ in range(depth + 1))
        while (item := made.popleft().result()) is not _END:
            made.append(maker.submit(next, items, _END))
            yield item  # pyright: ignore[reportReturnType]
            del item  # the thread makes the next while this one computes: do not hold a third batch
    finally:
        maker.shutdown(cancel_futures=True)


def _compute_alike(flush: bool, device: int | None) -> None:
    # both are settings of a thread, not of the process
    torch.set_flush_denormal(flush)
    if device is not None:
        torch.cuda.set_device(device)


def _flushes_denormals() -> bool:
    """Tell whether this thread takes denormal numbers as 0; torch can set it and not say it."""
    return not bool(torch.tensor(1e-310, dtype=torch.float64).mul(1.0).gt(0))


def _cuda_device() -> int | None:
    return torch.cuda.current_device() if torch.cuda.is_initialized() else None
