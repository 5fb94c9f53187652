"""What the measures refuse, by what and got, and their edge cases."""

import inspect

import numpy as np
import pytest
import torch

from clipmem.base.errors import InputError
from clipmem.functional import (
    ClassMemState,
    LogHistogram,
    UnitMemState,
    class_probability,
    dejavu,
    holm,
    in_out_means,
    jackknife_models,
    nearest,
    paired_test,
    predict_objects,
    text_view_distance,
    unitmem,
    view_distance,
)

raw = inspect.unwrap  # a user runs without the shape checks of the test hook
one, two = torch.ones(1, 1), torch.ones(2, 1)
yes = torch.ones(2, 3, dtype=torch.bool)


def state(*blocks, **settings):
    made = UnitMemState(1, **settings)
    for row, block in blocks:
        made.update(torch.tensor(block)[:, None], row)
    return made


CASES = [
    (lambda: view_distance(one, torch.ones(1, 0, 1)), "views", "no view"),
    (lambda: raw(view_distance)(one, torch.ones(1, 1, 2)), "views", "width 2"),
    (lambda: raw(view_distance)(one, torch.ones(2, 1, 1)), "clean embeddings and views", "1 and 2 values"),
    (lambda: raw(text_view_distance)(two, one, torch.tensor([0, 1])), "text_pair", "2 indices for 1 caption rows"),
    (
        lambda: text_view_distance(two, one, torch.tensor([1])),
        "text_pair",
        "1 of 2 pairs without a caption, the first is pair 0",
    ),
    (lambda: class_probability(two, torch.tensor([0, 1])), "label", "1 in row 1"),
    (lambda: class_probability(two, torch.tensor([0, -1])), "label", "-1 in row 1"),
    (lambda: class_probability(two / 0, torch.tensor([0, 0])), "logits", "2 of 2 rows not finite, the first in row 0"),
    (lambda: state((0, [1.0, float("nan")])), "activations", "1 of 2 values not finite"),
    (lambda: state((0, [-1.0, 1.0])), "activations", "1 of 2 values below 0"),
    (lambda: state((0, [1.0, 2.0]), (1, [1.0])), "activations", "row 1 a second time"),
    (lambda: state((3, [1.0]), (0, [1.0, 2.0]), (2, [1.0, 2.0])), "activations", "row 3 a second time"),
    (lambda: state((-1, [1.0])), "first_row", "-1"),
    (lambda: state((0, [1.0])).result(), "points of the activations", "1"),
    (lambda: state((0, [1.0, 2.0])).result("median"), "rest", "'median'"),
    (lambda: state((0, [1.0])).update(torch.ones(1, 2), 5), "units of the activations", "2"),
    (lambda: ClassMemState(2, 1).update(one, torch.tensor([2])), "label", "2 in row 0"),
    (lambda: ClassMemState(2, 1).update(two, torch.tensor([1])), "activations and label", "2 and 1 values"),
    (lambda: LogHistogram(1).order_statistic(0), "rank", "0"),
    (lambda: nearest(one, two, 3), "k", "3"),
    (lambda: predict_objects(torch.tensor([[2]]), yes), "neighbors", "2 in row 0"),
    (lambda: dejavu(~yes, yes, yes), "true objects", "no object in 2 pairs"),
    (lambda: dejavu(yes, yes, yes, fractions=(0.0,)), "fractions", "0.0"),
    (lambda: raw(in_out_means)(np.ones((2, 1)), np.ones((1, 1), dtype=bool)), "member", "shape (1, 1)"),
    (lambda: in_out_means(np.ones((0, 1)), np.ones((0, 1), dtype=bool)), "values", "no model"),
    (lambda: holm(np.array([0.5, 1.5])), "p-values", "1.5 at index 1"),
    (lambda: paired_test(np.array([]), np.array([])), "a", "no value"),
]


@pytest.mark.parametrize(("act", "what", "got"), CASES)
def test_what_is_refused(act, what, got):
    with pytest.raises(InputError) as error:
        act()
    assert (error.value.what, error.value.got) == (what, got)


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


def test_what_is_undefined_is_nan_or_none():
    values, member = np.array([[1.0, 1.0], [0.0, 1.0]]), np.array([[True, True], [False, True]])
    sure = jackknife_models(values, member)
    assert np.isnan(sure.stderr).all()  # one model a side says nothing of its spread
    constant = jackknife_models(np.array([[1.0], [1.0], [0.0], [0.0]]), np.array([[True], [True], [False], [False]]))
    assert (constant.stderr[0], constant.low[0], constant.high[0]) == (0.0, 1.0, 1.0)
    assert holm(np.array([np.nan, 0.25])).tolist()[1] == 0.25
    same = paired_test(np.array([1.0, 2.0]), np.array([1.0, 2.0]))
    assert (same.difference, same.t, same.wilcoxon_p, same.effect) == (0.0, None, 1.0, None)
    assert nearest(torch.ones(0, 1), two, 2).rows.shape == (0, 2)


def test_only_the_unit_that_owns_a_pair_rises():
    x = torch.rand(20, 5, generator=torch.Generator().manual_seed(0))
    before = unitmem(x)
    x[7, 2] += 10
    after = unitmem(x)
    changed = (after.value - before.value).abs() > 1e-12
    assert changed.tolist() == [False, False, True, False, False]
    assert float(after.value[2]) > float(before.value[2])
    assert int(after.argmax[2]) == 7
