"""Curating many pairs: what it costs the list to compare near cells only, and time and memory by number of pairs.

`python experiments/curate/scale.py near DATA [--captions COLUMN] [--most N]` curates the first N images of DATA twice,
with a tenth of the captions swapped: comparing every pair with all others, and with those in near cells, as is done
above `clipmem.scoring.evidence.EXACT` pairs. It prints AUROC and average precision of both lists, the share of the
nearest images that near cells find, and seconds.

`python experiments/curate/scale.py size N` writes embeddings of N pairs, 512 numbers each: those of one of 2,000
things, with noise; curates them by `clipmem curate`, and prints seconds and memory. With `--command score` it scores
them under two models by `clipmem score`, with `--command closed-form` or `transferred` under one by that pair score
alone (`transferred` looks at images, too: random ones take their place). With `--command list` random numbers take the
place of what the pairs say of each other, for the memory of all the rest.

`python experiments/curate/scale.py cells N` makes the cells of N rows of 512 numbers by scikit-learn's `KMeans`, as
clipmem does, by its `MiniBatchKMeans`, and by faiss (`pip install faiss-cpu`), each three times, in turn. It prints
seconds, the mean cosine of a row and its cell's center, and the share of the 16 nearest rows that are compared.

`python experiments/curate/scale.py agreements N` scores N pairs of 512 numbers, a tenth of them swapped, by softmax
agreement, neighbors' votes, LEMoN and s-CLIPLoss, each twice: compared with all, and as above 30,000 pairs.

`python experiments/curate/scale.py parts N` is for more pairs than a disk holds the files of. Of N random pairs, it
takes the parts of `clipmem curate --model` whose time is in proportion to N as a whole: directions of images and of
captions, and captions and images predicted by ridge regression. It makes the cells, and compares three hundredths of
the rows with near ones. It prints the seconds of each, those of all rows at this rate, and the memory.
"""

import argparse
import contextlib
import json
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import polars as pl
import torch

from clipmem import cli
from clipmem.base import slices
from clipmem.base.progress import Quiet
from clipmem.base.sections import DataSection
from clipmem.base.tables import scratch_array
from clipmem.curation.ranking import SMALLEST, curate
from clipmem.data.decoding import Geometry
from clipmem.data.features import WORDS
from clipmem.functional import auroc, spearman
from clipmem.models.embeddings import Embeddings
from clipmem.models.layout import write_card
from clipmem.models.signals import Signals
from clipmem.scoring import evidence
from clipmem.scoring.pair_scores import PAIR_SCORES
from clipmem.stats.agreement import TEMPERATURE, directions_into, lemon, neighbor_votes, softmax_agreement
from clipmem.stats.cells import PROBES, Cells
from clipmem.stats.similarity import contrast
from clipmem.study.score_inputs import Settings, pairs_of, read_pairs
from clipmem.study.single_model import collect

_GEOMETRY, WIDTH, THINGS, WRONG, PART = Geometry(64, "squash", "bicubic"), 512, 2000, 0.1, 65_536
_ANONYMOUS = "RssAnon:"
SCORES = ("closed-form", "transferred")  # of `clipmem score --model`


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
    found, nearest, scores = list[dict[str, Any]](), list[np.ndarray](), list[np.ndarray]()
    for name, exact in (("all pairs", table.height), ("near cells", 0)):
        evidence.EXACT = exact
        texts, row = [[text] for text in captions], np.arange(table.height)
        signals = Signals(table["uid"].to_list(), texts, row, pixels=pixels.__getitem__)
        started = time.monotonic()
        scores.append(score := curate(signals).table["score"].to_numpy())
        seconds, area = time.monotonic() - started, auroc(score, wrong)
        order = np.argsort(-score)
        precision = float((np.cumsum(wrong[order]) / np.arange(1, len(order) + 1))[wrong[order]].mean())
        nearest.append(signals.once(evidence.Evidence).near)
        shared = [len(set(a) & set(b)) / len(a) for a, b in zip(nearest[0], nearest[-1], strict=True)]
        about = {"compared with": name, "pairs": table.height, "auroc": area.mean, "low": area.low, "high": area.high}
        about |= {"precision": precision, "rank correlation": spearman(scores[0], score).spearman}
        found.append(about | {"recall": float(np.mean(shared)), "seconds": round(seconds, 1)})
    return found


