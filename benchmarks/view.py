"""Benchmark of the explorer in headless Chromium: `python benchmarks/view.py` prints what each demand takes.

Synthetic pairs, exported; with `--run RUN`, such as the run of `clipmem demo`, `clipmem view` is measured as well: on
it, and on a run of as many pairs with 512 numbers an embedding, made of its tables. All requests to other machines are
refused. `--json FILE` stores the numbers for RESULTS.md. Needs the `dev` extra, Chromium, and 6 GB in the
temporary folder. Run nothing else on the machine meanwhile.
"""

import argparse
import functools
import http.server
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.timing import machine
from tests.e2e.browser import Session, started
from tests.view_folder import write_view

USABLE = "performance.getEntriesByName('clipmem usable')[0]?.startTime"
THREE = "in.clipmem=0..Infinity&is.role=candidate&in.g_alignment=0.1..0.4"
# change the address, wait until the page has drawn it, and return the milliseconds: the named parts, and until drawn
CHANGE = """async ([address, names]) => {
  performance.clearMeasures();
  const start = performance.now();
  location.hash = address;
  await new Promise(resolve => addEventListener('hashchange', resolve, {once: true}));
  for (let k = 0; k < 2; k++) await new Promise(requestAnimationFrame);
  const drawn = performance.now() - start;
  await new Promise(resolve => setTimeout(resolve, 300));
  const found = performance.getEntriesByType('measure').filter(one => names.includes(one.name.slice(8)));
  return [found.reduce((sum, one) => sum + one.duration, 0), drawn];
}"""
LOADED = """count => {
  const loaded = [...document.images].filter(one => one.complete && one.naturalWidth);
  return loaded.length >= count ? performance.now() : 0;
}"""

NEAREST = """async address => {
  const start = performance.now(), answer = await fetch(address);
  await answer.json();
  return [answer.status, performance.now() - start];
}"""
ORDERED = "performance.getEntriesByName('clipmem order')[0].startTime"


