"""The fast scores against the loops of `tests.reference.loops`, on odd sizes and uneven pairs."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from scipy import special, stats
from tests.reference import loops as reference

from clipmem.base.random import generator
from clipmem.evaluate.retrieval import recall_at_k
from clipmem.functional import (
    BankMeans,
    alignment,
    alignment_parts,
    alignment_parts_against,
    auroc,
    bootstrap_mean,
    clipmem,
    pair_means,
    superiority,
)


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
    found = recall_at_k(image, text, pairs.text_pair, ks=(1, 2, 3), block=2)
    image_ranks, text_ranks = reference.retrieval_ranks(image.tolist(), text.tolist(), pairs.text_pair.tolist())
    assert found.image_ranks.tolist() == image_ranks
    assert found.text_ranks.tolist() == text_ranks
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
    variance = reference.auroc_variance(scores.tolist(), positive.tolist())
    half = stats.norm.ppf(0.95) * np.sqrt(variance) / (area * (1 - area))
    expected = (area, special.expit(special.logit(area) - half), special.expit(special.logit(area) + half))
    assert found == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(("n", "m"), [(1, 1), (4, 9), (13, 2)])
def test_superiority(n, m):
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 4, size=n).astype(float), rng.integers(0, 4, size=m).astype(float)
    assert superiority(a, b) == pytest.approx(reference.superiority(a.tolist(), b.tolist()), abs=1e-15)


def test_bootstrap_mean_draw_by_draw():
    values, groups = (
        np.random.default_rng(0).normal(size=(3, 11)),
        np.array([5, 5, 2, 9, 9, 9, 2, 1, 0, 0, 7]),
    )
    names, draws = sorted(set(groups.tolist())), 200
    picks = generator(8, "bootstrap", "groups").integers(len(names), size=(draws, len(names)))
    seeds = generator(8, "bootstrap", "seeds").integers(3, size=(draws, 3))
    means = []
    for draw in range(draws):
        drawn = [values[k, i] for k in seeds[draw] for g in picks[draw] for i in range(11) if groups[i] == names[g]]
        means.append(sum(drawn) / len(drawn))
    found = bootstrap_mean(values, groups, seed=8, draws=draws, confidence=0.8)
    assert found == pytest.approx((values.mean(), *np.quantile(means, [0.1, 0.9])), rel=1e-12)
