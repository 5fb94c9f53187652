"""Inspection of a data set: counts, captions, sizes, duplicates, problems, and its regime.

Every record is read once: pairs, captions, problems and equal images are counted over all of them. Image sizes are read
from a sample, and a smaller sample is decoded. Samples are runs of neighbors at even distances, which need few disk
reads. When not to trust it: samples miss rare problems and most near-duplicates; `full` checks everything.

The regime says whether pairs are singletons, or have near-duplicates that teach a model the same thing. When not to
trust it: images are compared as near-duplicates only, so drawings or photographs of one thing are near-duplicates by
their captions alone, and captions in other words count as different. Samples find fewer near-duplicates than there are.
Words are runs of letters and digits: a caption without spaces is one word.
"""

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import polars as pl
from scipy.sparse import csr_array

from clipmem.base import slices
from clipmem.base.progress import Quiet, Reporter
from clipmem.base.random import generator
from clipmem.data.decoding import DecodeError, Header, decode, read_header
from clipmem.data.duplicates import duplicate_groups
from clipmem.data.skipped import Problem, source_name
from clipmem.data.sources.base import Source
from clipmem.data.sources.records import Record

HEADERS, DECODED, RUN = 4096, 1024, 64  # images in the two samples, and neighbors in a run
PIXELS = 256_000_000  # maximum to decode, unless `full`
MOST_COMPARED = 65_536  # maximum number of images to compare
_SIDE = 64  # of compared images, as in the benchmark of `duplicates`
_SAMPLES, _EXAMPLES, _BLOCK = 5, 3, 64
_DIGEST = 12  # bytes of a hash that identify equal images
NEAR = 0.8  # cosine of two captions that say nearly the same
LONG_TAIL, REDUNDANT = 1 / 3, 2 / 3  # share of pairs with a near-duplicate, below and from
COMMON = 0.1  # share of pairs above which a word tells nothing
SEARCHED = 2000  # captions whose neighbors are searched
MOST = 200_000  # captions whose words are counted
_SEARCHED_BLOCK = 50  # searched captions at a time


@dataclass
class ImageSample:
    """Measurements on a sample of the images of `pairs` pairs."""

    pairs: int = 0
    headers: dict[int, Header] = field(default_factory=dict)
    sizes: list[int] = field(default_factory=list)
    decoded: list[int] = field(default_factory=list)
    broken: set[int] = field(default_factory=set)
    seconds: float = 0.0
    tried: int = 0
    near: list[str] = field(default_factory=list)


def inspect_source(
    source: Source, *, full: bool = False, reporter: Reporter | None = None
) -> tuple[dict[str, object], ImageSample]:
    """Inspect a source; return the facts and the measured sample."""
    digests: Counter[bytes] = Counter()

    def watch(record: Record) -> None:
        if not isinstance(record.image, str):
            digests[record.image.digest()[:_DIGEST]] += 1

    pairs = source.pairs(watch)
    order = source.storage_order(pairs["image"].to_list())
    sample = sample_images(source, pairs, order, full=full, reporter=reporter)
    usable = pairs.filter(~pl.int_range(pl.len()).is_in(list(sample.broken)))
    captions = usable["captions"]
    counted = pl.DataFrame({"captions": captions.list.len()}).group_by("captions").len().sort("captions")
    headers = list(sample.headers.values())
    formats = sorted(Counter(header.format for header in headers).items(), key=lambda item: -item[1])
    same, near = ([n for n in groups.values() if n > 1] for groups in (digests, Counter(sample.near)))
    problems = pl.DataFrame(source.problems, schema=dict.fromkeys(Problem._fields, pl.String), orient="row")
    examples = pl.struct("source", "key").head(_EXAMPLES).alias("examples")
    reasons = problems.group_by("reason", maintain_order=True).agg(pl.len().alias("count"), examples)
    facts: dict[str, object] = {
        "records": source.ledger.facts(),
        "pairs": usable.height,
        "captions": {
            "total": int(captions.list.len().sum()),
            "per_pair": {str(k): n for k, n in counted.iter_rows()},
            "words": _quantiles(captions.explode().str.split(" ").list.len()),
            "characters": _quantiles(captions.explode().str.len_chars()),
        },
        "labels": usable["label"].filter(usable["label"] != "").n_unique(),
        "images": {
            "read": len(sample.sizes),
            "of": pairs.height,
            "formats": dict(formats),
            "width": _quantiles(pl.Series([header.width for header in headers])),
            "height": _quantiles(pl.Series([header.height for header in headers])),
            "bytes": _quantiles(pl.Series(sample.sizes)),
        },
        "samples": _samples(pairs, sample),
        "duplicates": {
            "exact": {"groups": len(same), "images": sum(same), "of": digests.total()},
            "near": {"groups": len(near), "images": sum(near), "of": len(sample.near)},
        },
        "regime": regime_of(captions.list.first(), sample.near) if usable.height else None,
        "problems": {
            "listed": len(source.problems),
            "decoded": sample.tried,
            "of": pairs.height,
            "undecodable": len(sample.broken),
            "reasons": reasons.sort("count", "reason", descending=[True, False]).to_dicts(),
        },
    }
    return facts, sample


