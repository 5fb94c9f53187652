"""Seeded random streams, derived from a root seed by name, never from global state.

`derive_seed` names a child stream ("init", "order", 3). `uniform` is counter-based: a value depends on its key only,
so that a pair has the same view in f and g, in any batch and process.
"""

import hashlib

import numpy as np
from numpy.typing import NDArray

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def derive_seed(root: int, *names: str | int) -> int:
    """Derive the seed of a child stream from the root seed and the child's name."""
    text = "/".join([repr(int(root)), *(repr(name) for name in names)])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


def generator(root: int, *names: str | int) -> np.random.Generator:
    """Return a numpy generator on the child stream `names` of `root` (see `derive_seed`)."""
    return np.random.Generator(np.random.PCG64(derive_seed(root, *names)))


def bootstrap_counts(stream: np.random.Generator, draws: int, items: int) -> NDArray[np.int64]:
    """Draw bootstrap resamples of `items` items; return the counts, shape (draws, items)."""
    picks = stream.integers(items, size=(draws, items)) + np.arange(draws)[:, None] * items
    return np.bincount(picks.ravel(), minlength=draws * items).reshape(draws, items)


def _mix(z: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Finalizer of SplitMix64 (Steele, Lea & Flood 2014, figure 16): a bijection whose output bits are well mixed."""
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def uniform(keys: NDArray[np.uint64], seed: int, draws: int) -> NDArray[np.float64]:
    """Draw uniform numbers in [0, 1) that depend on (seed, key, draw) only; shape (keys, draws)."""
    with np.errstate(over="ignore"):
        start = _mix(_mix(keys.astype(np.uint64) + _GOLDEN) ^ np.uint64(seed))
        counter = np.arange(1, draws + 1, dtype=np.uint64) * _GOLDEN
        bits = _mix(start[:, None] + counter[None, :])
    return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53
