"""Inspection of a data set: counts, captions, sizes, duplicates, regime and problems.

Every record is read once: pairs, captions, problems and equal images are counted over all of them. Image sizes are read
from a sample, and a smaller sample is decoded. Samples are runs of neighbors at even distances, which need few disk
reads. When not to trust it: samples miss rare problems and most near-duplicates; `full` checks everything.
"""

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl

from clipmem.base.progress import Quiet, Reporter
from clipmem.data.decoding import DecodeError, Header, decode, read_header
from clipmem.data.duplicates import duplicate_groups
from clipmem.data.quarantine import Problem, source_name
from clipmem.data.regime import regime_of
from clipmem.data.sources.base import Source
from clipmem.data.sources.records import Record

HEADERS, DECODED, RUN = 4096, 1024, 64  # images in the two samples, and neighbors in a run
PIXELS = 256_000_000  # maximum to decode, unless `full`
MOST_COMPARED = 65_536  # maximum number of images to compare
_SIDE = 64  # of compared images, as in the benchmark of `duplicates`
_SAMPLES, _EXAMPLES, _BLOCK = 5, 3, 64
_DIGEST = 12  # bytes of a hash that identify equal images


@dataclass
class ImageSample:
    """Measurements on a sample of the images."""

    headers: dict[int, Header] = field(default_factory=dict)
    sizes: list[int] = field(default_factory=list)
    decoded: list[int] = field(default_factory=list)
    broken: dict[int, Problem] = field(default_factory=dict)
    seconds: float = 0.0
    tried: int = 0
    near: list[str] = field(default_factory=list)


def inspect_source(
    source: Source, *, full: bool = False, reporter: Reporter | None = None
) -> tuple[dict[str, Any], ImageSample]:
    """Inspect a source; return the facts and the measured sample."""
    digests: Counter[bytes] = Counter()

    def watch(record: Record) -> None:
        if not isinstance(record.image, str):
            digests[record.image.digest()[:_DIGEST]] += 1

    pairs = source.pairs(watch)
    order = source.storage_order(pairs["image"].to_list())
    sample = sample_images(source, pairs, order, full=full, reporter=reporter)
    captions = pairs["captions"]
    counted = pl.DataFrame({"captions": captions.list.len()}).group_by("captions").len().sort("captions")
    problems = [*source.problems, *sample.broken.values()]
    facts = {
        "records": source.ledger.facts(),
        "pairs": pairs.height,
        "captions": {
            "total": int(captions.list.len().sum()),
            "per_pair": {str(k): n for k, n in counted.iter_rows()},
            "words": _quantiles(captions.explode().str.split(" ").list.len()),
            "characters": _quantiles(captions.explode().str.len_chars()),
        },
        "labels": pairs["label"].filter(pairs["label"] != "").n_unique(),
        "images": _images(sample, pairs.height),
        "samples": _samples(pairs, sample),
        "duplicates": _duplicates(digests, sample),
        "regime": regime_of(captions.list.first(), sample.near) if pairs.height else None,
        "problems": {
            "listed": len(problems),
            "decoded": sample.tried,
            "of": pairs.height,
            "undecodable": len(sample.broken),
            "reasons": _reasons(problems),
        },
    }
    return facts, sample


def runs(n: int, most: int, *, run: int) -> list[int]:
    """Choose at most `most` of `n` positions, as runs of neighbors at even distances."""
    if n <= most:
        return list(range(n))
    length = min(run, most)
    begins = [k * n // (most // length) for k in range(most // length)]
    return [place for begin in begins for place in range(begin, begin + length)]


def sample_images(
    source: Source, pairs: pl.DataFrame, order: Sequence[int], *, full: bool, reporter: Reporter | None = None
) -> ImageSample:
    """Read the headers of a sample of the images; decode and compare some of them."""
    sample, n = ImageSample(), pairs.height
    chosen = [order[place] for place in (range(n) if full else runs(n, HEADERS, run=RUN))]
    decode_these = set(chosen if full else [order[place] for place in runs(n, DECODED, run=RUN)])
    # in large data, the runs of the two samples need not overlap
    chosen = list(dict.fromkeys([*chosen, *(place for place in order if place in decode_these)]))
    references, keys = pairs["image"].to_list(), pairs["key"].to_list()
    small: list[np.ndarray] = []
    pixels = 0
    reporter = reporter or Quiet()
    reporter.begin("inspect", len(chosen), "images")
    for start in range(0, len(chosen), _BLOCK):
        block = chosen[start : start + _BLOCK]
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
                sample.broken[row] = Problem(source_name(source.section), keys[row], error.reason)
            sample.tried += 1
        reporter.advance(len(block))
    if small:
        sample.near = duplicate_groups(np.stack(small))
    return sample


def _images(sample: ImageSample, n: int) -> dict[str, Any]:
    headers = list(sample.headers.values())
    return {
        "read": len(sample.sizes),
        "of": n,
        "formats": dict(sorted(Counter(header.format for header in headers).items(), key=lambda item: -item[1])),
        "width": _quantiles(pl.Series([header.width for header in headers])),
        "height": _quantiles(pl.Series([header.height for header in headers])),
        "bytes": _quantiles(pl.Series(sample.sizes)),
    }


def _quantiles(values: pl.Series) -> dict[str, int] | None:
    if not len(values):
        return None
    found = np.quantile(values.to_numpy(), [0, 0.5, 0.95, 1], method="nearest").tolist()
    return dict(zip(("min", "median", "p95", "max"), (int(value) for value in found), strict=True))


def _samples(pairs: pl.DataFrame, sample: ImageSample) -> list[dict[str, Any]]:
    rows = sorted(sample.decoded)
    chosen = [rows[k * len(rows) // _SAMPLES] for k in range(_SAMPLES)] if len(rows) > _SAMPLES else rows
    found = [(pairs.row(row, named=True), sample.headers[row]) for row in chosen]
    return [
        {"uid": pair["uid"], "key": pair["key"], **_shown(pair["captions"]), **header._asdict()}
        for pair, header in found
    ]


def _shown(captions: Sequence[str]) -> dict[str, Any]:
    return {"captions": captions[:_EXAMPLES], "more_captions": max(0, len(captions) - _EXAMPLES)}


def _duplicates(digests: Counter[bytes], sample: ImageSample) -> dict[str, Any]:
    same = [times for times in digests.values() if times > 1]
    near = [times for times in Counter(sample.near).values() if times > 1]
    return {
        "exact": {"groups": len(same), "images": sum(same), "of": sum(digests.values())},
        "near": {"groups": len(near), "images": sum(near), "of": len(sample.near)},
    }


def _reasons(problems: Sequence[Problem]) -> list[dict[str, Any]]:
    by_reason: dict[str, list[Problem]] = {}
    for problem in problems:
        by_reason.setdefault(problem.reason, []).append(problem)
    ordered = sorted(by_reason.items(), key=lambda item: (-len(item[1]), item[0]))
    shown = {reason: [{"source": one.source, "key": one.key} for one in some[:_EXAMPLES]] for reason, some in ordered}
    return [{"reason": reason, "count": len(some), "examples": shown[reason]} for reason, some in ordered]