def runs(n: int, most: int, *, run: int) -> list[int]:
    """Choose at most `most` of `n` positions, as runs of neighbors at even distances."""
    if n <= most:
        return list(range(n))
    length = min(run, most)
    begins = [k * n // (most // length) for k in range(most // length)]
    return [position for begin in begins for position in range(begin, begin + length)]


def sample_images(
    source: Source, pairs: pl.DataFrame, order: Sequence[int], *, full: bool, reporter: Reporter | None = None
) -> ImageSample:
    """Read the headers of a sample of the images; decode and compare some of them."""
    sample, n = ImageSample(pairs.height), pairs.height
    rows = [order[position] for position in (range(n) if full else runs(n, HEADERS, run=RUN))]
    decode_these = set(rows if full else [order[position] for position in runs(n, DECODED, run=RUN)])
    # in large data, the runs of the two samples need not overlap
    rows = list(dict.fromkeys([*rows, *(position for position in order if position in decode_these)]))
    references, keys = pairs["image"].to_list(), pairs["key"].to_list()
    small: list[np.ndarray] = []
    pixels, reporter = 0, reporter or Quiet()
    reporter.begin("inspect", len(rows), "images")
    for block in (rows[part] for part in slices(len(rows), _BLOCK)):
        for row, data in zip(block, source.read([references[row] for row in block]), strict=True):
            sample.sizes.append(len(data))
            try:
                header = sample.headers[row] = read_header(data)
                if row not in decode_these or (pixels >= PIXELS and not full):
                    continue
                pixels += header.width * header.height
                started = time.perf_counter()
                square = decode(data, _SIDE)
                sample.seconds += time.perf_counter() - started
                sample.decoded.append(row)
                if len(small) < MOST_COMPARED:
                    small.append(square)
            except DecodeError as error:
                sample.broken.add(row)
                source.ledger.drop(source_name(source.section), keys[row], error.reason)
            sample.tried += 1
        reporter.advance(len(block))
    if small:
        sample.near = duplicate_groups(np.stack(small))
    return sample


def _quantiles(values: pl.Series) -> dict[str, int] | None:
    names, shares = ("min", "median", "p95", "max"), [0, 0.5, 0.95, 1]
    quantiles = np.quantile(values.to_numpy(), shares, method="nearest").tolist() if len(values) else []
    return dict(zip(names, map(int, quantiles), strict=True)) if quantiles else None


def _samples(pairs: pl.DataFrame, sample: ImageSample) -> list[dict[str, object]]:
    rows = sorted(sample.decoded)
    spread = [rows[k * len(rows) // _SAMPLES] for k in range(_SAMPLES)] if len(rows) > _SAMPLES else rows
    return [
        {
            "uid": pair["uid"],
            "key": pair["key"],
            "captions": pair["captions"][:_EXAMPLES],
            "more_captions": max(0, len(pair["captions"]) - _EXAMPLES),
            **header._asdict(),
        }
        for pair, header in ((pairs.row(row, named=True), sample.headers[row]) for row in spread)
    ]


def regime_of(captions: pl.Series, image_groups: Sequence[str]) -> dict[str, object]:
    """Tell where pairs stand between long-tailed and redundant, from their first captions and groups of near images.

    Captions are compared without case and outer spaces. Two are near if their cosine is at least 0.8, with weights
    log(n / pairs with the word) of the words of each, without words in more than a tenth of the pairs (and in more than
    ten). Equal captions are near.

    Args:
        captions: First caption of each pair, shape (n,), n >= 1.
        image_groups: Group of near-duplicate images of each compared image; any names, maybe of a sample, maybe none.

    Returns:
        pairs: n. same_caption: share of pairs with an equal caption in another pair. equal_captions: median number of
        those other pairs. near_caption, near_captions: the same for near captions, of `searched` random pairs.
        nearest_caption: their median cosine with the nearest other caption. near_image: share of `images` with a near
        image in another pair; None if there are none. words: `distinct` ones, share found in one pair `once`, and share
        of pairs with such a word `rare_pairs`, of `pairs` pairs (every k-th, above 200,000; near captions are searched
        among these). near_duplicates: the largest of the three shares, each a lower bound of the share of pairs with a
        near-duplicate.
        verdict: "long-tailed" if near_duplicates < 1/3, "redundant" if >= 2/3, else "mixed".
    """
    text = captions.str.to_lowercase().str.strip_chars()
    same = _sizes(text) - 1
    counted = text.gather_every(-(-len(text) // MOST))
    words, weights = _words(counted)
    searched = np.sort(generator(0, "regime").permutation(len(counted))[:SEARCHED])
    near, cosine = _neighbors(weights, counted.rank("dense").to_numpy(), searched)
    images = _sizes(pl.Series(image_groups, dtype=pl.String)) > 1
    shares = {
        "same_caption": float((same > 0).mean()),
        "near_caption": float((near > 0).mean()),
        "near_image": float(images.mean()) if len(images) else None,
    }
    largest = max(share or 0.0 for share in shares.values())
    return {
        "pairs": len(text),
        **shares,
        "equal_captions": float(np.median(same)),
        "near_captions": float(np.median(near)),
        "nearest_caption": float(np.median(cosine)),
        "searched": len(searched),
        "images": len(images),
        "words": words,
        "near_duplicates": largest,
        "verdict": "long-tailed" if largest < LONG_TAIL else "redundant" if largest >= REDUNDANT else "mixed",
    }


def _sizes(values: pl.Series) -> np.ndarray:
    return values.alias("value").to_frame().select(pl.len().over("value")).to_series().to_numpy().astype(np.int64)


def _words(captions: pl.Series) -> tuple[dict[str, int | float], csr_array]:
    """Count words, and return the captions' unit vectors over them, shape (n, word)."""
    n = len(captions)
    table = pl.DataFrame({"pair": np.arange(n), "word": captions.str.extract_all(r"[\p{L}\p{M}\p{N}]+")})
    table = table.explode("word").drop_nulls().unique().with_columns(pl.col("word").rank("dense") - 1)
    pair, word = table["pair"].to_numpy(), table["word"].cast(pl.Int64).to_numpy()
    pairs = np.bincount(word)
    rare = np.bincount(pair, weights=pairs[word] == 1, minlength=n)
    weight = np.where(pairs > max(COMMON * n, 10), 0.0, np.log(n / np.maximum(pairs, 1)))[word]
    length = np.sqrt(np.bincount(pair, weights=weight**2, minlength=n))[pair]
    value = np.divide(weight, length, out=np.zeros_like(weight), where=length > 0)
    counts = {
        "distinct": len(pairs),
        "once": float((pairs == 1).mean()) if len(pairs) else 0.0,
        "rare_pairs": float((rare > 0).mean()),
        "pairs": n,
    }
    return counts, csr_array((value, (pair, word)), shape=(n, len(pairs)))


def _neighbors(weights: csr_array, same: np.ndarray, searched: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return, for the searched captions, how many others are near, and the cosine with the nearest other."""
    near, nearest, turned = [np.zeros(0, dtype=np.int64)], [np.zeros(0)], weights.T.tocsr()
    for rows in (searched[part] for part in slices(len(searched), _SEARCHED_BLOCK)):
        cosine = (weights[rows] @ turned).toarray()
        cosine[same[rows][:, None] == same] = 1.0  # also where no word tells anything
        cosine[np.arange(len(rows)), rows] = 0.0
        near.append((cosine >= NEAR).sum(axis=1))
        nearest.append(cosine.max(axis=1))
    return np.concatenate(near), np.concatenate(nearest)
