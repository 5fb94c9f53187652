"""Finding 8: removing the most memorized pairs first improves utility, then lowers it; CLIPMem chooses best."""

from collections.abc import Mapping

import numpy as np

from clipmem.report.effects import ABOVE, BELOW, FINDINGS, Context, Effect, Finding, Panel, Results, Series
from clipmem.report.findings.captions import label
from clipmem.report.run_specs import UTILITY_ONLY, RunSpec

WAYS = {
    "random": "random",
    "similarity": "CLIP similarity",
    "g-alignment": "low A(g)",
    "clipmem": "CLIPMem",
    "planted": "the known wrong ones",
}
UNSCORED = ("random", "planted")
_RIVALS = ("random", "similarity", "g-alignment")
PRIMARY = 0.2  # share of wrong captions on which the verdict is based, set before any run
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


def parent(context: Context, wrong: float, share: float = 0.0) -> RunSpec:
    """Return the study before removal, with a share of wrong captions among all pairs that a model trains on.

    Runs on which the verdict rests have all seeds: those at no removal, at the peak and at the most.
    """
    planted = (f"split.planted_share={wrong}",) if wrong else ()
    spec = RunSpec((*context.scale.removal, *planted))
    decisive = wrong == PRIMARY and share in {0, peak_of(context, wrong), context.scale.removed[wrong][-1]}
    return spec if decisive else context.fewer(spec)


def without(context: Context, wrong: float, share: float, way: str, *, steps: bool = False) -> RunSpec:
    """Return the study after removing a share of the candidates; with `steps`, trained for as many steps as before."""
    whole = parent(context, wrong, share)
    split, train = (getattr(RunSpec(context.scale.removal).recipe(context.base), name) for name in ("split", "train"))
    count = round(share * split.candidate)
    if count == 0:
        return whole
    settings = [f"mitigate.remove.count={count}", f"mitigate.remove.by={way}", "mitigate.remove.role=candidate"]
    if steps:
        trained = split.shared + split.candidate
        settings.append(f"train.epochs={round(train.epochs * trained / (trained - count))}")
    run = RunSpec((*whole.settings, *settings, UTILITY_ONLY))
    return run if way in UNSCORED else RunSpec(run.settings, parent=whole)


def ways_of(wrong: float) -> list[str]:
    """Return the ways of choosing pairs; without wrong captions there are no known wrong ones."""
    return [way for way in WAYS if wrong or way != "planted"]


def peak_of(context: Context, wrong: float) -> float:
    """Return the share at which as many pairs go as are wrong: the place of the claimed peak, known without a look."""
    return min(context.scale.removed[wrong], key=lambda share: (abs(share - (wrong or 0.02)), share))


