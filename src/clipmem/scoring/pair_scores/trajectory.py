"""Scores from what a training recorded (how late it told a pair from the others of its batches), or a finished study.

When not to trust them: margins also depend on how crowded the neighborhood of a pair is. On one data set the margin had
no agreement with CLIPMem. The scores of a study are NaN for pairs that it did not score.
"""

import numpy as np

from clipmem.base.errors import InputError
from clipmem.models.signals import Signals, Trajectory
from clipmem.scoring.pair_scores.base import BOTH, PAIR_SCORES, PairScore, Scores
from clipmem.stats.checks import mean_where

_TAU = 0.07


def trajectory_of(signals: Signals) -> Trajectory:
    """Return what the model's training recorded."""
    if signals.trajectory is None:
        hint = "Set train.record = true and train again."
        raise InputError("trajectory", got="no record", expected="that of a training", hint=hint)
    return signals.trajectory


@PAIR_SCORES.register("margin")
class AreaUnderMargin(PairScore):
    """Minus the mean margin of a pair over the epochs in which it was shown, in [-2, 2]; NaN without any.

    A pair that resembles others is told apart early, before the model has seen it often; one that it can only memorize
    stays behind until late. The mean margin is the area under the curve of margins divided by the number of epochs (the
    same order); the alignment at a third of the training is one noisy reading of it; and the number of times that a
    pair is forgotten (Toneva et al. 2019) has too few values for a ranking in short trainings.
    """

    summary = "Minus the area under the margin over a training"
    source = "Pleiss et al., NeurIPS 2020"
    good_for = BOTH
    needs = frozenset({"trajectory"})
    weight = 1.0

    def score(self, signals: Signals) -> Scores:
        return -trajectory_of(signals).mean_margin


@PAIR_SCORES.register("loss")
class MeanLoss(PairScore):
    """Mean over the epochs of log(1 + exp(-margin / τ)), τ = .07: the loss against the hardest other pair of a batch.

    The recorder keeps margins, not losses; the whole contrastive loss is larger by the easier pairs of the batch. NaN
    for pairs without a recorded margin.
    """

    summary = "Mean loss over a training, against the hardest other pair of each batch"
    source = "small-loss selection, as in Han et al., NeurIPS 2018"
    needs = frozenset({"trajectory"})

    def score(self, signals: Signals) -> Scores:
        margin = trajectory_of(signals).margin.astype(np.float64)
        recorded = ~np.isnan(margin)
        return mean_where(np.logaddexp(0, np.where(recorded, -margin, 0) / _TAU), recorded)


@PAIR_SCORES.register("dissect")
class RiseOfSimilarity(PairScore):
    """max(0, s_T) - max(0, s_w), in [-1, 1]: how much the similarity rose after the first w = T / 4 of T epochs.

    Mismatched pairs are fitted after the others. This is DISSect with a warm-up, which was 10 of 40 epochs on CC3M, for
    a whole data set instead of a batch. NaN for pairs that were not shown in one of both epochs.
    """

    summary = "Rise of the similarity after the first quarter of a training"
    source = "DISSect, Zhao et al., ICCV 2025"
    needs = frozenset({"trajectory"})

    def score(self, signals: Signals) -> Scores:
        similarity = np.maximum(trajectory_of(signals).similarity.astype(np.float64), 0)
        return similarity[-1] - similarity[max(len(similarity) // 4, 1) - 1]


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