def write(n: int, folder: Path, model: int = 0) -> np.ndarray:
    """Write embeddings of n pairs by a model, in parts of 65,536; return which captions are wrong.

    Pairs show one of 2,000 things, with noise; a caption names its thing and one of 500 others. Another model beside it
    has other noise in its images, and the same text encoder: its files of texts are links, which saves 1 KiB a pair.
    """
    stream, noise = np.random.default_rng(0), np.random.default_rng(model)
    things = stream.normal(size=(THINGS, WIDTH)).astype(np.float32)
    thing, extra = stream.integers(THINGS, size=n), stream.integers(THINGS, THINGS + 500, size=n)
    stated = thing.copy()
    wrong = stream.permutation(n)[: round(WRONG * n)]
    stated[wrong] = thing[np.roll(wrong, 1)]
    words = np.array([f"{chr(97 + k % 26)}{chr(97 + k // 26 % 26)}{chr(97 + k // 676)}" for k in range(THINGS + 500)])
    parts = range(0, n, PART)
    write_card(folder, {"parts": len(parts)})
    for name in ("img_emb", "text_emb", "metadata"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for number, start in enumerate(parts):
        rows = slice(start, min(start + PART, n))
        for name, shown in (("img_emb", thing[rows]), ("text_emb", stated[rows])):
            file = folder / name / f"{name}_{number:04d}.npy"
            if model and name == "text_emb":
                file.hardlink_to(folder.parent / "f" / name / file.name)
                continue
            values = things[shown] + noise.normal(0, 1, (len(shown), WIDTH)).astype(np.float32)
            values /= np.linalg.norm(values, axis=1, keepdims=True)
            np.save(file, values.astype(np.float16))
        uids = [f"{k:016x}" for k in range(rows.start, rows.stop)]
        captions = [
            f"a {words[first]} {words[second]}" for first, second in zip(stated[rows], extra[rows], strict=True)
        ]
        table = pl.DataFrame({"uid": uids, "image_path": uids, "caption": captions})
        table.write_parquet(folder / "metadata" / f"metadata_{number:04d}.parquet")
    return stated != thing


def measure(arguments: Sequence[str], folder: Path) -> dict[str, Any]:
    """Run Python with some arguments in a folder; return seconds and memory."""
    started, used = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, *arguments]
    running = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL)  # noqa: S603
    anonymous = 0.0
    while running.poll() is None:
        with contextlib.suppress(OSError, StopIteration):
            status = Path(f"/proc/{running.pid}/status").read_text(encoding="utf-8").splitlines()
            line = next(line for line in status if line.startswith(_ANONYMOUS))
            anonymous = max(anonymous, int(line.split()[1]) / 2**20)
        time.sleep(0.2)
    if running.returncode:
        raise SystemExit(running.returncode)
    now = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime
    # pages of files count as resident while they are cached, and are given back when memory is short
    return {
        "seconds": round(time.monotonic() - started, 1),
        "processor_seconds": round(seconds, 1),
        "anonymous_gib": round(anonymous, 2),
        "resident_gib": round(now.ru_maxrss / 2**20, 2),
    }


def size(n: int, command: str, folder: Path) -> dict[str, Any]:
    """Curate or score n pairs of stored embeddings by the command line."""
    wrong = write(n, folder / "f")
    if command == "score":
        write(n, folder / "g", model=1)
        used = measure(
            ["-m", "clipmem", "score", "--target", "f", "--reference", "g", "--out", "table.parquet"], folder
        )
        table, column = pl.read_parquet(folder / "table.parquet", columns=["uid", "clipmem"]), "clipmem"
    elif command in SCORES:
        used = measure([str(Path(__file__).resolve()), command, "f"], folder)
        table, column = pl.read_parquet(folder / "table.parquet"), "score"
    else:
        program = ["-m", "clipmem", "curate"] if command == "curate" else [str(Path(__file__).resolve()), command]
        used = measure([*program, "--model", "f", "--out", "curated"], folder)
        table, column = pl.read_parquet(folder / "curated" / "suspects.parquet", columns=["uid", "score"]), "score"
        document = json.loads((folder / "curated" / "curate.json").read_text(encoding="utf-8"))
        used |= {"mismatched": int(wrong.sum()), "expected": document["expected"]["pairs"]}
    row = table["uid"].str.to_integer(base=16).to_numpy()
    return {"command": command, "pairs": n, **used, "auroc": auroc(table[column].to_numpy(), wrong[row]).mean}


