"""The fast scores against the loops of `tests.reference.loops`, on odd sizes and uneven pairs."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from scipy import special, stats
from tests.reference import loops as reference

from clipmem.functional import (
    BankMeans,
    alignment,
    alignment_parts,
    alignment_parts_against,
    auroc,
    centered_mean,
    clipmem,
    control_shift,
    crossed_mean,
    half_difference,
    pair_means,
    superiority,
)
from clipmem.measure.retrieval import retrieve


@dataclass
class Pairs:
    """Raw embeddings of some pairs: as tensors for the fast code, as lists for the loops."""

    image: torch.Tensor
    text: torch.Tensor
    text_pair: torch.Tensor

    @property
    def views(self):
        return self.image.tolist()

    @property
    def captions(self):
        return [self.text[self.text_pair == i].tolist() for i in range(len(self.image))]

    def means(self, dtype=torch.float64):
        return pair_means(self.image.to(dtype), self.text.to(dtype), self.text_pair)


def make_pairs(seed, *, n, views, d, most_captions):
    rng = torch.Generator().manual_seed(seed)
    counts = torch.randint(1, most_captions + 1, (n,), generator=rng)
    text_pair = torch.repeat_interleave(torch.arange(n), counts)
    text_pair = text_pair[torch.randperm(len(text_pair), generator=rng)]
    shift = 0.5  # away from 0, so that the bank's means are not negligible
    image = torch.randn(n, views, d, generator=rng, dtype=torch.float64) + shift
    text = torch.randn(len(text_pair), d, generator=rng, dtype=torch.float64) + shift
    return Pairs(image, text, text_pair)


SIZES = [
    {"n": 1, "views": 1, "d": 3, "most_captions": 1},
    {"n": 1, "views": 3, "d": 1, "most_captions": 4},
    {"n": 7, "views": 1, "d": 5, "most_captions": 3},
    {"n": 5, "views": 4, "d": 17, "most_captions": 5},
]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("weight", [0.0, 0.5, 1.0])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-14), (torch.float32, 1e-5)])
def test_alignment_outside_the_bank(size, weight, dtype, tolerance):
    pairs, bank = make_pairs(0, **size), make_pairs(1, **(size | {"n": 3, "views": 2}))
    found = alignment(alignment_parts(*pairs.means(dtype), *bank.means(dtype)), weight=weight)
    expected = [
        reference.alignment(views, captions, bank.views, bank.captions, weight=weight)
        for views, captions in zip(pairs.views, pairs.captions, strict=True)
    ]
    assert found.dtype == torch.float64
    assert np.allclose(found.numpy(), expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("size", SIZES[2:])
def test_parts_of_members_leave_themselves_out(size):
    bank, outside = make_pairs(2, **size), make_pairs(3, **size)
    n = size["n"]
    # Bank pairs in reverse order, then pairs from outside.
    member = list(reversed(range(n))) + [-1] * n
    means = [torch.cat([own.flip(0), other]) for own, other in zip(bank.means(), outside.means(), strict=True)]
    found = alignment_parts(*means, *bank.means(), member=torch.tensor(member))
    views, captions = bank.views[::-1] + outside.views, bank.captions[::-1] + outside.captions
    expected = [
        reference.alignment_parts(views[i], captions[i], bank.views, bank.captions, member=member[i])
        for i in range(2 * n)
    ]
    assert np.allclose(np.stack(found, axis=1), expected, rtol=0, atol=1e-14)
    image, text = bank.means()
    known = BankMeans(image.mean(dim=0), text.mean(dim=0), n)
    found = alignment_parts_against(*means, known, inside=torch.tensor(member) >= 0)
    assert np.allclose(np.stack(found, axis=1), expected, rtol=0, atol=1e-14)


def test_members_may_be_scored_on_other_views_than_those_in_the_bank():
    size = {"n": 5, "views": 2, "d": 3, "most_captions": 3}
    bank, again = make_pairs(5, **size), make_pairs(6, **size)
    found = alignment_parts(*again.means(), *bank.means(), member=torch.arange(5))
    expected = [
        reference.alignment_parts(again.views[i], again.captions[i], bank.views, bank.captions, member=i)
        for i in range(5)
    ]
    assert np.allclose(np.stack(found, axis=1), expected, rtol=0, atol=1e-14)


@pytest.mark.parametrize(("seeds", "other_seeds", "n"), [(1, 1, 1), (3, 2, 7), (1, 4, 5)])
def test_clipmem(seeds, other_seeds, n):
    rng = np.random.default_rng(0)
    target, other = rng.normal(size=(seeds, n)), rng.normal(size=(other_seeds, n))
    found = clipmem(torch.tensor(target), torch.tensor(other))
    assert np.allclose(found, reference.clipmem(target.tolist(), other.tolist()), rtol=0, atol=1e-14)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("rounded", [False, True])
def test_retrieval(size, rounded):
    pairs = make_pairs(4, **size)
    image, text = pairs.image[:, 0], pairs.text
    if rounded:  # rounding makes ties; no row may become zero
        image, text = torch.sign(image), torch.sign(text)
    found = retrieve(image, text, pairs.text_pair, ks=(1, 2, 3), block=2)
    image_ranks, text_ranks = reference.retrieval_ranks(image.tolist(), text.tolist(), pairs.text_pair.tolist())
    assert found.image.rank.tolist() == image_ranks
    assert found.text.rank.tolist() == text_ranks
    for k in (1, 2, 3):
        assert found.metrics[f"image_retrieval_recall@{k}"] == pytest.approx(reference.recall(image_ranks, k))
        assert found.metrics[f"text_retrieval_recall@{k}"] == pytest.approx(reference.recall(text_ranks, k))
    assert found.metrics["image_retrieval_median_rank"] == np.median(image_ranks)
    assert found.metrics["text_retrieval_median_rank"] == np.median(text_ranks)


@pytest.mark.parametrize("decimals", [0, 3])
@pytest.mark.parametrize("n", [5, 31])
def test_auroc_and_its_variance(n, decimals):
    rng = np.random.default_rng(n)
    scores, positive = np.round(rng.normal(size=n), decimals), np.arange(n) % 3 == 0
    scores[positive] += 0.5
    found = auroc(scores, positive, confidence=0.9)
    area = reference.auroc(scores.tolist(), positive.tolist())
    variance, df = reference.auroc_variance(scores.tolist(), positive.tolist())
    half = stats.t.ppf(0.95, df) * np.sqrt(variance) / (area * (1 - area))
    expected = (area, special.expit(special.logit(area) - half), special.expit(special.logit(area) + half))
    assert found[:3] == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(("n", "m"), [(1, 1), (4, 9), (13, 2)])
def test_superiority(n, m):
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 4, size=n).astype(float), rng.integers(0, 4, size=m).astype(float)
    assert superiority(a, b) == pytest.approx(reference.superiority(a.tolist(), b.tolist()), abs=1e-15)


def crossed_half(values, groups, confidence, df=None):
    """The half-width of the crossed interval, term by term from its equation; `values` are influences, by seed."""
    names = sorted(set(groups))
    seeds, count = len(values), len(names)
    e = [
        [count * sum(x for x, own in zip(row, groups, strict=True) if own == name) for name in names] for row in values
    ]
    grand = sum(sum(row) for row in e) / (seeds * count)
    by_seed = [sum(row) / count for row in e]
    by_group = [sum(row[j] for row in e) / seeds for j in range(count)]
    a = sum((x - grand) ** 2 for x in by_seed) / (seeds - 1) / seeds
    b = sum((x - grand) ** 2 for x in by_group) / (count - 1) / count
    rest = sum((e[k][j] - by_seed[k] - by_group[j] + grand) ** 2 for k in range(seeds) for j in range(count))
    c = rest / ((seeds - 1) * (count - 1) * seeds * count)
    tail = (1 + confidence) / 2
    return (stats.t.ppf(tail, df or count - 1) ** 2 * b + stats.t.ppf(tail, seeds - 1) ** 2 * max(a - c, 0)) ** 0.5


def two_sample_half(samples, groups, by_seed, confidence):
    """The half-width for two samples with no group in common, term by term; `samples` are influences, by seed."""
    counts = [len(set(own)) for own in groups]
    total, n, parts, rows = sum(counts), sum(map(len, groups)), [], [[] for _ in by_seed]
    for sample, own, count in zip(samples, groups, counts, strict=True):
        of_group = [
            sum(x for row in sample for x, name in zip(row, own, strict=True) if name == one) / len(sample)
            for one in set(own)
        ]
        parts.append(count / (count - 1) * sum(x**2 for x in of_group))
        scale = (count / (count - 1) * (total - 1) / total) ** 0.5
        for k, row in enumerate(sample):
            rows[k] += [scale * x for x in row]
    mean = sum(by_seed) / len(by_seed)
    rows = [[x + (one - mean) / n for x in row] for row, one in zip(rows, by_seed, strict=True)]
    df = sum(parts) ** 2 / sum(part**2 / (count - 1) for part, count in zip(parts, counts, strict=True))
    return crossed_half(rows, [*groups[0], *groups[1]], confidence, df)


CROSSED_GROUPS = np.array([5, 5, 2, 9, 9, 9, 2, 1, 0, 0, 7])


@pytest.mark.parametrize("shift", [0.0, 1.0])  # without and with a part of the seeds' own
def test_crossed_mean_against_the_loop(shift):
    rng = np.random.default_rng(0)
    values = rng.normal(size=(3, 11)) + shift * rng.normal(size=(3, 1))
    mean = sum(values.ravel().tolist()) / 33
    influence = [[(x - mean) / 11 for x in row] for row in values.tolist()]
    half = crossed_half(influence, CROSSED_GROUPS.tolist(), 0.8)
    found = crossed_mean(values, CROSSED_GROUPS, confidence=0.8)
    assert found[:3] == pytest.approx((mean, mean - half, mean + half), rel=1e-12)
    assert found.over == "pairs and seeds"


def test_half_difference_against_the_loop():
    rng = np.random.default_rng(1)
    own, others = rng.normal(0.4, 0.2, size=(2, 5)), rng.normal(-0.3, 0.2, size=(2, 6))
    means = [[sum(row) / len(row) for row in values.tolist()] for values in (own, others)]
    c, i = (sum(one) / 2 for one in means)
    samples = [
        [[sign * (x - mean) / (2 * len(row)) for x in row] for row, mean in zip(values.tolist(), of, strict=True)]
        for sign, values, of in ((1, own, means[0]), (-1, others, means[1]))
    ]
    groups = np.array([0, 0, 1, 2, 3]), np.array([4, 5, 6, 6, 7, 8])
    by_seed = [(a - b) / 2 for a, b in zip(*means, strict=True)]
    half = two_sample_half(samples, [one.tolist() for one in groups], by_seed, 0.95)
    found = half_difference(own, others, *groups)
    assert found[:3] == pytest.approx(((c - i) / 2, (c - i) / 2 - half, (c - i) / 2 + half), rel=1e-12)
    assert found.over == "pairs and seeds"


@pytest.mark.parametrize("n", [11, 14])
def test_the_shift_against_the_loop(n):
    rng = np.random.default_rng(3)
    control = rng.standard_t(2, size=(3, n)) - 0.2 + rng.normal(size=(3, 1))
    groups = np.arange(n) // 2
    means, within = zip(*(reference.trimmed(row) for row in control.tolist()), strict=True)
    shift = sum(means) / 3
    influence = [[x + (own - shift) / n for x in row] for own, row in zip(means, within, strict=True)]
    half = crossed_half(influence, groups.tolist(), 0.8)
    found = control_shift(control, groups, confidence=0.8)
    assert found[:3] == pytest.approx((shift, shift - half, shift + half), rel=1e-12)
    assert found.over == "pairs and seeds"
    assert found.mean == pytest.approx(np.mean([stats.trim_mean(row, 0.2) for row in control]))
    both = [control_shift(control, groups, confidence=c).high - shift for c in (0.5, 0.9)]
    t = [[stats.t.ppf((1 + c) / 2, df) for df in (int(groups.max()), 2)] for c in (0.5, 0.9)]
    pairs, seeds = np.linalg.solve(np.square(t), np.square(both))  # the two variances, from two intervals
    assert found.stderr == pytest.approx((pairs + seeds) ** 0.5)


def test_the_centered_mean_against_the_loop():
    rng = np.random.default_rng(4)
    values, control = rng.normal(size=(2, 7)), rng.standard_t(2, size=(2, 12)) + rng.normal(size=(2, 1))
    groups, control_groups = np.arange(7) // 2, 10 + np.arange(12) // 3
    own = [sum(row) / 7 for row in values.tolist()]
    means, within = zip(*(reference.trimmed(row) for row in control.tolist()), strict=True)
    mean = sum(a - b for a, b in zip(own, means, strict=True)) / 2
    samples = [
        [[(x - own[k]) / 7 for x in row] for k, row in enumerate(values.tolist())],
        [[-x for x in row] for row in within],
    ]
    by_seed = [a - b for a, b in zip(own, means, strict=True)]
    half = two_sample_half(samples, [groups.tolist(), control_groups.tolist()], by_seed, 0.9)
    found = centered_mean(values, control, groups, control_groups, confidence=0.9)
    assert found[:3] == pytest.approx((mean, mean - half, mean + half), rel=1e-12)
    assert found.over == "pairs and seeds"
