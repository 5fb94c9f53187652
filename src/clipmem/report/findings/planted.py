"""Finding 3: pairs are memorized more if their captions are exchanged before training."""

from collections.abc import Mapping

import numpy as np

from clipmem.report.effects import ABOVE, FINDINGS, Context, Effect, Finding, Panel, Results, widened
from clipmem.report.findings.distributions import BASE, about_zero
from clipmem.report.run_specs import RunSpec
from clipmem.stats.ranking import auroc

SHARE = 0.1


def exchanged(context: Context) -> RunSpec:
    """Return the base study with a tenth of the candidates (at least two) given each other's captions."""
    return RunSpec((f"split.planted={max(2, round(SHARE * context.base.split.candidate))}",))


@FINDINGS.register("planted")
class Planted(Finding):
    """The effect of wrong captions."""

    title = "Exchanged captions"
    claim = "With their captions exchanged, pairs are memorized clearly more than with their own captions."
    published = "500 of 5,000 candidates (not certain): their CLIPMem shifts clearly upward; no number can be read off."

    def runs(self, context: Context) -> Mapping[str, RunSpec]:
        return {"base": BASE, "exchanged": exchanged(context)}

    def effects(self, context: Context, results: Results) -> list[Effect]:
        """CLIPMem of the exchanged pairs minus that of the same pairs unchanged; other candidates; how well found."""
        run, base = results[exchanged(context)], results[BASE]
        wrong = run.planted
        right = run.uids("candidate") - wrong
        shift = results.effect(
            "exchanged pairs: CLIPMem minus that with their own captions",
            run.memorization(wrong), base.memorization(wrong), ABOVE, primary=True,
        )  # fmt: skip
        apart = results.effect(
            "exchanged pairs minus the other candidates of the same run",
            run.memorization(wrong), run.memorization(right), ABOVE,
        )  # fmt: skip
        # not published: the exchange should not affect the other pairs
        without = base.memorization(right)
        left = results.effect(
            "the other candidates: CLIPMem minus that without exchanges",
            run.memorization(right), without, about_zero(without),
        )  # fmt: skip
        uids = sorted(run.uids("candidate"))
        is_wrong = np.array([uid in wrong for uid in uids])
        by_seed = np.array([[own[uid] for uid in uids] for own in map(run.scores, run.seeds)])
        found = [auroc(scores, is_wrong).mean - 0.5 for scores in by_seed]
        pairs = auroc(by_seed.mean(axis=0), is_wrong, results.level())
        ends = (None if end is None else end - 0.5 for end in (pairs.low, pairs.high))
        effect = results.effect("AUROC of exchanged captions by CLIPMem of one seed, minus 0.5", found, None, ABOVE)
        return [shift, apart, left, widened(effect, *ends)]

    def panels(self, context: Context, results: Results) -> list[Panel]:
        run, base = results[exchanged(context)], results[BASE]
        wrong, right = run.planted, run.uids("candidate") - run.planted
        series = [
            results.series(name, [0, 1], [one.memorization(uids) for one in (base, run)])
            for name, uids in (("exchanged pairs", wrong), ("other candidates", right))
        ]
        return [Panel("here", "captions", "CLIPMem", series, ticks=["own", "exchanged"])]
