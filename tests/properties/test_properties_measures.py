"""What must hold of the measures for any input: declared ranges, order, blocks, scale, swaps."""

from itertools import pairwise

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from clipmem.functional import (
    LogHistogram,
    UnitMemState,
    alignment,
    alignment_parts,
    class_probability,
    clipmem,
    dejavu,
    holm,
    in_out_means,
    jackknife_models,
    nearest,
    pair_means,
    text_view_distance,
    unitmem,
    view_distance,
)
from clipmem.scoring.alignments import ALIGNMENTS

PROFILE = settings(max_examples=40, derandomize=True)
seeds = st.integers(0, 2**31)


def rows(rng, *shape, sharp=False):
    x = torch.randn(*shape, generator=rng, dtype=torch.float64) + 0.1
    return torch.where(x < 0, -1.0, 1.0).double() if sharp else x  # sharp: signs, so that extremes occur


def cmc(image, text, bank_image, bank_text):
    across = alignment_parts(image, text, bank_image, bank_text)
    within = alignment_parts(image, text, bank_text, bank_image)
    return 1 + across.positive - sum(parts.image_bank + parts.text_bank for parts in (across, within)) / 2


def under_one_model(name, rng, n, d, sharp):
    image, text = rows(rng, n, 2, d, sharp=sharp), rows(rng, n, d, sharp=sharp)
    means = pair_means(image, text, torch.arange(n))
    bank = pair_means(rows(rng, 1, 1, d, sharp=sharp), rows(rng, 1, d, sharp=sharp), torch.tensor([0]))
    if name == "clip":
        return alignment(alignment_parts(*means, *bank))
    if name == "cmc":
        return cmc(*means, *bank)
    if name == "sslmem-image":
        return view_distance(image[:, 0], image)
    if name == "sslmem-text":
        return text_view_distance(text, rows(rng, n, d, sharp=sharp), torch.arange(n))
    assert name == "confidence"
    return class_probability(50 * text, torch.zeros(n, dtype=torch.long))


@PROFILE
@given(st.sampled_from(sorted(ALIGNMENTS)), seeds, st.integers(1, 6), st.integers(1, 4), st.booleans())
def test_every_measure_stays_in_its_declared_ranges(name, seed, n, d, sharp):
    rng, measure = torch.Generator().manual_seed(seed), ALIGNMENTS[name]
    f, g = (under_one_model(name, rng, n, d, sharp) for _ in range(2))
    for values in (f, g):
        assert bool(((values >= measure.model_range[0] - 1e-12) & (values <= measure.model_range[1] + 1e-12)).all())
    if name == "confidence":
        member = np.array([[True] * n, [False] * n])
        memorized = torch.from_numpy(in_out_means(torch.stack([f, g]).numpy(), member).score)
    else:
        memorized = clipmem(measure.sign * f[None], measure.sign * g[None])
    torch.testing.assert_close(memorized, measure.sign * (f - g), rtol=0, atol=1e-12)
    assert bool(((memorized >= measure.range[0] - 1e-12) & (memorized <= measure.range[1] + 1e-12)).all())


def test_the_declared_ranges_are_reached():
    east, west = torch.tensor([[1.0]]), torch.tensor([[-1.0]])
    assert alignment(alignment_parts(east, east, west, west)).item() == ALIGNMENTS["clip"].model_range[1]
    assert alignment(alignment_parts(east, west, west, east)).item() == ALIGNMENTS["clip"].model_range[0]
    assert cmc(east, east, west, west).item() == ALIGNMENTS["cmc"].model_range[1]
    half = torch.tensor([[0.5, 0.75**0.5]]), torch.tensor([[0.5, -(0.75**0.5)]])  # their sum has length 1
    along = torch.tensor([[1.0, 0.0]])
    assert abs(cmc(*half, along, along).item() - ALIGNMENTS["cmc"].model_range[0]) < 1e-6
    assert view_distance(east, west[None]).item() == ALIGNMENTS["sslmem-image"].model_range[1]


@PROFILE
@given(seeds, st.integers(1, 5), st.floats(1e-3, 1e3))
def test_distances_ignore_scale_and_order_of_views(seed, n, scale):
    rng = torch.Generator().manual_seed(seed)
    clean, views = rows(rng, n, 3), rows(rng, n, 4, 3)
    found = view_distance(clean, views)
    torch.testing.assert_close(view_distance(scale * clean, views.flip(1) / scale), found, rtol=0, atol=1e-12)
    assert float(view_distance(clean, scale * clean[:, None]).max()) < 1e-12


