"""Retrieval over several wordings: one caption of each pair at a time, so that a result does not hang on one of them.

When not to trust it: the captions of a pair differ in length and kind, and are not a sample of wordings. As in
`retrieval`, recall depends on how many pairs there are to search.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float64, Int

from clipmem.measure.base import Measure
from clipmem.measure.identity import Identity, dependent_groups
from clipmem.measure.over_seeds import entry, hits_of, mean_of_means
from clipmem.measure.retrieval import KS, Queries, chance, retrieve
from clipmem.models.passes import Embeddings

RECALL = Measure("retrieval_wordings", "Share of queries that find a right item among the first k, over all wordings.")


def measure(
    models: Mapping[str, Sequence[Embeddings]],
    same: Identity,
    groups: Int[np.ndarray, " n"],
    count: int,
    confidence: float,
    *,
    against: str = "",
) -> dict[str, dict[str, Any]]:
    """Measure recall with each of the first `count` wordings alone, and average over wordings and both directions.

    With n_j pairs that have wording j, and ranks among these pairs, with that caption alone (see `retrieve`):

        recall@k = mean over j of ½ (share of the n_j captions with a right image of rank <= k
                                     + share of the n_j images with a right caption of rank <= k)

    Args:
        models: The embeddings of n test pairs under the models of each side.
        same: The identity of the pairs' images and of all their wordings, pair by pair.
        groups: The group (of near-duplicates) of each test pair, shape (n,).
        count: Largest number of wordings; wordings that fewer than two pairs have are left out.
        confidence: Level of the intervals, over groups of pairs and seeds (see `mean_of_means`).
        against: The side whose one model the others' `change` is from.

    Returns:
        Side -> `retrieval_wordings_recall@k` -> mean, interval and values by seed, each in [0, 1]; and `chance` ->
        metric -> what random orders reach. Empty if fewer than two pairs have a caption.
    """
    text_pair = next(iter(models.values()))[0].all_wordings().text_pair.numpy()
    counts, of_pair = np.bincount(text_pair, minlength=len(groups)), dependent_groups(groups, same, text_pair)
    starts, used = np.cumsum(counts) - counts, list[np.ndarray]()
    ranks: dict[str, list[Float64[np.ndarray, "seed q"]]] = {side: [] for side in models}
    by_chance: dict[tuple[int, int], dict[str, float]] = {}
    for wording in range(count):
        rows = np.flatnonzero(counts > wording)
        if len(rows) < 2:
            break
        own = Identity(same.image[rows], same.text[starts[rows] + wording])
        used += [of_pair[rows]] * 2
        for side, several in models.items():
            ways = list(zip(*(_ways(one, wording, own) for one in several), strict=True))
            ranks[side] += [np.stack([found.rank for found in way]) for way in ways]
            by_chance |= {(wording, k): chance(way[0].right, way[0].items) for k, way in enumerate(ways)}
    if not used:
        return {}
    found: dict[str, dict[str, Any]] = {"chance": {}}
    for name in (f"recall@{k}" for k in KS):
        found["chance"][f"{RECALL.name}_{name}"] = float(np.mean([one[name] for one in by_chance.values()]))
    hits = {side: {k: [hits_of(one, k) for one in own] for k in KS} for side, own in ranks.items()}
    for side, own in hits.items():
        found[side] = {}
        for k, parts in own.items():
            by_seed = np.mean([part.mean(axis=1) for part in parts], axis=0).tolist()
            one = entry(mean_of_means(parts, used, confidence, share=True), by_seed)
            if against not in ("", side):
                change = [new - old for new, old in zip(parts, hits[against][k], strict=True)]
                one["change"] = mean_of_means(change, used, confidence)._asdict()
            found[side][f"{RECALL.name}_recall@{k}"] = one
    return found


def _ways(one: Embeddings, wording: int, same: Identity) -> tuple[Queries, Queries]:
    """Return the results of each caption, then of each image."""
    alone = one.wording(wording)[1]
    found = retrieve(alone.image[:, 0], alone.text, alone.text_pair, same)
    return found.image, found.text
