"""The mitigation `drop_longest`: the pairs with the longest captions leave the study."""

import polars as pl
from pydantic import Field

from clipmem.base.mitigations import MitigationSection
from clipmem.base.sections import Size
from clipmem.mitigate.base import Mitigation


class DropLongest(Mitigation):
    """An edit of the split: training is as it was."""

    summary = "Drop the pairs with the longest captions."

    class Settings(MitigationSection):
        """`[mitigate.drop_longest]`."""

        count: Size = Field(0, description="Pairs that are dropped, the longest captions first; 0 = none.")

    @classmethod
    def edit(cls, recipe, splits, parent, pairs):
        length = pairs.select("uid", length=pl.col("captions").list.first().str.len_chars())
        pool = splits.filter(pl.col("role") != "external").join(length, on="uid")
        gone = pool.sort("length", "uid", descending=[True, False]).head(cls.section_of(recipe).count)
        return splits.join(gone, on="uid", how="anti"), {}

    @classmethod
    def hook(cls, training):
        return None
