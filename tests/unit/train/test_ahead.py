"""Batches made ahead: the same ones in the same order, errors where they belong, and no thread that stays."""

import threading
import time
from itertools import count

import pytest
import torch

from clipmem.train.ahead import made_ahead


def makers():
    return [thread for thread in threading.enumerate() if thread.name.startswith("clipmem batches")]


@pytest.mark.parametrize("depth", [0, 1, 3, 100])
@pytest.mark.parametrize("n", [0, 1, 7])
def test_the_same_items_in_the_same_order(depth, n):
    assert list(made_ahead(iter(range(n)), depth=depth)) == list(range(n))
    assert not makers()


def test_at_most_so_many_are_made_in_advance():
    made = []

    def items():
        for k in range(20):
            made.append(k)
            yield k

    batches = made_ahead(items(), depth=2)
    assert next(batches) == 0
    deadline = time.monotonic() + 10
    while len(made) < 4 and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.1)  # it could make more now
    assert made == [0, 1, 2, 3]  # one is out, two wait, and one waits for its place
    assert list(batches) == list(range(1, 20))


def test_without_a_thread_nothing_is_made_in_advance():
    source = count()
    batches = made_ahead(source, depth=0)
    assert (next(batches), next(batches), next(source)) == (0, 1, 2)


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_error_comes_when_its_turn_comes(error):
    def items():
        yield "first"
        raise error("broken")

    batches = made_ahead(items(), depth=2)
    assert next(batches) == "first"
    with pytest.raises(error, match="broken"):
        next(batches)
    assert not makers()


@pytest.mark.parametrize("taken", [1, 4])
def test_closing_ends_the_thread(taken):
    batches = made_ahead(count(), depth=3)
    for _ in range(taken):
        next(batches)
    assert len(makers()) == 1
    batches.close()
    assert not makers()


def test_an_error_of_the_user_of_the_batches_ends_the_thread():
    def use():
        for _ in made_ahead(count(), depth=2):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        use()
    assert not makers()


@pytest.mark.parametrize("flush", [False, True])
def test_the_thread_flushes_denormals_as_its_user_does(flush):
    def items():
        yield bool((torch.tensor([1e-310], dtype=torch.float64) * 0.5).gt(0))

    torch.set_flush_denormal(flush)
    try:
        assert list(made_ahead(items(), depth=1)) == [not flush]
    finally:
        torch.set_flush_denormal(False)
