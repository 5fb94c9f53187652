"""Findings: effects over paired seeds, their verdicts, and the curves of their figures.

Each finding is judged by its **primary** effect. With m primary effects in a regime and a finding that is looked at L
times, the interval has level 1 - (1 - confidence) / (m L) (Bonferroni). Over new seeds, the probability of any wrong
"yes" is at most (1 - confidence) / 2, and so is that of any wrong "no". This holds for one split, one set of planted
captions and one regime; other splits would differ by more than the seeds do. All other effects are shown at the
uncorrected level.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, ClassVar

import numpy as np

from clipmem.base.recipes import Recipe
from clipmem.base.registry import Registry
from clipmem.report.fairness import common
from clipmem.report.run_specs import RunSpec
from clipmem.report.runs import UTILITIES, FinishedRun
from clipmem.report.scales import Scale
from clipmem.stats.comparisons import paired_test
from clipmem.stats.verdict import Answer, Claim, verdict

ABOVE, BELOW = Claim("above"), Claim("below")
Pair = tuple[Sequence[float], Sequence[float]]  # values by seed, and those of the base


@dataclass(frozen=True)
class Effect:
    """A measured effect and the claim about it."""

    measure: str
    estimate: float
    low: float | None
    high: float | None
    claim: Claim
    seeds: int
    confidence: float
    primary: bool = False

    @property
    def holds(self) -> Answer:
        """Whether the claim holds."""
        return verdict(self.low, self.high, self.claim)

    def as_dict(self) -> dict[str, Any]:
        """Return the effect as `findings.json` holds it."""
        return {**asdict(self), "claim": self.claim._asdict(), "holds": self.holds}


@dataclass(frozen=True)
class Series:
    """A curve: the mean at each x, with its interval if known."""

    name: str
    x: list[float]
    mean: list[float]
    low: list[float | None] = field(default_factory=list[float | None])
    high: list[float | None] = field(default_factory=list[float | None])


@dataclass(frozen=True)
class Panel:
    """A panel of a figure. Published panels have their own scale: compare only order and shape."""

    title: str
    xlabel: str
    ylabel: str
    series: list[Series]
    published: bool = False
    ticks: list[str] = field(default_factory=list[str])
    joined: bool = True
    optimum: str = ""


class Results:
    """The finished runs of a reproduction, by spec; `primaries` is the number of primary effects."""

    def __init__(self, opened: Callable[[RunSpec], FinishedRun], confidence: float, primaries: int = 1) -> None:
        self._opened, self._confidence, self._primaries = opened, confidence, primaries

    def __getitem__(self, spec: RunSpec) -> FinishedRun:
        return self._opened(spec)

    def level(self, primary: bool = False) -> float:
        """Return the confidence level of an effect's interval."""
        return 1 - (1 - self._confidence) / self._primaries if primary else self._confidence

    def divided(self, parts: int) -> "Results":
        """Return the results with effects of a higher level, for `parts` of which one decides."""
        return Results(self._opened, 1 - (1 - self._confidence) / parts, self._primaries)

    def again(self, looks: int) -> "Results":
        """Return the results with primary effects of a higher level, for a finding that is judged `looks` times."""
        return Results(self._opened, self._confidence, self._primaries * looks)

    def memorization(self, spec: RunSpec, among: RunSpec | None = None, measure: str = "clipmem") -> list[float]:
        """Return the mean CLIPMem by seed (`FinishedRun.halved`), over the pairs in common with the run `among`."""
        run = self[spec]
        other = self[among] if among else run
        return run.halved(common(other, run), common(other, run, "independent"), measure)

    def utility(self, spec: RunSpec, metric: str) -> list[float]:
        """Return a utility metric of f by seed; [] if not measured."""
        return self[spec].utility.get(metric, [])

    def effect(
        self,
        measure: str,
        values: Sequence[float],
        base: Sequence[float] | None,
        claim: Claim,
        *,
        primary: bool = False,
    ) -> Effect:
        """Measure the mean of `values` minus `base` over paired seeds (minus 0 without a base).

        Runs have the seeds 0, 1, ...; those that both have are compared.
        """
        seeds = len(values) if base is None else min(len(values), len(base))
        own, level = np.asarray(values[:seeds], dtype=np.float64), self.level(primary)
        found = paired_test(own, np.zeros_like(own) if base is None else np.asarray(base[:seeds]), level)
        # equal differences have no interval: a few coarse values that coincide are not certainty
        return Effect(measure, found.difference, found.low, found.high, claim, len(own), level, primary)

    def weakest(self, measure: str, pairs: Sequence[Pair], claim: Claim, *, primary: bool) -> Effect:
        """Measure the weakest of effects that must all hold: of k pairs of values and base, the weakest of each end.

        Each must be beyond 0 for a "yes", so the end next to 0 needs no correction (an intersection-union test). One of
        them suffices for a "no", so the other end has intervals of level 1 - (1 - confidence) / k.
        """
        levels, above = (self, self.divided(len(pairs))), claim.side == "above"
        near, far = ([at.effect(measure, *pair, claim, primary=primary) for pair in pairs] for at in levels)
        pick = min if above else max
        found = replace(near[0], estimate=pick(one.estimate for one in near))
        if any(one.low is None or one.high is None for one in near):
            return replace(found, low=None, high=None)
        ends = {"low": near if above else far, "high": far if above else near}
        return replace(found, **{end: pick(getattr(one, end) for one in own) for end, own in ends.items()})

    def series(self, name: str, x: Sequence[float | int], values: Sequence[Sequence[float]]) -> Series:
        """Return a curve of means over seeds with t intervals; levels without values are left out."""
        known = [(at, self.effect("", own, None, ABOVE)) for at, own in zip(x, values, strict=True) if len(own)]
        return Series(
            name,
            [float(at) for at, _ in known],
            [one.estimate for _, one in known],
            [one.low for _, one in known],
            [one.high for _, one in known],
        )


