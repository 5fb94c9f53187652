"""Finding 9: mitigations that lower memorization also improve utility, at equal length and each at its best length."""

from collections.abc import Mapping

import numpy as np

from clipmem_reproduce.effects import MEASURES, Effect, Pair, Panel, Results, Series, dominance, strongest
from clipmem_reproduce.finding import BASE, Context, Finding, jointly, label
from clipmem_reproduce.findings.captions import several
from clipmem_reproduce.findings.encoders import SEVERAL_IMAGES
from clipmem_reproduce.findings.text_noise import BEST, noisy
from clipmem_reproduce.spec import RunSpec

_OVER_WORDINGS = "clipmem_wordings"
_AUGMENTED = {"mitigate.image_variants.probability": 0.8, "mitigate.image_variants.source": "augment"}


def mitigations(context: Context) -> dict[str, RunSpec]:
    """Return the base study with each mitigation that its data allow: those of the findings named with it."""
    most = context.scale.captions[-1]
    specs: list[tuple[str, set[str], RunSpec]] = [
        (f"{most} captions", {"captions"}, several(most)),
        ("several images", {"encoders"}, BASE.with_settings(SEVERAL_IMAGES)),
        (f"several images, {most} captions", {"captions", "encoders"}, several(most).with_settings(SEVERAL_IMAGES)),
        ("text noise, post-scaled", set(), noisy("post-scaled", BEST)),
        ("text masking", set(), RunSpec({"mitigate.text_masking.probability": 0.15})),
        ("image augmentation", set(), RunSpec(_AUGMENTED)),
    ]
    return {name: run for name, tested, run in specs if not tested & {*context.scale.without}}


def at_length(context: Context, run: RunSpec, epochs: int) -> RunSpec:
    """Return a run with another length of training."""
    return run if epochs == context.base.train.epochs else run.with_settings({"train.epochs": epochs})


class Tradeoff(Finding):
    name = "tradeoff"
    title = "Memorization against utility"
    claim = "There is a mitigation that lowers memorization and improves utility."
    published = "5 captions: CLIPMem -3.7%, probe +1.8 points; noise 0.15: -4.8%, +2.2 points (from findings 6 and 7)."
    limits = (
        "Training with and without mitigation is compared at the best length of each, chosen on other held-out pairs. "
        "CLIPMem is that over all captions where pairs have several. The best of the mitigations decides, with "
        "intervals corrected for their number. Several images show f drawings that no other model sees, so part of "
        "their gain may be that of more data. Hyperparameters other than the length were not tuned."
    )

    def runs(self, context: Context) -> Mapping[str, RunSpec]:
        return {
            f"{name}, {epochs} epochs": run
            for name, runs in self._curves(context).items()
            for epochs, run in zip(context.scale.lengths, runs, strict=True)
        }

    def _curves(self, context: Context) -> dict[str, list[RunSpec]]:
        """Return the runs without and with each mitigation, by length."""
        return {
            name: [at_length(context, run, epochs) for epochs in context.scale.lengths]
            for name, run in {"none": BASE, **mitigations(context)}.items()
        }

    def effects(self, context: Context, results: Results) -> list[Effect]:
        """Whether any mitigation dominates at its own best length; each one there and at each length."""
        measure = _OVER_WORDINGS if results.values(BASE, _OVER_WORDINGS) else "clipmem"
        title = f"the smaller of the relative fall of {label(measure)} and rise of {label(context.scale.utility)}"
        curves = self._curves(context)
        best = {name: self._best(context, results, runs, measure) for name, runs in curves.items()}
        plain, plain_runs = best.pop("none"), curves.pop("none")
        strict = results.divided(len(best))
        single, rest = list[Effect](), list[Effect]()
        for name, pair in best.items():
            title_of_best = f"{name}, each at its best length: {title}"
            single.append(dominance(strict, plain, pair, title_of_best, primary=True))
            rest.append(dominance(results, plain, pair, title_of_best))
        for name, runs in curves.items():
            for epochs, base, run in zip(context.scale.lengths, plain_runs, runs, strict=True):
                rest += jointly(context, results, base, run, f"{name}, {epochs} epochs: {title}", measure=measure)
        return [strongest(f"the best of {len(best)} mitigations, each at its best length: {title}", single), *rest]

    def _best(self, context: Context, results: Results, runs: list[RunSpec], measure: str) -> Pair:
        """Return memorization and utility by seed at the length with the best utility on the validation pairs."""
        metric = context.scale.utility
        best = max(runs, key=lambda run: np.mean(results.validation(run, metric) or [0.0]))
        return results.values(best, measure), results.values(best, metric)

    def panels(self, context: Context, results: Results) -> list[Panel]:
        panels: list[Panel] = []
        metric = context.scale.utility
        for measure in MEASURES:
            series: list[Series] = []
            for name, runs in self._curves(context).items():
                memory = [results.values(run, measure) for run in runs]
                utility = [results.values(run, metric) for run in runs]
                if all(memory) and all(utility):
                    series.append(results.series(name, [float(np.mean(values)) for values in memory], utility))
            if series:
                panels.append(Panel("by length of training", label(measure), label(metric), series))
        return panels
