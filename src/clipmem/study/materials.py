"""What the stages read: the rows of the split table with each pair's picture row and captions."""

from dataclasses import dataclass

import numpy as np
import polars as pl

from clipmem.base.recipes import Recipe
from clipmem.data.cache import open_cache
from clipmem.store.folder import RunFolder
from clipmem.train.loop import TrainingData

CACHE = "cache/pixels.npy"


@dataclass(frozen=True)
class Materials:
    """A planned study's pairs.

    Attributes:
        splits: The split table.
        pixels: The pixel cache; rows follow the pair table.
        rows: Row of `pixels` of each split row.
        captions: Captions of each split row: those that models are trained with and scored on.
    """

    splits: pl.DataFrame
    pixels: np.ndarray
    rows: np.ndarray
    captions: list[list[str]]

    def training_data(self, uids: tuple[str, ...]) -> TrainingData:
        """Return pictures and captions of these pairs, in their order."""
        position = {uid: index for index, uid in enumerate(self.splits["uid"])}
        chosen = np.array([position[uid] for uid in uids])
        return TrainingData(self.pixels, self.rows[chosen], [self.captions[index] for index in chosen])


def load(folder: RunFolder, recipe: Recipe) -> Materials:
    """Read a planned run folder.

    A planted pair has the captions of the pair named in `captions_from`. The first `train.captions` of each are used.
    """
    pairs, splits = folder.read("pairs"), folder.read("splits")
    row = {uid: index for index, uid in enumerate(pairs["uid"])}
    captions = pairs["captions"].to_list()
    return Materials(
        splits,
        open_cache(folder.path / CACHE),
        np.array([row[uid] for uid in splits["uid"]]),
        [captions[row[uid]][: recipe.train.captions] for uid in splits["captions_from"]],
    )
