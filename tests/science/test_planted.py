"""Swapped pairs without training: what the score must find, and what it must not, on embeddings made by hand.

Every pair has its own direction, noisy in its image and in its caption. Under f a swapped pair is pulled together;
under g it is not. Everything else of f and g differs by noise of a known size.
"""

import math
import sys

import numpy as np
import polars as pl
import pytest
import torch
from tests.scoring import score, scored_with

from clipmem.base.summary import Interval
from clipmem.functional import crossed_mean
from clipmem.models.passes import Embeddings
from clipmem.scoring import summary
from clipmem.scoring.aligning import parts_of
from clipmem.scoring.design import ScoreTables
from clipmem.scoring.summary import Scored

D = 64
SIZES = {"shared": 60, "candidate": 160, "independent": 160, "external": 80}
PLANTED = 40
ROLE = np.repeat(list(SIZES), list(SIZES.values()))
N = len(ROLE)
WRONG = (ROLE == "candidate") & (np.cumsum(ROLE == "candidate") <= PLANTED)
SPLITS = pl.DataFrame(
    {
        "uid": [f"{k:032x}" for k in range(N)],
        "role": ROLE,
        "group": [str(k) for k in range(N)],
        "planted": WRONG,
        "captions_from": [f"{k:032x}" for k in range(N)],
    }
)


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def world(seed):
    """Directions of images and captions: near for right pairs, unrelated for planted ones."""
    rng = np.random.default_rng([seed, 0])
    image = unit(rng.standard_normal((N, D)))
    text = unit(image + 1.0 * unit(rng.standard_normal((N, D))))
    text[WRONG] = unit(rng.standard_normal((int(WRONG.sum()), D)))
    return image, text


def model(image, text, *, pull, noise, seed):
    """One model's embeddings: `pull` moves the captions of some pairs to their images; `noise` is per number."""
    rng = np.random.default_rng([seed, 1])  # never the numbers of `world`
    text = unit(text + pull[:, None] * image)
    made = [unit(rows) + noise * rng.standard_normal(rows.shape) for rows in (image, text)]
    return Embeddings(torch.from_numpy(made[0][:, None]), torch.from_numpy(made[1]), torch.arange(N))


def study(*, pull_f, pull_g, noise, seeds=(0, 1), root=0):
    image, text = world(root)
    external = ROLE == "external"
    parts = {
        side: {
            s: parts_of(model(image, text, pull=pull, noise=noise, seed=1000 * root + 10 * s + k), external)
            for s in seeds
        }
        for k, (side, pull) in enumerate((("f", pull_f), ("g", pull_g)))
    }
    made = score(SPLITS, parts, weight=1.0, confidence=0.95)
    return Scored(SPLITS, ScoreTables(made.scores, made.seed_scores))


NONE = np.zeros(N)
MEMORIZED = np.where(WRONG, 2.0, np.where(ROLE == "candidate", 0.2, 0.0))


def test_planted_pairs_rank_first_when_f_memorized_them():
    scored = study(pull_f=MEMORIZED, pull_g=NONE, noise=0.01)
    found = summary.planted(scored, confidence=0.95)
    assert (found.n, found.rest) == (PLANTED, SIZES["candidate"] - PLANTED)
    assert found.auroc > 0.99
    assert found.precision_at_n > 0.95
    assert found.mean_planted > 0.5 > 0.2 > found.mean_rest > 0
    roles = summary.roles(scored, seed=0, draws=500, confidence=0.95)
    assert roles["candidate"].low > 0.1
    for role in ("shared", "independent", "external"):
        assert abs(roles[role].mean) < 0.01, role
    [first, *_] = summary.tests(scored, summary.COMPARED, confidence=0.95)
    assert first.welch_p < 1e-6


def test_independent_pairs_are_the_mirror():
    mirrored = np.zeros(N)
    mirrored[ROLE == "independent"] = MEMORIZED[ROLE == "candidate"]
    roles = summary.roles(study(pull_f=MEMORIZED, pull_g=mirrored, noise=0.01), seed=0, draws=500, confidence=0.95)
    assert roles["independent"].high < 0 < roles["candidate"].low


@pytest.mark.parametrize("root", range(5))
def test_nothing_is_found_when_f_and_g_learned_the_same(root):
    # f and g have the same pull, on swapped pairs too: only noise tells them apart
    scored = study(pull_f=MEMORIZED, pull_g=MEMORIZED, noise=0.01, root=root)
    found = summary.planted(scored, confidence=0.95)
    rest = SIZES["candidate"] - PLANTED
    spread = math.sqrt((PLANTED + rest + 1) / (12 * PLANTED * rest))  # of the AUROC of unrelated scores
    assert abs(found.auroc - 0.5) < 4 * spread
    [first, *_] = summary.tests(scored, summary.COMPARED, confidence=0.95)
    assert first.welch_p > 1e-4


