"""What the stages read: the rows of the split table with each pair's picture row and captions."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from jaxtyping import UInt8

from clipmem.base.recipes import Recipe
from clipmem.data.cache import open_cache
from clipmem.mitigate.base import captions_in_training
from clipmem.store.folder import RunFolder
from clipmem.train.loop import TrainingData

# the pictures at the study's first size: the only one, unless models of several sizes are given
CACHE = "cache/pixels.npy"


def cache_file(folder: RunFolder, size: int, *, first: int) -> Path:
    """Return where the pictures of side `size` lie, `first` being the study's first size."""
    return folder.path / (CACHE if size == first else f"cache/pixels-{size}.npy")


def pixels(folder: RunFolder, size: int) -> UInt8[np.ndarray, "n size size 3"]:
    """Open the pixel cache for a model that takes pictures of side `size`."""
    found = open_cache(folder.path / CACHE)
    return found if found.shape[1] == size else open_cache(cache_file(folder, size, first=found.shape[1]))


@dataclass(frozen=True)
class Materials:
    """A planned study's pairs.

    Attributes:
        splits: The split table.
        pixels: The pixel cache; rows follow the pair table.
        rows: Row of `pixels` of each split row.
        captions: Captions of each split row: those that models are scored on.
        trained: Captions of each split row: those that models are trained with (see `captions_in_training`).
        labels: Class number of each split row's label, counted over all labels of the data.
        classes: How many labels there are; 0 when the data has none.
    """

    splits: pl.DataFrame
    pixels: np.ndarray
    rows: np.ndarray
    captions: list[list[str]]
    trained: list[list[str]]
    labels: np.ndarray
    classes: int

    def training_data(self, uids: tuple[str, ...]) -> TrainingData:
        """Return pictures and captions of these pairs, in their order."""
        position = {uid: index for index, uid in enumerate(self.splits["uid"])}
        chosen = np.array([position[uid] for uid in uids])
        return TrainingData(
            self.pixels,
            self.rows[chosen],
            [self.trained[index] for index in chosen],
            labels=self.labels[chosen] if self.classes else None,
            classes=self.classes,
        )


def load(folder: RunFolder, recipe: Recipe) -> Materials:
    """Read a planned run folder.

    A planted pair has the captions of the pair named in `captions_from`. The first `train.captions` of each are used;
    training uses the first `mitigate.captions.count`, where that is set.
    """
    pairs, splits = folder.read("pairs"), folder.read("splits")
    row = {uid: index for index, uid in enumerate(pairs["uid"])}
    captions = pairs["captions"].to_list()
    names = sorted(set(pairs["label"]) - {""})
    number = {name: k for k, name in enumerate(names)}
    # a pair without a label, in data that has some, would be trained towards a wrong class
    complete = bool(names) and "" not in set(pairs["label"])
    label = [number[name] for name in pairs["label"]] if complete else [0] * pairs.height
    rows = np.array([row[uid] for uid in splits["uid"]])
    return Materials(
        splits,
        open_cache(folder.path / CACHE),
        rows,
        [captions[row[uid]][: recipe.train.captions] for uid in splits["captions_from"]],
        [captions[row[uid]][: captions_in_training(recipe)] for uid in splits["captions_from"]],
        np.array(label, dtype=np.int64)[rows],
        len(names) if complete else 0,
    )
