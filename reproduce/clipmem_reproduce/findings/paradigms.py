"""The last half of finding 9: in supervised and self-supervised training, less memorization costs utility."""

from collections.abc import Mapping

import numpy as np

from clipmem_reproduce.curves import TITLES
from clipmem_reproduce.effects import ABOVE, BELOW, Effect, Panel, Results, Series, relative
from clipmem_reproduce.finding import PROBE, Context, Finding
from clipmem_reproduce.findings.encoders import SEVERAL_IMAGES
from clipmem_reproduce.findings.layers import ONE_TOWER, under
from clipmem_reproduce.spec import RunSpec

OBJECTIVES = tuple(TITLES)


def pair(context: Context, objective: str) -> list[RunSpec]:
    """Return a study of the image tower under an objective, without and with several images per pair."""
    plain = under(context, objective, {**ONE_TOWER, "evaluate.labels": "sublabel"})
    plain = context.with_seeds(plain, context.scale.more_seeds.get("paradigms", 1.0))
    return [plain, plain.with_settings(SEVERAL_IMAGES)]


class Paradigms(Finding):
    name = "paradigms"
    title = "Mitigation in other paradigms"
    claim = "Less memorization costs utility in supervised and self-supervised training, and not in CLIP."
    published = "Stated, with earlier work on the other two; no number was published."
    limits = (
        "Memorization is SSLMem of the image tower in all three, utility the linear probe by subgroup, mitigation "
        "several images per pair. One class per image, and SimCLR for self-supervised training."
    )
    negligible = 0.01

    def runs(self, context: Context) -> Mapping[str, RunSpec]:
        return {
            f"{TITLES[objective]}{suffix}": run
            for objective in OBJECTIVES
            for suffix, run in zip(("", ", several images"), pair(context, objective), strict=True)
        }

    def effects(self, context: Context, results: Results) -> list[Effect]:
        """The relative change of utility in CLIP minus its mean in the other two; then each change.

        In a planned reproduction all changes are absolute, and memorization must also fall.
        """
        if context.scale.crossed:
            return self._planned(context, results)
        changes: dict[str, list[float]] = {}
        each: list[Effect] = []
        for objective in OBJECTIVES:
            runs = pair(context, objective)
            before, after = (results.values(run, PROBE) for run in runs)
            if not (before and after):
                return []
            scale = sum(before) / len(before)
            changes[objective] = [(a - b) / scale for a, b in zip(after, before, strict=True)]
            claim = ABOVE if objective == "clip" else BELOW
            name = f"{TITLES[objective]}, several images: relative change of"
            each.append(results.effect(f"{name} the probe by subgroup", changes[objective], None, claim))
            plain, mitigated = (results.values(run) for run in runs)
            each.append(results.effect(f"{name} SSLMem", *relative(mitigated, plain, 1), BELOW))
        others = [(a + b) / 2 for a, b in zip(changes["supervised"], changes["simclr"], strict=True)]
        measure = "relative change of the probe by subgroup: CLIP minus the mean of the other two"
        return [results.effect(measure, changes["clip"], others, ABOVE, primary=True), *each]

    def _planned(self, context: Context, results: Results) -> list[Effect]:
        """The smallest decides: utility in CLIP against the other two, and the fall of SSLMem in CLIP and in these."""
        each, falls, changes = list[Effect](), dict[str, list[float]](), dict[str, list[float]]()
        for objective in OBJECTIVES:
            before, after = pair(context, objective)
            if not all(results.values(run, metric) for run in (before, after) for metric in (PROBE, "clipmem")):
                return []
            for metric, words in ((PROBE, "the probe by subgroup"), ("clipmem", "SSLMem")):
                claim = ABOVE if metric == PROBE and objective == "clip" else BELOW
                name = f"{TITLES[objective]}, several images: change of {words}"
                each += results.contrast(name, after, before, claim, metric)
            changes[objective] = np.subtract(results.values(after, PROBE), results.values(before, PROBE)).tolist()
            falls[objective] = np.subtract(results.values(before), results.values(after)).tolist()
        mean = {
            name: np.mean([of["supervised"], of["simclr"]], axis=0).tolist()
            for name, of in (("utility", changes), ("memory", falls))
        }
        zero = [0.0] * len(falls["clip"])
        pairs = [(changes["clip"], mean["utility"]), (falls["clip"], zero), (mean["memory"], zero)]
        name = (
            "the smallest of: change of the probe by subgroup, CLIP minus the mean of the other two; fall of SSLMem in "
            "CLIP; its mean fall in the other two"
        )
        return [results.weakest(name, pairs, ABOVE, primary=True), *each]

    def panels(self, context: Context, results: Results) -> list[Panel]:
        series: list[Series] = []
        for objective in OBJECTIVES:
            runs = pair(context, objective)
            utility = [results.values(run, PROBE) for run in runs]
            if all(utility):
                x = [sum(values) / len(values) for values in map(results.values, runs)]
                series.append(results.series(TITLES[objective], x, utility))
        return [Panel("without and with several images", "SSLMem", "probe by subgroup", series)] if series else []
