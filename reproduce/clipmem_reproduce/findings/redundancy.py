"""Not published: how does CLIPMem fall with the number of other pairs of the same thing that the models have seen?"""

from collections import Counter
from collections.abc import Mapping
from functools import cache

import numpy as np

from clipmem.base.hashing import same_words
from clipmem_reproduce.effects import ABOVE, BELOW, Effect, Panel, Results
from clipmem_reproduce.finding import Context, Finding
from clipmem_reproduce.measured import Measured
from clipmem_reproduce.spec import RunSpec

MOST = 5  # that many others or more


def counted(context: Context) -> RunSpec:
    """Return the study with as many pairs of the same things as the data have, or by plan as a seed draws."""
    run = RunSpec(study=context.scale.redundancy)
    return run if context.scale.crossed else context.fewer(run)


@cache
def others(run: Measured) -> dict[str, dict[int, set[str]]]:
    """Return for candidates and g-only pairs the pairs by the number of shared pairs with the same first caption.

    Both models trained on these; `MOST` stands for that many or more.
    """
    names = {uid: same_words(captions[0]) for uid, captions in run.captions.items()}
    seen = Counter(names[uid] for uid in run.uids("shared"))
    by_role: dict[str, dict[int, set[str]]] = {"candidate": {}, "independent": {}}
    for role, by_count in by_role.items():
        for uid in run.uids(role):
            by_count.setdefault(min(seen[names[uid]], MOST), set()).add(uid)
    return by_role


def by_others(run: Measured) -> dict[int, list[float]]:
    """Return the mean CLIPMem by seed (half-difference) by the number of others, where both roles have such pairs."""
    candidate, independent = others(run).values()
    counts = sorted(set(candidate) & set(independent))
    return {count: run.half_difference(candidate[count], independent[count]) for count in counts}


def by_count(context: Context, results: Results) -> dict[int, list[float]]:
    """Return the same over all splits, for the numbers of others that each of them has."""
    means = [by_others(run) for run in results.each(counted(context))]
    counts = sorted(set[int].intersection(*(set(of_run) for of_run in means)))
    return {count: [value for of_run in means for value in of_run[count]] for count in counts}


class Redundancy(Finding):
    name = "redundancy"
    title = "Redundancy"
    claim = "The more other pairs of the same thing a model has seen, the less it memorizes a pair."
    limits = (
        "Not published. The same thing means: the same first caption. Things drawn often may also be easier to learn "
        "for other reasons, unless a seed draws how many others the models see, as in a planned reproduction. A lower "
        "CLIPMem does not mean that less of a pair can be extracted from f: g has seen the others, too."
    )
    negligible = 0.05

    def runs(self, context: Context) -> Mapping[str, RunSpec]:
        return {"all drawings": counted(context)}

    def effects(self, context: Context, results: Results) -> list[Effect]:
        """Pairs without others minus those with three or more; also the slope over the number of others."""
        means = by_count(context, results)
        many = [values for count, values in means.items() if count >= 3] or [means[max(means)]]
        name = "CLIPMem of pairs without another of the same thing minus those with three or more"
        few = means[min(means)]
        effects = [results.effect(name, few, np.mean(many, axis=0).tolist(), ABOVE, primary=True)]
        if len(means) > 2:
            x = np.array(list(means), dtype=np.float64) - np.mean(list(means))
            slope = (x @ np.array(list(means.values())) / (x @ x)).tolist()
            effects.append(results.effect("slope of CLIPMem over the number of others", slope, None, BELOW))
        return effects

    def panels(self, context: Context, results: Results) -> list[Panel]:
        means = by_count(context, results)
        series = results.series("", list(means), list(means.values()))
        ticks = [f"{count} or more" if count == MOST else f"{count}" for count in range(max(means) + 1)]
        return [Panel("here", "other pairs of the same thing that both models saw", "CLIPMem", [series], ticks=ticks)]
