"""The raw difference: mean alignment under half-models that trained on the pair, minus under those that did not."""

from typing import ClassVar

import numpy as np

from clipmem.base.errors import InputError
from clipmem.functional.resampling import in_out_means, jackknife_models
from clipmem.score.estimators.base import ESTIMATORS, Estimated, Estimator, Need
from clipmem.score.signals import Halves, Signals


@ESTIMATORS.register("raw")
class RawDifference(Estimator):
    """`functional.in_out_means` of one set of half-models, with its jackknife standard error over models.

    Of several sets, the one that covers the most pairs (some models with the pair, some without), full-size models
    before proxies, then the one with more models: alignments of models of different sizes are not averaged. Pairs that
    all or none of the models trained on have NaN. With few models it is mostly noise (see `functional.resampling`).
    """

    summary: ClassVar[str] = "Alignment with the pair minus without it, over half-models."
    needs: ClassVar[frozenset[Need]] = frozenset({"half-models"})
    models: ClassVar[int] = 2

    def estimate(self, signals: Signals) -> Estimated:
        """Estimate from half-models alone.

        Raises:
            InputError: No pair has a model on either side.
        """
        best = max(signals.halves, key=_preference, default=None)
        if best is None or not _preference(best)[0]:
            got = f"{0 if best is None else len(best.member)} half-models, none of which differ in a pair"
            expected, hint = "models with and without a pair", "Train complementary half-models."
            raise InputError("half-models", got=got, expected=expected, hint=hint)
        error = jackknife_models(best.alignment, best.member).stderr
        stderr = None if np.isnan(error).all() else error
        return Estimated(in_out_means(best.alignment, best.member).score, stderr, calibrated=not best.proxy)


def _preference(halves: Halves) -> tuple[int, bool, int]:
    some = halves.member.any(0) & ~halves.member.all(0)
    return int(some.sum()), not halves.proxy, len(halves.member)
