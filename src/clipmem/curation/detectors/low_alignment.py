"""`low-alignment`: low alignment under models that did not train on the pair."""

from clipmem.curation.detectors.base import DETECTORS, Detector, Scores, Signals


@DETECTORS.register("low-alignment")
class LowAlignment(Detector):
    """Minus A under the models of a study that never saw the pair."""

    summary = "Low alignment under models that did not train on the pair"
    needs = frozenset({"scores"})
    columns = ("g_alignment",)

    def score(self, signals: Signals) -> Scores:  # NaN for pairs that the study did not score.
        return -signals.scores["g_alignment"]
