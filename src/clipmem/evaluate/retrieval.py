"""Retrieval: does a caption find its image among all images, and an image one of its captions.

When not to trust it: recall depends on how many pairs there are to search; among 200 it is far higher than among the
5,000 of COCO. Only compare numbers from the same pairs, and put chance beside them. Pairs whose captions are equal
cannot be told apart by anybody, and cost recall under every model; near-duplicates take each other's place.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from clipmem.base.random import generator
from clipmem.base.require import require, require_range
from clipmem.embed.passes import Embeddings
from clipmem.evaluate.measure import Measure
from clipmem.evaluate.over_seeds import Statistics, changed, entry, hits_of, rate
from clipmem.functional import Interval
from clipmem.functional.similarity import caption_counts, normalize

RECALL = Measure("retrieval", "Share of queries that find their own among the first k.")
MEDIAN_RANK = Measure("retrieval", "Median rank of a query's own.", 1.0, None, higher_is_better=False)
KS = (1, 5, 10)
_ROUNDING = 1e-12

# Equal embeddings may differ in the last bits of their products, which depend on where in a block they stand.
_TIE = 1e-12


class Retrieval(NamedTuple):
    """Recalls and median ranks, and the rank of every query, from which a caller can bootstrap."""

    metrics: dict[str, float]
    image_ranks: Float[Tensor, "m"]
    text_ranks: Float[Tensor, "n"]


def _check(image: Tensor, text: Tensor, text_pair: Tensor, ks: Sequence[int], block: int) -> None:
    got = f"images {tuple(image.shape)}, captions {tuple(text.shape)}, {len(text_pair)} pair indices"
    fits = image.shape[-1] == text.shape[-1] and len(text) == len(text_pair)
    require(fits, "embeddings", got, "one width, and one pair index a caption", "Take both from the same model.")
    require(len(image), "embeddings", "no image", "at least one", "Choose some pairs to search.")
    require_range("ks", min(ks, default=1), 1, hint="Use (1, 5, 10).")
    require_range("block", block, 1, hint="Use 1024.")


def retrieval_ranks(
    image: Float[Tensor, "n d"], text: Float[Tensor, "m d"], text_pair: Int[Tensor, "m"], *, block: int = 1024
) -> tuple[Float[Tensor, "m"], Float[Tensor, "n"]]:
    """Rank each caption's image among all images, and each image's best caption among those of other pairs.

    rank = 1 + #{others more similar} + ½ #{others as similar}: the middle of the ranks that breaking ties at random
    would give. A model that finds everything equally similar so gets the middle rank, not the first. Embeddings are
    normalized here; `text_pair` is the image of each caption, and every image has one. Only a piece of block x block
    similarities is held; it never changes the result.
    """
    _check(image, text, text_pair, (), block)
    n, m = len(image), len(text)
    caption_counts(text_pair, n, m)
    pair = text_pair.long()
    image = normalize(image.double(), name="image embeddings")
    text = normalize(text.double(), name="caption embeddings")
    own = torch.cat([(image[p] * t).sum(dim=-1) for p, t in zip(pair.split(block), text.split(block), strict=True)])
    best = torch.full_like(image[:, 0], -torch.inf).scatter_reduce(0, pair, own, "amax")
    # Twice the places lost: 2 to a better one, 1 to a tie. Whole numbers, so that blocks add up exactly.
    image_lost = torch.zeros(m, dtype=torch.long, device=image.device)
    text_lost = torch.zeros(n, dtype=torch.long, device=image.device)
    for top in range(0, n, block):
        rows = torch.arange(top, min(top + block, n), device=image.device)
        for left in range(0, m, block):
            columns = slice(left, left + block)
            similarity = image[rows] @ text[columns].T
            other = rows[:, None] != pair[columns][None, :]
            image_lost[columns] += _places(similarity - own[columns][None, :], other).sum(dim=0)
            text_lost[rows] += _places(similarity - best[rows][:, None], other).sum(dim=1)
    return 1 + image_lost.double() / 2, 1 + text_lost.double() / 2


def _places(lead: Float[Tensor, "rows columns"], other: Tensor) -> Int[Tensor, "rows columns"]:
    """Return 2 where another pair's item is ahead, 1 where it is level, else 0."""
    return ((lead > _TIE).to(torch.int8) + (lead >= -_TIE).to(torch.int8)) * other


def recall_at_k(
    image: Float[Tensor, "n d"],
    text: Float[Tensor, "m d"],
    text_pair: Int[Tensor, "m"],
    ks: Sequence[int] = KS,
    block: int = 1024,
) -> Retrieval:
    """Share of queries that find what belongs to them among the k most similar, in both directions.

    `image_retrieval_recall@k`: a caption finds its image. `text_retrieval_recall@k`: an image finds one of its own.
    A query counts when its rank (see `retrieval_ranks`; ties take the middle rank) is at most k.
    """
    _check(image, text, text_pair, ks, block)
    image_ranks, text_ranks = retrieval_ranks(image, text, text_pair, block=block)
    metrics: dict[str, float] = {}
    for name, ranks in (("image_retrieval", image_ranks), ("text_retrieval", text_ranks)):
        for k in ks:
            metrics[f"{name}_recall@{k}"] = float((ranks <= k).double().mean())
        metrics[f"{name}_median_rank"] = float(np.median(ranks.cpu().numpy()))
    return Retrieval(metrics, image_ranks, text_ranks)


