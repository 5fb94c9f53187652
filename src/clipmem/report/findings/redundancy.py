"""Not published: how does CLIPMem fall with the number of other pairs of the same thing that the models have seen?"""

from collections import Counter
from collections.abc import Mapping
from functools import cache

import numpy as np

from clipmem.base.hashing import same_words
from clipmem.report.effects import ABOVE, BELOW, FINDINGS, Context, Effect, Finding, Panel, Results
from clipmem.report.run_specs import RunSpec
from clipmem.report.runs import FinishedRun

MOST = 5  # that many others or more


def counted(context: Context) -> RunSpec:
    """Return the study with as many pairs of the same things as the data have."""
    return context.fewer(RunSpec(context.scale.redundancy))


@cache
def others(run: FinishedRun) -> dict[str, dict[int, set[str]]]:
    """Return for candidates and independent pairs the pairs by the number of shared pairs with the same first caption.

    Both models trained on these; `MOST` stands for that many or more.
    """
    captions = dict(run.table("pairs").select("uid", "captions").iter_rows())
    sources = run.splits.select("uid", "captions_from").iter_rows()
    names = {uid: same_words(captions[source][0]) for uid, source in sources}
    seen = Counter(names[uid] for uid in run.uids("shared"))
    found: dict[str, dict[int, set[str]]] = {}
    for role in ("candidate", "independent"):
        of_role = found.setdefault(role, {})
        for uid in run.uids(role):
            of_role.setdefault(min(seen[names[uid]], MOST), set()).add(uid)
    return found


def by_others(run: FinishedRun) -> dict[int, list[float]]:
    """Return the mean CLIPMem by seed (half-difference) by the number of others, where both roles have such pairs."""
    sets = others(run)
    both = sorted(set(sets["candidate"]) & set(sets["independent"]))
    return {count: run.halved(sets["candidate"][count], sets["independent"][count]) for count in both}


@FINDINGS.register("redundancy")
class Redundancy(Finding):
    """Memorization by the number of other pairs of the same thing."""

    title = "Redundancy"
    claim = "The more other pairs of the same thing a model has seen, the less it memorizes a pair."
    published = ""
    limits = (
        "Not published. The same thing means: the same first caption. Things drawn often may also be easier to learn "
        "for other reasons."
    )

    def runs(self, context: Context) -> Mapping[str, RunSpec]:
        return {"all drawings": counted(context)}

    def effects(self, context: Context, results: Results) -> list[Effect]:
        """Pairs without others minus those with three or more; also the slope over the number of others."""
        means = by_others(results[counted(context)])
        many = [values for count, values in means.items() if count >= 3] or [means[max(means)]]
        none = means[min(means)]
        x = np.array(list(means), dtype=np.float64) - np.mean(list(means))
        table = np.array(list(means.values()))
        found = [
            results.effect(
                "CLIPMem of pairs without another of the same thing minus those with three or more",
                none, np.mean(many, axis=0).tolist(), ABOVE, primary=True,
            )
        ]  # fmt: skip
        if len(means) > 2:
            slope = (x @ table / (x @ x)).tolist()
            found.append(results.effect("slope of CLIPMem over the number of others", slope, None, BELOW))
        return found

    def panels(self, context: Context, results: Results) -> list[Panel]:
        means = by_others(results[counted(context)])
        series = results.series("", list(means), list(means.values()))
        ticks = [f"{count} or more" if count == MOST else f"{count}" for count in range(max(means) + 1)]
        return [Panel("here", "other pairs of the same thing that both models saw", "CLIPMem", [series], ticks=ticks)]
