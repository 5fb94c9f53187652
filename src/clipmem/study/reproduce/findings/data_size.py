"""A question of the issue: is a pair memorized less when it is trained with more other pairs?"""

from collections.abc import Mapping

from clipmem.study.reproduce.finding import BELOW, FINDINGS, Context, Effect, Finding, Panel, Results
from clipmem.study.reproduce.findings.captions import sweep_panels
from clipmem.study.reproduce.findings.distributions import BASE
from clipmem.study.reproduce.wanted import Wanted


def among(context: Context, shared: int) -> Wanted:
    """Return the base study with so many shared pairs, each shown as often."""
    if shared == context.base.split.shared:
        return BASE
    return Wanted((f"split.shared={shared}",), cost=shared / context.base.split.shared)


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

    def runs(self, context: Context) -> Mapping[str, Wanted]:
        """One run a number of shared pairs."""
        return {f"{shared} shared pairs": among(context, shared) for shared in context.scale.shared}

    def effects(self, context: Context, results: Results) -> list[Effect]:
        """The most pairs against the fewest."""
        few, many = context.scale.shared[0], context.scale.shared[-1]
        return [
            results.effect(
                f"CLIPMem with {many:,} shared pairs less that with {few:,}",
                results.memorization(among(context, many)), results.memorization(among(context, few)), BELOW, "below 0",
            )
        ]  # fmt: skip

    def panels(self, context: Context, results: Results) -> list[Panel]:
        """Memorization and utility over the number of shared pairs."""
        x = context.scale.shared
        return sweep_panels(results, "shared pairs", x, {"": [among(context, shared) for shared in x]}, {})
