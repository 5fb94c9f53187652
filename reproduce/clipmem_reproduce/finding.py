"""What a finding is: the runs that it needs, a contrast between them, and a figure."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar

import numpy as np

from clipmem import Recipe
from clipmem.functional import Claim
from clipmem.report.run import UTILITIES
from clipmem_reproduce.effects import ABOVE, MEASURES, Effect, Panel, Results, Series, dominance
from clipmem_reproduce.scales import Scale
from clipmem_reproduce.spec import RunSpec

BASE = RunSpec()
PROBE = "linear_probe_acc1"


@dataclass(frozen=True)
class Context:
    """The scale and the recipe of the base study."""

    scale: Scale
    base: Recipe

    def fewer(self, spec: RunSpec) -> RunSpec:
        """Return a run with the fewer seeds of the scale, which suffice for large effects."""
        seeds = self.base.train.seeds
        return spec.seeded(seeds[: self.scale.fewer]) if self.scale.fewer < len(seeds) else spec

    def with_seeds(self, spec: RunSpec, share: float | int) -> RunSpec:
        """Return the run with a share of the seeds, at least one; above 1 with those that follow."""
        if share == 1:
            return spec
        seeds = self.base.train.seeds
        count = max(1, round(share * len(seeds)))
        return spec.seeded([*seeds[:count], *(seeds[-1] + 1 + k for k in range(count - len(seeds)))])

    def replicates(self, spec: RunSpec) -> list[RunSpec]:
        """Return the runs that a run stands for: itself, or one for each seed on a split of its own."""
        seeds = spec.study.get("train.seeds", self.base.train.seeds)
        return [spec.replicate(seed) for seed in seeds] if self.scale.crossed else [spec]


class Finding(ABC):
    """A published finding, or a question of reviewers, evaluated on finished runs."""

    name: ClassVar[str]
    title: ClassVar[str]
    claim: ClassVar[str]
    published: ClassVar[str] = ""  # the published numbers and their reading error; "" if nothing was published
    limits: ClassVar[str] = ""
    negligible: ClassVar[float] = 0.0  # the planned primary effect is negligible within this size; 0: none was declared
    claims: ClassVar[int] = 1  # primary effects in a planned reproduction: each has a verdict, all share one error rate

    @abstractmethod
    def runs(self, context: Context) -> Mapping[str, RunSpec]:
        """Return the runs it needs, by name."""

    @abstractmethod
    def effects(self, context: Context, results: Results) -> list[Effect]:
        """Return the effects, the primary ones first: one, or in a planned reproduction one for each of `claims`."""

    @abstractmethod
    def panels(self, context: Context, results: Results) -> list[Panel]:
        """Return the panels of its figure, the published ones last."""


class Sweep(Finding):
    """A finding over the levels of a setting, with one run per level of each curve.

    The figure has a panel for each measure of memorization, for each of utility, and for each of `curves_published`,
    which are over `levels_published`.

    Attributes:
        levels: The field of `Scale` that has the levels, in order; of each curve, unless `levels_of` says otherwise.
        names: Names of the curves.
        xlabel: What the levels are.
    """

    levels: ClassVar[str]
    names: ClassVar[Sequence[str]] = ("",)
    xlabel: ClassVar[str]
    curves_published: ClassVar[Mapping[str, Sequence[float]]] = {}
    levels_published: ClassVar[Sequence[float | int]] = ()

    @abstractmethod
    def run(self, context: Context, curve: str, level: Any) -> tuple[str, RunSpec]:
        """Return the name of a run, and the run."""

    def levels_of(self, context: Context) -> Mapping[str, Sequence[Any]]:
        """Return the levels of each curve."""
        levels: Sequence[Any] = getattr(context.scale, self.levels)
        return dict.fromkeys(self.names, levels)

    def runs(self, context: Context) -> Mapping[str, RunSpec]:
        curves = self.levels_of(context).items()
        return dict(self.run(context, curve, level) for curve, levels in curves for level in levels)

    def curves(self, context: Context) -> Mapping[str, list[RunSpec]]:
        """Return the runs of each curve, one per level."""
        curves = self.levels_of(context).items()
        return {curve: [self.run(context, curve, level)[1] for level in levels] for curve, levels in curves}

    def panels(self, context: Context, results: Results) -> list[Panel]:
        panels: list[Panel] = []
        levels, curves = self.levels_of(context), self.curves(context)
        utilities = dict.fromkeys((context.scale.utility, PROBE))
        for metric in (*MEASURES, *utilities):
            series = [
                results.series(name, levels[name], [results.values(run, metric) for run in runs])
                for name, runs in curves.items()
            ]
            if any(curve.x for curve in series):
                title = "memorization" if metric in MEASURES else "utility"
                panels.append(Panel(title, self.xlabel, label(metric), series))
        x = [float(level) for level in self.levels_published]
        return panels + [
            Panel("published", self.xlabel, name, [Series("COCO", x, list(values))], published=True)
            for name, values in self.curves_published.items()
        ]


def label(metric: str) -> str:
    """Return the words for a measure of memorization or utility."""
    return f"CLIPMem{MEASURES[metric]}" if metric in MEASURES else UTILITIES.get(metric, metric)


def mitigated(
    results: Results, base: RunSpec, run: RunSpec, name: str, *, size: float = 0.0, primary: str = ""
) -> list[Effect]:
    """Measure a mitigation: the relative change of CLIPMem, claimed below 0, and of each utility, claimed above 0.

    Where both runs were scored on all captions, the change over these is there too, after that on the first caption.
    `primary` is the measure of memorization that decides, if one does.
    """
    effects: list[Effect] = []
    for measure, where in MEASURES.items():
        after, before = (np.array(results.values(*specs)) for specs in ((run, measure, base), (base, measure, run)))
        if after.size and before.size:
            scale = abs(float(before.mean())) or 1.0
            values, plain = (after / scale).tolist(), (before / scale).tolist()
            title, decides = f"{name}: relative change of CLIPMem{where}", measure == primary
            effects.append(results.effect(title, values, plain, Claim("below", size), primary=decides))
    for metric, words in UTILITIES.items():
        effects += results.contrast(f"{name}: change of {words}", run, base, ABOVE, metric)
    return effects


def jointly(
    context: Context,
    results: Results,
    base: RunSpec,
    run: RunSpec,
    name: str,
    *,
    measure: str = "clipmem",
    margin: float = 0.0,
    primary: bool = False,
) -> list[Effect]:
    """Return the `dominance` of a run over the base run; empty if one of them was not measured."""
    before, after = (
        (results.values(spec, measure, among), results.values(spec, context.scale.utility))
        for spec, among in ((base, run), (run, base))
    )
    if not all((*before, *after)):
        return []
    return [dominance(results, before, after, name, margin=margin, primary=primary)]


def holds(effects: Sequence[Effect]) -> str:
    """Return the verdict of the primary effects, `mixed` if they differ; inconclusive if none was measured."""
    verdicts = {effect.holds for effect in effects if effect.primary} or {"inconclusive"}
    return verdicts.pop() if len(verdicts) == 1 else "mixed"


def judged_effects(finding: Finding, context: Context, results: Results) -> list[Effect]:
    """Return the effects of a finding; planned primary ones share a level, and have a size of negligible effects."""
    if not context.scale.crossed:
        return finding.effects(context, results)
    effects = finding.effects(context, results.again(finding.claims))
    return [replace(effect, negligible=finding.negligible) if effect.primary else effect for effect in effects]


def judge(finding: Finding, context: Context, results: Results) -> dict[str, Any]:
    """Return a finding as `findings.json` holds it: claim, verdict, effects, curves, and how often it was judged."""
    looks = context.scale.looks.get(finding.name, 1)
    effects = judged_effects(finding, context, results.again(looks))
    return {
        "finding": finding.name,
        **{key: getattr(finding, key) for key in ("title", "claim", "published", "limits")},
        "looks": looks,
        "holds": holds(effects),
        "effects": [effect.as_dict() for effect in effects],
        "panels": [asdict(panel) for panel in finding.panels(context, results)],
    }