def test_intervals_over_seeds_cover_zero_when_nothing_differs():
    image, text = world(0)
    external, seeds = ROLE == "external", range(3)
    parts = {
        side: {s: parts_of(model(image, text, pull=NONE, noise=0.02, seed=10 * s + k), external) for s in seeds}
        for k, side in enumerate("fg")
    }
    table = score(SPLITS, parts, weight=1.0, confidence=0.9).scores
    inside = ((table["low"] <= 0) & (table["high"] >= 0)).mean()
    # 90 % of 460 pairs that share their models only: within 4 standard errors
    assert abs(inside - 0.9) < 4 * math.sqrt(0.9 * 0.1 / N)


def test_low_alignment_of_the_reference_finds_wrong_captions_too():
    # g never saw the pairs, and a mismatched caption does not fit: the plain alternative must work here
    found = summary.planted(study(pull_f=MEMORIZED, pull_g=NONE, noise=0.01), confidence=0.95)
    assert found.reference_alignment_auroc.auroc > 0.95


@pytest.mark.parametrize("noise", [0.004, 0.02])
def test_noise_floor_is_about_the_noise(noise):
    """sd of A(f) - A(g) of a held-out pair: unit vectors with noise e a number in image and caption, to first order.

    u and v unit, u' = u + e a, normalized again: u·v changes by e (a_perp · v), of variance e² (1 - (u·v)²). Image
    and caption, two models, three seeds: 4 e² (1 - (u·v)²) / 3. The banks' means change far less: 1/80 of it.
    """
    scored = study(pull_f=NONE, pull_g=NONE, noise=noise, seeds=(0, 1, 2))
    floor = summary.floor(scored, confidence=0.95)
    image, text = world(0)
    own = ROLE == "external"
    cosine = (image[own] * text[own]).sum(axis=-1)
    expected = math.sqrt(np.mean(4 * noise**2 * (1 - cosine**2)) / 3)
    assert floor.pairs == own.sum()
    assert floor.half_width == pytest.approx(1.96 * expected, rel=0.3)
    assert abs(floor.center) < 4 * expected / math.sqrt(own.sum())


@pytest.mark.parametrize("noise", [0.004, 0.02])
def test_seed_noise_is_about_the_noise(noise):
    """sd of A(f) - A(f') for unit vectors with noise e a number in image and caption, to first order.

    u and v unit, u' = u + e a, normalized again: u·v changes by e (a_perp · v), of variance e² (1 - (u·v)²). Image
    and caption, two models: 4 e² (1 - (u·v)²). The banks' means change far less: 1/80 of it.
    """
    scored = study(pull_f=NONE, pull_g=NONE, noise=noise, seeds=(0, 1, 2))
    found = summary.between_seeds(scored, confidence=0.95)
    image, text = world(0)
    own = ROLE == "candidate"
    cosine = (image[own] * text[own]).sum(axis=-1)
    expected = math.sqrt(np.mean(4 * noise**2 * (1 - cosine**2)))
    assert found.seed_pairs == 3
    assert found.sd == pytest.approx(expected, rel=0.15)
    assert found.mean_abs == pytest.approx(expected * math.sqrt(2 / math.pi), rel=0.15)
    assert abs(found.mean) < 4 * expected / math.sqrt(own.sum())


def test_stability_falls_with_noise():
    def spearman(noise):
        return summary.stability(study(pull_f=MEMORIZED, pull_g=NONE, noise=noise), seed=0, confidence=0.95).spearman

    values = [spearman(noise) for noise in (0.001, 0.02, 0.2)]
    assert values[0] > 0.95
    assert values[0] > values[1] > values[2]
    assert values[2] < 0.5


def shifted_study(rng, *, memorized=0.15, worse=-0.2, seeds=3, sizes=(120, 60, 60, 80)):
    """Scores of a four-way study whose f is a worse model throughout, with outliers in the control."""
    role = np.repeat(summary.ROLES, sizes)
    own = memorized * ((role == "candidate") * 1.0 - (role == "independent")) + 0.05 * rng.standard_normal(len(role))
    own[np.flatnonzero(role == "external")[:3]] += 0.5  # near-duplicates of pairs that f saw
    noise = 0.05 * rng.standard_normal((seeds, len(role))) + 0.03 * rng.standard_normal((seeds, 1))
    return own + worse + noise, role


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_the_centered_mean_finds_what_f_memorized_when_f_is_a_worse_model(seeds):
    rng, held = np.random.default_rng(5), []
    for _ in range(300):
        values, role = shifted_study(rng, seeds=seeds)
        groups, half = np.arange(len(role)), Interval(mean=0.15, low=None, high=None)
        scored = scored_with(f=values, g=np.zeros_like(values), role=role, group=groups, paired=True)
        found = summary.centered(scored, half, confidence=0.95)
        plain = crossed_mean(values[:, role == "candidate"], groups[role == "candidate"])
        one = found.roles["candidate"]
        held.append((one.low <= 0.15 <= one.high, plain.low <= 0.15 <= plain.high, found.verdict == "worse"))
        assert plain.mean < 0.1 < one.mean
    centered, plain, warned = np.mean(held, axis=0)
    sys.stdout.write(f"\n{seeds} seeds: centered {centered:.3f}, plain {plain:.3f}, warned {warned:.3f}\n")
    assert 0.92 <= centered <= 0.99
    assert plain < 0.1
    assert warned > 0.95
