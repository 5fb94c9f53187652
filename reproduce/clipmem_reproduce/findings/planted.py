"""Finding 3: pairs are memorized more if their captions are swapped before training."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Bool, Float64

from clipmem.functional import auroc
from clipmem_reproduce.effects import ABOVE, Effect, Panel, Results, widened
from clipmem_reproduce.finding import BASE, Context, Finding
from clipmem_reproduce.findings.roles import about_zero
from clipmem_reproduce.measured import Measured
from clipmem_reproduce.spec import RunSpec

SHARE = 0.1


def swapped(context: Context) -> RunSpec:
    """Return the base study with a tenth of the candidates (at least two) given each other's captions."""
    return RunSpec({"split.planted": max(2, round(SHARE * context.base.split.candidate))})


def by_caption(context: Context, results: Results) -> dict[str, list[list[float]]]:
    """Return the mean CLIPMem by seed of pairs with swapped captions and of other candidates, before and after."""
    groups: dict[str, list[list[float]]] = {"pairs with swapped captions": [[], []], "other candidates": [[], []]}
    for run, base in zip(results.each(swapped(context)), results.each(BASE), strict=True):
        sets = run.planted, run.uids("candidate") - run.planted
        for means, uids in zip(groups.values(), sets, strict=True):
            means[0] += base.memorization(uids)
            means[1] += run.memorization(uids)
    return groups


def scored(run: Measured, by: str = "clipmem") -> tuple[Float64[np.ndarray, "seed n"], Bool[np.ndarray, " n"]]:
    """Return a score (`Measured.scores`) of the candidates under each seed, and which have swapped captions."""
    uids = sorted(run.uids("candidate"))
    by_seed = np.array([[scores[uid] for uid in uids] for scores in (run.scores(seed, by) for seed in run.seeds)])
    return by_seed, np.array([uid in run.planted for uid in uids])


def above_chance(run: Measured, by: str = "clipmem") -> list[float]:
    """Return the AUROC of swapped captions by the scores of each seed, minus 0.5."""
    by_seed, is_mismatched = scored(run, by)
    return [auroc(scores, is_mismatched).mean - 0.5 for scores in by_seed]


def over_pairs(run: Measured, level: float) -> tuple[float | None, float | None]:
    """Return the interval over pairs of the AUROC by the mean scores, minus 0.5."""
    by_seed, is_mismatched = scored(run)
    area = auroc(by_seed.mean(axis=0), is_mismatched, level)
    return area.low and area.low - 0.5, area.high and area.high - 0.5


class Planted(Finding):
    name = "planted"
    title = "Swapped captions"
    claim = "With swapped captions, pairs are memorized clearly more than with their own captions."
    negligible = 0.05
    published = "500 of 5,000 candidates (not certain): their CLIPMem shifts clearly upward; no number can be read off."

    def runs(self, context: Context) -> Mapping[str, RunSpec]:
        return {"base": BASE, "swapped": swapped(context)}

    def effects(self, context: Context, results: Results) -> list[Effect]:
        """CLIPMem with swapped captions minus that of the same pairs unchanged; other candidates; how well found."""
        (mismatched_before, of_mismatched), (others_before, of_others) = by_caption(context, results).values()
        area = "AUROC of swapped captions by CLIPMem of one seed, minus 0.5"
        found = results.effect(area, results.by_seed(swapped(context), above_chance), None, ABOVE)
        runs = results.each(swapped(context))
        if len(runs) == 1:  # several splits differ in their pairs, so that the seeds' interval covers these
            found = widened(found, *over_pairs(runs[0], results.level()))
        return [
            results.effect(
                "pairs with swapped captions: CLIPMem minus that with their own captions",
                of_mismatched,
                mismatched_before,
                ABOVE,
                primary=True,
            ),
            results.effect(
                "pairs with swapped captions minus the other candidates of the same run",
                of_mismatched,
                of_others,
                ABOVE,
            ),
            # not published: the swap should not affect the other pairs
            results.effect(
                "the other candidates: CLIPMem minus that without swaps",
                of_others,
                others_before,
                about_zero(others_before),
            ),
            found,
        ]

    def panels(self, context: Context, results: Results) -> list[Panel]:
        series = [
            results.series(name, [0, 1], before_and_after)
            for name, before_and_after in by_caption(context, results).items()
        ]
        return [Panel("here", "captions", "CLIPMem", series, ticks=["own", "swapped"])]