def cells(n: int, times: int = 3) -> dict[str, dict[str, float]]:
    """Compare three ways to find the centers of cells."""
    rng = np.random.default_rng(0)
    things = rng.normal(size=(THINGS, WIDTH)).astype(np.float32)
    unit = things[rng.integers(THINGS, size=n)]
    for rows in slices(n, PART):
        unit[rows] += rng.normal(0, 1, unit[rows].shape).astype(np.float32)
        unit[rows] /= np.linalg.norm(unit[rows], axis=1, keepdims=True)
    queries = rng.permutation(n)[:500]
    product = unit[queries] @ unit.T
    product[np.arange(len(queries)), queries] = -np.inf
    nearest = np.argpartition(-product, 16, axis=1)[:, :16]
    found: dict[str, dict[str, list[float]]] = {}
    for _ in range(times):
        for name, kind in (("KMeans", None), ("MiniBatchKMeans", ByBatches), ("faiss", ByFaiss)):
            with patch("sklearn.cluster.KMeans", kind) if kind else contextlib.nullcontext():
                started = time.monotonic()
                made = Cells(unit, probes=PROBES)
                seconds = time.monotonic() - started
            near, close = dict[int, float](), 0.0
            place = {int(row): k for k, row in enumerate(queries)}
            for of_cell, center in zip(made, made._centers, strict=True):
                rows, others = (made.order[positions] for positions in of_cell)
                close += float((unit[rows] @ center).sum()) / n
                for row in set(rows.tolist()) & place.keys():
                    near[row] = float(np.isin(nearest[place[row]], others).mean())
            row = {"seconds": seconds, "cosine": close, "recall": float(np.mean([*near.values()]))}
            for key, value in row.items():
                found.setdefault(name, {}).setdefault(key, []).append(round(value, 4))
    return {name: {key: float(np.median(values)) for key, values in of.items()} for name, of in found.items()}


