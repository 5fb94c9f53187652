"""What must hold for any input: scale, order, swaps, duplicates, ranges."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from clipmem.functional import (
    alignment,
    alignment_parts,
    auroc,
    centered_mean,
    clipmem,
    compare_groups,
    control_shift,
    crossed_mean,
    pair_means,
    precision_at_n,
    roc_curve,
    seed_interval,
    spearman,
    superiority,
    top_overlap,
)
from clipmem.measure.retrieval import retrieve
from clipmem.stats.comparisons import hedges_g

PROFILE = settings(max_examples=40, derandomize=True)


@st.composite
def studies(draw):
    """Raw embeddings of a few pairs, which are their own bank, with uneven captions."""
    n, views, d = draw(st.integers(2, 7)), draw(st.integers(1, 3)), draw(st.integers(1, 5))
    counts = draw(st.lists(st.integers(1, 3), min_size=n, max_size=n))
    rng = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    text_pair = torch.repeat_interleave(torch.arange(n), torch.tensor(counts))
    image = torch.randn(n, views, d, generator=rng, dtype=torch.float64) + 0.3
    return image, torch.randn(len(text_pair), d, generator=rng, dtype=torch.float64) + 0.3, text_pair


scores = st.lists(st.integers(-5, 5), min_size=2, max_size=30).map(lambda xs: np.array(xs, dtype=np.float64) / 4)


def own_bank_scores(image, text, text_pair, weight=1.0):
    means = pair_means(image, text, text_pair)
    parts = alignment_parts(*means, *means, member=torch.arange(len(image)))
    return alignment(parts, weight=weight)


@PROFILE
@given(studies(), st.floats(0.0, 3.0))
def test_alignment_stays_in_its_range(study, weight):
    found = own_bank_scores(*study, weight=weight)
    assert bool((found.abs() <= 1 + 2 * weight + 1e-12).all())


@PROFILE
@given(studies(), st.floats(1e-6, 1e6), st.integers(0, 1000))
def test_scaling_any_row_changes_nothing(study, scale, seed):
    image, text, text_pair = study
    rng = torch.Generator().manual_seed(seed)
    by_view = scale * (torch.rand(image.shape[:2], generator=rng, dtype=torch.float64) + 0.1)
    by_caption = scale * (torch.rand(len(text), generator=rng, dtype=torch.float64) + 0.1)
    scaled = own_bank_scores(image * by_view[..., None], text * by_caption[:, None], text_pair)
    torch.testing.assert_close(scaled, own_bank_scores(*study), rtol=0, atol=1e-12)


@PROFILE
@given(studies(), st.integers(0, 1000))
def test_rotating_both_sides_changes_nothing(study, seed):
    image, text, text_pair = study
    d = image.shape[-1]
    rotation = torch.linalg.qr(torch.randn(d, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)).Q
    rotated = own_bank_scores(image @ rotation, text @ rotation, text_pair)
    torch.testing.assert_close(rotated, own_bank_scores(*study), rtol=0, atol=1e-12)


@PROFILE
@given(studies(), st.randoms(use_true_random=False))
def test_order_of_pairs_views_and_captions(study, random):
    image, text, text_pair = study
    order = random.sample(range(len(image)), len(image))
    rows = random.sample(range(len(text)), len(text))
    place = torch.empty(len(image), dtype=torch.long)
    place[order] = torch.arange(len(image))
    moved = own_bank_scores(image[order].flip(1), text[rows], place[text_pair[rows]])
    torch.testing.assert_close(moved, own_bank_scores(*study)[order], rtol=0, atol=1e-12)


@PROFILE
@given(studies())
def test_swapping_the_sides_swaps_the_bank_parts(study):
    image, text, text_pair = study
    u, v = pair_means(image, text, text_pair)
    member = torch.arange(len(image))
    forward, mirrored = alignment_parts(u, v, u, v, member=member), alignment_parts(v, u, v, u, member=member)
    torch.testing.assert_close(forward.positive, mirrored.positive, rtol=0, atol=1e-14)
    torch.testing.assert_close(forward.image_bank, mirrored.text_bank, rtol=0, atol=1e-14)


@PROFILE
@given(studies())
def test_duplicated_views_captions_and_bank_change_nothing(study):
    image, text, text_pair = study
    u, v = pair_means(image, text, text_pair)
    u2, v2 = pair_means(image.repeat(1, 2, 1), text.repeat(2, 1), text_pair.repeat(2))
    torch.testing.assert_close(u, u2, rtol=0, atol=1e-14)
    torch.testing.assert_close(v, v2, rtol=0, atol=1e-14)
    once, twice = alignment_parts(u, v, u, v), alignment_parts(u, v, u.repeat(2, 1), v.repeat(2, 1))
    for one, two in zip(once, twice, strict=True):
        torch.testing.assert_close(one, two, rtol=0, atol=1e-14)


@PROFILE
@given(studies())
def test_float32_agrees_with_float64(study):
    image, text, text_pair = study
    single = own_bank_scores(image.float(), text.float(), text_pair)
    double = own_bank_scores(image.float().double(), text.float().double(), text_pair)
    torch.testing.assert_close(single, double, rtol=0, atol=1e-14)  # float32 in, float64 arithmetic
    safe = image.abs().amax(-1).min() > 0.05 and text.abs().amax(-1).min() > 0.05
    if safe:
        torch.testing.assert_close(single, own_bank_scores(*study), rtol=0, atol=1e-5)


@PROFILE
@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 9), st.integers(0, 1000))
def test_swapping_f_and_g_negates(seeds, other_seeds, n, seed):
    rng = torch.Generator().manual_seed(seed)
    f, g = torch.randn(seeds, n, generator=rng), torch.randn(other_seeds, n, generator=rng)
    assert torch.equal(clipmem(f, g), -clipmem(g, f))
    assert torch.equal(clipmem(f, f), torch.zeros(n, dtype=torch.float64))


@PROFILE
@given(studies(), st.integers(1, 5))
def test_retrieval_ranks_are_sound(study, block):
    image, text, text_pair = study
    found = retrieve(image[:, 0], text, text_pair, ks=(1, 2, 3), block=block)
    assert bool(((found.image.rank >= 1) & (found.image.rank <= len(image))).all())
    assert bool(((found.text.rank >= 1) & (found.text.rank <= len(text))).all())
    for side in ("image_retrieval", "text_retrieval"):
        recalls = [found.metrics[f"{side}_recall@{k}"] for k in (1, 2, 3)]
        assert recalls == sorted(recalls)
    order = torch.arange(len(text)).flip(0)
    again = retrieve(3 * image[:, 0], text[order], text_pair[order], block=block)
    assert np.array_equal(again.image.rank, found.image.rank[order.numpy()])
    assert np.array_equal(again.text.rank, found.text.rank)


@PROFILE
@given(scores, scores)
def test_swapping_the_groups_mirrors_every_comparison(a, b):
    forward, backward = compare_groups(a, b), compare_groups(b, a)
    assert forward.difference == -backward.difference
    assert forward.superiority == pytest.approx(1 - backward.superiority, abs=1e-15)
    assert forward.mannwhitney_p == pytest.approx(backward.mannwhitney_p, rel=1e-9)
    assert forward.welch_p == (None if backward.welch_p is None else pytest.approx(backward.welch_p, rel=1e-9))
    if forward.hedges_g is not None:
        assert forward.hedges_g == pytest.approx(-hedges_g(b, a), rel=1e-12)
    assert all(value is None or np.isfinite(value) for value in forward)


@PROFILE
@given(scores, scores)
def test_auroc_is_superiority_and_the_area_under_the_curve(a, b):
    joined, positive = np.concatenate([a, b]), np.arange(len(a) + len(b)) < len(a)
    interval = auroc(joined, positive)
    assert interval.mean == pytest.approx(superiority(a, b), abs=1e-14)
    assert interval.low is not None
    assert interval.high is not None
    assert 0 <= interval.low <= interval.mean + 1e-15 <= interval.high + 2e-15 <= 1 + 2e-15
    curve = roc_curve(joined, positive)
    assert np.trapezoid(curve.tpr, curve.fpr) == pytest.approx(interval.mean, abs=1e-14)
    assert auroc(-joined, positive).mean == pytest.approx(1 - interval.mean, abs=1e-14)
    assert (np.diff(curve.fpr) >= 0).all()
    assert (curve.fpr[0], curve.tpr[0], curve.fpr[-1], curve.tpr[-1]) == (0, 0, 1, 1)


@PROFILE
@given(scores, st.randoms(use_true_random=False))
def test_rankings_do_not_depend_on_the_order_of_pairs(a, random):
    b = np.array([random.randint(0, 4) for _ in a], dtype=np.float64)
    order = np.array(random.sample(range(len(a)), len(a)))
    positive = np.arange(len(a)) % 2 == 0
    assert spearman(a, b).spearman == pytest.approx(spearman(a[order], b[order]).spearman, abs=1e-14)
    assert top_overlap(a, b, 0.3) == pytest.approx(top_overlap(a[order], b[order], 0.3), abs=1e-14)
    assert precision_at_n(a, positive) == pytest.approx(precision_at_n(a[order], positive[order]), abs=1e-14)
    rho = spearman(a, b)
    if rho.low is not None and rho.high is not None and rho.spearman is not None:
        assert -1 <= rho.low <= rho.spearman <= rho.high <= 1
        assert spearman(b, a) == pytest.approx(rho)


@PROFILE
@given(st.integers(2, 5), st.integers(1, 12), st.integers(0, 1000), st.booleans())
def test_seed_interval_is_finite_and_moves_with_the_scores(seeds, n, seed, coarse):
    differences = np.random.default_rng(seed).normal(size=(seeds, n))
    if coarse:  # makes variances of exactly zero likely
        differences = np.round(differences)
    found = seed_interval(differences)
    assert all(np.isfinite(part).all() for part in found)
    assert (found.low <= found.high).all()
    moved = seed_interval(8 * differences + 1)
    assert np.allclose(moved.stderr, 8 * found.stderr, rtol=1e-6, atol=1e-12)
    assert np.allclose(moved.low, 8 * found.low + 1, rtol=1e-6, atol=1e-6)


@PROFILE
@given(st.integers(1, 4), st.integers(2, 20), st.integers(0, 1000))
def test_crossed_mean_brackets_and_moves_with_the_values(seeds, n, seed):
    values, groups = np.random.default_rng(seed).normal(size=(seeds, n)), np.arange(n) // 2
    found = crossed_mean(values, groups)
    moved = crossed_mean(values * 2 + 1, groups)
    assert found == crossed_mean(values, groups)
    assert moved.mean == pytest.approx(2 * found.mean + 1, abs=1e-12)
    if found.low is None or found.high is None:
        assert len(set(groups.tolist())) == 1
        return
    assert found.low <= found.mean <= found.high
    assert moved.low == pytest.approx(2 * found.low + 1, abs=1e-12)


@PROFILE
@given(st.integers(1, 4), st.integers(2, 20), st.integers(2, 20), st.integers(0, 1000), st.floats(-5, 5))
def test_what_makes_f_better_throughout_does_not_change_centered_means(seeds, n, m, seed, better):
    rng = np.random.default_rng(seed)
    values, control = rng.normal(size=(seeds, n)), rng.normal(size=(seeds, m))
    groups = np.arange(n), n + np.arange(m)
    moved = better * rng.normal(size=(seeds, 1))  # another amount under each seed
    plain, other = (centered_mean(values + x, control + x, *groups) for x in (0.0, moved))
    assert other[:3] == pytest.approx(plain[:3], abs=1e-9)
    assert control_shift(control + moved, groups[1]).mean == pytest.approx(
        control_shift(control, groups[1]).mean + moved.mean(), abs=1e-9
    )


@PROFILE
@given(st.integers(1, 4), st.integers(2, 30), st.integers(0, 1000))
def test_a_symmetric_control_is_centered_on_zero(seeds, n, seed):
    half = np.random.default_rng(seed).standard_t(1, size=(seeds, n))
    control, groups = np.concatenate([half, -half], axis=1) + 0.75, np.arange(2 * n)
    found = centered_mean(control, control, groups, groups)
    assert found.mean == pytest.approx(0, abs=1e-9 * (1 + np.abs(half).max()))
    assert found.low <= found.mean <= found.high


@PROFILE
@given(st.integers(1, 3), st.integers(10, 40), st.integers(0, 1000), st.floats(1, 1e6))
def test_a_fifth_of_the_control_moves_the_shift_within_the_others(seeds, n, seed, size):
    control = np.random.default_rng(seed).normal(size=(seeds, n))
    wild = control.copy()
    wild[:, : n // 5] += size
    rest = control[:, n // 5 :]
    assert rest.min() <= control_shift(wild, np.arange(n)).mean <= rest.max()
