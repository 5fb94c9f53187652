"""Image variants: some samples show another image of the pair.

With probability p, drawn by (seed, epoch, pair), the pair's image is replaced, depending on the source:

    given    by another image of the pair in the data (`variants` of the pair table), drawn uniformly
    augment  by a stronger crop of its own image with color jitter
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
import torch
from jaxtyping import UInt8, UInt64
from torch import Tensor

from clipmem.base.errors import require
from clipmem.base.mitigations import ImageVariantsSection
from clipmem.base.random import derive_seed, uniform
from clipmem.base.recipes import Recipe
from clipmem.base.sections import TrainSection
from clipmem.data.cache import build_cache, open_cache
from clipmem.data.decoding import DecodeError
from clipmem.data.views import Crops, Images, Pixels, distort, draw_crops, render
from clipmem.mitigate.base import MITIGATIONS, Mitigation, Preparation, Training
from clipmem.mitigate.captions import choose_variant
from clipmem.train.hooks import Moment

TABLE = "mitigate/image_variants"
CACHE = "cache/variants.npy"


@MITIGATIONS.register("image_variants")
class ImageVariants(Mitigation):
    """`[mitigate.image_variants]`."""

    summary = "Show other images of a pair in some samples."

    def __init__(
        self,
        section: ImageVariantsSection,
        seed: int,
        train: TrainSection,
        pixels: UInt8[np.ndarray, "rows side side 3"] | None,
        rows: Sequence[Sequence[int]],
    ) -> None:
        super().__init__(section, seed)
        self._train, self._pixels = train, pixels
        self._counts = np.array([len(variants) for variants in rows], dtype=np.int64)
        self._rows = np.array([row for variants in rows for row in variants], dtype=np.int64)
        self._first = np.concatenate([[0], np.cumsum(self._counts)[:-1]]).astype(np.int64)

    @classmethod
    def check(cls, recipe: Recipe, pairs: pl.DataFrame) -> None:
        has_images = cls.section_of(recipe).source != "given" or (pairs["variants"].list.len() > 0).any()
        subject, got = "[mitigate.image_variants] source = 'given'", f"{pairs.height:,} pairs, none with another image"
        hint = "Set mitigate.image_variants.source to 'augment', which needs no other images."
        require(has_images, subject, got, "data with several images per pair", hint)

    @classmethod
    def prepare(cls, preparation: Preparation) -> list[Path]:
        section = cls.section_of(preparation.recipe)
        if section.source == "augment":
            return []
        trained = set(preparation.splits.filter(pl.col("role") != "external")["uid"])
        images = zip(preparation.pairs["uid"], preparation.pairs["variants"].to_list(), strict=True)
        owners = [(uid, image) for uid, others in images if uid in trained for image in others[: section.count or None]]
        table = pl.DataFrame(owners, schema=["uid", "reference"], orient="row")
        cache, problems = preparation.folder.path / CACHE, [""] * table.height

        def leave_out(index: int, error: DecodeError) -> None:
            problems[index] = str(error)

        references = dict(enumerate(table["reference"]))
        build_cache(cache, references, preparation.read, preparation.geometry, left_out=leave_out)
        usable = pl.col("problem") == ""
        row = pl.when(usable).then(usable.cast(pl.Int64).cum_sum() - 1)
        table = table.with_columns(problem=pl.Series(problems, dtype=pl.String)).with_columns(row=row)
        return [cache, preparation.folder.write(TABLE, table)]

    @classmethod
    def hook(cls, training: Training) -> "ImageVariants":
        section, uids, rows = cls.section_of(training.recipe), training.plan.uids, dict[str, list[int]]()
        pixels = None if section.source == "augment" else open_cache(training.folder.path / CACHE)
        if pixels is not None:
            for uid, row in training.folder.read(TABLE).select("uid", "row").drop_nulls().iter_rows():
                rows.setdefault(uid, []).append(row)
        return cls(section, training.plan.seed, training.recipe.train, pixels, [rows.get(uid, []) for uid in uids])

    def content(self) -> str:
        shape = None if self._pixels is None else self._pixels.shape
        return f"{shape} {self._rows.tolist()} {self._counts.tolist()}"

    def images(self, values: Images, pixels: Pixels, crops: Crops, moment: Moment, view: int) -> Images:
        u = uniform(moment.keys, derive_seed(self.seed, "image variant", moment.epoch, view), 1)[:, 0]
        if self._pixels is None:
            number = np.where(u < self.section.probability, 0, -1)
        else:
            number = choose_variant(u, self._counts[moment.slots], self.section.probability)
        places = np.flatnonzero(number >= 0)
        if not len(places):
            return values
        changed, on_device = values.clone(), torch.from_numpy(places).to(values.device)
        if self._pixels is None:
            changed[on_device] = self._augmented(pixels[on_device], moment.keys[places], moment, view, values.shape[-1])
            return changed
        rows = self._rows[self._first[moment.slots[places]] + number[places]]
        others = torch.from_numpy(self._pixels[rows]).to(values.device)
        changed[on_device] = render(others, Crops(*(field[places] for field in crops)), size=values.shape[-1])
        return changed

    def _augmented(
        self, pixels: Tensor, keys: UInt64[np.ndarray, " some"], moment: Moment, view: int, size: int
    ) -> Tensor:
        seed = derive_seed(self.seed, "strong view", moment.epoch, view)
        scale, ratio, flip = self.section.crop_scale, self._train.crop_ratio, self._train.flip
        crops = draw_crops(keys, seed=seed, size=pixels.shape[1], scale=scale, ratio=ratio, flip=flip)
        strong = render(pixels, crops, size=size)
        seed = derive_seed(self.seed, "strong colour", moment.epoch, view)
        return distort(strong, keys, seed=seed, strength=self.section.color, gray=0.0, blur=0.0)
