"""Finding 9: mitigations that lower memorization also improve utility, at equal length and each at its best length.

Several images per pair show f drawings that it would not see otherwise. A planned reproduction compares them with both:
training without these drawings, and training with them as pairs of their own.
"""

from collections.abc import Mapping

import numpy as np

from clipmem_reproduce.effects import BELOW, MEASURES, Effect, Pair, Panel, Results, Series, dominance, strongest
from clipmem_reproduce.finding import BASE, Context, Finding, jointly, label
from clipmem_reproduce.findings.captions import several
from clipmem_reproduce.findings.encoders import SEVERAL_IMAGES
from clipmem_reproduce.findings.text_noise import BEST, noisy
from clipmem_reproduce.spec import RunSpec

SEVERAL, PAIRS = "several images", "the same drawings as pairs"
CLAIMS = {"at equal data": PAIRS, "with more images": "none"}  # what several images are compared with
TRAINED = ("shared", "candidate", "independent")
_OVER_WORDINGS = "clipmem_wordings"
_AUGMENTED = {"mitigate.image_variants.probability": 0.8, "mitigate.image_variants.source": "augment"}


def mitigations(context: Context) -> dict[str, RunSpec]:
    """Return the base study with each mitigation that its data allow: those of the findings named with it."""
    most = context.scale.captions[-1]
    specs: list[tuple[str, set[str], RunSpec]] = [
        (f"{most} captions", {"captions"}, several(most)),
        (SEVERAL, {"encoders"}, BASE.with_settings(SEVERAL_IMAGES)),
        (f"several images, {most} captions", {"captions", "encoders"}, several(most).with_settings(SEVERAL_IMAGES)),
        ("text noise, post-scaled", set(), noisy("post-scaled", BEST)),
        ("text masking", set(), RunSpec({"mitigate.text_masking.probability": 0.15})),
        ("image augmentation", set(), RunSpec(_AUGMENTED)),
    ]
    return {name: run for name, tested, run in specs if not tested & {*context.scale.without}}


def planned(context: Context) -> dict[str, RunSpec]:
    """Return a study of the same candidates without further drawings, with them as image variants, and as pairs.

    As variants they are shown in as many samples as pairs are, so that the two differ in the place of a drawing only.
    """
    study = context.scale.traded
    more = {role: study[f"data.emoji_nested.more_{'shared' if role == 'shared' else 'candidate'}"] for role in TRAINED}
    sizes = {f"split.{role}": study[f"split.{role}"] + count for role, count in more.items()}
    none, pairs = RunSpec(study=study), RunSpec({"data.emoji_nested.more": "pairs"}, {**study, **sizes})
    shown = {"mitigate.image_variants.probability": round(1 - _share(context, none, pairs), 3)}
    several = RunSpec({**SEVERAL_IMAGES, **shown, "data.emoji_nested.more": "variants"}, study)
    return {"none": none, SEVERAL: several, PAIRS: pairs}


def _share(context: Context, run: RunSpec, other: RunSpec) -> float:
    """Return the number of pairs that f trains on in a run, as a share of that in another."""
    pairs, others = (
        split.shared + split.candidate for split in (each.recipe(context.base).split for each in (run, other))
    )
    return pairs / others


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
    negligible = 0.05
    claims = len(CLAIMS)

    def runs(self, context: Context) -> Mapping[str, RunSpec]:
        return {
            f"{name}, {epochs} epochs": run
            for name, runs in self._curves(context).items()
            for epochs, run in zip(context.scale.lengths, runs, strict=True)
        }

    def _curves(self, context: Context) -> dict[str, list[RunSpec]]:
        """Return the runs without and with each mitigation, by length; those on more pairs see as many samples."""
        if context.scale.crossed:
            runs = planned(context)
            share = {name: _share(context, runs["none"], run) for name, run in runs.items()}
            return {
                name: [
                    run.with_settings({"train.epochs": round(epochs * share[name])}) for epochs in context.scale.lengths
                ]
                for name, run in runs.items()
            }
        return {
            name: [at_length(context, run, epochs) for epochs in context.scale.lengths]
            for name, run in {"none": BASE, **mitigations(context)}.items()
        }

    def effects(self, context: Context, results: Results) -> list[Effect]:
        """Whether any mitigation dominates at its own best length; each one there and at each length.

        In a planned reproduction, whether several images do, by claim.
        """
        first = self._curves(context)["none"][0] if context.scale.crossed else BASE
        measure = _OVER_WORDINGS if results.values(first, _OVER_WORDINGS) else "clipmem"
        title = f"the smaller of the relative fall of {label(measure)} and rise of {label(context.scale.utility)}"
        curves = self._curves(context)
        if context.scale.crossed:
            return self._planned(context, results, measure, title)
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

    def _planned(self, context: Context, results: Results, measure: str, title: str) -> list[Effect]:
        """Return both claims, then each of them at each length, then whether utility falls at the end."""
        curves, metric, lengths = self._curves(context), context.scale.utility, context.scale.lengths
        best = {name: self._best(context, results, runs, measure) for name, runs in curves.items()}
        if not all(values for pair in best.values() for values in pair):
            return []
        effects = [
            dominance(results, best[base], best[SEVERAL], f"{claim}, each at its best length: {title}", primary=True)
            for claim, base in CLAIMS.items()
        ]
        for claim, base in CLAIMS.items():
            for epochs, *runs in zip(lengths, curves[base], curves[SEVERAL], strict=True):
                before, after = (
                    (self._memory(context, results, run, measure), results.values(run, metric)) for run in runs
                )
                effects.append(dominance(results, before, after, f"{claim}, {epochs} epochs: {title}"))
        for name, runs in curves.items():
            measured = f"{name}: {label(metric)} after {lengths[-1]} epochs minus that after {lengths[-2]}"
            effects += results.contrast(measured, runs[-1], runs[-2], BELOW, metric)
        return effects

    def _memory(self, context: Context, results: Results, run: RunSpec, measure: str) -> list[float]:
        """Return memorization by seed, in a planned reproduction that of the pairs that all runs have."""
        return results.values(run, measure, self._curves(context)["none"][0] if context.scale.crossed else None)

    def _best(self, context: Context, results: Results, runs: list[RunSpec], measure: str) -> Pair:
        """Return memorization and utility by seed at the length with the best utility on the validation pairs."""
        metric = context.scale.utility
        best = max(runs, key=lambda run: np.mean(results.validation(run, metric) or [0.0]))
        return self._memory(context, results, best, measure), results.values(best, metric)

    def panels(self, context: Context, results: Results) -> list[Panel]:
        panels: list[Panel] = []
        metric = context.scale.utility
        for measure in MEASURES:
            series: list[Series] = []
            for name, runs in self._curves(context).items():
                memory = [self._memory(context, results, run, measure) for run in runs]
                utility = [results.values(run, metric) for run in runs]
                if all(memory) and all(utility):
                    series.append(results.series(name, [float(np.mean(values)) for values in memory], utility))
            if series:
                panels.append(Panel("by length of training", label(measure), label(metric), series))
        return panels
