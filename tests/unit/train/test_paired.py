"""Who is in which batch, and the learning rate of a step."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipmem.train.loop import learning_rate
from tests.tiny import epoch_batches


@given(n=st.integers(1, 400), size=st.integers(2, 150), seed=st.integers(0, 9), epoch=st.integers(0, 9))
def test_every_slot_once_an_epoch_in_even_batches(n, size, seed, epoch):
    batches = epoch_batches(n, size, seed=seed, epoch=epoch)
    assert sorted(np.concatenate(batches).tolist()) == list(range(n))
    sizes = [len(batch) for batch in batches]
    assert max(sizes) <= size
    assert max(sizes) - min(sizes) <= 1
    assert len(batches) == -(-n // size)


def test_order_depends_on_seed_and_epoch_only():
    def order(seed, epoch, size=10):
        return np.concatenate(epoch_batches(100, size, seed=seed, epoch=epoch)).tolist()

    np.random.seed(0)
    assert order(1, 2) == order(1, 2) == order(1, 2, size=33)
    assert len({tuple(order(seed, epoch)) for seed in range(3) for epoch in range(3)}) == 9
    assert order(0, 0) != list(range(100))


def test_learning_rate_at_known_steps():
    def rate(step, steps=110, warmup=10 / 110):
        return learning_rate(step, steps, peak=0.5, warmup=warmup)

    assert [rate(step) for step in (0, 4, 9, 10)] == pytest.approx([0.05, 0.25, 0.5, 0.5])
    assert rate(60) == pytest.approx(0.25)  # half-way down the cosine
    assert rate(10 + 25) == pytest.approx(0.25 * (1 + math.sqrt(0.5)))
    assert rate(109) == pytest.approx(0.25 * (1 - math.cos(math.pi / 100)))
    assert learning_rate(0, 10, peak=2.0, warmup=0.0) == 2.0
    assert learning_rate(9, 10, peak=2.0, warmup=1.0) == 2.0


@given(steps=st.integers(1, 300), warmup=st.floats(0, 1), peak=st.floats(1e-6, 10))
def test_learning_rate_rises_then_falls(steps, warmup, peak):
    rates = [learning_rate(step, steps, peak=peak, warmup=warmup) for step in range(steps)]
    top = max(range(steps), key=rates.__getitem__)
    assert all(0 < rate <= peak * (1 + 1e-12) for rate in rates)
    assert rates[top] == pytest.approx(peak)
    assert rates[: top + 1] == sorted(rates[: top + 1])
    assert rates[top:] == sorted(rates[top:], reverse=True)
