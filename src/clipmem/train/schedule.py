"""The order of pairs, the batches and the learning rate, as pure functions of recipe and seed."""

import math

import numpy as np
from jaxtyping import Int

from clipmem.base.random import generator


def epoch_batches(
    n: int, batch_size: int, *, seed: int, epoch: int, largest: int = 0
) -> list[Int[np.ndarray, " size"]]:
    """Divide an epoch's random order of `n` slots into batches.

    There are ceil(max(n, largest) / batch_size) batches whose sizes differ by at most one, so every pair is shown
    exactly once per epoch. `largest` gives models of different sizes the same number of steps.
    """
    order = generator(seed, "order", epoch).permutation(n)
    return np.array_split(order, math.ceil(max(n, largest) / batch_size))


def learning_rate(step: int, steps: int, *, peak: float, warmup: float) -> float:
    """Rise linearly over the first `warmup * steps` steps, then fall along a half cosine to 0."""
    rise = round(warmup * steps)
    if step < rise:
        return peak * (step + 1) / rise
    return peak * 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, steps - rise)))
