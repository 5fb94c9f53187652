"""What a finding is: its claim, the published numbers, the runs it needs, and how they become effects and a figure.

One file a finding in `findings`, registered in `FINDINGS`. A finding computes nothing that a run folder does not hold,
so that its verdict can be taken again from the folders.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from clipmem.base.recipes import Recipe
from clipmem.base.registry import Registry
from clipmem.functional.comparisons import paired_test
from clipmem.functional.verdict import Answer, Claim, all_hold, verdict
from clipmem.report.compare.fair import common
from clipmem.report.compare.run import ComparedRun
from clipmem.study.reproduce.scales import Scale
from clipmem.study.reproduce.wanted import Wanted

UTILITIES = {
    "linear_probe_acc1": "linear probe",
    "zero_shot_acc1": "zero-shot",
    "image_retrieval_recall@5": "image recall@5",
    "text_retrieval_recall@5": "text recall@5",
}
ABOVE, BELOW = Claim("above"), Claim("below")


@dataclass(frozen=True)
class Effect:
    """One measured effect and whether it bears its claim out.

    Attributes:
        measure: What was measured, in words.
        estimate: Its mean over seeds.
        low: Lower end of the interval; None with one seed, or where all seeds agree to the last digit.
        high: Upper end.
        holds: The verdict.
        claim: What was claimed of it, in words.
        seeds: Over how many seeds.
        counts: Whether the finding's verdict rests on it; the others are shown beside.
        part: Which of several ways it belongs to, where one way that holds is enough; "" where all must.
    """

    measure: str
    estimate: float
    low: float | None
    high: float | None
    holds: Answer
    claim: str
    seeds: int
    counts: bool = True
    part: str = ""


@dataclass(frozen=True)
class Series:
    """A curve: its name, x, and the mean at each x with its interval; `low` and `high` are empty where unknown."""

    name: str
    x: list[float]
    mean: list[float]
    low: list[float | None] = field(default_factory=list[float | None])
    high: list[float | None] = field(default_factory=list[float | None])


@dataclass(frozen=True)
class Panel:
    """A part of a figure. Published panels have a scale of their own: only order and shape compare with ours.

    `ticks` are names instead of numbers at 0, 1, ...; where these have no order the points are not `joined`. The
    `optimum` of each curve, its "lowest" or "highest" point, has a ring.
    """

    title: str
    xlabel: str
    ylabel: str
    series: list[Series]
    published: bool = False
    ticks: list[str] = field(default_factory=list[str])
    joined: bool = True
    optimum: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return asdict(self)


class Results:
    """The finished runs of a reproduction, by what was wanted.

    Args:
        opened: Gives the run of a `Wanted`.
        confidence: Level of the intervals.
    """

    def __init__(self, opened: Callable[[Wanted], ComparedRun], confidence: float) -> None:
        self._opened, self.confidence = opened, confidence

    def __getitem__(self, wanted: Wanted) -> ComparedRun:
        return self._opened(wanted)

    def memorization(self, wanted: Wanted, among: Wanted | None = None) -> list[float]:
        """Return the mean CLIPMem by seed, over the candidates that both runs trained on."""
        run = self[wanted]
        return run.memorization(common(self[among], run) if among else run.uids("candidate"))

    def utility(self, wanted: Wanted, metric: str) -> list[float]:
        """Return a utility metric of f by seed; [] where it was not measured."""
        return self[wanted].utility.get(metric, [])

    def effect(
        self,
        measure: str,
        values: Sequence[float],
        base: Sequence[float] | None,
        claim: Claim,
        said: str,
        *,
        counts: bool = True,
    ) -> Effect:
        """Measure the mean of `values` less `base` over paired seeds (less 0 without a base) and judge it."""
        own = np.asarray(values, dtype=np.float64)
        found = paired_test(own, np.zeros_like(own) if base is None else np.asarray(base), self.confidence)
        # differences that are all equal have no interval: a few coarse values that coincide are no certainty
        answer = verdict(found.low, found.high, claim)
        return Effect(measure, found.difference, found.low, found.high, answer, said, len(own), counts)

    def widened(self, effect: Effect, low: float | None, high: float | None, claim: Claim) -> Effect:
        """Widen an effect's interval by another source of uncertainty and judge it again.

        The interval over seeds is of these pairs, that over pairs of these models. What covers both contains both.

        Args:
            effect: The effect, with its interval over seeds.
            low: Lower end of the interval over pairs; None where there is none: the effect has none either.
            high: Its upper end.
            claim: What is claimed.
        """
        ends = (effect.low, effect.high, low, high)
        known = [end for end in ends if end is not None]
        least, most = (min(known), max(known)) if len(known) == len(ends) else (None, None)
        return replace(effect, low=least, high=most, holds=verdict(least, most, claim))

    def series(self, name: str, x: Sequence[float | int], values: Sequence[Sequence[float]]) -> Series:
        """Make a curve of means over seeds with their t intervals, leaving out what was not measured."""
        known = [(at, self.effect("", own, None, ABOVE, "")) for at, own in zip(x, values, strict=True) if len(own)]
        return Series(
            name,
            [float(at) for at, _ in known],
            [one.estimate for _, one in known],
            [one.low for _, one in known],
            [one.high for _, one in known],
        )


@dataclass(frozen=True)
class Context:
    """What a finding may look at: the scale and the recipe of the base study."""

    scale: Scale
    base: Recipe


class Finding(ABC):
    """A published finding, or a question that reviewers asked.

    Attributes:
        title: What it is about.
        claim: What is claimed, in one sentence.
        published: The published numbers and their reading error, in words; "" where nothing was published.
        limits: What it cannot show here.
    """

    title: str
    claim: str
    published: str
    limits: str = ""

    @abstractmethod
    def runs(self, context: Context) -> Mapping[str, Wanted]:
        """Name the runs that it needs."""

    @abstractmethod
    def effects(self, context: Context, results: Results) -> list[Effect]:
        """Measure what is claimed."""

    @abstractmethod
    def panels(self, context: Context, results: Results) -> list[Panel]:
        """Return the figure's parts, ours first and the published ones after them."""

    def holds(self, effects: Sequence[Effect]) -> Answer:
        """Join the verdicts of the effects that count; of several ways (parts) one that holds is enough."""
        counted = [one for one in effects if one.counts]
        ways = [
            all_hold(one.holds for one in counted if one.part == part)
            for part in dict.fromkeys(one.part for one in counted)
        ]
        if "yes" in ways:
            return "yes"
        return "no" if set(ways) == {"no"} else "inconclusive"


