"""Small fixtures for tests: a study that takes seconds, images and Parquet files."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
from PIL import Image

from clipmem.base.recipes import Recipe, load_recipe
from clipmem.base.tables import SCHEMAS
from clipmem.train.paired import TrainingSet

TINY_STUDY = """
[split]
shared = 60
candidate = 20
independent = 20
external = 20
planted = 4

[model]
name = "clipmem-micro"

[train]
seeds = [0, 1]
epochs = 2
batch_size = 32

[embed]
precision = "fp32"

[score]
draws = 200
"""


def tiny_recipe(*settings: str) -> Recipe:
    """Return a study that takes seconds: 100 training pairs, two seeds, two epochs, the smallest model."""
    return load_recipe(TINY_STUDY, settings)


def encoded_image(seed: int, *, size: int = 32, form: str = "PNG") -> bytes:
    """Return an encoded image of random colored rectangles."""
    rng = np.random.default_rng(seed)
    pixels = np.full((size, size, 3), 255, dtype=np.uint8)
    for _ in range(6):
        top, left = rng.integers(0, size - 4, size=2)
        height, width = rng.integers(4, size // 2, size=2)
        pixels[top : top + height, left : left + width] = rng.integers(0, 256, size=3)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, form)
    return stream.getvalue()


def write_parquet(path: Path, n: int, *, captions: Sequence[Sequence[str]] | None = None) -> Path:
    """Write `n` pairs as Parquet with the columns image (struct of bytes and path) and captions."""
    rows = [{"bytes": encoded_image(seed), "path": f"{seed}.png"} for seed in range(n)]
    texts = captions or [[f"thing number {seed}", f"number {seed}"] for seed in range(n)]
    pl.DataFrame({"image": rows, "captions": [list(own) for own in texts]}).write_parquet(path)
    return path


def epoch_batches(n, batch_size, *, seed, epoch, largest=0):
    """The batches of an epoch of n slots."""
    uids = tuple(f"{k:032x}" for k in range(n))
    return TrainingSet("f", seed, uids, n, largest=largest).batches(batch_size, epoch)


def whole(name, table):
    """Add the columns of `SCHEMAS[name]` that a table lacks: empty lists, empty roles, and nulls."""
    columns = list[pl.Series]()
    for column, kind in SCHEMAS[name].items():
        empty = [] if kind == pl.List(pl.String) else "" if column == "role" else None
        if column not in table.columns:
            columns.append(pl.Series(column, [empty] * table.height, dtype=kind))
    return table.with_columns(columns)
