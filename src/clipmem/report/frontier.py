"""Compare configurations over a setting such as the length of training: memorization against utility, a curve each.

Runs that agree in everything but that setting are one configuration. Configurations are compared with the baseline's at
equal values, and each at its own best value, by utility: chosen on validation pairs if all runs measured it there
(`evaluate/utility.json`, `validation`), else for each seed by the other seeds. In the second case, utility at the best
value is unbiased but its values by seed are not quite independent: intervals are approximate.

Everything here is over the pairs that all runs have in common, so that curves and differences agree. With a run that
removed the most memorized pairs, that lowers all curves alike.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypedDict

import numpy as np
from jaxtyping import Float64, Int64

from clipmem.base.errors import did_you_mean, require, shorten
from clipmem.base.recipes import flatten
from clipmem.report.run import Run, Runs
from clipmem.stats.comparisons import Claim, holm, paired_test, verdict

# settings of the plot
IRRELEVANT = ("score.confidence", "score.draws", "localize.", "dejavu.", "train.seeds", "mitigate.interpolate.run")
# a parent's scores belong to a configuration at each length
_PARENTS = ("mitigate.remove.scores", "mitigate.regroup.scores")

Seeds = Sequence[float] | Float64[np.ndarray, " seed"]  # a value by seed
Levels = Sequence[int] | Int64[np.ndarray, " seed"]  # a place on a curve by seed


class Difference(TypedDict):
    """Means over seeds of a run and its baseline, and their difference with its interval and tests, as JSON."""

    mean: float
    baseline: float
    difference: float
    low: float | None
    high: float | None
    p: float | None
    wilcoxon_p: float
    effect: float | None


class Dominance(TypedDict):
    """Whether a run dominates its baseline, `yes`, `no` or `inconclusive`, as JSON."""

    dominates: str
    p: float | None


class Curve(NamedTuple):
    """A configuration: its runs in order of the setting, with memorization and utility by run and seed."""

    runs: Runs
    values: Sequence[float]
    memorization: Float64[np.ndarray, "level seed"]
    utility: Float64[np.ndarray, "level seed"]
    validation: Float64[np.ndarray, "level seed"] | None  # None if not all runs measured it


def differing(baseline: Run, other: Run, irrelevant: Sequence[str] = IRRELEVANT) -> dict[str, list[Any]]:
    """Return the relevant settings that differ, with their values in the baseline and in the other run."""
    base, settings = flatten(baseline.recipe), flatten(other.recipe)
    differences = {
        key: [base.get(key), settings.get(key)]
        for key in {**base, **settings}
        if base.get(key) != settings.get(key) and not key.startswith(tuple(irrelevant))
    }
    return json.loads(json.dumps(differences))


def setting_of(run: Run, along: str) -> Any:
    """Return a run's value of a setting `section.key`."""
    return flatten(run.recipe)[along]


def _distinct_numbers(runs: Runs, along: str) -> int:
    """Count the values that runs have of a setting; 0 unless all are numbers."""
    values = [setting_of(run, along) for run in runs]
    return all(isinstance(item, int | float) and not isinstance(item, bool) for item in values) and len(set(values))


def setting_between(runs: Runs) -> str:
    """Return the only setting in which three or more runs differ, if its values are numbers and distinct; else ""."""
    keys = {key for run in runs[1:] for key in differing(runs[0], run, (*IRRELEVANT, *_PARENTS))}
    usable = len(runs) > 2 and len(keys) == 1
    return next((key for key in keys if usable and _distinct_numbers(runs, key) == len(runs)), "")