FINDINGS: Registry[Finding] = Registry("finding", Finding)  # pyright: ignore[reportAbstractUsage]


def mitigated(
    results: Results,
    base: Wanted,
    run: Wanted,
    name: str,
    *,
    size: float = 0.0,
    counts: bool = True,
) -> list[Effect]:
    """Measure a mitigation: the relative change of CLIPMem, claimed below 0, and of each utility, claimed above 0.

    The relative change under seed k is (m_k - b_k) / mean(b), over the candidates that both trained on.

    Args:
        results: The finished runs.
        base: The run without it.
        run: The run with it.
        name: What it is called.
        size: The published relative change of CLIPMem, without sign.
        counts: Whether the finding's verdict rests on it.
    """
    before = np.array(results.memorization(base, among=run))
    after = np.array(results.memorization(run, among=base))
    scale = abs(float(before.mean())) or 1.0
    found = [
        results.effect(
            f"{name}: relative change of CLIPMem",
            (after / scale).tolist(),
            (before / scale).tolist(),
            Claim("below", size),
            f"below 0 (published -{100 * size:.1f} %)" if size else "below 0",
            counts=counts,
        )
    ]
    for metric, words in UTILITIES.items():
        values, plain = results.utility(run, metric), results.utility(base, metric)
        if values and plain:
            # one utility decides, the one that was published: the others are shown beside it
            decides = counts and metric == "linear_probe_acc1"
            found.append(results.effect(f"{name}: change of {words}", values, plain, ABOVE, "above 0", counts=decides))
    return found
