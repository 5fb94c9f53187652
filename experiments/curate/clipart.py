"""Make a third data set for the benchmark of detectors: clip art by hundreds of people, with the titles that they gave.

    apt-get download openclipart-svg && dpkg-deb -x openclipart-svg_*.deb package
    pip install resvg-py
    python experiments/curate/clipart.py package clipart.parquet            # one caption that tells
    python experiments/curate/clipart.py package titles.parquet --titles    # the titles as they are

About 5,270 drawings of 64 x 64 pixels on white, public domain, from Debian's package of the Open Clip Art Library. A
caption is the title; where 10 or more drawings have the same title, which names their collection, it is the words of
the file name instead, without numbers. Drawings of which neither has a word, generated stars, gradients and patterns,
and identical images are left out. With `--titles` the caption is the title alone, however many share it: data with
the errors that people made. The category is the top folder; author and license are those that the package states.
"""

import argparse
import hashlib
import html
import io
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

SIZE, SHARED = 64, 10
TITLE = r"<dc:title>(.*?)</dc:title>"
AUTHOR = r"<dc:creator>(?:(?!</dc:creator>).)*?<dc:title>(.*?)</dc:title>"
LICENSE = "CC-PDDC"  # Creative Commons' public domain dedication, by SPDX's name
GENERATED = ("shapes/stars", "special")
FLAT = 4  # standard deviation of the pixels below which an image is blank


class Drawing(NamedTuple):
    """A file, its title, its author and its folder."""

    file: Path
    title: str
    author: str
    folder: str


def text_of(content: str, pattern: str) -> str:
    """Return the text that a pattern finds in a drawing; "" if there is none."""
    match = re.search(pattern, content, re.DOTALL)
    return " ".join(html.unescape(match[1]).split()) if match else ""


def drawings(package: Path) -> list[Drawing]:
    """Return the drawings of the package and their titles."""
    root, found = package / "usr/share/openclipart/svg", list[Drawing]()
    for file in sorted(root.rglob("*.svg")):
        folder = file.parent.relative_to(root).as_posix()
        content = file.read_text("utf-8", "replace")
        if not folder.startswith(GENERATED):
            found.append(Drawing(file, text_of(content, TITLE), text_of(content, AUTHOR), folder))
    return found


def words(name: str) -> str:
    """Return the words of a file name, without numbers.

    Example:
        >>> words("folder_bomb-02")
        'folder bomb'
    """
    return " ".join(word for word in re.split(r"[^a-z]+", name.lower()) if len(word) > 1)


def rendered(file: Path) -> Image.Image | None:
    """Draw a file in the middle of a white square; None if it cannot be drawn or is blank."""
    import resvg_py

    try:
        drawn = bytes(resvg_py.svg_to_bytes(svg_path=str(file), background="#ffffff", width=4 * SIZE, dpi=96))
        image = Image.open(io.BytesIO(drawn)).convert("RGB")
    except Exception:  # noqa: BLE001  resvg raises its own errors for drawings that it does not know
        return None
    side = max(image.size)
    if side > 64 * SIZE:  # a line
        return None
    square = Image.new("RGB", (side, side), "white")
    square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    square = square.resize((SIZE, SIZE), Image.Resampling.LANCZOS)
    return square if np.asarray(square).std() >= FLAT else None


def rows(package: Path, *, titles: bool) -> Iterator[dict[str, Any]]:
    """Yield the rows of the table."""
    found, seen = drawings(package), set[str]()
    count = Counter(one.title.lower() for one in found)
    for one in found:
        caption = one.title if titles or count[one.title.lower()] < SHARED else words(one.file.stem)
        if not re.search(r"[^\W\d_]{2}", caption):
            continue
        image = rendered(one.file)
        key = "" if image is None else hashlib.sha256(np.asarray(image).tobytes()).hexdigest()
        if image is None or key in seen:
            continue
        seen.add(key)
        stream = io.BytesIO()
        image.save(stream, "WEBP", lossless=True, quality=60)
        yield {
            "image": {"bytes": stream.getvalue(), "path": f"{one.folder}/{one.file.stem}.webp"},
            "captions": [caption],
            "category": one.folder.split("/")[0],
            "author": one.author,
            "license": LICENSE,
        }


def main() -> None:
    """Write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("package", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--titles", action="store_true", help="captions as people gave them")
    args = parser.parse_args()
    table = pa.Table.from_pylist(list(rows(args.package, titles=args.titles)))
    pq.write_table(table, args.out, compression="zstd")
    print(f"{table.num_rows:,} drawings in {args.out}")


if __name__ == "__main__":
    main()
