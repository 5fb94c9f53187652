"""Scores that a finished study gives; NaN for pairs that it did not score."""

from clipmem.models.signals import Signals
from clipmem.scoring.pair_scores.base import PAIR_SCORES, PairScore, Scores


@PAIR_SCORES.register("clipmem")
class Memorized(PairScore):
    """CLIPMem of a finished study: what only seeing the pair taught the model."""

    summary = "CLIPMem, or its estimate, of a finished study"
    needs = frozenset({"scores"})
    columns = ("clipmem",)

    def score(self, signals: Signals) -> Scores:
        return signals.scores["clipmem"]


@PAIR_SCORES.register("low-alignment")
class LowAlignment(PairScore):
    """Minus A under the models of a study that never saw the pair."""

    summary = "Low alignment under models that did not train on the pair"
    needs = frozenset({"scores"})
    columns = ("g_alignment",)

    def score(self, signals: Signals) -> Scores:
        return -signals.scores["g_alignment"]
