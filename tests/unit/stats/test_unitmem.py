"""UnitMem: the sketch beyond its limit of memory, and which unit rises."""

import torch

from clipmem.functional import (
    UnitMemState,
    unitmem,
)


def test_beyond_the_limit_the_median_is_the_sketch_whatever_the_blocks_and_says_so():
    x = torch.rand(50, 3, generator=torch.Generator().manual_seed(0)) + 0.1
    limit = x.numel() * 4
    fits, over, whole = (UnitMemState(3, hold_bytes=size) for size in (limit, limit - 1, limit - 1))
    for row in range(50):
        fits.update(x[row : row + 1], row)
        over.update(x[row : row + 1], row)
    whole.update(x, 0)
    assert fits.result("median").relative_error == 0.0
    first, second = over.result("median"), whole.result("median")
    assert first.relative_error == second.relative_error == 0.01
    assert torch.equal(first.value, second.value)


def test_only_the_unit_that_owns_a_pair_rises():
    x = torch.rand(20, 5, generator=torch.Generator().manual_seed(0))
    before = unitmem(x)
    x[7, 2] += 10
    after = unitmem(x)
    changed = (after.value - before.value).abs() > 1e-12
    assert changed.tolist() == [False, False, True, False, False]
    assert float(after.value[2]) > float(before.value[2])
    assert int(after.argmax[2]) == 7
