"""How often intervals hold the truth: over models (the table in `clipmem.stats.resampling`), and of means.

Planted truth: x_ri = base_i + truth_i [i in D_r] + noise. A model's shift, shared by all its pairs, is half of the
noise's variance. In-noise has sd 0.05, out-noise an sd of 0.3 on average, scattered by pair (log-normal). The draw is
that of the protocol, balanced, with p = 1/2.
Of comparisons: two runs of one study, in which f is better than g on all pairs by a shift that is drawn anew for each
seed of each run; the planted difference is that of the pairs' own values.
Run `pytest tests/science/test_interval_coverage.py -s` to print the table.
"""

import sys

import numpy as np
import polars as pl
import pytest
from scipy import stats
from tests.compared import build, split_of

from clipmem.base.random import generator
from clipmem.functional import auroc, centered_mean, crossed_mean, half_difference, jackknife_models
from clipmem.report.comparison import compare_finished
from clipmem.report.run import read_finished
from clipmem.scoring.protocols.subsample import balanced_draw


def study(seed, models, n):
    rng = generator(seed, "study")
    member = balanced_draw(np.ones(n, dtype=np.int64), models, models // 2, rng)
    truth = rng.normal(0.5, 0.2, n)
    out_sd = 0.3 * np.exp(0.3 * rng.normal(size=n))
    shift, own = rng.normal(size=(models, 1)), rng.normal(size=(models, n))
    noise = (shift + own) / np.sqrt(2) * np.where(member, 0.05, out_sd)
    return rng.normal(0.3, 0.2, n) + truth * member + noise, member, truth


def measure(models, *, studies, n):
    """Return the share of intervals that hold the truth, and their median width."""
    parts = []
    for seed in range(studies):
        values, member, truth = study(seed, models, n)
        interval = jackknife_models(values, member)
        parts.append((interval.low, interval.high, truth))
    low, high, truth = (np.concatenate(column) for column in zip(*parts, strict=True))
    return float(((low <= truth) & (truth <= high)).mean()), float(np.median(high - low))


@pytest.mark.parametrize("models", [8, pytest.param(16, marks=pytest.mark.slow), 32])
def test_coverage(models):
    coverage, width = measure(models, studies=300, n=150)
    sys.stdout.write(f"\nR = {models}: {coverage:.3f} (width {width:.2f})\n")
    assert 0.925 <= coverage <= 0.975


def crossed_study(rng, *, seeds, pairs, seed_sd, own_sd):
    """Scores of C and I, as f and g make them: a shift a seed, a value a pair, noise of each pair under each seed."""
    quality = rng.normal(0, seed_sd, (seeds, 1))  # f better than g on all pairs: the same for both roles
    own = [sign * 0.2 + rng.normal(0, 0.1, (1, pairs)) + rng.normal(0, 0.1, (seeds, pairs)) for sign in (1, -1)]
    return [values + quality + rng.normal(0, own_sd, (seeds, 1)) for values in own]


STDS = (0.0, 0.004), (0.006, 0.004), (0.1, 0.004), (0.1, 0.02), (0.5, 0.02)


@pytest.mark.parametrize(
    ("seed_sd", "own_sd"), [(0.03, 0.004), *(pytest.param(*one, marks=pytest.mark.slow) for one in STDS)]
)
@pytest.mark.parametrize("pairs", [40, pytest.param(400, marks=pytest.mark.slow)])
@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_coverage_of_means(seeds, pairs, seed_sd, own_sd):
    """A role's mean over pairs and seeds, refused with two seeds, and the half-difference."""
    rng, groups = generator(seeds, f"crossed {pairs} {seed_sd} {own_sd}"), np.arange(pairs)
    held = np.zeros((600, 2), dtype=bool)
    for k in range(len(held)):
        own, others = crossed_study(rng, seeds=seeds, pairs=pairs, seed_sd=seed_sd, own_sd=own_sd)
        intervals = crossed_mean(own, groups), half_difference(own, others, groups, groups + pairs)
        held[k] = [one.low <= 0.2 <= one.high for one in intervals]
    mean, half = held.mean(axis=0)
    said = f"{mean:.3f}" if seeds > 2 else "refused"
    sys.stdout.write(
        f"\n{seeds} seeds, {pairs} pairs, seed sd {seed_sd}, {own_sd}: mean {said}, half-difference {half:.3f}\n"
    )
    assert intervals[0].over == ("pairs and seeds" if seeds > 2 else "pairs")
    assert (0.9 if seeds == 2 else 0.92) <= half <= 0.985
    if seeds > 2:
        assert 0.92 <= mean <= 0.985


@pytest.mark.slow
def test_a_shift_of_f_against_g_does_not_move_the_half_difference():
    """Two seeds: the half-difference covers the planted mean; the candidates' interval, over pairs only, does not."""
    rng, groups = generator(0, "shifted"), np.arange(400)
    held, widths = np.zeros((2000, 2), dtype=bool), np.zeros((2000, 2))
    for k in range(len(held)):
        own, others = crossed_study(rng, seeds=2, pairs=400, seed_sd=0.03, own_sd=0.004)
        intervals = half_difference(own, others, groups, groups + 400), crossed_mean(own, groups)
        held[k] = [one.low <= 0.2 <= one.high for one in intervals]
        widths[k] = [one.high - one.low for one in intervals]
    half, plain = held.mean(axis=0)
    sys.stdout.write(f"\nhalf-difference {half:.3f}, candidates {plain:.3f}, widths {np.median(widths, axis=0)}\n")
    assert 0.93 <= half <= 0.97
    assert plain < 0.6


@pytest.mark.slow
@pytest.mark.parametrize("pairs", [2, 3, 5, 10])
def test_coverage_of_few_pairs_in_one_sample(pairs):
    """A few candidates, and 100 independent or external pairs: the half-difference and the centered mean."""
    rng, groups = generator(0, f"few {pairs}"), (np.arange(pairs), pairs + np.arange(100))
    held = np.zeros((1000, 2), dtype=bool)
    for k in range(len(held)):
        shift, values = rng.normal(0, 0.03, (3, 1)), rng.normal(0, 0.3, pairs + 100)
        own, others = np.split(values + shift + rng.normal(0, 0.1, (3, pairs + 100)), [pairs], axis=1)
        intervals = half_difference(own + 0.5, others - 0.5, *groups), centered_mean(own + 0.5, others, *groups)
        held[k] = [one.low <= 0.5 <= one.high for one in intervals]
    half, centered = held.mean(axis=0)
    sys.stdout.write(f"\n{pairs} of 100 pairs: half-difference {half:.3f}, centered mean {centered:.3f}\n")
    assert min(half, centered) >= (0.87 if pairs == 2 else 0.925)
    assert max(half, centered) <= 0.975


@pytest.mark.slow
@pytest.mark.parametrize(
    ("p", "q", "apart"),
    [(3, 50, 1), *(pytest.param(*one, marks=pytest.mark.slow) for one in ((5, 200, 1), (20, 480, 2)))],
)
def test_coverage_of_an_auroc_of_few(p, q, apart):
    """DeLong's interval, for normal scores `apart` standard deviations apart."""
    rng, positive = generator(0, f"auroc {p}"), np.arange(p + q) < p
    truth, held = stats.norm.cdf(apart / 2**0.5), 0
    for _ in range(1000):
        found = auroc(rng.normal(size=p + q) + apart * positive, positive)
        held += found.low <= truth <= found.high
    sys.stdout.write(f"\nAUROC {truth:.2f} of {p} and {q} pairs: {held / 1000:.3f}\n")
    assert 900 <= held <= 975


EFFECT = -0.15  # of the run, as a share of each pair's value


def shifted_scores(rng, splits, seeds, values, share):
    """A table of alignments: each pair's value, a shift of f for each seed, and noise of each pair under each seed."""
    sign = splits["role"].replace_strict({"candidate": 1.0, "independent": -1.0}, default=0.0).to_numpy()
    n, parts = len(sign), []
    for seed in seeds:
        f = rng.normal(0, 0.03) + sign * values * (1 + share) + rng.normal(0, 0.01, n)
        table = pl.DataFrame({"uid": splits["uid"], "seed": seed, "f": f, "g": rng.normal(0, 0.01, n)})
        unknown = pl.lit(None, pl.Float64)
        parts.append(table.with_columns(f_wordings=unknown, g_wordings=unknown))
    return pl.concat(parts)


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_coverage_of_comparisons(seeds, tmp_path):
    """The t interval over paired seeds that `compare` gives for clipmem, and for the mean over candidates."""
    splits = split_of()
    folders = [build(tmp_path / name, seeds=range(seeds), metrics=None) for name in ("plain", "run")]
    runs = [read_finished(folder) for folder in folders]
    rng = generator(seeds, "compared")
    measures = ("clipmem", "clipmem candidates")
    held, widths = np.zeros((600, 2), dtype=bool), np.zeros((600, 2))
    means = [(splits["role"] == role).to_numpy() for role in ("candidate", "independent")]
    for k in range(len(held)):
        values = rng.normal(0.2, 0.1, splits.height)
        own, mirror = (EFFECT * values[where].mean() for where in means)
        tables = [shifted_scores(rng, splits, range(seeds), values, share) for share in (0.0, EFFECT)]
        for run, table in zip(runs, tables, strict=True):
            run.tables["seed_scores"] = table
        rows = {row["measure"]: row for row in compare_finished(runs)["differences"]}
        found, truths = [rows[name] for name in measures], ((own + mirror) / 2, own)
        held[k] = [row["low"] <= truth <= row["high"] for row, truth in zip(found, truths, strict=True)]
        widths[k] = [row["high"] - row["low"] for row in found]
    half, plain = np.median(widths, axis=0)
    sys.stdout.write(f"\n{seeds} seeds: {held.mean(axis=0)} covered, widths {half:.4f} and {plain:.4f}\n")
    assert (held.mean(axis=0) >= 0.93).all()
    assert (held.mean(axis=0) <= 0.97).all()
    assert plain > 4 * half