def parts(n: int, shares: int = 3) -> dict[str, Any]:
    """Take what is in proportion to n as a whole, and some hundredths of the comparisons with near rows."""
    rng, fold = np.random.default_rng(0), np.random.default_rng(1).permutation(n) % (n // evidence.TOGETHER)
    thing, peak, done = rng.integers(THINGS, size=n), [0.0], threading.Event()

    def watch() -> None:
        while not done.wait(0.2):
            status = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
            line = next(line for line in status if line.startswith(_ANONYMOUS))
            peak[0] = max(peak[0], int(line.split()[1]) / 2**20)

    threading.Thread(target=watch, daemon=True).start()
    arrays, seconds = list[np.ndarray](), dict[str, float]()
    for name, width, noise in (("images", WIDTH, 1.0), ("captions", WORDS, 0.3)):
        things = rng.normal(size=(THINGS, width)).astype(np.float32)
        arrays.append(scratch_array((n, width)))
        for rows in slices(n, PART):
            values = rng.standard_normal((rows.stop - rows.start, width), dtype=np.float32)
            arrays[-1][rows] = things[thing[rows]] + np.float32(noise) * values
        started = time.monotonic()
        directions_into(arrays[-1], arrays[-1], name)
        seconds[f"directions of {name}"] = time.monotonic() - started
    image, caption = arrays
    started = time.monotonic()
    evidence._ridge(image, caption, fold)
    seconds["captions by ridge regression"] = time.monotonic() - started
    started = time.monotonic()
    evidence._ridge(caption, image, fold)
    seconds["images by ridge regression"] = time.monotonic() - started
    for name, query, value, k in (("captions", image, caption, evidence.NEAR), ("images", caption, image, 1)):
        started = time.monotonic()
        made = Cells(query)
        seconds[f"cells for {name}"] = time.monotonic() - started
        ends, rows = [time.monotonic()], 0
        for block in made.means(value, k, fold, temperature=TEMPERATURE):
            if not rows:
                ends = [time.monotonic()]  # after the copies, which are in proportion to n
                seconds[f"copies for {name}"] = ends[0] - started - seconds[f"cells for {name}"]
            rows += len(block.rows)
            if rows >= n / 100 * len(ends):
                ends.append(time.monotonic())
            if len(ends) > shares:
                break
        each = np.diff(ends)
        seconds |= {f"hundredth {k + 1} of {name}": spent for k, spent in enumerate(each.tolist())}
        seconds[f"near {name}, of all rows at this rate"] = float(each.mean()) * 100
    done.set()
    return {"pairs": n, "seconds": {key: round(value, 1) for key, value in seconds.items()}, "anonymous_gib": peak[0]}


class ByBatches:
    """`MiniBatchKMeans`, with the arguments of `KMeans` that `Cells` uses."""

    def __init__(self, count: int, *, random_state: int, **_: Any) -> None:
        from sklearn.cluster import MiniBatchKMeans

        once: Any = 1
        made = MiniBatchKMeans(count, init="random", batch_size=4096, n_init=once, random_state=random_state)
        self.fit = made.fit


class ByFaiss:
    """The centers of k-means by faiss, with the arguments of `KMeans` that `Cells` uses."""

    def __init__(self, count: int, *, random_state: int, **_: Any) -> None:
        import faiss

        self._make = lambda width: faiss.Kmeans(width, count, niter=10, seed=random_state % 2**31)

    def fit(self, rows: np.ndarray) -> "ByFaiss":
        """Find the centers."""
        found = self._make(rows.shape[1])
        found.train(rows)
        self.cluster_centers_ = found.centroids
        return self


def pair_score(name: str, folder: Path) -> None:
    """Score the pairs of a folder of embeddings by a pair score of `clipmem score --model`, and write the scores."""
    settings = Settings.of()
    stored = Embeddings.open(folder)
    pairs = pairs_of([stored], None, settings, "data")
    signals, _ = collect(pairs, stored, folder, settings, Quiet(), least=SMALLEST)
    colors = np.random.default_rng(0).integers(0, 256, (len(signals.uids), 8, 8, 3), dtype=np.uint8)
    signals = replace(signals, pixels=lambda rows: colors[rows].repeat(8, axis=1).repeat(8, axis=2))
    score = PAIR_SCORES[name]().score(signals)
    pl.DataFrame({"uid": list(signals.uids), "score": score}).write_parquet("table.parquet")


def compared(*arguments: Any) -> Any:
    """Return random numbers in the place of what near pairs say of each other (`evidence._compare_near`)."""
    fold, progress = arguments[3], arguments[4]

    def drawn(width: int) -> np.ndarray:
        values = scratch_array((len(fold), width))
        for rows in slices(len(fold), PART):
            values[rows] = np.random.default_rng(rows.start).normal(size=values[rows].shape)
        return values

    near = drawn(evidence.NEAR).view(np.int32)
    near %= len(fold)
    progress(1.0)
    return drawn(16), drawn(16), near, tuple((drawn(16), drawn(1)[:, 0]) for _ in evidence.FITS)


def agreement(_: evidence.Evidence, query: torch.Tensor) -> list[np.ndarray]:
    """Return two numbers of each pair in the place of how far it agrees with near ones."""
    return [query[:, k].numpy() for k in (0, 1)]


def agreements(n: int) -> list[dict[str, Any]]:
    """Score pairs by comparing each with all others, and by comparing it with some."""
    rng = np.random.default_rng(0)
    thing = rng.normal(size=(THINGS, WIDTH))[rng.integers(THINGS, size=n)] + 0.8 * rng.normal(size=(n, WIDTH))
    wrong, rows = rng.random(n) < WRONG, list[dict[str, Any]]()
    order = np.where(wrong, rng.integers(n, size=n), np.arange(n))
    image, text = (torch.from_numpy(x + 0.8 * rng.normal(size=x.shape)) for x in (thing, thing[order]))
    ways = {
        "softmax agreement": lambda: -softmax_agreement(image, text),
        "votes": lambda: -neighbor_votes(image, text),
        "lemon": lambda: lemon(image, text),
        "s-cliploss": lambda: -contrast(image, text).scaled,
    }
    for name, way in ways.items():
        seconds, scores = [], []
        for most in (n, None):
            with contextlib.ExitStack() as stack:
                for module in ("agreement", "similarity") if most else ():
                    stack.enter_context(patch(f"clipmem.stats.{module}.EXACT", most))
                started = time.monotonic()
                scores.append(way().numpy())
                seconds.append(round(time.monotonic() - started, 1))
        areas = [round(auroc(score, wrong).mean, 4) for score in scores]
        same = round(spearman(*scores).spearman or 0, 3)
        rows.append({"score": name, "seconds, all and some": seconds, "AUROC": areas, "rank correlation": same})
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the measurements as JSON."""
    if sys.argv[1:2] == ["list"]:
        sys.argv[1] = "curate"
        with patch.object(evidence, "_compare_near", compared), patch.object(evidence.Evidence, "agreement", agreement):
            cli.main()
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="what", required=True)
    first = commands.add_parser("near")
    first.add_argument("data")
    first.add_argument("--captions", default="captions")
    first.add_argument("--most", type=int, default=30_000)
    second = commands.add_parser("size")
    second.add_argument("pairs", type=int)
    second.add_argument("--command", choices=("curate", "list", "score", *SCORES), default="curate")
    second.add_argument("--folder", type=Path, help="for the embeddings, 2 KiB a pair, and 1 KiB of a second model")
    for name in SCORES:
        commands.add_parser(name).add_argument("embeddings", type=Path)
    commands.add_parser("cells").add_argument("rows", type=int)
    commands.add_parser("agreements").add_argument("pairs", type=int)
    commands.add_parser("parts").add_argument("pairs", type=int)
    chosen = parser.parse_args(arguments)
    if chosen.what in SCORES:
        pair_score(chosen.what, chosen.embeddings)
        return
    if chosen.what == "cells":
        found: Any = cells(chosen.rows)
    elif chosen.what == "agreements":
        found = agreements(chosen.pairs)
    elif chosen.what == "parts":
        found = parts(chosen.pairs)
    elif chosen.what == "near":
        found = near(chosen.data, chosen.captions, chosen.most)
    else:
        with tempfile.TemporaryDirectory(dir=chosen.folder) as scratch:
            found = size(chosen.pairs, chosen.command, Path(scratch))
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
