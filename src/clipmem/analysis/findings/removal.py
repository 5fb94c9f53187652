"""Finding 8: removing the most memorized pairs and retraining first raises utility, then lowers it."""

from collections.abc import Mapping
from dataclasses import replace

from clipmem.analysis.effects import (
    ABOVE,
    BELOW,
    FINDINGS,
    UTILITIES,
    Context,
    Effect,
    Finding,
    Panel,
    Results,
    Series,
    weakest,
)
from clipmem.analysis.run_specs import RunSpec
from clipmem.functional.verdict import Claim

WAYS = {"random": "random", "similarity": "CLIP similarity", "clipmem": "CLIPMem"}
PEAK = 0.02
METRIC = "linear_probe_acc1"
# read off figures, ±0.0005
PUBLISHED_N = (0, 50, 100, 200, 400, 800, 1600, 3200)
PUBLISHED = {
    "COCO": {
        "random": (0.6311, 0.632, 0.6314, 0.6312, 0.630, 0.6285, 0.6263, 0.624),
        "similarity": (0.6311, 0.6475, 0.6545, 0.6475, 0.6325, 0.6256, 0.6210, 0.613),
        "clipmem": (0.6311, 0.650, 0.6645, 0.6457, 0.632, 0.6251, 0.6202, 0.6106),
    },
    "CC3M": {
        "random": (0.6609, 0.6611, 0.6605, 0.6612, 0.660, 0.6587, 0.6557, 0.651),
        "similarity": (0.6609, 0.6677, 0.6705, 0.6716, 0.6705, 0.6656, 0.659, 0.649),
        "clipmem": (0.6609, 0.669, 0.6765, 0.676, 0.671, 0.666, 0.659, 0.648),
    },
}


def candidates(context: Context) -> int:
    """Return the number of candidates of the removal study."""
    own = [setting for setting in context.scale.removal if setting.startswith("split.candidate=")]
    return int(own[0].partition("=")[2]) if own else context.base.split.candidate


def parent(context: Context, planted: float) -> RunSpec:
    """Return the study before removal, with a share of wrong captions."""
    n = candidates(context)
    wrong = (f"split.planted={max(2, round(planted * n))}",) if planted else ()
    return RunSpec((*context.scale.removal, *wrong))


def without(context: Context, planted: float, share: float, way: str) -> RunSpec:
    """Return the study after removing a share of the candidates."""
    whole = parent(context, planted)
    count = round(share * candidates(context))
    if count == 0:
        return whole
    own = (*whole.settings, f"mitigate.remove.count={count}", f"mitigate.remove.by={way}")
    return RunSpec(own, parent=None if way == "random" else whole)


@FINDINGS.register("removal")
class Removal(Finding):
    """Removing pairs and retraining."""

    title = "Removing memorized pairs"
    claim = (
        "Utility over the number of removed pairs is an inverted U: wrong captions go first, then useful atypical "
        "pairs; CLIPMem chooses better than CLIP similarity, and both better than chance."
    )
    published = (
        "COCO probe, .6311 with nothing removed, at 100 and 3,200 removed: by CLIPMem .6645 and .6106, by similarity "
        ".6545 and .613, at random .6314 and .624 (±0.0005)."
    )
    limits = (
        "f sees fewer pairs after a removal, each as often: the smaller data set explains part of a loss, as in random "
        "removal. The verdict is based on the linear probe, the published utility, without wrong captions."
    )

    def runs(self, context: Context) -> Mapping[str, RunSpec]:
        scale = context.scale
        found = {f"planted {planted:.0%}": parent(context, planted) for planted in scale.planted}
        for planted in scale.planted:
            for share in scale.removed[1:]:
                for way, name in WAYS.items():
                    found[f"planted {planted:.0%}, {share:.0%} removed by {name}"] = without(
                        context, planted, share, way
                    )
        return found

    def effects(self, context: Context, results: Results) -> list[Effect]:
        """The peak against both ends without wrong captions; then each single difference."""
        found: list[Effect] = []
        for planted in context.scale.planted:
            for metric in UTILITIES:
                found += self._at_peak(context, results, planted, metric)
        primary = [one for one in found if one.primary]
        rest = [replace(one, primary=False) for one in found if not one.primary]
        if len(primary) < 2:
            return rest
        measure = "without wrong captions, linear probe: the peak minus the better end (nothing removed, most removed)"
        return [weakest(measure, primary), *rest]

    def _at_peak(self, context: Context, results: Results, planted: float, metric: str) -> list[Effect]:
        shares, label = context.scale.removed, UTILITIES[metric]
        peak = min(shares[1:], key=lambda share: abs(share - max(planted, PEAK)))
        base, last = parent(context, planted), without(context, planted, shares[-1], "clipmem")
        best = {way: without(context, planted, peak, way) for way in WAYS}
        where = f"{planted:.0%} wrong captions, {peak:.0%} removed"
        comparisons: list[tuple[str, RunSpec, RunSpec, Claim]] = [
            (f"{where} by CLIPMem", best["clipmem"], base, ABOVE),
            (f"{where}: CLIPMem minus random", best["clipmem"], best["random"], ABOVE),
            (f"{where}: CLIPMem minus similarity", best["clipmem"], best["similarity"], ABOVE),
            (f"{planted:.0%} wrong captions: {shares[-1]:.0%} removed minus {peak:.0%}", last, best["clipmem"], BELOW),
        ]
        found: list[Effect] = []
        for name, run, other, claim in comparisons:
            values, plain = results.utility(run, metric), results.utility(other, metric)
            if values and plain:
                found.append(results.effect(f"{name}: change of {label}", values, plain, claim))
        if metric == METRIC and not planted:
            ends = [results.utility(end, metric) for end in (base, last)]
            inner = results.utility(best["clipmem"], metric)
            found += [results.effect("", inner, end, ABOVE, primary=True) for end in ends if inner and end]
        return found

    def panels(self, context: Context, results: Results) -> list[Panel]:
        shares = context.scale.removed
        panels: list[Panel] = []
        for planted in context.scale.planted:
            series = [
                results.series(
                    name, shares, [results.utility(without(context, planted, share, way), METRIC) for share in shares]
                )
                for way, name in WAYS.items()
            ]
            panels.append(Panel(f"{planted:.0%} wrong captions", "share removed", "linear probe", series))
        for name, curves in PUBLISHED.items():
            series = [Series(WAYS[way], [n / 5000 for n in PUBLISHED_N], list(curves[way])) for way in WAYS]
            panels.append(
                Panel(f"published, {name}", "removed / candidates", "linear probe, ImageNet", series, published=True)
            )
        return panels
