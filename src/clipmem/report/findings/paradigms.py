"""The last half of finding 9: in supervised and self-supervised training, less memorization costs utility."""

from collections.abc import Mapping

from clipmem.report.curves import title_of
from clipmem.report.effects import ABOVE, BELOW, FINDINGS, Context, Effect, Finding, Panel, Results, Series
from clipmem.report.findings.encoders import variants
from clipmem.report.findings.layers import ONE_TOWER, settings_of
from clipmem.report.joint import relative
from clipmem.report.run_specs import RunSpec

METRIC = "linear_probe_acc1"
OBJECTIVES = ("clip", "supervised", "simclr")


def trained(context: Context, objective: str, *, mitigated: bool) -> RunSpec:
    """Return a study of the image tower under an objective, with or without several images per pair."""
    own = (*settings_of(context, objective), *ONE_TOWER, "evaluate.labels=sublabel")
    return RunSpec((*own, *(variants(True, 1).settings if mitigated else ())))


@FINDINGS.register("paradigms")
class Paradigms(Finding):
    """Mitigation in three paradigms."""

    title = "Mitigation in other paradigms"
    claim = "Less memorization costs utility in supervised and self-supervised training, and not in CLIP."
    published = "Stated, with earlier work on the other two; no number was published."
    limits = (
        "Memorization is SSLMem of the image tower in all three, utility the linear probe by subgroup, mitigation "
        "several images per pair. One class per image, and SimCLR for self-supervised training."
    )

    def runs(self, context: Context) -> Mapping[str, RunSpec]:
        return {
            f"{title_of(objective)}{', several images' * mitigated}": trained(context, objective, mitigated=mitigated)
            for objective in OBJECTIVES
            for mitigated in (False, True)
        }

    def effects(self, context: Context, results: Results) -> list[Effect]:
        """The relative change of utility in CLIP minus its mean in the other two; then each change."""
        changes: dict[str, list[float]] = {}
        each: list[Effect] = []
        for objective in OBJECTIVES:
            runs = [trained(context, objective, mitigated=mitigated) for mitigated in (False, True)]
            before, after = (results.utility(run, METRIC) for run in runs)
            if not (before and after):
                return []
            scale = sum(before) / len(before)
            changes[objective] = [(a - b) / scale for a, b in zip(after, before, strict=True)]
            claim = ABOVE if objective == "clip" else BELOW
            name = f"{title_of(objective)}, several images: relative change of"
            each.append(results.effect(f"{name} the probe by subgroup", changes[objective], None, claim))
            memory = [results.memorization(run) for run in runs]
            each.append(results.effect(f"{name} SSLMem", *relative(memory[1], memory[0], 1), BELOW))
        others = [(a + b) / 2 for a, b in zip(changes["supervised"], changes["simclr"], strict=True)]
        measure = "relative change of the probe by subgroup: CLIP minus the mean of the other two"
        return [results.effect(measure, changes["clip"], others, ABOVE, primary=True), *each]

    def panels(self, context: Context, results: Results) -> list[Panel]:
        series: list[Series] = []
        for objective in OBJECTIVES:
            runs = [trained(context, objective, mitigated=mitigated) for mitigated in (False, True)]
            utility = [results.utility(run, METRIC) for run in runs]
            if all(utility):
                memory = [results.memorization(run) for run in runs]
                x = [sum(one) / len(one) for one in memory]
                series.append(results.series(title_of(objective), x, utility))
        return [Panel("without and with several images", "SSLMem", "probe by subgroup", series)] if series else []
