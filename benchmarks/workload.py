"""The benchmark data: the shipped emoji as files and as a table, optionally with captions of COCO's length."""

import csv
import io
import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from clipmem.base.sections import DataSection
from clipmem.data.cache import build_cache, open_cache
from clipmem.data.decoding import Geometry
from clipmem.data.sources import open_source

COCO_WORDS = (8, 14)  # COCO's captions have 10.5 words on average; nearly all have 8 to 14


@dataclass(frozen=True)
class Workload:
    """Pairs in the formats of both sides.

    Attributes:
        csv: open_clip's table: columns filepath and title, separated by tabs.
        cache: The pixel cache.
        captions: One caption per pair.
        uids: The pairs.
        size: Side of the images.
    """

    csv: Path
    cache: Path
    captions: list[str]
    uids: list[str]
    size: int

    @property
    def pixels(self) -> np.ndarray:
        """The decoded images."""
        return open_cache(self.cache)


def emoji(folder: Path, *, size: int, pairs: int, coco: bool = False) -> Workload:
    """Write the first `pairs` emoji as image files with a CSV, and as a pixel cache.

    Args:
        folder: Output folder.
        size: Side of the cached images; the files are unchanged.
        pairs: Number of pairs; beyond 1,914 they repeat.
        coco: Imitate COCO: captions of its length from random words, and JPEG files of 640 x 480.
    """
    source = open_source(DataSection.model_validate({}))
    table = source.pairs()
    rows = [k % table.height for k in range(pairs)]
    captions = [own[0] for own in table["captions"].to_list()]
    if coco:
        words = " ".join(captions).split()
        stream = random.Random(0)  # noqa: S311
        captions = [" ".join(stream.sample(words, stream.randint(*COCO_WORDS))) for _ in captions]
    encoded = source.read(table["image"].to_list())[:pairs]
    if coco:
        encoded = [_photograph(data) for data in encoded]
    folder.mkdir(parents=True, exist_ok=True)
    files = folder / "files"
    files.mkdir(exist_ok=True)
    suffix = "jpg" if coco else "webp"
    for k, data in enumerate(encoded):
        (files / f"{k}.{suffix}").write_bytes(data)
    cache = folder / "pixels.npy"
    references = {row: str(k) for row, k in enumerate(rows)}
    build_cache(cache, references, lambda block: [encoded[int(k)] for k in block], Geometry(size))
    with (folder / "train.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, delimiter="\t")
        writer.writerow(["filepath", "title"])
        writer.writerows((files / f"{k}.{suffix}", captions[k]) for k in rows)
    return Workload(
        folder / "train.csv",
        cache,
        [captions[k] for k in rows],
        [f"{index:032x}" for index in range(pairs)],
        size,
    )


def _photograph(data: bytes) -> bytes:
    """Make a JPEG of COCO's usual size, which determines the decoding time."""
    with Image.open(io.BytesIO(data)) as image:
        white = Image.new("RGBA", image.size, "white")
        scaled = Image.alpha_composite(white, image.convert("RGBA")).convert("RGB").resize((640, 480))
    encoded = io.BytesIO()
    scaled.save(encoded, "JPEG", quality=90)
    return encoded.getvalue()
