"""Batches made ahead, in a thread, while the model computes on the one before.

What comes out is what the iterator gives, in its order: only the time at which it is made changes. A thread needs a
core of its own to help: on one that computes already it takes as much as it gives, and on two cores with two training
processes there is none (see `clipmem.study.execution.batches_ahead`). Do not give it an iterator that draws from
global random state, or that reads what the training changes.
"""

import queue
import threading
from collections.abc import Generator, Iterator
from typing import Any, TypeVar

import torch

T = TypeVar("T")


class _End:
    """The last thing that the thread hands over: why there is no more."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error


def made_ahead(items: Iterator[T], *, depth: int) -> Generator[T]:
    """Yield the items of an iterator, of which up to `depth` are made in advance by a thread.

    Example:
        >>> list(made_ahead(iter("abc"), depth=2))
        ['a', 'b', 'c']
    """
    if not depth:
        yield from items
        return
    made: queue.Queue[T | _End] = queue.Queue(depth)
    stopped, flush, device = threading.Event(), _flushes_denormals(), _cuda_device()
    maker = threading.Thread(
        target=_make, args=(items, made, stopped, flush, device), name="clipmem batches", daemon=True
    )
    maker.start()
    try:
        while True:
            item = made.get()
            if isinstance(item, _End):
                if item.error is not None:
                    raise item.error
                return
            yield item
            del item  # the thread fills its place while this one computes: do not hold a third batch
    finally:
        stopped.set()
        _drain(made)
        maker.join()


def _make(
    items: Iterator[object], made: "queue.Queue[object]", stopped: threading.Event, flush: bool, device: int | None
) -> None:
    # both are settings of a thread, not of the process
    torch.set_flush_denormal(flush)
    if device is not None:
        torch.cuda.set_device(device)
    try:
        for item in items:
            made.put(item)
            if stopped.is_set():
                return
        made.put(_End())
    except BaseException as error:  # noqa: BLE001  it is raised again where the batch was asked for
        made.put(_End(error))


def _drain(made: "queue.Queue[Any]") -> None:
    """Let go of what waits, so that a thread that waits for a free place finds one and ends."""
    try:
        while True:
            made.get_nowait()
    except queue.Empty:
        return


def _flushes_denormals() -> bool:
    """Tell whether this thread takes denormal numbers as 0; torch can set it and not say it."""
    return not bool(torch.tensor(1e-310, dtype=torch.float64).mul(1.0).gt(0))


def _cuda_device() -> int | None:
    return torch.cuda.current_device() if torch.cuda.is_initialized() else None
