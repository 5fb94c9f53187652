"""Base class of pair scores: one number per pair, higher = more memorized, or more likely mismatched."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar, Literal

import numpy as np
from jaxtyping import Bool, Float64

from clipmem.base.registry import Registry
from clipmem.models.signals import Signals
from clipmem.stats.reliability import Estimated

Need = Literal[
    "embeddings", "logit scale", "alignment", "images", "pixels", "trajectory", "shadow models", "scores"
]  # fmt: skip
Purpose = Literal["memorization", "mismatched captions"]
Kind = Literal["mismatched", "vague", "duplicate", "hygiene"]
Scores = Float64[np.ndarray, " n"]
MEMORIZATION: frozenset[Purpose] = frozenset({"memorization"})
BOTH: frozenset[Purpose] = frozenset({"memorization", "mismatched captions"})


class PairScore(ABC):
    """A way to rank pairs: by how much a model memorized them, by how likely their captions are mismatched, or both.

    Attributes:
        name: As typed in recipes and on the command line.
        summary: One line.
        source: Who published it for this purpose; empty = clipmem.
        good_for: `memorization`: `clipmem score --model` and `clipmem run --budget` estimate CLIPMem by it;
            `mismatched captions`: `clipmem curate` lists pairs by it.
        needs: The signals it reads; none: captions alone. `images` are pixels, or embeddings in their place.
        columns: Columns of a finished study among `signals.scores` that it reads.
        weight: Weight of its ranks in the list of `clipmem curate`, 0: none; times its agreement if it needs a model.
        kind: What is wrong with a pair that it ranks first.
        fitted_on: The data that its weights were fitted on, and its agreement there by weights of the others; {}: none.
        new_data: `mean`, `low` and `high` of the agreement to expect on other data; {}: not measured.
    """

    name: ClassVar[str] = ""
    summary: ClassVar[str] = ""
    source: ClassVar[str] = ""
    good_for: ClassVar[frozenset[Purpose]] = frozenset({"mismatched captions"})
    needs: ClassVar[frozenset[Need]] = frozenset()
    columns: ClassVar[tuple[str, ...]] = ()
    weight: ClassVar[float] = 0.0
    kind: ClassVar[Kind] = "mismatched"
    fitted_on: ClassVar[Mapping[str, float]] = {}
    new_data: ClassVar[Mapping[str, float]] = {}

    @abstractmethod
    def score(self, signals: Signals) -> Scores:
        """Score every pair, higher = more memorized, or more likely mismatched; NaN = unknown; `needs` are there.

        Equal scores share a rank.
        """

    def estimate(self, signals: Signals) -> Estimated:
        """Estimate CLIPMem of every pair; by default only the order of the scores has a meaning."""
        return Estimated(self.score(signals))

    def certain(self, signals: Signals, score: Scores) -> Bool[np.ndarray, " n"] | None:  # noqa: ARG002
        """Return the pairs whose captions are suspect by a rule, whatever the odds; None: it has no rule."""
        return None

    @classmethod
    def lacks(cls, signals: Signals) -> list[str]:
        """Return the needs that the signals do not meet."""
        inputs: dict[Need, object] = {
            "embeddings": signals.text,
            "logit scale": signals.logit_scale,
            "alignment": signals.alignment,
            "images": signals.pixels if signals.image is None else signals.image,
            "pixels": signals.pixels,
            "trajectory": signals.trajectory,
            "shadow models": signals.halves,
            "scores": signals.scores or None,
        }
        missing: list[str] = [need for need in sorted(cls.needs) if inputs[need] is None]
        return missing or [f"scores of a study: {name}" for name in cls.columns if name not in signals.scores]


PAIR_SCORES: Registry[PairScore] = Registry("pair score", PairScore)  # pyright: ignore[reportAbstractUsage]


def usable(purpose: Purpose, signals: Signals) -> list[str]:
    """Return the names of the scores for a purpose whose signals are there."""
    return [name for name in PAIR_SCORES if purpose in (item := PAIR_SCORES[name]).good_for and not item.lacks(signals)]
