"""The measures beside CLIPMem against `tests.reference.loops_measures` and the published scripts' arithmetic."""

import numpy as np
import pytest
import torch
from scipy import stats
from tests.reference import loops_measures as loops

from clipmem.functional import (
    ClassMemState,
    UnitMemState,
    class_probability,
    clipmem,
    dejavu,
    holm,
    in_out_means,
    jackknife_models,
    nearest,
    paired_test,
    predict_objects,
    range_normalize,
    text_view_distance,
    unitmem,
    view_distance,
)


def draw(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + 0.4


@pytest.mark.parametrize(("n", "views", "d"), [(1, 1, 1), (5, 5, 7), (3, 2, 4)])
def test_view_distances(n, views, d):
    clean, moved = draw(2, n, d), draw(3, n, views, d)
    expected = [loops.view_distance(c, v) for c, v in zip(clean.tolist(), moved.tolist(), strict=True)]
    assert np.allclose(view_distance(clean, moved), expected, rtol=0, atol=1e-13)
    owner = torch.arange(n).repeat_interleave(views)
    order = torch.randperm(n * views, generator=torch.Generator().manual_seed(0))
    found = text_view_distance(clean, moved.reshape(-1, d)[order], owner[order])
    assert np.allclose(found, expected, rtol=0, atol=1e-13)


def test_sslmem_equals_the_published_script():
    """Flattened, normalized outputs; L2 norm; mean over 5 views; g minus f; divided by max - min, not shifted."""
    n, shape = 6, (4, 3)
    outputs = {m: (draw(i, n, *shape), draw(i + 9, n, 5, *shape)) for i, m in enumerate("fg")}

    def script(clean, views):
        distances = []
        for j in range(5):
            one = torch.nn.functional.normalize(clean.reshape(-1), dim=-1).numpy()
            other = torch.nn.functional.normalize(views[j].reshape(-1), dim=-1).numpy()
            distances.append(np.linalg.norm(one - other))
        return np.mean(distances)

    mean = {m: np.array([script(clean[i], views[i]) for i in range(n)]) for m, (clean, views) in outputs.items()}
    difference = mean["g"] - mean["f"]
    expected = difference / (max(difference) - min(difference))
    flat = {m: view_distance(clean.flatten(1), views.flatten(2)) for m, (clean, views) in outputs.items()}
    raw = clipmem(-flat["f"][None], -flat["g"][None])
    assert np.allclose(range_normalize(raw, torch.ones(n, dtype=torch.bool))[0], expected, rtol=0, atol=1e-12)
    assert np.allclose(loops.range_normalize(difference.tolist()), expected, rtol=0, atol=1e-15)


def test_class_probability():
    logits = draw(4, 5, 3)
    expected = [loops.class_probability(row, i % 3) for i, row in enumerate(logits.tolist())]
    assert np.allclose(class_probability(logits, torch.arange(5) % 3), expected, rtol=0, atol=1e-14)


@pytest.mark.parametrize("rest", ["mean", "median"])
@pytest.mark.parametrize("n", [2, 3, 8, 9])
def test_unitmem(n, rest):
    activation = draw(n, n, 6).relu()
    activation[:, 5] = 0
    activation[:, 4] = torch.arange(n).div(2, rounding_mode="floor")  # ties at the top
    found = unitmem(activation, rest=rest)
    for unit in range(6):
        value, argmax = loops.unitmem(activation[:, unit].tolist(), rest=rest)
        assert float(found.value[unit]) == pytest.approx(value, abs=1e-14)
        assert int(found.argmax[unit]) == argmax
        assert bool(found.dead[unit]) == (argmax == -1)


def test_unitmem_equals_the_published_script():
    """Mean over 10 views of the mean over space; np.median of the sorted column without its last; no class label."""
    raw = draw(5, 7, 10, 6, 4).relu()  # point, view, unit, space after a ReLU
    final = np.array([np.mean(np.array([np.mean(v.numpy(), axis=1) for v in point]), axis=0) for point in raw])
    top = np.max(final, axis=0)
    middle = np.median(np.sort(final, axis=0)[0:-1], axis=0)
    expected = (top - middle) / (top + middle)
    found = unitmem(raw.mean(3).mean(1), rest="median")
    assert np.allclose(found.value, expected, rtol=0, atol=1e-14)
    state = UnitMemState(6, hold_bytes=1 << 20)
    for row in range(7):
        state.update(raw[row : row + 1].mean(3).mean(1), row)
    assert np.allclose(state.result("median").value, expected, rtol=0, atol=1e-14)


@pytest.mark.parametrize("rest", ["mean", "median"])
def test_classmem(rest):
    activation, label = draw(6, 12, 3).relu(), torch.arange(12) % 5 * 2  # classes 0, 2, 4, 6, 8: the odd ones are empty
    state = ClassMemState(9, 3)
    state.update(activation[:5], label[:5])
    state.update(activation[5:], label[5:])
    found = state.result(rest)
    for unit in range(3):
        means = [float(activation[label == c, unit].mean()) for c in (0, 2, 4, 6, 8)]
        value, place = loops.unitmem(means, rest=rest)
        assert float(found.value[unit]) == pytest.approx(value, abs=1e-13)
        assert int(found.argmax[unit]) == 2 * place


@pytest.mark.parametrize("cells", [1, 24, 50, 1000])
@pytest.mark.parametrize("k", [1, 4, 11])
def test_nearest(k, cells):
    query, public = draw(7, 6, 3), draw(8, 11, 3)
    public[7], public[9] = 2 * public[1], public[1]  # copies: they tie
    found = nearest(query, public, k, cells=cells)
    assert found.rows.tolist() == [loops.nearest(row, public.tolist(), k) for row in query.tolist()]


def sets(mask):
    return [set(np.flatnonzero(row).tolist()) for row in mask.numpy()]


def random_objects(seed, n=40, objects=6):
    rng = torch.Generator().manual_seed(seed)
    return [torch.rand(n, objects, generator=rng) < share for share in (0.3, 0.4, 0.3)]


def test_dejavu():
    true, f, g = random_objects(0)
    found = dejavu(true, f, g)
    expected = loops.dejavu_gaps(sets(true), sets(f), sets(g))
    assert (found.precision_gap, found.recall_gap, found.auc_gap) == pytest.approx(expected, abs=1e-13)


def test_dejavu_top_gaps_equal_the_published_script():
    true, f, g = random_objects(1, n=90)
    own, by_f, by_g = sets(true), sets(f), sets(g)
    extra = [len(o & a) - len(o & b) for o, a, b in zip(own, by_f, by_g, strict=True)]
    order = [i for i in np.argsort(-np.array(extra), kind="stable") if own[i]]
    for gap in dejavu(true, f, g).top:
        top = order[: max(1, int(len(order) * gap.fraction))]
        p, r = {}, {}
        for name, by in (("f", by_f), ("g", by_g)):
            p[name] = np.mean([len(own[i] & by[i]) / len(by[i]) if by[i] else 0 for i in top])
            r[name] = np.mean([len(own[i] & by[i]) / len(own[i]) for i in top])
        f_score = {m: 2 * p[m] * r[m] / (p[m] + r[m] + 1e-5) for m in "fg"}
        assert gap.pairs == len(top)
        assert (gap.precision, gap.recall) == pytest.approx((p["f"] - p["g"], r["f"] - r["g"]), abs=1e-13)
        assert gap.f_score == pytest.approx(f_score["f"] - f_score["g"], abs=2e-5)  # the script adds 1e-5 below


def test_predicted_objects_are_all_of_the_neighbors():
    objects = torch.tensor([[1, 0, 1, 0], [1, 1, 0, 0], [0, 0, 0, 1]], dtype=torch.bool)
    rows = torch.tensor([[2, 1], [0, 1], [2, 2]])
    assert predict_objects(rows, objects).int().tolist() == [[1, 1, 0, 1], [1, 1, 1, 0], [0, 0, 0, 1]]


@pytest.mark.parametrize("models", [4, 9])
def test_in_out_and_jackknife(models):
    rng = np.random.default_rng(models)
    values, member = rng.normal(size=(models, 20)), np.zeros((models, 20), dtype=bool)
    for i in range(20):
        member[rng.permutation(models)[: 2 + i % (models - 3)], i] = True
    found = in_out_means(values, member)
    for i in range(20):
        column, had = values[:, i].tolist(), member[:, i].tolist()
        sure = jackknife_models(values[:, [i]], member[:, [i]])  # alone: nothing to borrow from
        assert found.score[i] == pytest.approx(loops.in_out(column, had), abs=1e-13)
        assert sure.stderr[0] == pytest.approx(loops.jackknife_stderr(column, had), rel=1e-11)
        assert sure.df[0] == pytest.approx(loops.welch_df(column, had), rel=1e-10)
        half = stats.t.ppf(0.975, sure.df[0]) * sure.stderr[0]
        assert sure.high[0] == pytest.approx(found.score[i] + half, rel=1e-12)


@pytest.mark.parametrize("n", [1, 2, 7])
def test_corrections(n):
    p = np.round(np.random.default_rng(n).random(n) ** 3, 2)
    assert np.allclose(holm(p), loops.holm(p.tolist()), rtol=0, atol=1e-15)


def test_paired_test_equals_scipy():
    rng = np.random.default_rng(0)
    a, b = rng.normal(0.5, 1, 8), rng.normal(0, 1, 8)
    found, t = paired_test(a, b), stats.ttest_rel(a, b)
    assert (found.t, found.p, found.df) == pytest.approx((t.statistic, t.pvalue, t.df))
    assert (found.low, found.high) == pytest.approx(tuple(t.confidence_interval()))
    assert found.wilcoxon_p == stats.wilcoxon(a, b).pvalue
