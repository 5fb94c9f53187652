"""Finding 9: mitigations that lower memorization also improve utility, at equal length and each at its best length."""

from collections.abc import Mapping

import numpy as np

from clipmem.report.effects import FINDINGS, Context, Effect, Finding, Pair, Panel, Results, Series
from clipmem.report.findings.captions import MEASURES, drawn, label
from clipmem.report.findings.distributions import BASE
from clipmem.report.findings.encoders import variants
from clipmem.report.findings.text_noise import BEST, noisy
from clipmem.report.joint import dominance, jointly, strongest
from clipmem.report.run_specs import RunSpec

_OVER_WORDINGS = "clipmem_wordings"


def mitigations(context: Context) -> dict[str, RunSpec]:
    """Return the base study with each mitigation that its data allow: those of the findings named with it."""
    most = context.scale.captions[-1]
    augmented = ("mitigate.image_variants.probability=0.8", "mitigate.image_variants.source=augment")
    found: list[tuple[str, set[str], RunSpec]] = [
        (f"{most} captions", {"captions"}, drawn(most)),
        ("several images", {"encoders"}, variants(True, 1)),
        (f"several images, {most} captions", {"captions", "encoders"}, variants(True, most)),
        ("text noise, post-scaled", set(), noisy("post-scaled", BEST)),
        ("text masking", set(), RunSpec(("mitigate.text_masking.probability=0.15",))),
        ("image augmentation", set(), RunSpec(augmented)),
    ]
    return {name: run for name, tested, run in found if not tested & {*context.scale.without}}


def at_length(context: Context, run: RunSpec, epochs: int) -> RunSpec:
    """Return a run with another length of training."""
    return run if epochs == context.base.train.epochs else run.with_settings(f"train.epochs={epochs}")


@FINDINGS.register("tradeoff")
class Tradeoff(Finding):
    """Memorization against utility."""

    title = "Memorization against utility"
    claim = "There is a mitigation that lowers memorization and improves utility."
    published = (
        "5 captions: CLIPMem -3.7 %, probe +1.8 points; noise 0.15: -4.8 %, +2.2 points (from findings 6 and 7)."
    )
    limits = (
        "The verdict is based on training with and without mitigation each at its own best length (chosen on other "
        "held-out pairs), on CLIPMem over all wordings where pairs have several, and on the best of the mitigations, "
        "with intervals corrected for their number. Several images show f drawings that no other model sees: part of "
        "their gain may be that of more data. Hyperparameters other than the length were not tuned."
    )

    def runs(self, context: Context) -> Mapping[str, RunSpec]:
        every = {"none": BASE, **mitigations(context)}
        return {
            f"{name}, {epochs} epochs": at_length(context, run, epochs)
            for name, run in every.items()
            for epochs in context.scale.lengths
        }

    def effects(self, context: Context, results: Results) -> list[Effect]:
        """Whether any mitigation dominates at its own best length; each one there and at each length."""
        every, single, rest = mitigations(context), list[Effect](), list[Effect]()
        measure = _OVER_WORDINGS if results.memorization(BASE, measure=_OVER_WORDINGS) else "clipmem"
        where = MEASURES[measure]
        strict = results.divided(len(every))
        best = {name: self._best(context, results, run, measure) for name, run in {"none": BASE, **every}.items()}
        title = f"the smaller of the relative fall of CLIPMem{where} and rise of {label(context.scale.utility)}"
        for name in every:
            changes = best["none"], best[name]
            single.append(dominance(strict, *changes, f"{name}, each at its best length: {title}", primary=True))
            rest.append(dominance(results, *changes, f"{name}, each at its best length: {title}"))
        for name, run in every.items():
            for epochs in context.scale.lengths:
                pair = at_length(context, BASE, epochs), at_length(context, run, epochs)
                rest += jointly(context, results, *pair, f"{name}, {epochs} epochs: {title}", measure=measure)
        return [strongest(f"the best of {len(every)} mitigations, each at its best length: {title}", single), *rest]

    def _best(self, context: Context, results: Results, run: RunSpec, measure: str) -> Pair:
        """Return memorization and utility by seed at the length with the best utility on the validation pairs."""
        metric = context.scale.utility
        runs = [at_length(context, run, epochs) for epochs in context.scale.lengths]
        best = max(runs, key=lambda one: np.mean(results[one].validation.get(metric) or [0.0]))
        return results.memorization(best, measure=measure), results.utility(best, metric)

    def panels(self, context: Context, results: Results) -> list[Panel]:
        panels: list[Panel] = []
        every = {"none": BASE, **mitigations(context)}
        for measure, where in MEASURES.items():
            series: list[Series] = []
            for name, run in every.items():
                runs = [at_length(context, run, epochs) for epochs in context.scale.lengths]
                memory = [results.memorization(one, measure=measure) for one in runs]
                utility = [results.utility(one, context.scale.utility) for one in runs]
                if all(memory) and all(utility):
                    series.append(results.series(name, [float(np.mean(one)) for one in memory], utility))
            if series:
                panels.append(Panel("by length of training", f"CLIPMem{where}", label(context.scale.utility), series))
        return panels