def widened(effect: Effect, low: float | None, high: float | None) -> Effect:
    """Join an interval over seeds (for fixed pairs) with one over pairs (for fixed models)."""
    ends = (effect.low, effect.high, low, high)
    known = [end for end in ends if end is not None]
    if len(known) < len(ends):
        return replace(effect, low=None, high=None)
    return replace(effect, low=min(known), high=max(known))


def optimum(
    results: Results,
    measure: str,
    values: Sequence[Sequence[float]],
    claim: Claim,
    *,
    at: int | None = None,
    primary: bool = False,
) -> list[Effect]:
    """Test whether a sweep has an inner optimum: the best inner level against both ends; one row of values per level.

    Without `at`, the level of each seed is chosen by the other seeds.
    """
    common_seeds = min((len(own) for own in values), default=0)
    table = np.asarray([list(own[:common_seeds]) for own in values], dtype=np.float64)
    levels, seeds = table.shape if table.ndim == 2 else (0, 0)
    if levels < 3 or (at is None and seeds < 2):
        return []
    chosen = [at if at is not None else _best(table, seed, claim) for seed in range(seeds)]
    inner = table[chosen, np.arange(seeds)]
    ends = [(inner.tolist(), table[end].tolist()) for end in (0, -1)]
    return [results.weakest(measure, ends, claim, primary=primary)]


def _best(table: np.ndarray, seed: int, claim: Claim) -> int:
    means = np.delete(table, seed, axis=1).mean(axis=1)[1:-1]
    return 1 + int(means.argmax() if claim.side == "above" else means.argmin())


def mitigated(
    results: Results, base: RunSpec, run: RunSpec, name: str, *, size: float = 0.0, primary: bool = False
) -> list[Effect]:
    """Measure a mitigation: the relative change of CLIPMem, claimed below 0, and of each utility, claimed above 0.

    Where both runs were scored on all wordings, the change over these is there too, after that on the first caption.
    """
    found: list[Effect] = []
    for measure, where in (("clipmem", ""), ("clipmem_wordings", " over all wordings")):
        after, before = (np.array(results.memorization(*specs, measure)) for specs in ((run, base), (base, run)))
        if after.size and before.size:
            scale = abs(float(before.mean())) or 1.0
            values, plain = (after / scale).tolist(), (before / scale).tolist()
            first = primary and not where
            title = f"{name}: relative change of CLIPMem{where}"
            found.append(results.effect(title, values, plain, Claim("below", size), primary=first))
    for metric, label in UTILITIES.items():
        values, plain = results.utility(run, metric), results.utility(base, metric)
        if values and plain:
            found.append(results.effect(f"{name}: change of {label}", values, plain, ABOVE))
    return found


@dataclass(frozen=True)
class Context:
    """The scale and the recipe of the base study."""

    scale: Scale
    base: Recipe

    def fewer(self, spec: RunSpec) -> RunSpec:
        """Return a run with the fewer seeds of the scale, which suffice for large effects."""
        seeds = len(self.base.train.seeds)
        return spec.seeded(self.scale.fewer) if self.scale.fewer < seeds else spec


class Finding(ABC):
    """A published finding, or a question of reviewers, evaluated on finished runs."""

    name: ClassVar[str]
    title: ClassVar[str]
    claim: ClassVar[str]
    published: ClassVar[str]  # the published numbers and their reading error; "" if nothing was published
    limits: ClassVar[str] = ""

    @abstractmethod
    def runs(self, context: Context) -> Mapping[str, RunSpec]:
        """Return the runs it needs, by name."""

    @abstractmethod
    def effects(self, context: Context, results: Results) -> list[Effect]:
        """Return the effects, the primary one first."""

    @abstractmethod
    def panels(self, context: Context, results: Results) -> list[Panel]:
        """Return the panels of its figure, the published ones last."""


FINDINGS: Registry[Finding] = Registry("finding", Finding)  # pyright: ignore[reportAbstractUsage]


def holds(effects: Sequence[Effect]) -> Answer:
    """Return the verdict of the primary effect; inconclusive if it was not measured."""
    primary = [one for one in effects if one.primary]
    return primary[0].holds if primary else "inconclusive"


def judge(finding: Finding, context: Context, results: Results) -> dict[str, Any]:
    """Return a finding as `findings.json` holds it: claim, verdict, effects, curves, and how often it was judged."""
    looks = context.scale.looks.get(finding.name, 1)
    effects = finding.effects(context, results.again(looks))
    return {
        "finding": finding.name,
        **{key: getattr(finding, key) for key in ("title", "claim", "published", "limits")},
        "looks": looks,
        "holds": holds(effects),
        "effects": [one.as_dict() for one in effects],
        "panels": [asdict(panel) for panel in finding.panels(context, results)],
    }