def measure(
    embeddings: Mapping[str, Mapping[int, Embeddings]],
    external: np.ndarray,
    groups: np.ndarray,
    statistics: Statistics,
    *,
    against: str = "",
) -> dict[str, Any]:
    """Measure retrieval among the external pairs under each side, and its change from the one model of `against`."""
    n = int(external.sum())
    first = next(iter(next(iter(embeddings.values())).values()))
    captions = np.bincount(first.text_pair.numpy(), minlength=len(external))[external]
    summary: dict[str, Any] = {
        "n": n,
        "captions": int(captions.sum()),
        "chance": {**{f"recall@{k}": min(1.0, k / n) for k in KS}, **chance(captions)},
    }
    ranks = {side: _ranks(list(by_seed.values()), external, groups) for side, by_seed in embeddings.items()}
    for side, own in ranks.items():
        metrics: dict[str, Any] = {}
        for name, (values, group) in own.items():
            base = ranks[against][name][0] if against not in ("", side) else None
            for k in KS:
                hits, before = hits_of(values, k), None if base is None else hits_of(base, k)
                interval = rate(hits, group, statistics.confidence)
                metrics[f"{name}_recall@{k}"] = entry(interval, hits.mean(axis=1).tolist())
                metrics[f"{name}_recall@{k}"] |= changed(hits, before, group, statistics.confidence)
            median = _median_interval(values, group, statistics)
            metrics[f"{name}_median_rank"] = entry(median, np.median(values, axis=1).tolist())
            if base is not None:
                change = Interval(median.mean - float(np.median(base)), None, None)
                metrics[f"{name}_median_rank"]["change"] = change._asdict()
        summary[side] = metrics
    return summary


def _ranks(
    models: Sequence[Embeddings], external: np.ndarray, groups: np.ndarray
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return each direction's ranks, shape (model, query), and the group of each query."""
    pair, found = _search(models, external)
    of_image, of_text = groups[external], groups[external][pair]
    return {
        "image_retrieval": (np.stack([one.image_ranks.numpy() for one in found]), of_text),
        "text_retrieval": (np.stack([one.text_ranks.numpy() for one in found]), of_image),
    }


def chance(captions: Int[np.ndarray, "n"]) -> dict[str, float]:
    """Return what a random order of images and captions is expected to reach.

    Image retrieval: recall@k = k / n, median rank (n + 1) / 2. Text retrieval of an image with K of all m captions:
    the best of K is among the first k with the probability 1 - Π_{j<k} (m - K - j) / (m - j), averaged over images;
    k / n where each has one.
    """
    n, m = len(captions), int(captions.sum())
    sizes, times = np.unique(captions, return_counts=True)
    missed = np.ones(len(sizes))
    found = [0.0]  # after k places
    while len(found) <= max(KS) or found[-1] <= 0.5:
        place = len(found) - 1
        missed = missed * np.maximum(m - sizes - place, 0) / max(m - place, 1)
        found.append(round(float(1 - missed @ times / n), 12))
    within = np.array(found)
    median = (int((within >= 0.5 - _ROUNDING).argmax()) + int((within > 0.5 + _ROUNDING).argmax())) / 2
    return {
        **{f"image_retrieval_recall@{k}": min(1.0, k / n) for k in KS},
        "image_retrieval_median_rank": (n + 1) / 2,
        **{f"text_retrieval_recall@{k}": found[k] for k in KS},
        "text_retrieval_median_rank": median,
    }


def _search(models: Sequence[Embeddings], external: np.ndarray) -> tuple[np.ndarray, list[Retrieval]]:
    """Return the pair of each external caption, counted among the external pairs, and each model's ranks."""
    position = np.cumsum(external) - 1
    text_pair = models[0].text_pair.numpy()
    captions = external[text_pair]
    pair = position[text_pair[captions]]
    rows, columns = torch.from_numpy(external), torch.from_numpy(captions)
    return pair, [recall_at_k(one.image[rows, 0], one.text[columns], torch.from_numpy(pair), ks=KS) for one in models]


def _median_interval(ranks: np.ndarray, groups: np.ndarray, statistics: Statistics) -> Interval:
    """Median rank, averaged over seeds, with a percentile interval over groups of pairs."""
    _, codes = np.unique(groups, return_inverse=True)
    count = int(codes.max()) + 1
    mean = float(np.median(ranks, axis=1).mean())
    if count == 1:
        return Interval(mean, None, None)
    stream = generator(statistics.seed, "median rank")
    times = stream.multinomial(count, np.full(count, 1 / count), size=statistics.draws)[:, codes]
    total = times.sum(axis=1, keepdims=True)
    medians = np.zeros(statistics.draws)
    for row in ranks:
        order = np.argsort(row, kind="stable")
        half = np.cumsum(times[:, order], axis=1) * 2
        # the mean of lower and upper median, as np.median takes it
        lower, upper = (half >= total).argmax(axis=1), (half > total).argmax(axis=1)
        medians += (row[order][lower] + row[order][upper]) / 2 / len(ranks)
    low, high = np.quantile(medians, [(1 - statistics.confidence) / 2, (1 + statistics.confidence) / 2])
    return Interval(mean, float(low), float(high))
