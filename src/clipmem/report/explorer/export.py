"""The explorer as a folder of files that opens by double click, and on any static server.

Browsers let a page that was opened from a file load scripts, but no data: column files and details are scripts that
call `clipmemData(name, value)`, arrays as base64.
"""

import base64
import json
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from clipmem.base.errors import require, shorten
from clipmem.base.paths import atomic_write, check_place, make_folder, reading
from clipmem.base.progress import Reporter
from clipmem.data.user_tables import read_table
from clipmem.report.explorer.columns import MISSING, About, Columns
from clipmem.report.explorer.neighbors import SPACES, Neighbor
from clipmem.report.explorer.server import SIZES, STATIC, Explorer, page, static

MOST = 20_000  # pairs, unless chosen
NEIGHBORS = 10
BLOCK = 256  # pairs in a file of details


def choose(columns: Columns, rows: int | None, uids: Path | None, *, every: bool) -> list[int]:
    """Return the rows to export: the first ones in the order in which the page opens, listed ones, or all."""
    n, first, descending = len(columns), *columns.manifest["sort"].values()
    hint = f"Choose with --rows {MOST}, --uids FILE or --all."
    require((rows is not None) + (uids is not None) + every < 2, "--export", "several choices", "one", hint)
    if uids is not None:
        if uids.suffix == ".txt":
            with reading(f"--uids {uids}", expected="a text file, one uid a line"):
                listed = uids.read_text(encoding="utf-8").split()
        else:
            listed = read_table(uids, "--uids", ["uid"])["uid"].cast(pl.String).to_list()
        unknown = [uid for uid in listed if uid not in columns.row_of]
        got = f"unknown uid {', '.join(map(shorten, unknown[:1]))} ({len(unknown):,} of {len(listed):,})"
        usable, hint = listed and not unknown, "Take uids from the table of scores."
        require(usable, f"--uids {uids}", got if listed else "no uid", "uids of the viewed pairs", hint)
        return sorted({columns.row_of[uid] for uid in listed})
    require(rows or every or n <= MOST, "--export", f"{n:,} pairs", f"at most {MOST:,} without a choice", hint)
    if rows is None or first == "uid":
        return list(range(n))[:rows]
    values = columns.values(first).astype(np.float64)
    return sorted(np.argsort(-values if descending else values, kind="stable")[:rows].tolist())  # NaN last


def export_to(out: Path, explorer: Explorer, rows: Sequence[int], reporter: Reporter) -> Path:
    """Write the pairs of some rows to a new or empty folder, and return its index.html, which is written last."""
    free = not out.exists() or (out.is_dir() and not any(out.iterdir()))
    require(free, f"--export {out}", "an existing file, or a folder with files", "a new folder", "Choose another.")
    check_place(out)
    reporter.begin("export", len(rows), "pairs")
    columns, images, credit_lines = explorer.columns, 0, dict.fromkeys(explorer.columns.manifest["credits"])
    abouts: list[About] = []
    for name, about in columns.by_name.items():
        values, about = np.array(columns.values(name)[rows]), about.copy()
        if about["type"] == "text":
            texts = (columns.folder / f"{name}.strings.bin").read_bytes().split(b"\0")
            used = np.unique(values[values != MISSING])
            values = np.where(values == MISSING, MISSING, np.searchsorted(used, values)).astype("<i4")
            _script(out, f"columns/{name}.strings", base64.b64encode(b"\0".join(texts[code] for code in used)).decode())
        _script(out, f"columns/{name}", base64.b64encode(values.tobytes()).decode())
        if about["type"] in {"f32", "i32"}:
            finite = values[np.isfinite(values) & (values != MISSING)]
            about["missing"] = len(values) - len(finite)
            if len(finite):
                about["min"], about["max"] = finite.min().item(), finite.max().item()
        abouts.append(about)
    near = [{space: dict[str, list[Neighbor]]() for space in SPACES} for _ in rows]
    for space, side in product(SPACES, columns.manifest["sides"]):
        nearest = explorer.embedded.nearest_among(np.array(rows), space, side, NEIGHBORS) if explorer.embedded else ()
        for by_space, entries in zip(near, nearest, strict=True):
            by_space[space][side] = entries
    details = [columns.details(row) | {"row": k, "neighbors": near[k]} for k, row in enumerate(rows)]
    for k, row in enumerate(rows):
        image = explorer.thumbnails.get(row, SIZES[-1])
        if image is not None:
            (make_folder(out / "thumbs") / f"{k}.webp").write_bytes(image)
            images += 1
            credit_lines |= dict.fromkeys([details[k]["credit"]] if details[k]["credit"] else [])
        if k % BLOCK == 0:
            _script(out, f"details/{k // BLOCK}", details[k : k + BLOCK])
        reporter.advance(1)
    changed = {"rows": len(rows), "total": len(columns), "columns": abouts, "thumbnails": images > 0}
    opens_with = {"picks": columns.picks(rows), "credits": list(credit_lines)}
    _script(out, "manifest", columns.manifest | changed | opens_with)
    none = ["The data name no license: ask their source before you publish this folder."]
    notice = [f"Images and captions exported from {columns.manifest['title']}:", "", *(credit_lines or none)]
    atomic_write(out / "NOTICE.txt", "".join(f"{line}\n" for line in notice).encode())
    for name in STATIC:
        atomic_write(out / name, static(name))
    atomic_write(out / "index.html", page(columns.manifest["title"]))
    return out / "index.html"


def _script(out: Path, name: str, value: Any) -> None:
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
    atomic_write(out / "data" / f"{name}.js", f'clipmemData("{name}",{text})\n'.encode("utf-8", "surrogatepass"))
