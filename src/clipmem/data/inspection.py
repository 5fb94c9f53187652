"""What lies in a data set: counts, captions, sizes, duplicates and problems, from one pass and a sample.

Every record is read once, as a study reads it: pairs, captions, problems and equal images are counted over all of
them. Sizes are read from the headers of a sample, and fewer images still are decoded; every figure says of how many
it is. The samples are runs of neighbors at even distances, for a run of neighbors is one read on the disk. When not
to trust it: what is rare may miss the samples, and so do most near-duplicates. `full` looks at everything.
"""

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl

from clipmem.data.decoding import DecodeError, Header, decode, read_header
from clipmem.data.duplicates import duplicate_groups
from clipmem.data.quarantine import Problem, source_name
from clipmem.data.sources.base import Source
from clipmem.data.sources.records import Record

HEADERS, DECODED, RUN = 4096, 1024, 64  # images in the samples, and how many neighbors stand together
PIXELS = 256_000_000  # no more are decoded in all, unless everything is
MOST_COMPARED = 65_536  # images whose thumbnails are held for near-duplicates
_SIDE = 64  # of the images that are compared: what the rates in `duplicates` were measured at
_SAMPLES, _EXAMPLES, _BLOCK = 5, 3, 64
_DIGEST = 12  # bytes of a hash by which equal images are counted


@dataclass
class Looked:
    """What was seen of the images that were looked at."""

    headers: dict[int, Header] = field(default_factory=dict)
    sizes: list[int] = field(default_factory=list)
    decoded: list[int] = field(default_factory=list)
    broken: dict[int, Problem] = field(default_factory=dict)
    seconds: float = 0.0
    tried: int = 0
    near: list[str] = field(default_factory=list)


def inspect_source(
    source: Source, *, full: bool = False, progress: Callable[[int, int], object] = lambda _done, _of: None
) -> tuple[dict[str, Any], Looked]:
    """Look through a source."""
    digests: Counter[bytes] = Counter()

    def watch(record: Record) -> None:
        if not isinstance(record.image, str):
            digests[record.image.digest()[:_DIGEST]] += 1

    pairs = source.pairs(watch)
    order = source.storage_order(pairs["image"].to_list())
    looked = look_at(source, pairs, order, full=full, progress=progress)
    captions = pairs["captions"]
    counted = pl.DataFrame({"captions": captions.list.len()}).group_by("captions").len().sort("captions")
    problems = [*source.problems, *looked.broken.values()]
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
        "images": _images(looked, pairs.height),
        "samples": _samples(pairs, looked),
        "duplicates": _duplicates(digests, looked),
        "problems": {
            "left_out": len(problems),
            "decoded": looked.tried,
            "of": pairs.height,
            "undecodable": len(looked.broken),
            "reasons": _reasons(problems),
        },
    }
    return facts, looked