def configurations(runs: Runs, along: str) -> list[list[Run]]:
    """Group runs by all settings but `along`, the first run's group first, each sorted by that setting.

    Raises:
        InputError: The setting does not exist, is no number, is the same in all runs, or twice in one group.
    """
    settings = flatten(runs[0].recipe)
    expected, hint = "a setting of the recipe, as SECTION.KEY", did_you_mean(along, settings)
    require(along in settings, "--along", shorten(along), expected, hint)
    got, usable = ", ".join(dict.fromkeys(str(setting_of(run, along)) for run in runs)), _distinct_numbers(runs, along)
    require(usable > 1, f"--along {along}", got, "numbers, not all equal", "Name a setting such as train.epochs.")
    groups: dict[str, list[Run]] = {}
    for run in runs:
        key = json.dumps(differing(runs[0], run, (*IRRELEVANT, *_PARENTS, along)), sort_keys=True)
        groups.setdefault(key, []).append(run)
    for group in groups.values():
        values = [setting_of(run, along) for run in group]
        twice = [run.name for run, value in zip(group, values, strict=True) if values.count(value) > 1]
        hint = "Omit one of them, or check which other setting should differ."
        require(not twice, f"--along {along}", f"equal settings in {', '.join(twice)}", "one run for each value", hint)
    return [sorted(group, key=lambda run: setting_of(run, along)) for group in groups.values()]


def best_levels(curve: Curve, *, validated: bool) -> Int64[np.ndarray, " seed"]:
    """Return for each seed the level at which utility is best: on validation pairs, or by the other seeds."""
    seeds = curve.utility.shape[1]
    if validated and curve.validation is not None:
        return np.full(seeds, curve.validation.mean(axis=1).argmax())
    return np.array([np.delete(curve.utility, k, axis=1).mean(axis=1).argmax() for k in range(seeds)])


def frontier(groups: Sequence[Runs], along: str, *, measure: str, utility: str, confidence: float) -> dict[str, object]:
    """Return the curve of each configuration and their comparisons with the first, as `compare.json` holds them.

    Points near chance (`is_useful`, against the baseline's best) are not on the front.
    """
    runs = [run for group in groups for run in group]
    roles = ("candidate", "independent")
    candidates, independent = (set.intersection(*(run.uids(role) for run in runs)) for role in roles)
    hint = "Compare fewer runs, or runs that removed fewer pairs."
    require(candidates, f"--along {along}", "no candidate in common", "candidates that all trained on", hint)
    hint = "Run `clipmem run` again in their folders: it measures what is missing."
    require(utility, f"--along {along}", "no metric of utility in common", "runs whose utility was measured", hint)
    curves: list[Curve] = []
    for group in groups:
        held_out = [run.validation.get(utility) for run in group]
        memory = np.array([run.halved(candidates, independent, measure) for run in group])
        validation = None if None in held_out else np.array(held_out, dtype=np.float64)
        values = [setting_of(run, along) for run in group]
        curves.append(Curve(group, values, memory, np.array([run.utility[utility] for run in group]), validation))
    seeds, base = range(len(runs[0].seeds)), curves[0]

    def compared(k: int, levels: Levels, base_levels: Levels) -> tuple[dict[str, object], Dominance]:
        """Compare a curve with the first, seed by seed, each at the given level of each seed."""
        curve = curves[k]
        memory = difference(curve.memorization[levels, seeds], base.memorization[base_levels, seeds], confidence)
        gain = difference(curve.utility[levels, seeds], base.utility[base_levels, seeds], confidence)
        values = {"values": [curve.values[n] for n in levels], "base_values": [base.values[n] for n in base_levels]}
        return {"group": k, **values, "memorization": memory, "utility": gain}, dominance(memory, gain)

    equal = [
        compared(k, [level] * len(seeds), [base.values.index(value)] * len(seeds))
        for k, curve in enumerate(curves[1:], start=1)
        for level, value in enumerate(curve.values)
        if value in base.values
    ]
    best, validated = equal[:0], all(curve.validation is not None for curve in curves)
    if validated or len(seeds) > 1:
        levels = [best_levels(curve, validated=validated) for curve in curves]
        best = [compared(k, levels[k], levels[0]) for k in range(1, len(curves))]
    means = {
        run.name: (float(curve.memorization[k].mean()), float(curve.utility[k].mean()))
        for curve in curves
        for k, run in enumerate(curve.runs)
    }
    chance, most = runs[0].chance.get(utility), float(base.utility.mean(axis=1).max())
    useful = {name: mean for name, mean in means.items() if is_useful(mean[1], most, chance)}
    on_front = front(useful)
    return {
        "setting": along,
        "measure": measure,
        "utility": utility,
        "chosen_by": "validation" if validated else "other_seeds",
        "candidates": len(candidates),
        "independent": len(independent),
        "groups": [
            {
                "differs": differing(runs[0], curve.runs[0], (*IRRELEVANT, *_PARENTS, along)),
                "peak": curve.values[int(curve.utility.mean(axis=1).argmax())],
                "points": [
                    {
                        "run": run.name,
                        "value": curve.values[k],
                        "memorization": mean_over_seeds(curve.memorization[k], confidence),
                        "utility": mean_over_seeds(curve.utility[k], confidence),
                        "near_chance": run.name not in useful,
                        "front": run.name in on_front,
                    }
                    for k, run in enumerate(curve.runs)
                ],
            }
            for curve in curves
        ],
        **{
            name: [
                {**row, **answer, "p_holm": p}
                for (row, answer), p in zip(family, adjusted(answer for _, answer in family), strict=True)
            ]
            for name, family in (("equal", equal), ("best", best))
        },
    }


