"""Effects over paired seeds, and their verdicts.

Each finding is judged by its **primary** effect. With m findings in a regime and a finding that is looked at L times,
the interval has level 1 - (1 - confidence) / (m L) (Bonferroni). A planned finding may have several claims, with a
primary effect each; L is then their number times that of the looks. Over new seeds, the probability of any wrong
"yes" is at most (1 - confidence) / 2, and so is that of any wrong "no". This holds for one split, one set of planted
captions and one regime; other splits would differ by more than the seeds do. In a planned reproduction each seed has
a split of its own, and its intervals are over both: of a simulated pool they hold the truth in 94 to 96% of 1,500
reproductions (`tests/test_coverage.py`), those of a weakest effect in 98%. All other effects are shown at the
uncorrected level.
"""

from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from clipmem.functional import Claim, paired_test, verdict
from clipmem_reproduce.measured import Measured
from clipmem_reproduce.spec import RunSpec

ABOVE, BELOW = Claim("above"), Claim("below")
MEASURES: Mapping[str, str] = {"clipmem": "", "clipmem_wordings": " over all captions"}
OF_CANDIDATES: Mapping[str, Callable[[Measured], Sequence[float]]] = {  # means over pairs that only f trained on
    "clipmem candidate": lambda run: run.memorization(run.uids("candidate")),
    "share of the text tower": lambda run: run.tower_shares["text"],
    "share of the image tower": lambda run: run.tower_shares["image"],
}
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
    negligible: float = 0.0

    @property
    def holds(self) -> str:
        """Whether the claim holds: `yes`, `no` or `inconclusive`; `negligible` if the effect is too small to matter.

        It is if the whole interval is within ±`negligible`, a size declared before any run (an equivalence test).
        """
        within = self.low is not None and self.high is not None and max(-self.low, self.high) < self.negligible
        return "negligible" if within and self.claim.side != "zero" else verdict(self.low, self.high, self.claim)

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
    """The finished runs of a reproduction, by spec, and effects between them.

    Args:
        opened: Reads the run of a spec.
        confidence: Level of an interval, uncorrected.
        primaries: Number of primary effects.
        replicates: Returns the runs that a run stands for; by default itself alone.
    """

    def __init__(
        self,
        opened: Callable[[RunSpec], Measured],
        confidence: float,
        primaries: int = 1,
        replicates: Callable[[RunSpec], Sequence[RunSpec]] = lambda spec: [spec],
    ) -> None:
        self._opened, self._confidence, self._primaries = opened, confidence, primaries
        self._replicates = replicates

    def each(self, spec: RunSpec) -> list[Measured]:
        """Return the finished runs that a run stands for: one with all its seeds, or one for each split."""
        return [self._opened(replicate) for replicate in self._replicates(spec)]

    def by_seed(self, spec: RunSpec, measure: Callable[[Measured], Sequence[float]]) -> list[float]:
        """Return what `measure` returns for each of these runs, by seed; [] if one of them was not measured."""
        return _joined([measure(run) for run in self.each(spec)])

    def level(self, primary: bool = False) -> float:
        """Return the confidence level of an effect's interval."""
        return 1 - (1 - self._confidence) / self._primaries if primary else self._confidence

    def divided(self, parts: int) -> "Results":
        """Return the results with effects of a higher level, for `parts` of which one decides."""
        results = copy(self)
        results._confidence = 1 - (1 - self._confidence) / parts
        return results

    def again(self, looks: int) -> "Results":
        """Return the results with primary effects of a higher level, for a finding with so many looks or claims."""
        results = copy(self)
        results._primaries *= looks
        return results

    def values(self, spec: RunSpec, metric: str = "clipmem", among: RunSpec | None = None) -> list[float]:
        """Return a measure of memorization, or a metric of f's utility, by seed; [] if not measured.

        Args:
            spec: The run.
            metric: One of `MEASURES`, as the half-difference, of `OF_CANDIDATES`, or a metric of utility.
            among: Memorization is that of the pairs in common with this run.
        """
        if metric in OF_CANDIDATES:
            return self.by_seed(spec, OF_CANDIDATES[metric])
        if metric not in MEASURES:
            return self.by_seed(spec, lambda run: run.utility.get(metric, []))
        values: list[list[float]] = []
        for run, other in zip(self.each(spec), self.each(among or spec), strict=False):
            candidates, independent = (run.uids(role) & other.uids(role) for role in ("candidate", "independent"))
            values.append(run.half_difference(candidates, independent, metric))
        return _joined(values)

    def validation(self, spec: RunSpec, metric: str) -> list[float]:
        """Return a metric of f's utility on the validation pairs by seed; [] if not measured."""
        return self.by_seed(spec, lambda run: run.validation.get(metric, []))

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
        after, level = np.asarray(values[:seeds], dtype=np.float64), self.level(primary)
        before = np.zeros_like(after) if base is None else np.asarray(base[:seeds], dtype=np.float64)
        test = paired_test(after, before, level)
        # equal differences have no interval: a few coarse values that coincide are not certainty
        return Effect(measure, test.difference, test.low, test.high, claim, seeds, level, primary)

    def contrast(
        self, measure: str, run: RunSpec, base: RunSpec, claim: Claim, metric: str = "clipmem", *, primary: bool = False
    ) -> list[Effect]:
        """Measure a metric in a run minus that in another; empty if one of them was not measured."""
        values, plain = self.values(run, metric), self.values(base, metric)
        return [self.effect(measure, values, plain, claim, primary=primary)] if values and plain else []

    def weakest(self, measure: str, pairs: Sequence[Pair], claim: Claim, *, primary: bool) -> Effect:
        """Measure the weakest of effects that must all hold: of k pairs of values and base, the weakest of each end.

        Each must be beyond 0 for a "yes", so the end next to 0 needs no correction (an intersection-union test). One of
        them suffices for a "no", so the other end has intervals of level 1 - (1 - confidence) / k.
        """
        levels, above = (self, self.divided(len(pairs))), claim.side == "above"
        near, far = ([at.effect(measure, *pair, claim, primary=primary) for pair in pairs] for at in levels)
        pick = min if above else max
        weakest = replace(near[0], estimate=pick(effect.estimate for effect in near))
        if any(effect.low is None or effect.high is None for effect in near):
            return replace(weakest, low=None, high=None)
        ends = {"low": near if above else far, "high": far if above else near}
        return replace(weakest, **{end: pick(getattr(effect, end) for effect in each) for end, each in ends.items()})

    def series(self, name: str, x: Sequence[float | int], values: Sequence[Sequence[float]]) -> Series:
        """Return a curve of means over seeds with t intervals; levels without values are left out."""
        means = [(level, self.effect("", row, None, ABOVE)) for level, row in zip(x, values, strict=True) if len(row)]
        return Series(
            name,
            [float(level) for level, _ in means],
            [mean.estimate for _, mean in means],
            [mean.low for _, mean in means],
            [mean.high for _, mean in means],
        )


