"""Retrieval on the external pairs, which no model of a study trained on: what the models are good for.

When not to trust it: recall depends on how many pairs are searched; among 200 it is far higher than among the 5,000 of
COCO. Compare models over the same pairs only. Near-duplicates among the external pairs take each other's place.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Int

from clipmem.base.random import generator
from clipmem.embed.passes import Embeddings
from clipmem.evaluate.over_seeds import entry
from clipmem.evaluate.retrieval import Retrieval, recall_at_k
from clipmem.functional import Interval, bootstrap_mean

KS = (1, 5, 10)
_ROUNDING = 1e-12


def retrieval(
    embeddings: Mapping[str, Mapping[int, Embeddings]],
    external: np.ndarray,
    groups: np.ndarray,
    *,
    seed: int,
    draws: int,
    confidence: float,
) -> dict[str, Any]:
    """Measure retrieval among the external pairs, under f and under g."""
    n = int(external.sum())
    first = next(iter(next(iter(embeddings.values())).values()))
    captions = np.bincount(first.text_pair.numpy(), minlength=len(external))[external]
    summary: dict[str, Any] = {
        "n": n,
        "captions": int(captions.sum()),
        "chance": {**{f"recall@{k}": min(1.0, k / n) for k in KS}, **chance(captions)},
    }
    for side, by_seed in embeddings.items():
        pair, found = _search(list(by_seed.values()), external)
        of_image, of_text = groups[external], groups[external][pair]
        ranks = {
            "image_retrieval": (np.stack([one.image_ranks.numpy() for one in found]), of_text),
            "text_retrieval": (np.stack([one.text_ranks.numpy() for one in found]), of_image),
        }
        metrics: dict[str, Any] = {}
        for name, (values, group) in ranks.items():
            for k in KS:
                hits = (values <= k).astype(np.float64)
                interval = bootstrap_mean(hits, group, seed=seed, draws=draws, confidence=confidence)
                metrics[f"{name}_recall@{k}"] = entry(interval, hits.mean(axis=1).tolist())
            median = _median_interval(values, group, seed=seed, draws=draws, confidence=confidence)
            metrics[f"{name}_median_rank"] = entry(median, np.median(values, axis=1).tolist())
        summary[side] = metrics
    return summary


def chance(captions: Int[np.ndarray, "n"]) -> dict[str, float]:
    """Return what a random order of pictures and captions is expected to reach.

    Image retrieval: recall@k = k / n, median rank (n + 1) / 2. Text retrieval of a picture with K of all m captions:
    the best of K is among the first k with the probability 1 - Π_{j<k} (m - K - j) / (m - j), averaged over pictures;
    k / n where each has one.

    Example:
        >>> chance(np.array([1, 1]))["text_retrieval_recall@1"], chance(np.array([2, 1]))["text_retrieval_recall@1"]
        (0.5, 0.5)
        >>> round(chance(np.array([2, 2]))["text_retrieval_recall@5"], 4)
        1.0
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


def _median_interval(ranks: np.ndarray, groups: np.ndarray, *, seed: int, draws: int, confidence: float) -> Interval:
    """Median rank, averaged over seeds, with a percentile interval over groups of pairs."""
    _, codes = np.unique(groups, return_inverse=True)
    count = int(codes.max()) + 1
    mean = float(np.median(ranks, axis=1).mean())
    if count == 1:
        return Interval(mean, None, None)
    stream = generator(seed, "median rank")
    times = stream.multinomial(count, np.full(count, 1 / count), size=draws)[:, codes]
    total = times.sum(axis=1, keepdims=True)
    medians = np.zeros(draws)
    for row in ranks:
        order = np.argsort(row, kind="stable")
        half = np.cumsum(times[:, order], axis=1) * 2
        # the mean of lower and upper median, as np.median takes it
        lower, upper = (half >= total).argmax(axis=1), (half > total).argmax(axis=1)
        medians += (row[order][lower] + row[order][upper]) / 2 / len(ranks)
    low, high = np.quantile(medians, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(mean, float(low), float(high))