def runs(n: int, most: int, *, run: int) -> list[int]:
    """Choose at most `most` of `n` places: runs of neighbors, the runs at even distances; all of them if few."""
    if n <= most:
        return list(range(n))
    length = min(run, most)
    begins = [k * n // (most // length) for k in range(most // length)]
    return [place for begin in begins for place in range(begin, begin + length)]


def look_at(
    source: Source, pairs: pl.DataFrame, order: Sequence[int], *, full: bool, progress: Callable[[int, int], object]
) -> Looked:
    """Read the headers of a sample of the images, decode some of them and compare those."""
    looked, n = Looked(), pairs.height
    chosen = [order[place] for place in (range(n) if full else runs(n, HEADERS, run=RUN))]
    decode_these = set(chosen if full else [order[place] for place in runs(n, DECODED, run=RUN)])
    # where samples are small parts of the data, the runs of the one need not lie in those of the other
    chosen = list(dict.fromkeys([*chosen, *(place for place in order if place in decode_these)]))
    references, keys = pairs["image"].to_list(), pairs["key"].to_list()
    small: list[np.ndarray] = []
    pixels = 0
    for start in range(0, len(chosen), _BLOCK):
        block = chosen[start : start + _BLOCK]
        for row, data in zip(block, source.read([references[row] for row in block]), strict=True):
            looked.sizes.append(len(data))
            try:
                header = looked.headers[row] = read_header(data)
                if row not in decode_these or (pixels >= PIXELS and not full):
                    continue
                pixels += header.width * header.height
                started = time.perf_counter()
                square = decode(data, _SIDE)
                looked.seconds += time.perf_counter() - started
                looked.decoded.append(row)
                if len(small) < MOST_COMPARED:
                    small.append(square)
            except DecodeError as error:
                looked.broken[row] = Problem(source_name(source.section), keys[row], error.reason)
            looked.tried += 1
        progress(min(start + _BLOCK, len(chosen)), len(chosen))
    if small:
        looked.near = duplicate_groups(np.stack(small))
    return looked


def _images(looked: Looked, n: int) -> dict[str, Any]:
    headers = list(looked.headers.values())
    return {
        "read": len(looked.sizes),
        "of": n,
        "formats": dict(sorted(Counter(header.format for header in headers).items(), key=lambda item: -item[1])),
        "width": _quantiles(pl.Series([header.width for header in headers])),
        "height": _quantiles(pl.Series([header.height for header in headers])),
        "bytes": _quantiles(pl.Series(looked.sizes)),
    }


def _quantiles(values: pl.Series) -> dict[str, int] | None:
    """Smallest, median, 95 % and largest value; None of nothing."""
    if not len(values):
        return None
    found = np.quantile(values.to_numpy(), [0, 0.5, 0.95, 1], method="nearest").tolist()
    return dict(zip(("min", "median", "p95", "max"), (int(value) for value in found), strict=True))


def _samples(pairs: pl.DataFrame, looked: Looked) -> list[dict[str, Any]]:
    """Show five pairs that decode, at even distances in the order of their uids."""
    rows = sorted(looked.decoded)
    chosen = [rows[k * len(rows) // _SAMPLES] for k in range(_SAMPLES)] if len(rows) > _SAMPLES else rows
    found = [(pairs.row(row, named=True), looked.headers[row]) for row in chosen]
    return [
        {"uid": pair["uid"], "key": pair["key"], **_shown(pair["captions"]), **header._asdict()}
        for pair, header in found
    ]


def _shown(captions: Sequence[str]) -> dict[str, Any]:
    return {"captions": captions[:_EXAMPLES], "more_captions": max(0, len(captions) - _EXAMPLES)}


def _duplicates(digests: Counter[bytes], looked: Looked) -> dict[str, Any]:
    """Count images that are the same as another, byte by byte, and those that nearly are."""
    same = [times for times in digests.values() if times > 1]
    near = [times for times in Counter(looked.near).values() if times > 1]
    return {
        "exact": {"groups": len(same), "images": sum(same), "of": sum(digests.values())},
        "near": {"groups": len(near), "images": sum(near), "of": len(looked.near)},
    }


def _reasons(problems: Sequence[Problem]) -> list[dict[str, Any]]:
    """Count problems by reason, the most frequent first, with some examples of each."""
    by_reason: dict[str, list[Problem]] = {}
    for problem in problems:
        by_reason.setdefault(problem.reason, []).append(problem)
    ordered = sorted(by_reason.items(), key=lambda item: (-len(item[1]), item[0]))
    shown = {reason: [{"source": one.source, "key": one.key} for one in some[:_EXAMPLES]] for reason, some in ordered}
    return [{"reason": reason, "count": len(some), "examples": shown[reason]} for reason, some in ordered]


def usable(facts: Mapping[str, Any]) -> bool:
    """Tell whether a study could use the data: an image of those that were tried decodes."""
    problems = facts["problems"]
    return problems["decoded"] > problems["undecodable"]
