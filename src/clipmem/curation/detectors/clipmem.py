"""`clipmem`: CLIPMem, or its estimate, of a finished study."""

from clipmem.curation.detectors.base import DETECTORS, Detector, Scores, Signals


@DETECTORS.register("clipmem")
class Memorized(Detector):
    """CLIPMem of a finished study: what only seeing the pair taught the model."""

    summary = "CLIPMem, or its estimate, of a finished study"
    needs = frozenset({"scores"})
    columns = ("clipmem",)

    def score(self, signals: Signals) -> Scores:  # NaN for pairs that the study did not score.
        return signals.scores["clipmem"]
