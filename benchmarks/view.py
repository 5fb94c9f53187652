"""Benchmark of the explorer's page in headless Chromium: `python benchmarks/view.py` prints what each demand takes.

Synthetic pairs, exported; all requests to other machines are refused. Needs the `dev` extra and Chromium. Run nothing
else on the machine meanwhile.
"""

import argparse
import functools
import http.server
import os
import statistics
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

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


def thumbnails(session: Session, folder: Path) -> float:
    """Return the seconds from the first order of the pairs to 200 loaded images."""
    page = session.open(write_view(folder, 400, images=400).as_uri())
    page.set_viewport_size({"width": 1920, "height": 8000})
    page.reload()
    loaded = page.wait_for_function(LOADED, arg=200, timeout=60_000, polling=10).json_value()
    return (loaded - page.evaluate(ORDERED)) / 1000


def measure(rows: int, rounds: int, folder: Path) -> list[tuple[str, float, float, str, str]]:
    """Return for each check its median over rounds, its largest value, unit and demand."""
    address = write_view(folder / "many", rows, images=0).as_uri()
    server = served(folder / "many")
    found: dict[str, list[float]] = {}

    def add(name: str, value: float) -> None:
        found.setdefault(name, []).append(value)

    with started() as session:
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
                ("map redraw", "view=map", "map"),
                ("map redraw, by role", "view=map&group=role", "map"),
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
    if session.outside:
        raise SystemExit(f"requests to other machines: {session.outside}")
    demands = {
        "export opened as a file: usable": "6 s", "export on a web server: usable": "3 s", "heap": "400 MB",
        "filter by three conditions": "50 ms", "text search: red -bus": "200 ms", "sort of all": "400 ms",
        "map redraw": "150 ms", "map redraw, by role": "150 ms", "200 thumbnails": "1 s",
    }  # fmt: skip
    unit: Callable[[str], str] = lambda name: demands.get(name, "ms").split()[-1]  # noqa: E731
    return [
        (name, statistics.median(all_), max(all_), unit(name), demands.get(name, "")) for name, all_ in found.items()
    ]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--pairs", type=int, default=1_000_000, help="number of pairs (1,000,000)")
    parser.add_argument("--rounds", type=int, default=3, help="number of rounds (3)")
    chosen = parser.parse_args()
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        rows = measure(chosen.pairs, chosen.rounds, Path(folder))
    print(
        f"{chosen.pairs:,} pairs, {os.cpu_count()} cores, load {load:.1f} before; median and largest of {chosen.rounds}"
    )
    for name, median, largest, unit, demand in rows:
        digits = 2 if unit == "s" else 0
        print(
            f"{name:<46} {median:>8.{digits}f} {largest:>8.{digits}f} {unit:<3} {f'at most {demand}' if demand else ''}"
        )


if __name__ == "__main__":
    main()