@FINDINGS.register("removal")
class Removal(Finding):
    """Removing pairs and retraining."""

    title = "Removing memorized pairs"
    claim = (
        "Utility over the number of removed pairs is an inverted U: wrong captions go first, then useful atypical "
        "pairs; and CLIPMem chooses better than chance."
    )
    published = (
        "COCO probe, .6311 with nothing removed, at 100 and 3,200 removed: by CLIPMem .6645 and .6106, by similarity "
        ".6545 and .613, at random .6314 and .624 (±0.0005)."
    )
    limits = (
        f"The verdict is based on {PRIMARY:.0%} wrong captions among all training pairs, as many pairs removed as are "
        "wrong among the candidates, all by the same passes over the rest; all ways choose among the candidates. The "
        "comparison at equal steps is shown as well."
    )

    def runs(self, context: Context) -> Mapping[str, RunSpec]:
        found = {f"{wrong:.0%} wrong": parent(context, wrong) for wrong in context.scale.removed}
        for wrong, shares in context.scale.removed.items():
            for way in ways_of(wrong):
                for share in shares:
                    name = f"{wrong:.0%} wrong, {share:.0%} removed by {WAYS[way]}"
                    found[name] = without(context, wrong, share, way)
                if wrong == PRIMARY:
                    share = peak_of(context, wrong)
                    name = f"{wrong:.0%} wrong, {share:.0%} removed by {WAYS[way]}, equal steps"
                    found[name] = without(context, wrong, share, way, steps=True)
        return found

    def effects(self, context: Context, results: Results) -> list[Effect]:
        """At 20 % wrong captions the peak against both ends and chance; then each difference at the peak of each."""
        found, metric = list[Effect](), context.scale.utility
        for wrong, shares in context.scale.removed.items():
            peak, whole = peak_of(context, wrong), parent(context, wrong)
            at, last = {way: without(context, wrong, peak, way) for way in ways_of(wrong)}, shares[-1]
            where, chosen = f"{wrong:.0%} wrong captions, {peak:.0%} removed", at["clipmem"]
            comparisons = [(f"{where} by {WAYS[way]} minus none", run, whole, ABOVE) for way, run in at.items()]
            comparisons += [(f"{where}: CLIPMem minus {WAYS[way]}", chosen, at[way], ABOVE) for way in _RIVALS]
            if last != peak:
                name = f"{wrong:.0%} wrong captions, by CLIPMem: {last:.0%} removed minus {peak:.0%}"
                comparisons.append((name, without(context, wrong, last, "clipmem"), chosen, BELOW))
            if wrong == PRIMARY:
                steps = {way: without(context, wrong, peak, way, steps=True) for way in ways_of(wrong)}
                comparisons += [
                    (f"{where}, equal steps: CLIPMem minus {WAYS[way]}", steps["clipmem"], steps[way], ABOVE)
                    for way in _RIVALS
                ]
                found += self._primary(context, results)
                found += self._shares(context, results, at, whole, where)
            for name, run, other, claim in comparisons:
                values, base = results.utility(run, metric), results.utility(other, metric)
                if values and base:
                    found.append(results.effect(f"{name}: change of {label(metric)}", values, base, claim))
        return sorted(found, key=lambda one: not one.primary)

    def _primary(self, context: Context, results: Results) -> list[Effect]:
        metric, peak = context.scale.utility, peak_of(context, PRIMARY)
        chosen = results.utility(without(context, PRIMARY, peak, "clipmem"), metric)
        ends = {
            "none": parent(context, PRIMARY),
            "most": without(context, PRIMARY, context.scale.removed[PRIMARY][-1], "clipmem"),
            "random": without(context, PRIMARY, peak, "random"),
        }
        others = [results.utility(run, metric) for run in ends.values()]
        if not chosen or not all(others):
            return []
        name = f"{PRIMARY:.0%} wrong captions, {peak:.0%} removed by CLIPMem minus the best of {', '.join(ends)}"
        pairs = [(chosen, values) for values in others]
        return [results.weakest(f"{name}: {label(metric)}", pairs, ABOVE, primary=True)]

    def _shares(
        self, context: Context, results: Results, at: Mapping[str, RunSpec], whole: RunSpec, where: str
    ) -> list[Effect]:
        """Return each way's gain as a share of the gain from removing the known wrong ones."""
        metric = context.scale.utility
        best, plain = results.utility(at["planted"], metric), results.utility(whole, metric)
        gain = float(np.mean(best) - np.mean(plain)) if best and plain else 0.0
        if gain <= 0:
            return []
        name = f"{where}: gain as a share of that from removing the known wrong ones, by"
        return [
            results.effect(
                f"{name} {WAYS[way]}",
                (np.array(results.utility(run, metric)) / gain).tolist(),
                (np.array(plain) / gain).tolist(),
                ABOVE,
            )
            for way, run in at.items()
            if way not in UNSCORED
        ]

    def panels(self, context: Context, results: Results) -> list[Panel]:
        panels: list[Panel] = []
        metric = context.scale.utility
        for wrong, shares in context.scale.removed.items():
            x = (0.0, *shares)
            series = [
                results.series(
                    WAYS[way], x, [results.utility(without(context, wrong, share, way), metric) for share in x]
                )
                for way in ways_of(wrong)
            ]
            panels.append(Panel(f"{wrong:.0%} wrong captions", "share removed", label(metric), series))
        for name, curves in PUBLISHED.items():
            series = [Series(WAYS[way], [n / 5000 for n in PUBLISHED_N], list(own)) for way, own in curves.items()]
            panels.append(
                Panel(f"published, {name}", "removed / candidates", "linear probe, ImageNet", series, published=True)
            )
        return panels
