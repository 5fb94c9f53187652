"""Not published: is anything memorized when each pair is seen once?"""

from collections.abc import Mapping

from clipmem.report.effects import ABOVE, FINDINGS, Context, Effect, Finding, Panel, Results
from clipmem.report.findings.captions import sweep_panels
from clipmem.report.run_specs import RunSpec

_BATCH = 16  # small, so that one pass has enough steps to learn from


def after(context: Context, passes: int) -> RunSpec:
    """Return the base study with `passes` epochs in small batches; that of one pass, which decides, has all seeds."""
    spec = RunSpec((f"train.epochs={passes}", f"train.batch_size={_BATCH}"), cost=1.6)
    return spec if passes == 1 else context.fewer(spec)


@FINDINGS.register("one-pass")
class OnePass(Finding):
    """One pass over the data."""

    title = "One pass"
    claim = "Pairs are memorized even if each is seen once."
    published = (
        "YFCC100M was trained in one pass (not certain), and memorized pairs are shown; no number can be read off."
    )
    limits = (
        "One pass over these few pairs is also a short training: the effects of few presentations and few repeats "
        f"cannot be separated. Batches of {_BATCH} instead of the base's."
    )

    def runs(self, context: Context) -> Mapping[str, RunSpec]:
        return {f"{passes} passes": after(context, passes) for passes in context.scale.epochs}

    def effects(self, context: Context, results: Results) -> list[Effect]:
        """The candidates' CLIPMem after one pass; also after each other number of passes."""
        return [
            results.effect(
                f"CLIPMem after {passes} pass{'es' * (passes > 1)}",
                results.memorization(after(context, passes)),
                None,
                ABOVE,
                primary=passes == 1,
            )
            for passes in context.scale.epochs
        ]

    def panels(self, context: Context, results: Results) -> list[Panel]:
        x = context.scale.epochs
        return sweep_panels(context, results, "passes", x, {"": [after(context, passes) for passes in x]}, {})
