"""Time and memory of a whole study against the number of pairs."""

import io
import itertools
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from PIL import Image
from timing import Row, output, script

SIZES, SMALLEST = (1_000, 10_000, 100_000), (200, 400)
_SETTINGS = (
    "model.name=clipmem-micro", "train.epochs=1", "train.seeds=[0]", "train.batch_size=256", "data.source=parquet",
    "split.planted_share=0", "score.draws=200",
)  # fmt: skip


def measure(folder: Path, *, rounds: int, before: str, device: str, smallest: bool) -> list[Row]:  # noqa: ARG001
    """Run `clipmem run` on synthetic pairs of several numbers, with one seed and one epoch each."""
    found = [_study(folder, n) for n in (SMALLEST if smallest else SIZES)]
    rows: list[Row] = []
    for few, many in itertools.pairwise(found):
        sizes = f"{few['pairs']:,} against {many['pairs']:,} pairs"
        rows += [
            _row(f"time a pair, {sizes} (1 = linear)", few["seconds"] / few["pairs"],
                 many["seconds"] / many["pairs"], "s"),
            _row(f"peak memory, {sizes} (1 = flat)", few["mib"], many["mib"], "MiB"),
        ]  # fmt: skip
    for one in found:
        stages = ", ".join(f"{stage} {took:.1f}" for stage, took in one["stages"].items())
        print(f"{one['pairs']:>7,} pairs: {one['seconds']:.1f} s, peak {one['mib']:.0f} MiB ({stages})")
    return rows


def _row(case: str, small: float, large: float, unit: str) -> Row:
    ratio = small / large
    return Row("memory", case, "before", ratio, ratio, ratio, large, small, unit, 1)


def _pairs(path: Path, n: int) -> None:
    """Write n pairs: images of random blocks, captions of random words, in row groups of 1,000."""
    stream = np.random.default_rng(0)
    words = np.array([f"word{k}" for k in range(500)])
    frames: list[pl.DataFrame] = []
    for start in range(0, n, 1000):
        images: list[bytes] = []
        for block in stream.integers(0, 256, (min(1000, n - start), 8, 8, 3), dtype=np.uint8):
            encoded = io.BytesIO()
            Image.fromarray(block).resize((32, 32), Image.Resampling.NEAREST).save(encoded, "PNG")
            images.append(encoded.getvalue())
        captions = [[" ".join(stream.choice(words, 8))] for _ in images]
        frames.append(pl.DataFrame({"image": images, "captions": captions}))
    pl.concat(frames).write_parquet(path, row_group_size=1000)


def _study(folder: Path, n: int) -> dict[str, Any]:
    table = folder / f"pairs-{n}.parquet"
    if not table.is_file():
        _pairs(table, n)
    part = n // 10
    sizes = {"shared": n - 3 * part, "candidate": part, "independent": part, "external": part}
    settings = [*_SETTINGS, f"data.path={table}", *(f"split.{role}={count}" for role, count in sizes.items())]
    with tempfile.TemporaryDirectory(dir=folder) as out:
        words = [word for setting in settings for word in ("--set", setting)]
        started = time.perf_counter()
        running = script("-m", "clipmem", "run", "quick", *words, "--out", f"{out}/run")
        peak = 0.0
        while running.process.poll() is None:
            peak = max(peak, _tree_mib(running.process.pid))
            time.sleep(0.1)
        took = time.perf_counter() - started
        output(running)
        stages = json.loads(Path(out, "run", "summary.json").read_text())["seconds"]
    return {"pairs": n, "seconds": took, "mib": peak, "stages": stages}


def _tree_mib(root: int) -> float:
    """Private memory of a process and its children in MiB, without mapped files."""
    total, waiting = 0.0, [root]
    while waiting:
        pid = waiting.pop()
        try:
            status = Path(f"/proc/{pid}/status").read_text()
            for task in os.listdir(f"/proc/{pid}/task"):  # noqa: PTH208
                waiting += [int(child) for child in Path(f"/proc/{pid}/task/{task}/children").read_text().split()]
        except OSError:  # it has just ended
            continue
        total += sum(int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("RssAnon"))
    return total
