"""Finding 3: pairs are memorized more if their captions are swapped before training."""

from collections.abc import Mapping

import numpy as np

from clipmem.functional import auroc
from clipmem_reproduce.effects import ABOVE, Effect, Panel, Results, widened
from clipmem_reproduce.finding import BASE, Context, Finding
from clipmem_reproduce.findings.roles import about_zero
from clipmem_reproduce.spec import RunSpec

SHARE = 0.1


def swapped(context: Context) -> RunSpec:
    """Return the base study with a tenth of the candidates (at least two) given each other's captions."""
    return RunSpec({"split.planted": max(2, round(SHARE * context.base.split.candidate))})


class Planted(Finding):
    name = "planted"
    title = "Swapped captions"
    claim = "With swapped captions, pairs are memorized clearly more than with their own captions."
    published = "500 of 5,000 candidates (not certain): their CLIPMem shifts clearly upward; no number can be read off."

    def runs(self, context: Context) -> Mapping[str, RunSpec]:
        return {"base": BASE, "swapped": swapped(context)}

    def effects(self, context: Context, results: Results) -> list[Effect]:
        """CLIPMem with swapped captions minus that of the same pairs unchanged; other candidates; how well found."""
        run, base = results[swapped(context)], results[BASE]
        mismatched, others = run.planted, run.uids("candidate") - run.planted
        of_mismatched, of_others, others_before = (
            run.memorization(mismatched),
            run.memorization(others),
            base.memorization(others),
        )
        uids = sorted(run.uids("candidate"))
        is_mismatched = np.array([uid in mismatched for uid in uids])
        by_seed = np.array([[scores[uid] for uid in uids] for scores in map(run.scores, run.seeds)])
        above_chance = [auroc(scores, is_mismatched).mean - 0.5 for scores in by_seed]
        over_pairs = auroc(by_seed.mean(axis=0), is_mismatched, results.level())
        ends = (None if end is None else end - 0.5 for end in (over_pairs.low, over_pairs.high))
        area = "AUROC of swapped captions by CLIPMem of one seed, minus 0.5"
        return [
            results.effect(
                "pairs with swapped captions: CLIPMem minus that with their own captions",
                of_mismatched,
                base.memorization(mismatched),
                ABOVE,
                primary=True,
            ),
            results.effect("swapped pairs minus the other candidates of the same run", of_mismatched, of_others, ABOVE),
            # not published: the swap should not affect the other pairs
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
            widened(results.effect(area, above_chance, None, ABOVE), *ends),
        ]

    def panels(self, context: Context, results: Results) -> list[Panel]:
        run, base = results[swapped(context)], results[BASE]
        groups = {"pairs with swapped captions": run.planted, "other candidates": run.uids("candidate") - run.planted}
        series = [
            results.series(name, [0, 1], [study.memorization(uids) for study in (base, run)])
            for name, uids in groups.items()
        ]
        return [Panel("here", "captions", "CLIPMem", series, ticks=["own", "swapped"])]
