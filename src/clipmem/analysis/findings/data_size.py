"""Not published: is a pair memorized less when there are more training pairs?"""

from collections.abc import Mapping

from clipmem.analysis.effects import BELOW, FINDINGS, Context, Effect, Finding, Panel, Results
from clipmem.analysis.findings.captions import sweep_panels
from clipmem.analysis.findings.distributions import BASE
from clipmem.analysis.run_specs import RunSpec


def with_shared(context: Context, shared: int) -> RunSpec:
    """Return the base study with `shared` shared pairs, each shown as often."""
    if shared == context.base.split.shared:
        return BASE
    return RunSpec((f"split.shared={shared}",), cost=shared / context.base.split.shared)


@FINDINGS.register("data-size")
class DataSize(Finding):
    """Memorization by number of training pairs."""

    title = "Data size"
    claim = "The more pairs there are to train on, the less a pair is memorized."
    published = ""
    limits = (
        "Not published: the claim is a common expectation. Each pair is shown as often, so more pairs also mean more "
        "steps. Each size draws its own candidates: a seed shares the initial weights, but no pairs."
    )

    def runs(self, context: Context) -> Mapping[str, RunSpec]:
        return {f"{shared} shared pairs": with_shared(context, shared) for shared in context.scale.shared}

    def effects(self, context: Context, results: Results) -> list[Effect]:
        """The most pairs against the fewest."""
        few, many, of = context.scale.shared[0], context.scale.shared[-1], results.memorization
        return [
            results.effect(
                f"CLIPMem with {many:,} shared pairs minus that with {few:,}",
                of(with_shared(context, many)), of(with_shared(context, few)), BELOW, primary=True,
            )
        ]  # fmt: skip

    def panels(self, context: Context, results: Results) -> list[Panel]:
        x = context.scale.shared
        return sweep_panels(results, "shared pairs", x, {"": [with_shared(context, shared) for shared in x]}, {})
