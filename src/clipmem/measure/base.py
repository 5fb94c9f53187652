"""The interface of measures: what a model's embeddings of held-out pairs show, beside classification and retrieval.

A measure is one class in one file. It is registered by name in `MEASURES`, or by the entry-point group
`clipmem.measures` of an installed package, and measured wherever utility is.
"""
# ruff: noqa: ARG002  (means over pairs need no identity)

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
from jaxtyping import Float64

from clipmem.base.registry import Registry
from clipmem.measure.over_seeds import Metrics, describe
from clipmem.measure.retrieval import Identity, Sides
from clipmem.models.passes import Embeddings
from clipmem.stats.checks import Codes


class Measure:
    """Metrics that are means over pairs; another measure overrides `measure`.

    Class attributes:
        summary: What it measures, in one line.
        words: Metric -> its name in tables; those of clipmem are in `report/templates/words.toml`. Metrics whose name
            ends in `_loss` are shown as numbers, lower is better; others are shares from 0 to 1, shown in percent.
    """

    name: ClassVar[str] = ""
    summary: ClassVar[str] = ""
    words: ClassVar[Mapping[str, str]] = {}

    def values(self, embeddings: Embeddings) -> Mapping[str, Float64[np.ndarray, " n"]]:
        """Return the value of each metric for each test pair under one model, shape (n,)."""
        raise NotImplementedError

    def measure(self, models: Sides, same: Identity, groups: Codes, confidence: float, *, against: str = "") -> Metrics:
        """Measure the models of each side; intervals are over groups of pairs, and over seeds.

        Args:
            models: The embeddings of n test pairs under the models of each side.
            same: Which test pairs have the same image or captions.
            groups: The group (of near-duplicates) of each test pair, shape (n,).
            confidence: Level of the intervals.
            against: The side whose one model the others' `change` is from; "" = none.

        Returns:
            Side -> metric -> mean, interval and values by seed.
        """
        by_model = {side: [self.values(model) for model in several] for side, several in models.items()}
        metrics: Metrics = {side: {} for side in models}
        for name in next(iter(by_model.values()))[0]:
            stacked = {side: np.stack([values[name] for values in several]) for side, several in by_model.items()}
            for side, values in stacked.items():
                base = None if against in ("", side) else [stacked[against]]
                metrics[side][name] = describe([values], [groups], confidence, base)
        return metrics


MEASURES: Registry[Measure] = Registry("measure", Measure)
