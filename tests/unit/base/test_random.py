"""The random-number tree: streams by root and name."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from clipmem.base.random import derive_seed, generator, uniform


def test_streams_differ_by_root_and_name():
    seeds = {derive_seed(root, *names) for root in (0, 1) for names in ((), ("a",), ("b",), ("a", 1), ("a", "1"))}
    assert len(seeds) == 10
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert generator(3, "x").integers(1 << 30) == generator(3, "x").integers(1 << 30)


def test_derived_seeds_are_the_same_for_ever():
    # a change here would change every study: it needs a new format version and a line in the changelog
    assert derive_seed(0, "init") == 2797632981193840420
    drawn = uniform(np.array([1, 2**63], dtype=np.uint64), seed=5, draws=2)
    assert drawn.tolist() == [
        [0.3490480406264971, 0.720863849982092],
        [0.5873099091597077, 0.6245630921958443],
    ]


@given(st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=20), st.integers(0, 2**63 - 1), st.randoms())
def test_uniform_depends_on_key_and_seed_only(keys, seed, shuffler):
    array = np.array(keys, dtype=np.uint64)
    drawn = uniform(array, seed, 5)
    assert ((drawn >= 0) & (drawn < 1)).all()
    order = list(range(len(keys)))
    shuffler.shuffle(order)
    np.testing.assert_array_equal(uniform(array[order], seed, 5), drawn[order])
    np.testing.assert_array_equal(uniform(array, seed, 3), drawn[:, :3])


def test_uniform_is_uniform_and_uncorrelated():
    drawn = uniform(np.arange(20_000, dtype=np.uint64), seed=11, draws=4)
    counts = np.stack([np.histogram(column, bins=20, range=(0, 1))[0] for column in drawn.T])
    chi_square = ((counts - 1000) ** 2 / 1000).sum(axis=1)
    assert (chi_square < 50).all()  # 19 degrees of freedom: P(> 50) is 1e-4
    assert np.abs(np.corrcoef(drawn.T) - np.eye(4)).max() < 0.03
    neighbors = np.corrcoef(drawn[:-1, 0], drawn[1:, 0])[0, 1]
    assert abs(neighbors) < 0.03
