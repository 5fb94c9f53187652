"""A question of the issue: is a pair memorized less when it is trained with more other pairs?"""

from collections.abc import Mapping

from clipmem.analysis.effects import BELOW, FINDINGS, Context, Effect, Finding, Panel, Results
from clipmem.analysis.findings.captions import sweep_panels
from clipmem.analysis.findings.distributions import BASE
from clipmem.analysis.run_specs import RunSpec


def among(context: Context, shared: int) -> RunSpec:
    """Return the base study with so many shared pairs, each shown as often."""
    if shared == context.base.split.shared:
        return BASE
    return RunSpec((f"split.shared={shared}",), cost=shared / context.base.split.shared)


@FINDINGS.register("data-size")
class DataSize(Finding):
    """Memorization over the size of the data."""

    title = "Data size"
    claim = "The more pairs there are to train on, the less a pair is memorized."
    published = ""
    limits = (
        "Not published: the claim is what is commonly expected. Each pair is shown as often, so that more pairs also "
        "mean more steps. Another size draws other candidates: a seed shares the initial weights, and no pairs."
    )

    def runs(self, context: Context) -> Mapping[str, RunSpec]:
        return {f"{shared} shared pairs": among(context, shared) for shared in context.scale.shared}

    def effects(self, context: Context, results: Results) -> list[Effect]:
        """The most pairs against the fewest."""
        few, many = context.scale.shared[0], context.scale.shared[-1]
        return [
            results.effect(
                f"CLIPMem with {many:,} shared pairs minus that with {few:,}",
                results.memorization(among(context, many)), results.memorization(among(context, few)), BELOW,
                primary=True,
            )
        ]  # fmt: skip

    def panels(self, context: Context, results: Results) -> list[Panel]:
        x = context.scale.shared
        return sweep_panels(results, "shared pairs", x, {"": [among(context, shared) for shared in x]}, {})
