"""The explorer as a folder of files that opens by double click, and on any static server; or as one HTML file.

Browsers let a page that was opened from a file load scripts, but no data: in a folder, column files and details are
scripts that call `clipmemData(name, value)`, arrays as base64. In one file, the same pieces are elements of the page.
"""

import base64
import html
import json
import time
from collections.abc import Sequence
from itertools import product
from pathlib import Path

import numpy as np
import polars as pl

from clipmem.base.errors import ClipmemError, require, require_range, shorten
from clipmem.base.hashing import json_sha256
from clipmem.base.marks import read_marks
from clipmem.base.paths import atomic_write, check_place, make_folder, reading
from clipmem.base.progress import Reporter, by_work
from clipmem.data.user_tables import read_table
from clipmem.report.explorer.columns import MISSING, About, Columns
from clipmem.report.explorer.neighbors import SPACES, Neighbor
from clipmem.report.explorer.server import PIECES, SIZES, STATIC, Explorer, encoded, page, static
from clipmem.report.formats import visible
from clipmem.report.run import Document

MOST, MOST_IN_FILE, MOST_IN_SPACE = 20_000, 2_000, 10_000  # pairs, unless chosen; in one file; images in a folder there
FILE_BYTES = 25_000_000  # of one file, so that it can be mailed
NEIGHBORS = 10
BLOCK = 256  # pairs in a file of details
_COMPARED, _DESCRIBED = 2.3e-8, 5e-4  # seconds to compare two pairs, and to collect the details of one
_FEWER = "Choose fewer with --rows {}, or export a folder: a name without .html, and without --space."
_SPACE = """---
title: {title}
emoji: 🔎
colorFrom: blue
colorTo: indigo
sdk: static
app_file: index.html
pinned: false
---
Images with their captions, written by `clipmem view`. NOTICE.txt has the credits of the images.
"""
_TIMED = 8  # images that are timed first: those of photographs take ten times as long as drawings


def choose(
    columns: Columns, out: Path, rows: int | None, uids: Path | None, *, every: bool, as_space: bool = False
) -> list[int]:
    """Return the rows to export: the first ones in the order in which the page opens, listed ones, or all."""
    n, first, descending = len(columns), *columns.manifest["sort"].values()
    most = MOST_IN_FILE if out.suffix == ".html" else MOST_IN_SPACE if as_space else MOST
    hint = f"Choose with --rows {most}, --uids FILE or --all."
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
    require(rows or every or n <= most, "--export", f"{n:,} pairs", f"at most {most:,} without a choice", hint)
    if rows is None or first == "uid":
        return list(range(n))[:rows]
    values = columns.values(first).astype(np.float64)
    return sorted(np.argsort(-values if descending else values, kind="stable")[:rows].tolist())  # NaN last


class _Pieces:
    """Where an export goes: files of a folder, or elements of one page NAME.html, which hold data and run nothing."""

    def __init__(self, out: Path, rows: int, *, as_space: bool) -> None:
        self.out, self.rows, self.as_space, self.elements = out, rows, as_space, list[bytes]()
        self.inline = out.suffix == ".html"
        require(not (as_space and self.inline), "--space", f"--export {out}", "a folder", "Give a name without .html.")
        most, unit = (MOST_IN_SPACE, "a Space") if as_space else (MOST_IN_FILE, "one file")
        few = rows <= most or not (as_space or self.inline)
        require(few, f"--export {out}", f"{rows:,} pairs", f"at most {most:,} in {unit}", _FEWER.format(most))
        free = not out.exists() or (not self.inline and out.is_dir() and not any(out.iterdir()))
        require(free, f"--export {out}", "an existing file, or a folder with files", "a new path", "Choose another.")
        check_place(out)

    def data(self, name: str, value: object) -> None:
        """Add a value that the page reads by its name."""
        if self.inline:
            tag = f'<script type="application/json" id="{html.escape(name)}">'.encode("utf-8", "surrogatepass")
            self.elements.append(b"%b%b</script>\n" % (tag, _json(value)))
        else:
            atomic_write(self.out / "data" / f"{name}.js", b"clipmemData(%b,%b)\n" % (_json(name), _json(value)))

    def image(self, row: int, data: bytes) -> None:
        """Add the thumbnail of an exported row, as WebP."""
        if self.inline:
            self.data(f"thumbs/{row}", base64.b64encode(data).decode())
        else:
            (make_folder(self.out / "thumbs") / f"{row}.webp").write_bytes(data)

    def close(self, title: str, notice: str) -> Path:
        """Write the rest, and return the page, which is written last."""
        if self.inline:
            self.data("NOTICE.txt", notice)
            text = page(title, inline=True).replace(PIECES, b"".join(self.elements), 1)
            got, most = f"{len(text) / 1e6:.0f} MB", f"at most {FILE_BYTES / 1e6:.0f} MB in one file"
            hint = _FEWER.format(max(1, int(0.95 * self.rows * FILE_BYTES / len(text))))
            require(len(text) <= FILE_BYTES, f"--export {self.out}", got, most, hint)
            atomic_write(self.out, text)
            return self.out
        atomic_write(self.out / "NOTICE.txt", notice.encode())
        for name in STATIC:
            atomic_write(self.out / name, static(name))
        if self.as_space:  # git refuses images there that are not in its large file storage
            atomic_write(self.out / ".gitattributes", b"*.webp filter=lfs diff=lfs merge=lfs -text\n")
            atomic_write(self.out / "README.md", _SPACE.format(title=json.dumps(title, ensure_ascii=False)).encode())
        atomic_write(self.out / "index.html", page(title))
        return self.out / "index.html"


