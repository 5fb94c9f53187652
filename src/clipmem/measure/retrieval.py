"""Retrieval: does a caption find a right image among all images, and an image a right caption among all captions.

The items are the distinct images and the distinct captions. Right is every image of a pair with the same caption, and
every caption of a pair with the same image (`links_of`): the query says nothing that tells them apart. Over several
captions, one caption of each pair is used at a time, so that a result does not hang on one of them.

When not to trust it: recall depends on how many pairs there are to search; among 200 it is far higher than among the
5,000 of COCO. Only compare numbers from the same pairs, and put chance beside them. Images are the same if their bytes
are: re-encoded copies, near-duplicates and paraphrases of a caption still count as wrong. The captions of a pair differ
in length and kind, and are not a sample of wordings.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float64, Int
from scipy.sparse import coo_array, csr_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from clipmem.base import slices
from clipmem.base.errors import require, require_range
from clipmem.base.hashing import image_part, numbered, same_words
from clipmem.base.random import generator
from clipmem.measure.over_seeds import Metrics, Owners, Statistics, describe, entry, hits_of
from clipmem.models.passes import Embeddings
from clipmem.stats.checks import Codes, Mask
from clipmem.stats.intervals import Interval
from clipmem.stats.similarity import caption_counts, normalize

WAYS = ("image_retrieval", "text_retrieval")  # what is searched
KS = (1, 5, 10)
RECALLS = tuple(f"recall@{k}" for k in KS)
_ROUNDING = 1e-12
_CELLS = 1 << 24  # similarities held at a time: 128 MB

# Equal embeddings may differ in the last bits of their products, which depend on where in a block they stand.
_TIE = 1e-12


Sides = Mapping[str, Sequence[Embeddings]]  # the models of each side


class Identity(NamedTuple):
    """Class numbers, 0 or larger: the same for the same image, and for the same caption, in the order of embeddings."""

    image: Codes
    text: Int[np.ndarray, " m"]


def identity_of(uids: Sequence[str], captions: Sequence[Sequence[str]]) -> Identity:
    """Number the images of pairs by their bytes (part of the uid), and their captions by `same_words`, pair by pair."""
    return Identity(
        numbered(map(image_part, uids)), numbered(same_words(caption) for texts in captions for caption in texts)
    )


class Links(NamedTuple):
    """Which image classes (rows) and caption classes (columns) belong together, and the class of each item."""

    table: csr_array
    image: Codes
    text: Int[np.ndarray, " m"]


def links_of(same: Identity, text_pair: Int[np.ndarray, " m"]) -> Links:
    """Link an image and a caption if some pair has the same image and, among its captions, the same caption.

    So the right images of a caption are those of all pairs with this caption, and the right captions of an image are
    those of all pairs with this image.
    """
    got = f"{len(same.image)} images and {len(same.text)} captions, with {len(text_pair)} pair indices"
    fits = len(same.text) == len(text_pair) and text_pair.max(initial=-1) < len(same.image)
    require(fits, "identity", got, "a class for each image and caption", "Number them in the order of embeddings.")
    image, text = (np.unique(classes, return_inverse=True)[1] for classes in same)
    shape = (int(image.max(initial=-1)) + 1, int(text.max(initial=-1)) + 1)
    linked = coo_array((np.ones(len(text), dtype=np.bool_), (image[text_pair], text)), shape=shape)
    return Links(linked.tocsr(), image, text)


def concepts_of(first: Sequence[str], tested: Mask, data: Sequence[str]) -> tuple[list[str], dict[str, list[str]]]:
    """Return the concept of each tested pair, "" for none, and the name of each concept.

    A concept is a first caption, up to `same_words`, that at least two pairs of the data have.
    """
    times = Counter(same_words(caption) for caption in data)
    keys = [same_words(caption) if test else "" for caption, test in zip(first, tested, strict=True)]
    keys = [key if times[key] > 1 else "" for key in keys]
    names = {key: [caption.strip()] for key, caption in zip(reversed(keys), reversed(first), strict=True) if key}
    return keys, names


def dependent_groups(groups: Codes, same: Identity, text_pair: Int[np.ndarray, " m"]) -> Codes:
    """Join groups of near-duplicates that have an image or a first caption in common: their queries are the same."""
    n, first = len(groups), np.unique(text_pair, return_index=True)[1]
    codes = [np.unique(classes, return_inverse=True)[1] for classes in (groups, same.image, same.text[first])]
    nodes = np.concatenate([code + n * (k + 1) for k, code in enumerate(codes)])
    edges = coo_array((np.ones(3 * n), (np.tile(np.arange(n), 3), nodes)), shape=(4 * n, 4 * n))
    return connected_components(edges, directed=False)[1][:n].astype(np.int64)


class Queries(NamedTuple):
    """Results of queries: rank of the best right item, average precision, number of right items, and of all items."""

    rank: Float64[np.ndarray, "*model q"]
    precision: Float64[np.ndarray, "*model q"]
    right: Int[np.ndarray, " q"]
    items: int

    def values(self, ks: Sequence[int] = KS) -> dict[str, Float64[np.ndarray, "*model q"]]:
        """Return the value of each query whose mean is a metric."""
        return {**{f"recall@{k}": hits_of(self.rank, k) for k in ks}, "mAP": self.precision}


class Retrieval(NamedTuple):
    """Metrics, and the results of each caption (which searches images) and of each image (which searches captions)."""

    metrics: dict[str, float]
    image: Queries
    text: Queries


def retrieve(
    image: Float[Tensor, "n d"],
    text: Float[Tensor, "m d"],
    text_pair: Int[Tensor, " m"],
    same: Identity | None = None,
    *,
    ks: Sequence[int] = KS,
    block: int = 1024,
) -> Retrieval:
    """Let each caption search the distinct images, and each image the distinct captions.

    Copies are one item, the most similar of them: otherwise five copies of one mismatched caption would fill five
    places. With s the similarity of an item to the query, over its R right items r and its wrong items w:

        rank = 1 + #{w: s_w > max_r s_r} + ½ #{w: s_w = max_r s_r}
        average precision = 1/R Σ_r p_r / P_r, with p_r the place of r among the right items and P_r that among all

    Items as similar share the mean of their places, so results depend on no order, and a model that finds everything
    equally similar gets the middle rank, not the first. `image_retrieval_recall@k` is the share of captions with a rank
    of at most k, `image_retrieval_mAP` their mean average precision; `text_retrieval_` the same for images.

    Embeddings are normalized here; `text_pair` is the image of each caption, and every image has one. Without `same`,
    no two images and no two captions are the same. At most `block` queries, and 2^24 similarities, are held at a time;
    it never changes the result.
    """
    got = f"images {tuple(image.shape)}, captions {tuple(text.shape)}, {len(text_pair)} pair indices"
    fits = image.shape[-1] == text.shape[-1] and len(text) == len(text_pair)
    require(fits, "embeddings", got, "one width, and one pair index a caption", "Take both from the same model.")
    require(len(image), "embeddings", "no image", "at least one", "Choose some pairs to search.")
    require_range("ks", min(ks, default=1), 1, hint="Use (1, 5, 10).")
    require_range("block", block, 1, hint="Use 1024.")
    n, m = len(image), len(text)
    caption_counts(text_pair, n, m)
    links = links_of(same or Identity(np.arange(n), np.arange(m)), text_pair.cpu().numpy())
    image = normalize(image.double(), name="image embeddings")
    text = normalize(text.double(), name="caption embeddings")
    of_captions = _search(text, image, links.table.T.tocsr()[links.text], links.image, block)
    of_images = _search(image, text, links.table[links.image], links.text, block)
    metrics: dict[str, float] = {}
    for way, queries in zip(WAYS, (of_captions, of_images), strict=True):
        metrics |= {f"{way}_{metric}": float(values.mean()) for metric, values in queries.values(ks).items()}
        metrics[f"{way}_median_rank"] = float(np.median(queries.rank))
    return Retrieval(metrics, of_captions, of_images)


def _search(
    queries: Float[Tensor, "q d"], items: Float[Tensor, "i d"], hits: Any, item_class: Int[np.ndarray, " i"], block: int
) -> Queries:
    """Search items by each query; row q of the sparse matrix `hits` has the classes that are right for q."""
    order = np.argsort(item_class, kind="stable")
    items, first = items[torch.from_numpy(order)], np.unique(item_class[order], return_index=True)[1]
    block = max(1, min(block, _CELLS // len(items)))
    ranks, precisions, counts = np.empty(len(queries)), np.empty(len(queries)), np.empty(len(queries), dtype=np.int64)
    for rows in slices(len(queries), block):
        similarity = (queries[rows] @ items.T).cpu().numpy()
        if len(first) < len(items):
            similarity = np.maximum.reduceat(similarity, first, axis=1)
        relevant = hits[rows]
        sizes = np.diff(relevant.indptr)
        query = np.repeat(np.arange(len(sizes)), sizes)
        position = np.arange(len(query)) - np.repeat(relevant.indptr[:-1], sizes)
        # the right items of a query stand first, ascending; the places after them are not used
        right_similarity = np.full((len(sizes), sizes.max()), np.inf)
        right_similarity[query, position] = similarity[query, relevant.indices]
        right_similarity.sort()
        similarity.sort()
        ahead, level = _ahead_and_level(similarity, right_similarity, similarity.shape[1])
        right_ahead, right_level = _ahead_and_level(right_similarity, right_similarity, sizes[:, None])
        best = (np.arange(len(sizes)), sizes - 1)
        ranks[rows] = 1 + (ahead - right_ahead)[best] + (level - right_level)[best] / 2
        # a level item includes itself
        precision = (2 * right_ahead + right_level + 1) / (2 * ahead + level + 1)
        precision[np.arange(right_similarity.shape[1]) >= sizes[:, None]] = np.inf
        precision.sort()
        precision[np.isinf(precision)] = 0
        precisions[rows], counts[rows] = precision.sum(axis=1) / sizes, sizes
    return Queries(ranks, precisions, counts, len(first))


def _ahead_and_level(every: Any, values: Any, count: Any) -> tuple[Any, Any]:
    """Count the items that are more similar than each of `values`, and as similar, among the first `count` of a row."""
    ascending = torch.from_numpy(every)
    at_least = count - torch.searchsorted(ascending, torch.from_numpy(values - _TIE)).numpy()
    ahead = count - torch.searchsorted(ascending, torch.from_numpy(values + _TIE), right=True).numpy()
    return ahead, at_least - ahead


class RetrievalMetrics(NamedTuple):
    """Retrieval under several models: numbers of pairs and captions, what random orders reach, metrics by side."""

    n: int
    captions: int
    chance: dict[str, float]
    metrics: Metrics

    def document(self) -> dict[str, object]:
        """Return it as JSON, with the metrics of each side as an entry."""
        return {"n": self.n, "captions": self.captions, "chance": self.chance, **self.metrics}


def measure(
    models: Sides, same: Identity, groups: Codes, statistics: Statistics, *, against: str = ""
) -> RetrievalMetrics:
    """Measure retrieval among pairs under each side, and its change from the one model of `against`.

    `retrieval_recall@k` and `retrieval_mAP` are the means of both directions. Intervals are over groups of pairs;
    pairs with the same image or first caption are one group, since they make the same query (`dependent_groups`).
    """
    text_pair = next(iter(models.values()))[0].text_pair.numpy()
    of_image = dependent_groups(groups, same, text_pair)
    queries, owners = _searches(models, same), [of_image[text_pair], of_image]
    by_chance, metrics = dict[str, float](), Metrics((side, {}) for side in models)
    for prefix, parts in ((WAYS[0], slice(0, 1)), (WAYS[1], slice(1, 2)), ("retrieval", slice(0, 2))):
        searched = {side: ways[parts] for side, ways in queries.items()}
        expected, described = _describe(prefix, searched, owners[parts], statistics.confidence, against=against)
        by_chance |= expected
        for side, entries in described.items():
            metrics[side] |= entries
    for k, way in enumerate(WAYS):
        name = f"{way}_median_rank"
        for side, ways in queries.items():
            median = _median_interval(ways[k].rank, owners[k], statistics)
            metrics[side][name] = entry(median, np.median(ways[k].rank, axis=1).tolist())
            if against not in ("", side):
                change = Interval(median.mean - float(np.median(queries[against][k].rank)), None, None)
                metrics[side][name]["change"] = change._asdict()
        first = next(iter(queries.values()))[k]
        by_chance[name] = chance(first.right, first.items)["median_rank"]
    return RetrievalMetrics(len(of_image), len(text_pair), by_chance, metrics)


def _searches(models: Sides, same: Identity) -> dict[str, list[Queries]]:
    """Search under each model; return of each side the results of captions, then of images, stacked over models."""
    queries: dict[str, list[Queries]] = {}
    for side, several in models.items():
        results = [retrieve(model.image[:, 0], model.text, model.text_pair, same) for model in several]
        ways = ([result.image for result in results], [result.text for result in results])
        queries[side] = [
            way[0]._replace(rank=np.stack([q.rank for q in way]), precision=np.stack([q.precision for q in way]))
            for way in ways
        ]
    return queries


def _describe(
    prefix: str,
    queries: Mapping[str, Sequence[Queries]],
    groups: Owners,
    confidence: float,
    *,
    against: str,
    names: Sequence[str] = (*RECALLS, "mAP"),
) -> tuple[dict[str, float], Metrics]:
    """Return what random orders reach, and the metrics of each side that are means over several sets of queries."""
    by_chance = [chance(part.right, part.items) for part in next(iter(queries.values()))]
    expected = {f"{prefix}_{name}": float(np.mean([metrics[name] for metrics in by_chance])) for name in names}
    described: Metrics = {side: {} for side in queries}
    values = {side: [part.values() for part in parts] for side, parts in queries.items()}
    for side, parts in values.items():
        for name in names:
            base = None if against in ("", side) else [part[name] for part in values[against]]
            of_name = [part[name] for part in parts]
            described[side][f"{prefix}_{name}"] = describe(of_name, groups, confidence, base, share=True)
    return expected, described


def chance(counts: Int[np.ndarray, " q"], items: int) -> dict[str, float]:
    """Return what a random order of N items is expected to reach, for queries with R right ones each.

    The best right item is among the first k with the probability 1 - Π_{j<k} (N - R - j) / (N - j), averaged over
    queries: recall@k, and the median of that distribution. Before a right item in place i are (i - 1) q other right
    ones on average, q = (R - 1) / (N - 1), so the expected average precision is q + (1 - q) H_N / N with H_N = Σ_i 1/i.
    """
    sizes, times = np.unique(counts, return_counts=True)
    others = (sizes - 1) / max(items - 1, 1)
    harmonic = float((1 / np.arange(1, items + 1)).mean())
    precision = (others + (1 - others) * harmonic) @ times / len(counts)
    missed, recalls = np.ones(len(sizes)), [0.0]  # after k places
    while len(recalls) <= max(KS) or recalls[-1] <= 0.5:
        k = len(recalls) - 1
        missed = missed * np.maximum(items - sizes - k, 0) / max(items - k, 1)
        recalls.append(round(float(1 - missed @ times / len(counts)), 12))
    within = np.array(recalls)
    median = (int((within >= 0.5 - _ROUNDING).argmax()) + int((within > 0.5 + _ROUNDING).argmax())) / 2
    return {**{f"recall@{k}": recalls[k] for k in KS}, "mAP": float(precision), "median_rank": median}


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


def measure_wordings(
    models: Sides, same: Identity, groups: Codes, count: int, confidence: float, *, against: str = ""
) -> tuple[dict[str, float], Metrics]:
    """Measure recall with each of the first `count` captions alone, and average over all captions and both directions.

    With n_j pairs that have caption j, and ranks among these pairs, with that caption alone (see `retrieve`):

        recall@k = mean over j of ½ (share of the n_j captions with a right image of rank <= k
                                     + share of the n_j images with a right caption of rank <= k)

    Args:
        models: The embeddings of n test pairs under the models of each side.
        same: The identity of the pairs' images and of all their captions, pair by pair.
        groups: The group (of near-duplicates) of each test pair, shape (n,).
        count: Largest number of captions; captions that fewer than two pairs have are left out.
        confidence: Level of the intervals, over groups of pairs and seeds (see `mean_of_means`).
        against: The side whose one model the others' `change` is from.

    Returns:
        What random orders reach by metric; and side -> `retrieval_wordings_recall@k` -> mean, interval and values by
        seed, each in [0, 1]. Both are empty if fewer than two pairs have a caption.
    """
    text_pair = next(iter(models.values()))[0].all_wordings().text_pair.numpy()
    counts, of_pair = np.bincount(text_pair, minlength=len(groups)), dependent_groups(groups, same, text_pair)
    starts, owners = np.cumsum(counts) - counts, list[np.ndarray]()
    queries: dict[str, list[Queries]] = {side: [] for side in models}
    for wording in range(count):
        rows = np.flatnonzero(counts > wording)
        if len(rows) < 2:
            break
        alone = {side: [model.wording(wording)[1] for model in several] for side, several in models.items()}
        searched = _searches(alone, Identity(same.image[rows], same.text[starts[rows] + wording]))
        queries = {side: [*parts, *searched[side]] for side, parts in queries.items()}
        owners += [of_pair[rows]] * 2
    if not owners:
        return {}, {}
    return _describe("retrieval_wordings", queries, owners, confidence, against=against, names=RECALLS)
