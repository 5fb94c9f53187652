"""Leave-one-out predictions and agreement of neighbors: against loops, invariants, blocks, bad input."""

from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from clipmem.base.errors import InputError
from clipmem.stats import agreement
from clipmem.stats import leave_one_out as module
from clipmem.stats.agreement import lemon, neighbor_votes, softmax_agreement, softmax_agreements
from clipmem.stats.cells import Cells
from clipmem.stats.leave_one_out import RbfFeatures, leave_one_out, leave_one_out_scores
from clipmem.stats.ranking import auroc
from tests.reference import loops_neighbors as loops

PROFILE = settings(max_examples=25, derandomize=True)
seeds = st.integers(0, 2**31)
close = {"rtol": 0, "atol": 1e-9}


def data(seed=0, n=23, p=5, d=3):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, p))
    return x, x @ rng.normal(size=(p, d)) + 0.3 * rng.normal(size=(n, d))


def mostly_equal():
    """Rows of which 240 are equal: their squared distances are 0 but for rounding, 3e-14."""
    x = np.random.default_rng(0).normal(size=(300, 64)).astype(np.float32)
    x[:240] = x[0]
    return x


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(module, "_BLOCK", 7)
    monkeypatch.setattr(agreement, "_BLOCK", 7)


# groups of one; of up to three; one larger than the five features
GROUPS = [np.arange(23), np.arange(23) // 3, np.maximum(np.arange(23), 9) // 2]


@pytest.mark.parametrize("groups", GROUPS)
@pytest.mark.usefixtures("small_blocks")
def test_predictions_are_those_of_a_fit_without_the_group(groups):
    x, y = data()
    found = leave_one_out(x, y, group=groups, ridge=0.4)
    np.testing.assert_allclose(found.prediction, loops.left_out(x, y, groups, 0.4), **close)
    expected = [-loops.cosine(a, b) for a, b in zip(found.prediction, y - y.mean(axis=0), strict=True)]
    np.testing.assert_allclose(leave_one_out_scores(x, y, group=groups, ridge=0.4), expected, **close)


@pytest.mark.parametrize("groups", GROUPS)
@pytest.mark.parametrize("fewest", [5, 11, 1])
@pytest.mark.usefixtures("small_blocks")
def test_kernel_ridge_of_many_is_fitted_on_some_groups(monkeypatch, groups, fewest):
    monkeypatch.setattr(module, "FITTED", fewest)
    x, y = data()
    number = np.unique(groups, return_inverse=True)[1]
    fitted = np.flatnonzero(number % min(23 // fewest, (number.max() + 1) // 2) == 0).tolist()
    assert 1 < len(fitted) < 23
    features = RbfFeatures(x)[np.arange(23)]
    expected = loops.left_out(features, y, groups, 0.3 * 23 / len(fitted), fitted)
    found = leave_one_out(x, y, group=groups, kernel="rbf")
    np.testing.assert_allclose(found.prediction, expected, rtol=0, atol=1e-6)
    assert (found.leverage > 0).tolist() == [i in fitted for i in range(23)]
    exact = leave_one_out(x, y, group=groups)
    np.testing.assert_allclose(exact.prediction, loops.left_out(x, y, groups, 0.3), **close)


@pytest.mark.usefixtures("small_blocks")
def test_leverage_is_the_diagonal_of_the_hat_matrix():
    x, y = data()
    b = x - x.mean(axis=0)
    hat = b @ np.linalg.inv(b.T @ b + 0.3 * np.trace(b.T @ b) / 5 * np.eye(5)) @ b.T
    np.testing.assert_allclose(leave_one_out(x, y).leverage, np.diag(hat), **close)


@pytest.mark.usefixtures("small_blocks")
def test_the_kernel_is_exact_with_all_rows_as_landmarks():
    x, y = data()
    # the jitter of 1e-8 is all that differs
    found = leave_one_out(x, y, ridge=0.4, kernel="rbf").prediction
    np.testing.assert_allclose(found, loops.left_out_kernel(x, y, 0.4), rtol=0, atol=1e-6)
    few = RbfFeatures(x, landmarks=8)
    assert few.shape == (23, 8)
    products = few[:] @ few[:].T
    assert products.diagonal().max() < 1 + 1e-6
    np.testing.assert_allclose(
        products[np.ix_([0, 2, 5], [0, 2, 5])], (full := RbfFeatures(x))[[0, 2, 5]] @ full[[0, 2, 5]].T, atol=0.2
    )


def test_where_most_rows_are_equal_the_width_is_that_of_the_rows_that_differ():
    x = mostly_equal().astype(np.float64)
    squares = [np.square(x[i] - x[j]).sum() for i in range(300) for j in range(i) if i >= 240]
    some = RbfFeatures(x)[[0, 1, 250, 299]]
    expected = np.exp(-np.square(x[0] - x[[1, 250, 299]]).sum(axis=1) / (2 * np.median(squares)))
    np.testing.assert_allclose(some[0] @ some[1:].T, expected, rtol=0, atol=1e-6)


@PROFILE
@given(seeds, st.floats(-100, 100), st.floats(0.01, 100))
def test_nothing_depends_on_order_shift_rotation_or_scale(seed, shift, scale):
    x, y = data(seed)
    rng = np.random.default_rng(seed + 1)
    order = rng.permutation(len(x))
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    group = np.arange(len(x)) // 2
    for kernel in ("linear", "rbf"):
        found = leave_one_out_scores(x, y, group=group, kernel=kernel)
        changed = leave_one_out_scores(
            x[order] + shift, scale * y[order] @ turn + shift, group=group[order], kernel=kernel
        )
        np.testing.assert_allclose(changed, found[order], rtol=0, atol=1e-5 if kernel == "rbf" else 1e-8)
        assert ((found >= -1) & (found <= 1)).all()
    q, t = torch.from_numpy(x), torch.from_numpy(y)
    moved = torch.from_numpy(scale * x[order] + shift), torch.from_numpy(y[order] @ turn + shift)
    for score in (softmax_agreement, lambda a, b, group: neighbor_votes(a, b, 4, group=group)):
        torch.testing.assert_close(
            score(*moved, group=group[order]), score(q, t, group=group)[order], rtol=0, atol=1e-7
        )
    turned = torch.from_numpy(np.linalg.qr(rng.normal(size=(3, 3)))[0])
    one, other = q[:, :3], t
    torch.testing.assert_close(
        lemon(scale * one[order] @ turned, other[order] @ turned, 4, group=group[order]),
        lemon(one, other, 4, group=group)[order],
        rtol=0,
        atol=1e-9,
    )


def test_a_wrong_target_does_not_change_its_own_prediction():
    x, y = data()
    changed = y.copy()
    changed[4] += 10 * np.array([1.0, -2.0, 0.5])
    shift = (changed - y).mean(axis=0)  # of the mean that is subtracted
    before, after = leave_one_out(x, y).prediction[4], leave_one_out(x, changed).prediction[4]
    rest = np.delete(np.arange(23), 4)
    b = x - x.mean(axis=0)
    a = b.T @ b + 0.3 * np.trace(b.T @ b) / 5 * np.eye(5) - np.outer(b[4], b[4])
    moved = b[4] @ np.linalg.solve(a, b[rest].T @ np.tile(-shift, (22, 1)))
    np.testing.assert_allclose(after, before + moved, **close)


@pytest.mark.parametrize("groups", [np.arange(23), np.arange(23) // 3])
@pytest.mark.usefixtures("small_blocks")
def test_agreement_votes_and_lemon_against_loops(groups):
    x, y = data()
    q, t = torch.from_numpy(x), torch.from_numpy(y)
    found = softmax_agreement(q, t, group=groups, temperature=0.2)
    np.testing.assert_allclose(found, loops.softmax_agreement(x, y, groups, 0.2), **close)
    np.testing.assert_allclose(neighbor_votes(q, t, 4, group=groups), loops.votes(x, y, 4, groups, 0.05), **close)
    several = softmax_agreements(q, [t, t[:, :2]], group=groups, temperature=0.2)
    np.testing.assert_allclose(several[1], loops.softmax_agreement(x, y[:, :2], groups, 0.2), **close)
    assert torch.equal(several[0], found)
    image = q[:, :3]
    expected = loops.lemon(x[:, :3], y, 4, groups, 2.0, 3.0, (0.5, 4.0))
    np.testing.assert_allclose(lemon(image, t, 4, group=groups, weights=(2.0, 3.0), tau=(0.5, 4.0)), expected, **close)


def test_of_many_pairs_near_cells_and_a_sample_give_the_same_but_for_half_precision(monkeypatch):
    """Few rows are all in near cells, so that only the sample and the rounding of rows differ."""
    monkeypatch.setattr(agreement, "EXACT", 12)  # the sample: every second row
    (x, y), groups = data(), np.arange(23) // 3
    q, t = torch.from_numpy(x), torch.from_numpy(y)
    rough = {"rtol": 0, "atol": 3e-3}
    found = softmax_agreement(q, t, group=groups, temperature=0.2)
    np.testing.assert_allclose(found, loops.softmax_agreement(x, y, groups, 0.2), **rough)
    np.testing.assert_allclose(neighbor_votes(q, t, 4, group=groups), loops.votes(x, y, 4, groups, 0.05, 2), **close)
    expected = loops.lemon(x[:, :3], y, 4, groups, 2.0, 3.0, (0.5, 4.0))
    found = lemon(q[:, :3], t, 4, group=groups, weights=(2.0, 3.0), tau=(0.5, 4.0))
    np.testing.assert_allclose(found, expected, **close)  # neighbors alone are by rounded rows


def test_a_pair_that_near_cells_leave_without_neighbors_has_no_votes(monkeypatch):
    monkeypatch.setattr(agreement, "EXACT", 17)
    monkeypatch.setattr(agreement, "Cells", partial(Cells, probes=1))  # a cell each: its group is the first 17 rows
    rng = np.random.default_rng(0)
    x = torch.from_numpy(np.concatenate([rng.normal([9, 0], 0.01, (17, 2)), rng.normal([-9, 0], 0.01, (17, 2))]))
    groups = np.array([0] * 17 + list(range(1, 18)))
    assert not neighbor_votes(x, x, 4, group=groups)[:17].any()
    assert torch.equal(softmax_agreement(x, x, group=groups)[:17], torch.zeros(17, dtype=torch.float64))
    alone = lemon(x, x, 4, group=groups)
    torch.testing.assert_close(alone[:17], torch.zeros(17, dtype=torch.float64), atol=1e-12, rtol=0)


def test_many_pairs_tell_swapped_ones_as_well_as_all(monkeypatch):
    rng = np.random.default_rng(0)
    topic = rng.normal(size=(100, 32))[rng.integers(100, size=1500)] + 0.6 * rng.normal(size=(1500, 32))
    wrong = np.arange(1500) < 150
    order = np.where(wrong, rng.permutation(1500), np.arange(1500))
    u, v = (torch.from_numpy(x + 0.7 * rng.normal(size=x.shape)) for x in (topic, topic[order]))
    areas, scores = [], (lambda *x: -softmax_agreement(*x), lambda *x: -neighbor_votes(*x), lemon)
    for most in (1500, 300):
        monkeypatch.setattr(agreement, "EXACT", most)
        areas.append([auroc(score(u, v).numpy(), wrong).mean for score in scores])
    assert areas[1] == pytest.approx(areas[0], abs=0.01)
    assert min(areas[0]) > 0.95


def test_votes_count_the_nearest_twentieth():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(120, 3)), rng.normal(size=(120, 3))
    found = neighbor_votes(torch.from_numpy(x), torch.from_numpy(y), 2)
    np.testing.assert_allclose(found, loops.votes(x, y, 2, np.arange(120), 0.05), **close)
    assert neighbor_votes(torch.from_numpy(x), torch.from_numpy(x), 2).min() == 1


def test_a_row_at_the_mean_has_no_direction():
    x, y = (
        torch.tensor([[1.0], [-1.0], [0.0], [0.0]]),
        torch.tensor([[1.0, 1.0], [-1.0, 1.0], [1.0, -1.0], [-1.0, -1.0]]),
    )
    assert softmax_agreement(y, x)[2:].tolist() == [0, 0]
    assert leave_one_out_scores(y.numpy(), x.numpy())[2:].tolist() == [0, 0]


X, Y = data()


@pytest.mark.parametrize(
    ("call", "what", "got"),
    [
        (lambda: leave_one_out_scores(np.full((9, 2), 7.1), Y[:9]), "features", "the same in all 9 rows"),
        (lambda: leave_one_out_scores(X, np.full((23, 2), 0.1)), "targets", "the same in all 23 rows"),
        (lambda: leave_one_out_scores(np.where(X > 2, np.nan, X), Y), "features", "not finite"),
        (lambda: leave_one_out_scores(np.where(X > 2, np.nan, X), Y, kernel="rbf"), "features", "not finite"),
        (lambda: leave_one_out_scores(X, np.where(Y > 2, np.inf, Y)), "targets", "not finite"),
        (lambda: leave_one_out_scores(X, Y[:20]), "features and targets", "23 and 20"),
        (lambda: leave_one_out_scores(X[:2], Y[:2]), "features", "2 rows"),
        (lambda: leave_one_out_scores(X, Y, ridge=0.0), "ridge", "0.0"),
        (lambda: leave_one_out_scores(X, Y, group=np.zeros(23, dtype=int)), "group", "one group"),
        (lambda: leave_one_out_scores(X, Y, group=np.arange(9)), "group and features", "9 and 23"),
        (lambda: leave_one_out_scores(np.full((9, 2), 7.1), Y[:9], kernel="rbf"), "features", "9 equal rows"),
        (lambda: RbfFeatures(mostly_equal()[:240]), "features", "240 equal rows"),
        (lambda: softmax_agreement(torch.ones(4, 2), torch.eye(4)), "query", "the same in all 4 rows"),
        (lambda: softmax_agreement(torch.eye(4), torch.full((4, 2), 0.1)), "value", "the same in all 4 rows"),
        (lambda: softmax_agreement(torch.eye(4), torch.eye(3)), "query and value", "4 and 3"),
        (lambda: softmax_agreement(torch.eye(4) * torch.nan, torch.eye(4)), "query", "4 of 4"),
        (lambda: softmax_agreement(torch.eye(4), torch.eye(4), temperature=0.0), "temperature", "0.0"),
        (lambda: softmax_agreement(torch.eye(4), torch.eye(4), group=np.zeros(4, dtype=int)), "k", "1"),
        (lambda: neighbor_votes(torch.eye(4), torch.eye(4), 4), "k", "4"),
        (lambda: neighbor_votes(torch.eye(4), torch.eye(4), 3, group=np.array([0, 0, 1, 2])), "k", "3"),
        (lambda: lemon(torch.eye(4), torch.eye(4), 4), "k", "4"),
        (lambda: lemon(torch.eye(4), torch.eye(4)[:, :3], 1), "text embeddings", "width 3"),
        (lambda: lemon(torch.zeros(4, 2), torch.ones(4, 2), 1), "image embeddings", "4 zero"),
    ],
)  # fmt: skip
def test_bad_input(call, what, got):
    with pytest.raises(InputError) as error:
        call()
    assert error.value.what == what
    assert got in error.value.got
