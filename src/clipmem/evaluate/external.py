"""Retrieval on the external pairs, which no model of a study trained on: what the models are good for."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from clipmem.base.random import generator
from clipmem.embed.passes import Embeddings
from clipmem.evaluate.retrieval import Retrieval, recall_at_k
from clipmem.functional import Interval, bootstrap_mean

KS = (1, 5, 10)


def retrieval(
    embeddings: Mapping[str, Mapping[int, Embeddings]],
    external: np.ndarray,
    groups: np.ndarray,
    *,
    seed: int,
    draws: int,
    confidence: float,
) -> dict[str, Any]:
    """Measure retrieval among the external pairs, under f and under g.

    Args:
        embeddings: side → seed → embeddings of all pairs; the first view of each picture is used.
        external: Which pairs are external, shape (n,).
        groups: Group of each pair, shape (n,): intervals resample groups, and seeds when there are several.
        seed: Seed of the bootstrap.
        draws: Bootstrap draws.
        confidence: Level of the intervals.

    Returns:
        `n`, `chance`, and for `f` and `g` each metric's mean over seeds with its interval.
    """
    n = int(external.sum())
    summary: dict[str, Any] = {"n": n, "chance": {f"recall@{k}": min(1.0, k / n) for k in KS}}
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
                metrics[f"{name}_recall@{k}"] = interval._asdict()
            median = _median_interval(values, group, seed=seed, draws=draws, confidence=confidence)
            metrics[f"{name}_median_rank"] = median._asdict()
        summary[side] = metrics
    return summary


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
