"""Curating many pairs: what it costs the list to compare near cells only, and time and memory by number of pairs.

`python experiments/curate/scale.py near DATA [--captions COLUMN] [--most N]` curates the first N images of DATA twice,
with a tenth of the captions swapped: comparing every pair with all others, and with those in near cells, as is done
above `clipmem.scoring.evidence.EXACT` pairs. It prints AUROC and average precision of both lists, the share of the
nearest images that near cells find, and seconds.

`python experiments/curate/scale.py size N` curates N pairs of stored features, 512 numbers each: those of one of
2,000 things, with noise. It prints seconds and memory. With `--closed-form` it scores them with that pair score of
`clipmem score` instead.
"""

import argparse
import json
import resource
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch

from clipmem.base.sections import DataSection
from clipmem.curation.ranking import curate
from clipmem.data.decoding import Geometry
from clipmem.functional import auroc
from clipmem.models.signals import Signals
from clipmem.scoring import evidence
from clipmem.scoring.pair_scores import PAIR_SCORES
from clipmem.study.score_inputs import read_pairs

_GEOMETRY, WIDTH, THINGS, WRONG = Geometry(64, "squash", "bicubic"), 512, 2000, 0.1
_ANONYMOUS = "RssAnon:"


def swapped(captions: list[str], seed: int = 0) -> tuple[list[str], np.ndarray]:
    """Swap a tenth of the captions; return them, and which are now wrong."""
    chosen = np.random.default_rng(seed).permutation(len(captions))[: round(WRONG * len(captions))]
    found, wrong = list(captions), np.zeros(len(captions), dtype=bool)
    for row, other in zip(chosen, np.roll(chosen, 1), strict=True):
        found[row] = captions[other]
        wrong[row] = captions[other] != captions[row]
    return found, wrong


def near(path: str, column: str, most: int) -> list[dict[str, Any]]:
    """Compare the list by near cells with that by all pairs."""
    section = {"source": "parquet", "path": path, "caption_column": column} if Path(path).exists() else {"source": path}
    pairs = read_pairs(DataSection.model_validate(section), 1, "DATA")
    rows = np.arange(min(most, len(pairs)))
    parts = list(pairs.blocks(range(len(rows)), 1024, [_GEOMETRY]))
    pixels, table = np.concatenate([one.pixels[_GEOMETRY] for one in parts]), pl.concat([one.table for one in parts])
    captions, wrong = swapped([texts[0] for texts in table["captions"]])
    found, nearest = list[dict[str, Any]](), list[np.ndarray]()
    for name, exact in (("all pairs", table.height), ("near cells", 0)):
        evidence.EXACT = exact
        texts, row = [[text] for text in captions], np.arange(table.height)
        signals = Signals(table["uid"].to_list(), texts, row, pixels=pixels.__getitem__)
        started = time.monotonic()
        score = curate(signals).table["score"].to_numpy()
        seconds, area = time.monotonic() - started, auroc(score, wrong)
        order = np.argsort(-score)
        precision = float((np.cumsum(wrong[order]) / np.arange(1, len(order) + 1))[wrong[order]].mean())
        nearest.append(evidence.evidence_of(signals).near)
        shared = [len(set(a) & set(b)) / len(a) for a, b in zip(nearest[0], nearest[-1], strict=True)]
        about = {"compared with": name, "pairs": table.height, "auroc": area.mean, "low": area.low, "high": area.high}
        found.append(about | {"precision": precision, "recall": float(np.mean(shared)), "seconds": round(seconds, 1)})
    return found


def size(n: int, *, closed_form: bool = False) -> dict[str, Any]:
    """Curate n pairs of stored features, or score them with the closed form."""
    stream = np.random.default_rng(0)
    things = stream.normal(size=(THINGS, WIDTH)).astype(np.float32)
    thing = stream.integers(THINGS, size=n)
    features = np.empty((n, WIDTH), dtype=np.float32)
    for start in range(0, n, 65_536):
        part = thing[start : start + 65_536]
        features[start : start + 65_536] = things[part] + stream.normal(0, 1, (len(part), WIDTH))
    words = [f"{chr(97 + k % 26)}{chr(97 + k // 26 % 26)}{chr(97 + k // 676)}" for k in range(THINGS + 500)]
    extra = stream.integers(THINGS, THINGS + 500, size=n)
    captions, wrong = swapped([f"a {words[a]} {words[b]}" for a, b in zip(thing, extra, strict=True)])
    rows, texts = np.arange(n), [[text] for text in captions]
    signals = Signals([f"p{k}" for k in rows], texts, rows, image=torch.from_numpy(features), text=None)
    most, stop = [0.0], threading.Event()

    def watch() -> None:
        while not stop.wait(0.2):
            status = Path("/proc/self/status").read_text(encoding="utf-8")
            own = next(line for line in status.splitlines() if line.startswith(_ANONYMOUS))
            most[0] = max(most[0], int(own.split()[1]) / 2**20)

    watching = threading.Thread(target=watch)
    watching.start()
    started, used = time.monotonic(), time.process_time()
    score = PAIR_SCORES["closed-form"]().score(signals) if closed_form else curate(signals).table["score"].to_numpy()
    seconds, used = time.monotonic() - started, time.process_time() - used
    stop.set()
    watching.join()
    # pages of temporary files count as resident while they are cached, and are given back when memory is short
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    about = {
        "pairs": n,
        "seconds": round(seconds, 1),
        "processor_seconds": round(used, 1),
        "anonymous_gib": round(most[0], 2),
        "resident_gib": round(peak, 2),
    }
    return about | {"auroc": auroc(score, wrong).mean}


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the measurements as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="what", required=True)
    first = commands.add_parser("near")
    first.add_argument("data")
    first.add_argument("--captions", default="captions")
    first.add_argument("--most", type=int, default=30_000)
    second = commands.add_parser("size")
    second.add_argument("pairs", type=int)
    second.add_argument("--closed-form", action="store_true")
    chosen = parser.parse_args(arguments)
    found = (
        size(chosen.pairs, closed_form=chosen.closed_form)
        if chosen.what == "size"
        else near(chosen.data, chosen.captions, chosen.most)
    )
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
