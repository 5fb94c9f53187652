"""Finding 6: drawing from more captions per pair in training lowers memorization and improves the probe."""

from collections.abc import Mapping

import numpy as np

from clipmem.report.effects import (
    ABOVE,
    BELOW,
    FINDINGS,
    Context,
    Effect,
    Finding,
    Panel,
    Results,
    Series,
    mitigated,
    optimum,
)
from clipmem.report.findings.distributions import BASE
from clipmem.report.run_specs import RunSpec
from clipmem.report.runs import UTILITIES

# COCO, read off a figure: ±0.0005
PUBLISHED = {
    "CLIPMem, normalized": (0.4380, 0.4350, 0.4280, 0.4240, 0.4220),
    "linear probe, ImageNet": (0.6311, 0.6317, 0.6431, 0.6477, 0.6488),
}


MEASURES = {"clipmem": "", "clipmem_wordings": " over all wordings"}


def label(metric: str) -> str:
    """Return the words for a metric of utility."""
    return UTILITIES.get(metric, metric)


def drawn(count: int) -> RunSpec:
    """Return the base study, drawing from `count` captions per pair in training; scores still use the first one."""
    return BASE if count == 1 else RunSpec((f"mitigate.captions.count={count}",))


@FINDINGS.register("captions")
class Captions(Finding):
    """Several captions per pair."""

    title = "Number of captions"
    claim = "With more captions of each pair, at equal presentations, less is memorized and utility rises."
    published = "Captions 1 to 5: CLIPMem .4380 .4350 .4280 .4240 .4220, probe .6311 .6317 .6431 .6477 .6488 (±0.0005)."
    limits = (
        "The verdict depends on the caption that is scored. It is based on CLIPMem on the first caption, which several "
        "captions show less often, not on utility. Over all captions CLIPMem can change in the other direction."
    )

    def runs(self, context: Context) -> Mapping[str, RunSpec]:
        return {f"{count} captions": drawn(count) for count in context.scale.captions}

    def effects(self, context: Context, results: Results) -> list[Effect]:
        """The most captions against one; also the slopes, and whether utility has an inner optimum."""
        counts = context.scale.captions
        size = 1 - PUBLISHED["CLIPMem, normalized"][-1] / PUBLISHED["CLIPMem, normalized"][0]
        found = mitigated(results, BASE, drawn(counts[-1]), f"{counts[-1]} captions", size=size, primary=True)
        if len(counts) > 2:
            x = np.array(counts) - np.mean(counts)
            for measure, where in MEASURES.items():
                values = np.array([results.memorization(drawn(count), measure=measure) for count in counts])
                if values.size:
                    slopes = (x @ values / (x @ x)).tolist()
                    name = f"slope of CLIPMem{where} over the number of captions"
                    found.append(results.effect(name, slopes, None, BELOW))
            utility = [results.utility(drawn(count), context.scale.utility) for count in counts]
            name = f"{label(context.scale.utility)}: best number of captions inside the range minus the better end"
            found += optimum(results, name, utility, ABOVE)
        return found

    def panels(self, context: Context, results: Results) -> list[Panel]:
        counts = context.scale.captions
        return sweep_panels(context, results, "captions", counts, {"": [drawn(count) for count in counts]}, PUBLISHED)


def sweep_panels(
    context: Context,
    results: Results,
    xlabel: str,
    x: tuple[float | int, ...],
    runs: Mapping[str, list[RunSpec]],
    published: Mapping[str, tuple[float, ...]],
    published_x: tuple[float | int, ...] = (1, 2, 3, 4, 5),
) -> list[Panel]:
    """Return panels of memorization and utility by `x` (`runs`: name → one run per level), then the published ones."""
    panels: list[Panel] = []
    for measure, where in MEASURES.items():
        memory = [
            results.series(name, x, [results.memorization(run, measure=measure) for run in own])
            for name, own in runs.items()
        ]
        if any(one.x for one in memory):
            panels.append(Panel("memorization", xlabel, f"CLIPMem{where}", memory))
    for metric in dict.fromkeys((context.scale.utility, "linear_probe_acc1")):
        series = [results.series(name, x, [results.utility(run, metric) for run in own]) for name, own in runs.items()]
        if any(one.x for one in series):
            panels.append(Panel("utility", xlabel, label(metric), series))
    for name, values in published.items():
        series = [Series("COCO", [float(at) for at in published_x], list(values))]
        panels.append(Panel("published", xlabel, name, series, published=True))
    return panels
