"""Base class of pair scores: one number per pair, higher = more memorized, or more likely mismatched."""

from abc import ABC, abstractmethod
from typing import ClassVar, Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float64

from clipmem.base.registry import Registry
from clipmem.models.signals import Signals

Need = Literal[
    "embeddings", "logit scale", "alignment", "images", "pixels", "trajectory", "shadow models", "scores"
]  # fmt: skip
Purpose = Literal["memorization", "mismatched captions"]
Kind = Literal["mismatched", "vague", "duplicate", "hygiene"]
Scores = Float64[np.ndarray, " n"]
MEMORIZATION: frozenset[Purpose] = frozenset({"memorization"})
BOTH: frozenset[Purpose] = frozenset({"memorization", "mismatched captions"})


class Estimated(NamedTuple):
    """Scores of pairs as estimates of CLIPMem, higher = more memorized.

    Attributes:
        score: On the scale of CLIPMem if `calibrated`, otherwise only its order has a meaning.
        stderr: Standard error of each score on that scale; None if there is none.
        calibrated: Whether differences of scores have the size of differences of CLIPMem.
        own: Weight of the pair's own shadow models, from 0 to 1, if the score is p + own (D - p).
        predicted: p, which the pair's own D does not enter; None: the score itself.
        left_out: p fitted on all pairs of shadow models but one; None: p is not fitted on them.
    """

    score: Scores
    stderr: Scores | None = None
    calibrated: bool = False
    own: float = 0.0
    predicted: Scores | None = None
    left_out: Float64[np.ndarray, "pair n"] | None = None


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
        weight: Weight of its ranks in the combination of `clipmem curate`, 0: not part of it.
        kind: What is wrong with a pair that it ranks first.
    """

    name: ClassVar[str] = ""
    summary: ClassVar[str] = ""
    source: ClassVar[str] = ""
    good_for: ClassVar[frozenset[Purpose]] = frozenset({"mismatched captions"})
    needs: ClassVar[frozenset[Need]] = frozenset()
    columns: ClassVar[tuple[str, ...]] = ()
    weight: ClassVar[float] = 0.0
    kind: ClassVar[Kind] = "mismatched"

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
    declared = {name: PAIR_SCORES[name] for name in PAIR_SCORES}
    return [name for name, item in declared.items() if purpose in item.good_for and not item.lacks(signals)]