def front(points: Mapping[str, tuple[float, float]]) -> list[str]:
    """Return the runs on the Pareto front of mean (memorization, utility), in order of memorization."""
    best = [
        run
        for run, point in points.items()
        if not any(x <= point[0] and y >= point[1] for x, y in points.values() if (x, y) != point)
    ]
    return sorted(best, key=lambda run: (points[run][0], -points[run][1]))


def is_useful(utility: float, baseline: float, chance: float | None) -> bool:
    """Return whether a mean utility is above chance and keeps half of the baseline's distance from it.

    u > c and u - c >= (b - c) / 2. A model that learned little memorizes little, and must not pass for a mitigation.
    The rule is about means, as the front is; a metric whose chance is unknown (None) has no rule.
    """
    return chance is None or (utility > chance and utility - chance >= (baseline - chance) / 2)


def difference(values: Seeds, base: Seeds, confidence: float) -> Difference:
    """Return both means, the mean difference over paired seeds with its t interval, and its tests."""
    run_values, base_values = (np.asarray(side, dtype=np.float64) for side in (values, base))
    test = paired_test(run_values, base_values, confidence)
    return {
        "mean": float(run_values.mean()),
        "baseline": float(base_values.mean()),
        "difference": test.difference,
        "low": test.low,
        "high": test.high,
        "p": test.p,
        "wilcoxon_p": test.wilcoxon_p,
        "effect": test.effect,
    }


def mean_over_seeds(values: Seeds, confidence: float) -> dict[str, float | None]:
    """Return the mean of values by seed with its t interval, which is that of paired differences from 0."""
    test = paired_test(np.asarray(values, dtype=np.float64), np.zeros(len(values)), confidence)
    return {"mean": test.difference, "low": test.low, "high": test.high}


def dominance(memorization: Difference, utility: Difference) -> Dominance:
    """Decide from two differences whether a run dominates its baseline: memorization lower *and* utility higher.

    `dominates` is `yes` if both intervals exclude 0 on that side, `no` if one excludes 0 on the other side, otherwise
    `inconclusive`. `p` is the larger of the two p-values (an intersection-union test), where a difference of the
    opposite sign counts as 1; None if a difference has no interval.
    """
    sides = ((memorization, Claim("below"), -1), (utility, Claim("above"), 1))
    answers = [verdict(row["low"], row["high"], claim) for row, claim, _ in sides]
    order = ("no", "inconclusive", "yes")
    p_values = [row["p"] if sign * row["difference"] > 0 else 1.0 for row, _, sign in sides if row["p"] is not None]
    return {"dominates": min(answers, key=order.index), "p": max(p_values) if len(p_values) == 2 else None}


def adjusted(rows: Iterable[Difference | Dominance]) -> list[float | None]:
    """Return the Holm-adjusted `p` of each row of a family of tests; None where `p` is None."""
    p_values = np.array([np.nan if row["p"] is None else row["p"] for row in rows], dtype=np.float64)
    return [None if np.isnan(p) else p for p in holm(p_values).tolist()]
