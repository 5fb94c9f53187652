"""Tables of pairs: square images of at most 256 pixels with captions, kind, source, license and credit."""

import argparse
import contextlib
import hashlib
import io
import statistics
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from PIL import Image

from clipmem import ClipmemError
from clipmem.base.paths import atomic_file, check_new_table
from clipmem_reproduce.data.packages import Package

SIZE = 256  # of an image, at most
FLAT = 4.0  # standard deviation of the pixels below which an image is blank
LEVEL = 12.0  # standard deviation of a border of one color, at most
QUALITY = 90
SCHEMA: Any = {
    "image": pl.Struct({"bytes": pl.Binary, "path": pl.String}),
    "captions": pl.List(pl.String),
    **dict.fromkeys(("label", "group", "source", "license", "credit"), pl.String),
}


class Pair(NamedTuple):
    """An image and its captions, or the reason why it is left out.

    Attributes:
        package: Where it is from.
        path: Name of the image.
        reason: Why it is left out; "" if it is not.
        file: The image.
        captions: Captions, most usual one first.
        label: Kind of thing.
        group: What is in the image. Pairs of one group get the same role.
        credit: Whom to credit.
    """

    package: Package
    path: str
    reason: str = ""
    file: Path = Path()
    captions: tuple[str, ...] = ()
    label: str = ""
    group: str = ""
    credit: str = ""


def unique(captions: Iterable[str], most: int) -> tuple[str, ...]:
    """Return the first captions, each once, whatever their case.

    Example:
        >>> unique(["Crab", "", "crab", "Sea crab"], 5)
        ('Crab', 'Sea crab')
    """
    texts: dict[str, str] = {}
    for caption in captions:
        text = " ".join(caption.split())
        texts.setdefault(text.casefold(), text)
    return tuple(text for text in texts.values() if text)[:most]


def squared(image: Image.Image) -> Image.Image:
    """Return an image as an RGB square of at most 256 pixels.

    What is transparent is cut off or white. A border of one color is continued; other images are cropped to their
    center.
    """
    if "A" in image.mode or "transparency" in image.info:
        image = image.convert("RGBA")
        image = image.crop(image.getchannel("A").getbbox())
        white = Image.new("RGBA", image.size, "white")
        white.alpha_composite(image)
        image = white.convert("RGB")
        color: tuple[int, ...] | None = (255, 255, 255)
    else:
        image = image.convert("RGB")
        color = border_of(np.asarray(image))
    side = max(image.size) if color else min(image.size)
    square = Image.new("RGB", (side, side), color or "white")
    square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    square.thumbnail((SIZE, SIZE), Image.Resampling.LANCZOS)
    return square


def border_of(pixels: np.ndarray) -> tuple[int, ...] | None:
    """Return the color of the two shorter edges of an image; None if they have several."""
    height, width = pixels.shape[:2]
    edges = pixels[:, [0, -1]] if width >= height else pixels[[0, -1]]
    flat = edges.reshape(-1, 3)
    return tuple(np.median(flat, axis=0).astype(int).tolist()) if flat.std(axis=0).max() <= LEVEL else None


def rows(pairs: Iterable[Pair], tally: Counter[tuple[str, str]]) -> Iterator[dict[str, Any]]:
    """Yield the rows of the table, and count in `tally` what is left out, by source and reason ("" if kept)."""
    digests = set[str]()
    for pair in pairs:
        reason, square = pair.reason, None
        if not reason:
            with contextlib.suppress(OSError), Image.open(pair.file) as image:  # not an image, or cut off
                square = squared(image)
            pixels = np.asarray(square or Image.new("RGB", (1, 1)))
            digest = hashlib.sha256(pixels.tobytes()).hexdigest()
            reason = "identical to another image" if digest in digests else ""
            reason = "not readable" if square is None else "blank" if pixels.std() < FLAT else reason
            digests.add(digest)
        tally[pair.package.source, reason] += 1
        if reason or square is None:
            continue
        stream = io.BytesIO()
        square.save(stream, "WEBP", quality=QUALITY, method=6)
        yield {
            "image": {"bytes": stream.getvalue(), "path": f"{pair.path}.webp"},
            "captions": list(pair.captions),
            **{key: getattr(pair, key) for key in ("label", "group", "credit")},
            **{key: getattr(pair.package, key) for key in ("source", "license")},
        }


def write(out: Path, pairs: Iterable[Pair]) -> str:
    """Write the table of pairs, and return in words what was kept and what was left out."""
    tally = Counter[tuple[str, str]]()
    table = pl.DataFrame(list(rows(pairs, tally)), schema=SCHEMA)
    with atomic_file(out) as stream:
        table.write_parquet(stream)
    lines = [f"{table.height:,} pairs in {out}"]
    for source in dict.fromkeys(source for source, _ in tally):
        lines.append(f"{source}: {tally[source, '']:,} kept")
        lines += [f"  {count:,} left out: {reason}" for (of, reason), count in tally.items() if of == source and reason]
    if table.height:
        counts = table["captions"].list.len().to_list()
        first = table["captions"].list.first().n_unique()
        lines.append(f"captions: median {statistics.median(counts):g} a pair, {first:,} different first ones")
        lines.append(f"{table['label'].n_unique()} kinds, {table['group'].n_unique():,} groups")
    return "\n".join(lines)


def main(pairs: Callable[[Path], Iterable[Pair]], description: str | None) -> None:
    """Run a builder: its command line, and one line for an error."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, metavar="OUT.parquet", help="table to write")
    parser.add_argument("--packages", type=Path, help="folder of the packages, used again; by default a temporary one")
    options = parser.parse_args()
    try:
        check_new_table(options.out, "OUT.parquet")
        with tempfile.TemporaryDirectory() as temporary:
            sys.stdout.write(write(options.out, pairs(options.packages or Path(temporary))) + "\n")
    except ClipmemError as error:
        parser.exit(error.exit_code, f"{error}\n")
