"""Scores from stored embeddings without models: time against the number of pairs, and memory against 2 GiB."""

import json
import os
import shutil
import sys
import time
from pathlib import Path

import numpy as np
import polars as pl
from timing import Row

SIZES, SMALLEST = (100_000, 1_000_000), (2_000, 4_000)
WIDTH, LIMIT = 512, 2048.0


def measure(folder: Path, *, rounds: int, before: str, device: str, smallest: bool) -> list[Row]:  # noqa: ARG001
    """Run `clipmem score` on float16 embeddings of 100,000 and of 1,000,000 pairs in clip-retrieval's layout.

    A ratio of 1 is linear; above 1, the fixed start-up time matters less for many pairs.
    """
    found, sizes = list[dict[str, float]](), SMALLEST if smallest else SIZES
    for pairs in sizes:
        for name, shift in (("target", 1), ("reference", 2)):
            _write(folder / name, pairs, shift, part=sizes[0] // 2)
        found.append(_score(folder, pairs))
        for name in ("target", "reference"):
            shutil.rmtree(folder / name)
    small, large = found
    for one in found:
        print(
            f"{one['pairs']:>9,.0f} pairs: {one['seconds']:.1f} s of a processor, {one['clock']:.1f} s by the clock, "
            f"peak {one['mib']:.0f} MiB"
        )
    return [
        _row(f"processor time a pair, {sizes[0]:,} against {sizes[1]:,} pairs", small["seconds"] / small["pairs"],
             large["seconds"] / large["pairs"], "s"),
        _row(f"2 GiB against the peak memory of {sizes[1]:,} pairs", LIMIT, large["mib"], "MiB"),
    ]  # fmt: skip


def _row(case: str, small: float, large: float, unit: str) -> Row:
    ratio = small / large
    return Row("embeddings", case, "before", ratio, ratio, ratio, large, small, unit, 1)


def _write(folder: Path, pairs: int, shift: int, *, part: int) -> None:
    """Write synthetic embeddings in clip-retrieval's layout, without uids."""
    stream = np.random.default_rng(0)
    for name in ("img_emb", "text_emb", "metadata"):
        (folder / name).mkdir(parents=True)
    base = {name: stream.standard_normal((part, WIDTH), dtype=np.float32) for name in ("img_emb", "text_emb")}
    base["text_emb"] += base["img_emb"]
    for k, start in enumerate(range(0, pairs, part)):
        for name, values in base.items():
            rows = np.roll(values, k * shift, axis=0) + shift * np.roll(values, 7 * (k + 1), axis=1)
            rows /= np.linalg.norm(rows, axis=1, keepdims=True)
            np.save(folder / name / f"{name}_{k:02d}.npy", rows.astype(np.float16))
        numbers = range(start, start + part)
        table = {"image_path": [f"{n:09d}" for n in numbers], "caption": [f"a caption of pair {n}" for n in numbers]}
        pl.DataFrame(table).write_parquet(folder / "metadata" / f"metadata_{k:02d}.parquet")


def _score(folder: Path, pairs: int) -> dict[str, float]:
    """Score in a separate process; its peak memory includes mapped files."""
    out = folder / f"scores-{pairs}.parquet"
    words = ["-m", "clipmem", "score", "--target", str(folder / "target"), "--reference", str(folder / "reference")]
    started = time.perf_counter()
    child = os.posix_spawn(
        sys.executable,
        [sys.executable, *words, "--bank-size", "1000", "--out", str(out)],
        os.environ,
        file_actions=[(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)],
    )
    _, status, used = os.wait4(child, 0)
    clock = time.perf_counter() - started
    rows = pl.scan_parquet(out).select(pl.len()).collect().item() if out.is_file() else 0
    if status or rows != pairs:
        raise RuntimeError(f"clipmem score ended with {status} and {rows} rows")
    about = json.loads(out.with_suffix(".json").read_text())
    if about["bank"]["pairs"] != 1000:
        raise RuntimeError(f"a bank of {about['bank']['pairs']} pairs")
    # processor time, because wall time depends on other work on the machine
    seconds = used.ru_utime + used.ru_stime
    return {"pairs": float(pairs), "seconds": seconds, "clock": clock, "mib": used.ru_maxrss / 1024}