def _joined(values: Sequence[Sequence[float]]) -> list[float]:
    return [value for of_run in values for value in of_run] if all(values) else []


def strongest(measure: str, effects: Sequence[Effect]) -> Effect:
    """Combine effects of which one must hold: the largest of each end (a union-intersection test).

    The effects must have intervals of level 1 - (1 - confidence) / m for m of them.
    """
    measured = [effect for effect in effects if effect.low is not None and effect.high is not None]
    if not measured:
        return replace(effects[0], measure=measure, low=None, high=None)
    ends = {end: max(getattr(effect, end) for effect in measured) for end in ("low", "high")}
    return replace(measured[0], measure=measure, estimate=max(effect.estimate for effect in measured), **ends)


def widened(effect: Effect, low: float | None, high: float | None) -> Effect:
    """Join an interval over seeds (for fixed pairs) with one over pairs (for fixed models)."""
    if effect.low is None or effect.high is None or low is None or high is None:
        return replace(effect, low=None, high=None)
    return replace(effect, low=min(effect.low, effect.high, low, high), high=max(effect.low, effect.high, low, high))


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
    common_seeds = min((len(row) for row in values), default=0)
    table = np.asarray([list(row[:common_seeds]) for row in values], dtype=np.float64)
    levels, seeds = table.shape if table.ndim == 2 else (0, 0)
    if levels < 3 or (at is None and seeds < 2):
        return []
    best = [at if at is not None else _best(table, seed, claim) for seed in range(seeds)]
    inner = table[best, np.arange(seeds)]
    ends = [(inner.tolist(), table[end].tolist()) for end in (0, -1)]
    return [results.weakest(measure, ends, claim, primary=primary)]


def _best(table: np.ndarray, seed: int, claim: Claim) -> int:
    means = np.delete(table, seed, axis=1).mean(axis=1)[1:-1]
    return 1 + int(means.argmax() if claim.side == "above" else means.argmin())


def relative(values: Sequence[float], base: Sequence[float], sign: int) -> tuple[list[float], list[float]]:
    """Return both measures by seed in units of the mean in the base run, times `sign`."""
    n = min(len(values), len(base))
    before, after = np.asarray(base[:n], dtype=np.float64), np.asarray(values[:n], dtype=np.float64)
    scale = sign / (abs(float(before.mean())) or 1.0)
    return (after * scale).tolist(), (before * scale).tolist()


def dominance(
    results: Results, base: Pair, other: Pair, measure: str, *, margin: float = 0.0, primary: bool = False
) -> Effect:
    """Measure whether memorization falls and utility rises: the smaller of both relative changes, claimed above 0.

    Both must hold (`Results.weakest`). With a margin, utility only must not fall by more than this share.

    Args:
        results: Gives the level of the interval.
        base: Memorization and utility by seed without mitigation.
        other: The same with it.
        measure: Name of the effect.
        margin: Share of the utility, 0 or more.
        primary: Whether it decides the finding.
    """
    after, before = relative(other[1], base[1], 1)
    changes = [relative(other[0], base[0], -1), ([value + margin for value in after], before)]
    return results.weakest(measure, changes, ABOVE, primary=primary)