def _write_columns(columns: Columns, rows: Sequence[int], target: _Pieces) -> list[About]:
    """Write the values of some rows, and return the entries of the columns in the manifest."""
    abouts: list[About] = []
    for name, about in columns.by_name.items():
        values, about = np.array(columns.values(name)[rows]), about.copy()
        if about["type"] == "text":
            texts = (columns.folder / f"{name}.strings.bin").read_bytes().split(b"\0")
            used = np.unique(values[values != MISSING])
            values = np.where(values == MISSING, MISSING, np.searchsorted(used, values)).astype("<i4")
            joined = b"\0".join(texts[code] for code in used)
            target.data(f"columns/{name}.strings", base64.b64encode(joined).decode())
        target.data(f"columns/{name}", base64.b64encode(values.tobytes()).decode())
        if about["type"] in {"f32", "i32"}:
            finite = values[np.isfinite(values) & (values != MISSING)]
            about["missing"] = len(values) - len(finite)
            if len(finite):
                about["min"], about["max"] = finite.min().item(), finite.max().item()
        abouts.append(about)
    return abouts


def _write_words(explorer: Explorer, rows: Sequence[int], target: _Pieces) -> dict[str, object]:
    """Write the vectors of the captions' words and of the images; return how many words, or why there are none."""
    try:
        require_range("pairs searched by meaning", len(rows), high=MOST, hint=f"Choose fewer with --rows {MOST}.")
        vectors = explorer.meaning.vectors(np.array(rows), explorer.subject.pairs)
    except (ClipmemError, OSError) as error:
        return {"words": 0, "no_words": visible(str(error), 500)}
    target.data("words", vectors)
    return {"words": len(vectors["words"])}


def export_to(
    out: Path, explorer: Explorer, rows: Sequence[int], reporter: Reporter, *, as_space: bool = False
) -> Path:
    """Write the pairs of some rows, with their marks, to a new or empty folder, or to one file; return the page."""
    target = _Pieces(out, len(rows), as_space=as_space)
    columns, images, credit_lines = explorer.columns, 0, dict.fromkeys(explorer.columns.manifest["credits"])
    marks, lists = read_marks(explorer.marks_file), list(product(SPACES, columns.manifest["sides"]))
    reporter.begin("embed")  # loads a model
    words = _write_words(explorer, rows, target)
    times = [time.perf_counter()]
    for row in rows[:_TIMED]:  # they are kept
        explorer.thumbnails.get(row, SIZES[1])
        times.append(time.perf_counter())
    seconds = float(np.median(np.diff(times)))  # not the mean: the first one opens the data
    work = {"neighbors": len(rows) * len(lists) * _COMPARED, "details": _DESCRIBED, "images": seconds}
    progress, share = by_work(reporter, "export", len(rows), "pairs", work), 1 / len(rows)
    abouts = _write_columns(columns, rows, target)
    near = [{space: dict[str, list[Neighbor]]() for space in SPACES} for _ in rows]
    for space, side in lists:
        nearest = explorer.embedded.nearest_among(np.array(rows), space, side, NEIGHBORS) if explorer.embedded else ()
        for by_space, entries in zip(near, nearest, strict=True):
            by_space[space][side] = entries
            progress("neighbors", share / len(lists))
    details, places = list[Document](), {row: k for k, row in enumerate(rows)}
    for k, row in enumerate(rows):
        details.append(columns.details(row) | {"row": k, "neighbors": near[k]})
        if why := details[k]["why"]:
            why["near"] = [places[other] for other in why["near"] if other in places]
        progress("details", share)
    for k, row in enumerate(rows):
        image = explorer.thumbnails.get(row, SIZES[1])
        if image is not None:
            target.image(k, image)
            images += 1
            credit_lines |= dict.fromkeys([details[k]["credit"]] if details[k]["credit"] else [])
        if k % BLOCK == 0:
            target.data(f"details/{k // BLOCK}", details[k : k + BLOCK])
        progress("images", share)
    uids = [columns.uids[row] for row in rows]
    marked = [{"row": k} | marks[uid]._asdict() for k, uid in enumerate(uids) if uid in marks]
    # marks in a browser are kept by hash, and by row: other rows are another page
    changed = {"rows": len(rows), "total": len(columns), "columns": abouts, "thumbnails": images > 0, "marked": marked}
    changed |= {"hash": json_sha256([columns.manifest["hash"], list(rows)]), "credits": list(credit_lines)}
    target.data("manifest", columns.manifest | changed | words | {"picks": columns.picks(rows)})
    none = ["The data name no license: ask their source before you publish this folder."]
    notice = [f"Images and captions exported from {columns.manifest['title']}:", "", *(credit_lines or none)]
    return target.close(columns.manifest["title"], "".join(f"{line}\n" for line in notice))


def _json(value: object) -> bytes:
    """Return a value as JSON that can be part of a script and of a page."""
    return encoded(value).replace(b"<", b"\\u003c")