class _Quiet(http.server.SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        pass


def served(folder: Path) -> http.server.ThreadingHTTPServer:
    """Serve a folder on a free port of this machine."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def usable(session: Session, address: str) -> tuple[Any, float]:
    """Open a page; return it, and the seconds until it shows its first pairs with captions."""
    page = session.open(address)
    page.wait_for_function(f"() => {USABLE}", timeout=60_000)
    return page, page.evaluate(USABLE) / 1000


def grown(run: Path, folder: Path, rows: int, width: int = 512) -> Path:
    """Make a run folder of many pairs from the tables of another one, with random embeddings and without images."""
    folder.mkdir()
    for name in ("recipe.toml", "manifest.json", "summary.json"):
        shutil.copy(run / name, folder / name)
    known = pl.read_parquet(run / "scores.parquet", columns=["uid"])["uid"]
    taken, uids = np.arange(rows) % len(known), pl.Series("uid", [f"{k:032x}" for k in range(rows)])
    for name in ("pairs", "splits", "scores", "seed_scores"):
        table = pl.read_parquet(run / f"{name}.parquet")
        one = table if name != "seed_scores" else table.filter(pl.col("seed") == table["seed"].min())
        own = known.to_frame().join(one, on="uid", how="left", maintain_order="left")[taken].with_columns(uids)
        changed = {"splits": {"captions_from": uids}, "pairs": {"group": uids}}.get(name, {})
        own.with_columns(**changed).write_parquet(folder / f"{name}.parquet")
    for side in ("f", "g"):
        place = folder / "embeddings" / side / "seed-0"
        place.mkdir(parents=True)
        file = np.lib.format.open_memmap(place / "image.npy", "w+", np.float32, (rows, 1, width))
        stream = np.random.default_rng(len(side))
        for start in range(0, rows, 65_536):
            part = file[start : start + 65_536]
            part[:] = stream.standard_normal(part.shape, dtype=np.float32)
        file.flush()
    return folder


@contextmanager
def viewing(run: Path) -> Generator[tuple[str, float, int]]:
    """Start `clipmem view`; yield the address, the seconds until it is printed, and the process."""
    command = [sys.executable, "-m", "clipmem", "view", str(run), "--no-browser"]
    began = time.monotonic()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603
        assert process.stdout is not None  # noqa: S101
        line = process.stdout.readline()
        try:
            yield line.split(" at ")[1].split(" ")[0], time.monotonic() - began, process.pid
        finally:
            process.terminate()


def live(session: Session, run: Path, rows: int, rounds: int, folder: Path) -> dict[str, list[float]]:
    """Measure `clipmem view` of a run, and of one with many pairs."""
    found: dict[str, list[float]] = {}

    def add(name: str, value: float) -> None:
        found.setdefault(name, []).append(value)

    many = grown(run, folder / "run", rows)
    for k in range(rounds):
        shutil.rmtree(run / "view", ignore_errors=True)
        began = time.monotonic()
        with viewing(run) as (address, _, _):
            session.open(address).wait_for_function(LOADED, arg=8, timeout=60_000, polling=10)
            add("run: command to first images", time.monotonic() - began)
            session.context.close()
        with viewing(many) as (address, seconds, pid):
            add(f"{rows:,} pairs: ready to serve{', the first time' * (k == 0)}", seconds)
            page, shown = usable(session, address)
            add(f"{rows:,} pairs: page usable", shown)
            page.wait_for_timeout(2000)  # until the captions of the first pairs are read
            for number in range(3):
                row = 1000 * (3 * k + number)
                status, took = page.evaluate(NEAREST, f"neighbors/{row}.json?space=image&side=f&k=20")
                assert status == 200  # noqa: S101
                add(f"{rows:,} pairs x 512: nearest{', the first time' * (number == 0)}", took / 1000)
            session.context.close()
            status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
            add("memory of the server, with embeddings and pairs", int(status.split("RssAnon:")[1].split()[0]) / 1024)
    return found


def thumbnails(session: Session, folder: Path) -> float:
    """Return the seconds from the first order of the pairs to 200 loaded images."""
    page = session.open(write_view(folder, 400, images=400).as_uri())
    page.set_viewport_size({"width": 1920, "height": 8000})
    page.reload()
    loaded = page.wait_for_function(LOADED, arg=200, timeout=60_000, polling=10).json_value()
    return (loaded - page.evaluate(ORDERED)) / 1000


def measure(session: Session, rows: int, rounds: int, folder: Path) -> dict[str, list[float]]:
    """Measure an export."""
    address = write_view(folder / "many", rows, images=0).as_uri()
    server = served(folder / "many")
    found: dict[str, list[float]] = {}

    def add(name: str, value: float) -> None:
        found.setdefault(name, []).append(value)

    for k in range(rounds):
        add("export opened as a file: usable", usable(session, address)[1])
        session.context.close()
        page, seconds = usable(session, f"http://127.0.0.1:{server.server_port}/index.html")
        add("export on a web server: usable", seconds)
        page.wait_for_timeout(1500)
        changes: list[tuple[str, str, str]] = [
            ("filter by three conditions", THREE, "filter order"),
            ("", "", ""),
            ("text search: red -bus", "q=red+-bus", "search order"),
            ("", "", ""),
            ("sort of all", "sort=f_alignment", "sort order"),
            ("map redraw, by role", "view=map", "map"),
        ]
        for name, change, parts in changes:
            engine, drawn = page.evaluate(CHANGE, [change, parts.split()])
            if name:
                add(name, engine)
                add(f"{name}, until drawn", drawn)
        heap = "Runtime.getHeapUsage"
        usage = page.context.new_cdp_session(page).send(heap)
        add("heap", (usage["usedSize"] + usage.get("backingStorageSize", 0)) / 1e6)
        session.context.close()
        add("200 thumbnails", thumbnails(session, folder / f"thumbs-{k}"))
        session.context.close()
    server.shutdown()
    return found


def checks(found: dict[str, list[float]], demands: dict[str, str]) -> list[dict[str, Any]]:
    """Return for each check its median over rounds, its largest value, unit and demand."""
    return [
        {"check": name, "median": statistics.median(values), "largest": max(values), "rounds": len(values)}
        | {"unit": demands.get(name, "ms").split()[-1], "demand": demands.get(name, "")}
        for name, values in found.items()
    ]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--pairs", type=int, default=1_000_000, help="number of pairs (1,000,000)")
    parser.add_argument("--rounds", type=int, default=3, help="number of rounds (3)")
    parser.add_argument("--run", type=Path, help="a run folder, to measure `clipmem view`")
    parser.add_argument("--json", type=Path, help="write the numbers to this file, with hardware and versions")
    chosen = parser.parse_args()
    described, many = machine() | {"device": "cpu"}, f"{chosen.pairs:,} pairs"
    with tempfile.TemporaryDirectory() as folder, started() as session:
        found = measure(session, chosen.pairs, chosen.rounds, Path(folder))
        if chosen.run:
            found = live(session, chosen.run, chosen.pairs, chosen.rounds, Path(folder)) | found
        if session.outside:
            raise SystemExit(f"requests to other machines: {session.outside}")
    demands = {
        "run: command to first images": "2 s", f"{many}: ready to serve": "6 s",
        f"{many}: ready to serve, the first time": "6 s", f"{many}: page usable": "3 s",
        f"{many} x 512: nearest": "1 s", f"{many} x 512: nearest, the first time": "1 s",
        "memory of the server, with embeddings and pairs": "2000 MB",
        "export opened as a file: usable": "6 s", "export on a web server: usable": "3 s", "heap": "400 MB",
        "filter by three conditions": "50 ms", "text search: red -bus": "200 ms", "sort of all": "400 ms",
        "map redraw": "150 ms", "map redraw, by role": "150 ms", "200 thumbnails": "1 s",
    }  # fmt: skip
    rows = checks(found, demands)
    print(f"{many}, {os.cpu_count()} cores, load {described['load_before']:.1f} before; median and largest")
    for row in rows:
        digits, demand = 2 if row["unit"] == "s" else 0, row["demand"] and f"at most {row['demand']}"
        numbers = f"{row['median']:>8.{digits}f} {row['largest']:>8.{digits}f}"
        print(f"{row['check']:<50} {numbers} {row['unit']:<3} {demand}")
    if chosen.json:
        chosen.json.write_text(json.dumps({"machine": described, "rows": rows}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
