"""The measures beside CLIPMem against `clipmem.testing.reference_measures` and the published scripts' arithmetic."""

import numpy as np
import pytest
import torch
from scipy import stats

from clipmem.base.random import generator
from clipmem.functional import (
    ClassMemState,
    UnitMemState,
    benjamini_hochberg,
    bootstrap_models,
    bootstrap_models_mean,
    class_probability,
    cmc_modalities,
    dejavu,
    holm,
    in_out_means,
    jackknife_models,
    layer_distances,
    layermem,
    nearest,
    normalize,
    paired_test,
    predict_objects,
    range_normalise,
    recall_area,
    sslmem,
    text_view_distance,
    unitmem,
    view_distance,
)
from clipmem.testing import reference_measures as loops


def draw(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + 0.4


@pytest.mark.parametrize(("modalities", "views", "d"), [(2, 1, 3), (2, 3, 5), (3, 2, 4), (4, 1, 1)])
def test_cmc(modalities, views, d):
    pair, held = draw(0, modalities, 3, views, d), draw(1, modalities, 4, views, d)
    pair[:, 2] = held[:, 1]  # a pair that is itself held out
    member = torch.tensor([-1, -1, 1])
    found = cmc_modalities(normalize(pair).mean(2), normalize(held).mean(2), member=member)
    bank = [held[:, j].tolist() for j in range(4)]
    expected = [loops.cmc(pair[:, i].tolist(), bank, member=int(member[i])) for i in range(3)]
    assert np.allclose(found, expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize(("n", "views", "d"), [(1, 1, 1), (5, 5, 7), (3, 2, 4)])
def test_view_distances(n, views, d):
    clean, moved = draw(2, n, d), draw(3, n, views, d)
    expected = [loops.view_distance(c, v) for c, v in zip(clean.tolist(), moved.tolist(), strict=True)]
    assert np.allclose(view_distance(clean, moved), expected, rtol=0, atol=1e-13)
    owner = torch.arange(n).repeat_interleave(views)
    order = torch.randperm(n * views, generator=torch.Generator().manual_seed(0))
    found = text_view_distance(clean, moved.reshape(-1, d)[order], owner[order])
    assert np.allclose(found, expected, rtol=0, atol=1e-13)


def test_sslmem_and_layermem_equal_the_published_script():
    """Flattened, normalised outputs; Euclidean norm; mean over 5 views; g less f; divided by max - min, not shifted."""
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
    layers = {m: layer_distances([both]) for m, both in outputs.items()}
    found = layermem(layers["f"], layers["g"], normalise=True)
    assert np.allclose(found.score[0], expected, rtol=0, atol=1e-12)
    assert float(found.mean[0]) == pytest.approx(expected.mean(), abs=1e-12)
    raw = sslmem(layers["f"], layers["g"])
    assert np.allclose(range_normalise(raw, torch.ones(n, dtype=torch.bool))[0], expected, rtol=0, atol=1e-12)
    assert np.allclose(loops.range_normalise(difference.tolist()), expected, rtol=0, atol=1e-15)


def test_layers_are_compared_with_the_one_before():
    f, g = torch.rand(3, 5, dtype=torch.float64), torch.rand(3, 5, dtype=torch.float64)
    found = layermem(f, g)
    assert np.allclose(found.delta[1:], np.diff((g - f).mean(1)), rtol=0, atol=1e-14)


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
    state = UnitMemState(6, median="auto")
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


@pytest.mark.parametrize("block", [1, 2, 5, 100])
@pytest.mark.parametrize("k", [1, 4, 11])
def test_nearest(k, block):
    query, public = draw(7, 6, 3), draw(8, 11, 3)
    public[7], public[9] = 2 * public[1], public[1]  # copies: they tie
    found = nearest(query, public, k, block=block)
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


def test_the_published_area_is_a_sum_over_bins():
    recall = np.random.default_rng(0).integers(0, 7, 200) / 6
    counts, edges = np.histogram(recall, 100)
    counts = counts / len(recall)
    for x in range(len(counts) - 2, -1, -1):
        counts[x] += counts[x + 1]
    edges, counts = [0, *edges, 1], [1, *counts, 0]
    published = sum(counts[i] * (edges[i + 1] - edges[i]) for i in range(len(counts)))
    assert recall_area(recall, bins=100) == pytest.approx(published, abs=1e-13)
    assert 0 <= published - recall_area(recall) <= 0.01


def test_predicted_objects_are_the_most_frequent():
    objects = torch.tensor([[1, 0, 1, 0], [1, 1, 0, 0], [0, 1, 0, 1]], dtype=torch.bool)
    rows = torch.tensor([[2, 1, 0], [0, 1, 2]])
    # Counts 2, 2, 1, 1 in both; ties go to what the nearer neighbour has, then to the lower column.
    assert predict_objects(rows, objects, top=1).int().tolist() == [[0, 1, 0, 0], [1, 0, 0, 0]]
    assert predict_objects(rows, objects, top=3).int().tolist() == [[1, 1, 0, 1], [1, 1, 1, 0]]
    assert bool(predict_objects(rows, objects).all())


@pytest.mark.parametrize("models", [4, 9])
def test_in_out_and_jackknife(models):
    rng = np.random.default_rng(models)
    values, member = rng.normal(size=(models, 20)), np.zeros((models, 20), dtype=bool)
    for i in range(20):
        member[rng.permutation(models)[: 2 + i % (models - 3)], i] = True
    found, sure = in_out_means(values, member), jackknife_models(values, member)
    for i in range(20):
        column, had = values[:, i].tolist(), member[:, i].tolist()
        assert found.score[i] == pytest.approx(loops.in_out(column, had), abs=1e-13)
        assert sure.stderr[i] == pytest.approx(loops.jackknife_stderr(column, had), rel=1e-11)
        assert sure.df[i] == pytest.approx(loops.welch_df(column, had), rel=1e-10)
        half = stats.t.ppf(0.975, sure.df[i]) * sure.stderr[i]
        assert sure.high[i] == pytest.approx(found.score[i] + half, rel=1e-12)


def test_bootstrap_over_models():
    rng = np.random.default_rng(0)
    values, member = rng.normal(size=(5, 6)), rng.random((5, 6)) < 0.5
    member[:, 0], member[:, 1] = [True, False, False, False, False], True  # one model; none on the other side
    draws = generator(3, "bootstrap", "models").integers(5, size=(40, 5)).tolist()
    found = bootstrap_models(values, member, seed=3, draws=40, confidence=0.8)
    for i in range(6):
        scores = loops.resampled_scores(values[:, i].tolist(), member[:, i].tolist(), draws)
        assert found.usable[i] == pytest.approx(len(scores) / 40)
        bounds = np.quantile(scores, [0.1, 0.9]) if scores else [np.nan, np.nan]
        assert np.allclose([found.low[i], found.high[i]], bounds, rtol=0, atol=1e-13, equal_nan=True)
    means = []
    for draw in draws:
        scores = [loops.resampled_scores(values[:, i].tolist(), member[:, i].tolist(), [draw]) for i in range(6)]
        if any(scores):
            means.append(np.mean([own[0] for own in scores if own]))
    mean = bootstrap_models_mean(values, member, seed=3, draws=40, confidence=0.8)
    assert (mean.low, mean.high) == pytest.approx(tuple(np.quantile(means, [0.1, 0.9])), abs=1e-13)
    assert mean.mean == pytest.approx(np.nanmean(in_out_means(values, member).score))


@pytest.mark.parametrize("n", [1, 2, 7])
def test_corrections(n):
    p = np.round(np.random.default_rng(n).random(n) ** 3, 2)
    assert np.allclose(holm(p), loops.holm(p.tolist()), rtol=0, atol=1e-15)
    assert np.allclose(benjamini_hochberg(p), loops.benjamini_hochberg(p.tolist()), rtol=0, atol=1e-15)


def test_paired_test_equals_scipy():
    rng = np.random.default_rng(0)
    a, b = rng.normal(0.5, 1, 8), rng.normal(0, 1, 8)
    found, t = paired_test(a, b), stats.ttest_rel(a, b)
    assert (found.t, found.p, found.df) == pytest.approx((t.statistic, t.pvalue, t.df))
    assert (found.low, found.high) == pytest.approx(tuple(t.confidence_interval()))
    assert found.wilcoxon_p == stats.wilcoxon(a, b).pvalue
