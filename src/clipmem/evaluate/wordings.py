"""Retrieval over several wordings: one caption of each pair at a time, so that a result does not hang on one of them.

When not to trust it: the captions of a pair differ in length and kind, and are not a sample of wordings. As in
`retrieval`, recall depends on how many pairs there are to search.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64, Int

from clipmem.embed.passes import Embeddings
from clipmem.evaluate.measure import Measure
from clipmem.evaluate.over_seeds import class_mean, entry, hits_of
from clipmem.evaluate.retrieval import KS, retrieval_ranks

RECALL = Measure("retrieval_wordings", "Share of queries that find their own among the first k, over all wordings.")


def measure(
    models: Mapping[str, Sequence[Embeddings]],
    groups: Int[np.ndarray, "n"],
    count: int,
    confidence: float,
    *,
    against: str = "",
) -> dict[str, dict[str, Any]]:
    """Measure recall with each of the first `count` wordings alone, and average over wordings and both directions.

    With n_j pairs that have wording j, and ranks among these pairs (see `retrieval_ranks`):

        recall@k = mean over j of ½ (share of the n_j captions whose image ranks <= k
                                     + share of the n_j images whose caption ranks <= k)

    Args:
        models: The embeddings of n test pairs under the models of each side.
        groups: The group (of near-duplicates) of each test pair, shape (n,).
        count: Largest number of wordings; wordings that fewer than two pairs have are left out.
        confidence: Level of the intervals, over groups of pairs and seeds (see `class_mean`).
        against: The side whose one model the others' `change` is from.

    Returns:
        Side -> `retrieval_wordings_recall@k` -> mean, interval and values by seed, each in [0, 1]; and `chance` ->
        metric -> the mean of k / n_j. Empty if fewer than two pairs have a caption.
    """
    part: list[np.ndarray] = []  # wording and direction of each query
    pairs: list[np.ndarray] = []
    ranks: dict[str, list[np.ndarray]] = {side: [] for side in models}
    for wording in range(count):
        rows = next(iter(models.values()))[0].wording(wording)[0].numpy()
        if len(rows) < 2:
            break
        part.append(np.repeat([2 * wording, 2 * wording + 1], len(rows)))
        pairs.append(np.tile(rows, 2))
        for side, own in models.items():
            ranks[side].append(np.stack([_ranks(one.wording(wording)[1]) for one in own]))
    if not part:
        return {}
    parts, of_group = np.concatenate(part), groups[np.concatenate(pairs)]
    sizes = np.bincount(parts)
    found: dict[str, dict[str, Any]] = {"chance": {_name(k): float(np.minimum(1, k / sizes).mean()) for k in KS}}
    hits = {side: {k: hits_of(np.hstack(own), k) for k in KS} for side, own in ranks.items()}
    for side, own in hits.items():
        found[side] = {}
        for k, values in own.items():
            interval = class_mean(values, parts, of_group, confidence=confidence)
            if interval.low is not None and interval.high is not None:
                interval = interval._replace(low=max(interval.low, 0.0), high=min(interval.high, 1.0))
            by_seed = [float((np.bincount(parts, weights=row) / sizes).mean()) for row in values]
            found[side][_name(k)] = entry(interval, by_seed)
            if against not in ("", side):
                change = class_mean(values - hits[against][k], parts, of_group, confidence=confidence)
                found[side][_name(k)]["change"] = change._asdict()
    return found


def _name(k: int) -> str:
    return f"{RECALL.name}_recall@{k}"


def _ranks(one: Embeddings) -> Float64[np.ndarray, " m"]:
    """Return the rank of each caption's image, then of each image's caption."""
    return torch.cat(retrieval_ranks(one.image[:, 0], one.text, one.text_pair)).numpy()
