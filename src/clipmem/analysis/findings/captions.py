"""Finding 6: drawing from more captions per pair in training lowers memorization and improves the probe."""

from collections.abc import Mapping

import numpy as np

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
    mitigated,
    optimum,
)
from clipmem.analysis.findings.distributions import BASE
from clipmem.analysis.run_specs import RunSpec

# COCO, read off a figure: ±0.0005
PUBLISHED = {
    "CLIPMem, normalized": (0.4380, 0.4350, 0.4280, 0.4240, 0.4220),
    "linear probe, ImageNet": (0.6311, 0.6317, 0.6431, 0.6477, 0.6488),
}


def drawn(count: int) -> RunSpec:
    """Return the base study, drawing from `count` captions per pair in training; scores still use the first one."""
    return BASE if count == 1 else RunSpec((f"mitigate.captions.count={count}",))


@FINDINGS.register("captions")
class Captions(Finding):
    """Several captions per pair."""

    title = "Number of captions"
    claim = "With more captions of each pair, at equal presentations, less is memorized and utility rises."
    published = "Captions 1 to 5: CLIPMem .4380 .4350 .4280 .4240 .4220, probe .6311 .6317 .6431 .6477 .6488 (±0.0005)."
    limits = "The verdict is based on CLIPMem with the most captions against one, not on utility."

    def runs(self, context: Context) -> Mapping[str, RunSpec]:
        return {f"{count} captions": drawn(count) for count in context.scale.captions}

    def effects(self, context: Context, results: Results) -> list[Effect]:
        """The most captions against one; also the slope, and whether the probe has an inner optimum."""
        counts = context.scale.captions
        size = 1 - PUBLISHED["CLIPMem, normalized"][-1] / PUBLISHED["CLIPMem, normalized"][0]
        found = mitigated(results, BASE, drawn(counts[-1]), f"{counts[-1]} captions", size=size, primary=True)
        if len(counts) > 2:
            values = np.array([results.memorization(drawn(count)) for count in counts])
            x = np.array(counts) - np.mean(counts)
            slopes = (x @ values / (x @ x)).tolist()
            found.append(results.effect("slope of CLIPMem over the number of captions", slopes, None, BELOW))
            probe = [results.utility(drawn(count), "linear_probe_acc1") for count in counts]
            measure = "linear probe: best number of captions inside the range minus the better end"
            found += optimum(results, measure, probe, ABOVE)
        return found

    def panels(self, context: Context, results: Results) -> list[Panel]:
        counts = context.scale.captions
        return sweep_panels(results, "captions", counts, {"": [drawn(count) for count in counts]}, PUBLISHED)


def sweep_panels(
    results: Results,
    xlabel: str,
    x: tuple[float | int, ...],
    runs: Mapping[str, list[RunSpec]],
    published: Mapping[str, tuple[float, ...]],
    published_x: tuple[float | int, ...] = (1, 2, 3, 4, 5),
    metrics: tuple[str, ...] = ("linear_probe_acc1", "image_retrieval_recall@5"),
) -> list[Panel]:
    """Return panels of memorization and utility by `x` (`runs`: name → one run per level), then the published ones."""
    memory = [results.series(name, x, [results.memorization(run) for run in own]) for name, own in runs.items()]
    panels = [Panel("memorization", xlabel, "CLIPMem", memory)]
    for metric in metrics:
        series = [results.series(name, x, [results.utility(run, metric) for run in own]) for name, own in runs.items()]
        if any(one.x for one in series):
            panels.append(Panel(UTILITIES[metric], xlabel, UTILITIES[metric], series))
    for name, values in published.items():
        series = [Series("COCO", [float(at) for at in published_x], list(values))]
        panels.append(Panel("published", xlabel, name, series, published=True))
    return panels