@PROFILE
@given(
    seeds, st.integers(2, 30), st.integers(1, 6), st.sampled_from(["mean", "median"]), st.randoms(use_true_random=False)
)
def test_unitmem_does_not_depend_on_blocks_or_their_order(seed, n, units, rest, random):
    x = rows(torch.Generator().manual_seed(seed), n, units).mul(2).round().relu()  # with ties and dead units
    whole = unitmem(x, rest=rest)
    cuts = sorted({0, n, *(random.randrange(n) for _ in range(3))})
    blocks = list(pairwise(cuts))
    random.shuffle(blocks)
    state = UnitMemState(units, hold_bytes=1 << 20)
    for start, stop in blocks:
        state.update(x[start:stop], start)
    found = state.result(rest)
    torch.testing.assert_close(found.value, whole.value, rtol=0, atol=1e-14)
    assert torch.equal(found.argmax, whole.argmax)
    assert torch.equal(found.mu_max, whole.mu_max)
    assert bool(((found.value >= 0) & (found.value <= 1)).all())
    scaled = unitmem(4 * x, rest=rest)
    torch.testing.assert_close(scaled.value, whole.value, rtol=0, atol=1e-14)


@PROFILE
@given(seeds, st.integers(2, 200), st.integers(1, 4), st.floats(-5, 3))
def test_the_sketch_keeps_its_error_bound(seed, n, units, decade):
    rng = torch.Generator().manual_seed(seed)
    x = 10**decade * torch.exp(torch.randn(n, units, generator=rng, dtype=torch.float64)).clamp(0.2, 8)
    exact, state = unitmem(x, rest="median"), UnitMemState(units, hold_bytes=0)
    state.update(x, 0)
    found = state.result("median")
    assert bool(((found.mu_rest - exact.mu_rest).abs() <= 0.01 * exact.mu_rest * (1 + 1e-9)).all())
    assert bool(((found.value - exact.value).abs() <= 0.005).all())
    sketch = LogHistogram(units)
    sketch.add(x)
    for rank in (0, n // 3, n - 1):
        true = x.sort(dim=0).values[rank]
        assert bool(((sketch.order_statistic(rank) - true).abs() <= 0.01 * true * (1 + 1e-9)).all())


@PROFILE
@given(seeds, st.integers(1, 9), st.integers(1, 12), st.integers(1, 120))
def test_neighbors_do_not_depend_on_blocks(seed, q, p, cells):
    rng = torch.Generator().manual_seed(seed)
    query, public = rows(rng, q, 2).round(decimals=1) + 0.05, rows(rng, p, 2).round(decimals=1) + 0.05
    whole, found = nearest(query, public, p), nearest(query, public, p, cells=cells)
    torch.testing.assert_close(found.similarity, whole.similarity, rtol=0, atol=2e-12)
    assert torch.equal(found.rows.sort(dim=1).values, torch.arange(p).expand(q, p))


@PROFILE
@given(seeds, st.integers(1, 20), st.integers(1, 5))
def test_swapping_f_and_g_negates_the_gaps(seed, n, objects):
    rng = torch.Generator().manual_seed(seed)
    true, f, g = (torch.rand(n, objects, generator=rng) < 0.5 for _ in range(3))
    true[0, 0] = True
    forward, back = dejavu(true, f, g, fractions=(1.0,)), dejavu(true, g, f, fractions=(1.0,))
    assert forward.precision_gap == -back.precision_gap
    assert forward.recall_gap == -back.recall_gap
    assert abs(forward.auc_gap + back.auc_gap) < 1e-15
    assert abs(forward.top[0].f_score + back.top[0].f_score) < 1e-14
    assert abs(forward.top[0].recall - forward.auc_gap) < 1e-14  # the top 100 % are all


@PROFILE
@given(seeds, st.integers(1, 9), st.integers(1, 12))
def test_in_out_scores(seed, models, n):
    rng = np.random.default_rng(seed)
    values, member = rng.normal(size=(models, n)), rng.random((models, n)) < 0.5
    found = in_out_means(values, member)
    undefined = (found.count_in == 0) | (found.count_out == 0)
    assert np.array_equal(np.isnan(found.score), undefined)
    assert np.allclose(in_out_means(values, ~member).score, -found.score, equal_nan=True, rtol=0, atol=1e-14)
    sure = jackknife_models(values, member)
    shifted = jackknife_models(3 + 2 * values[::-1], member[::-1])
    assert np.allclose(shifted.stderr, 2 * sure.stderr, equal_nan=True, rtol=1e-6, atol=1e-12)
    known = ~np.isnan(sure.stderr)
    assert bool((sure.low[known] <= found.score[known] + 1e-12).all())


@PROFILE
@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_corrections_keep_order_and_only_raise(p):
    p = np.array(p)
    adjusted = holm(p)
    assert bool((adjusted >= p - 1e-15).all() and (adjusted <= 1).all())
    assert bool((np.diff(adjusted[np.argsort(p, kind="stable")]) >= -1e-15).all())
