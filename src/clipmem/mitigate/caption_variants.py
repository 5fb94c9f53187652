"""Caption variants: some presentations show another wording of the caption.

After a caption of the pair is drawn as usual, one of its m variants replaces it with probability p, each with p / m; a
caption without variants is kept. Variants are made once, before training, and written to
`mitigate/caption_variants.parquet`, so f, g and all seeds share them. The number of presentations does not change.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
from jaxtyping import Float64, Int

from clipmem.base.mitigations import CaptionVariantsSection
from clipmem.base.random import derive_seed, uniform
from clipmem.mitigate.base import MITIGATIONS, Mitigation, Preparation, Training
from clipmem.mitigate.wordings import WORDINGS, make_variants
from clipmem.train.hooks import Moment

TABLE = "mitigate/caption_variants"


def variants_of(captions: Sequence[str], section: CaptionVariantsSection) -> dict[str, list[tuple[str, str]]]:
    """Return the (kind, variant) list of each caption."""
    kinds = {name: WORDINGS[name](section).variant for name in section.kinds}
    return {
        caption: make_variants(caption, kinds, count=section.count, seed=section.seed)
        for caption in dict.fromkeys(captions)
    }


def choose_variant(
    u: Float64[np.ndarray, " n"], counts: Int[np.ndarray, " n"], probability: float
) -> Int[np.ndarray, " n"]:
    """Choose between a caption and its m variants: itself if u >= p or m = 0, else variant floor(m u / p)."""
    number = np.minimum(np.floor(counts * u / probability).astype(np.int64), counts - 1)
    return np.where(u < probability, number, -1)


@MITIGATIONS.register("caption_variants")
class CaptionVariants(Mitigation):
    """`[mitigate.caption_variants]`."""

    summary = "Show other wordings of a caption in some presentations."

    def __init__(self, section: CaptionVariantsSection, seed: int, variants: dict[tuple[str, str], list[str]]) -> None:
        super().__init__(section, seed)
        self._variants = variants

    @classmethod
    def prepare(cls, preparation: Preparation) -> list[Path]:
        external = set(preparation.splits.filter(pl.col("role") == "external")["uid"])
        captions = {uid: dict.fromkeys(texts) for uid, texts in preparation.captions().items() if uid not in external}
        section = cls.section_of(preparation.recipe)
        variants = variants_of([text for texts in captions.values() for text in texts], section)
        rows = [(uid, text, *row) for uid, texts in captions.items() for text in texts for row in variants[text]]
        table = pl.DataFrame(rows, schema=["uid", "caption", "kind", "variant"], orient="row")
        return [preparation.folder.write(TABLE, table)]

    @classmethod
    def hook(cls, training: Training) -> "CaptionVariants":
        variants: dict[tuple[str, str], list[str]] = {}
        for uid, caption, _, text in training.folder.read(TABLE).iter_rows():
            variants.setdefault((uid, caption), []).append(text)
        return cls(cls.section_of(training.recipe), training.plan.seed, variants)

    def captions(self, captions: Sequence[Sequence[str]], uids: Sequence[str], first: Sequence[int]) -> list[list[str]]:
        variants = [
            [self._variants.get((uid, text), []) for text in texts] for uid, texts in zip(uids, captions, strict=True)
        ]
        counts = [[len(texts) for texts in pair] for pair in variants]
        # index of a caption's first variant among the pair's texts, for the captions of all pairs
        self._starts = np.concatenate(
            [start + np.cumsum([0, *pair[:-1]]) for start, pair in zip(first, counts, strict=True)]
        ).astype(np.int64)
        self._counts = np.array([count for pair in counts for count in pair], dtype=np.int64)
        self._row = np.cumsum([0, *(len(pair) for pair in counts[:-1])])
        return [[text for texts in pair for text in texts] for pair in variants]

    def choose(self, choice: Int[np.ndarray, " n"], moment: Moment) -> Int[np.ndarray, " n"]:
        row = self._row[moment.slots] + choice
        u = uniform(moment.keys, derive_seed(self.seed, "caption variant", moment.epoch), 1)[:, 0]
        number = choose_variant(u, self._counts[row], self.section.probability)
        return np.where(number < 0, choice, self._starts[row] + number)
