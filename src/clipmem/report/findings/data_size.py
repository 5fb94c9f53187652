"""Not published: is a pair memorized less when there are more training pairs?"""

from collections.abc import Mapping

from clipmem.report.effects import BELOW, FINDINGS, Context, Effect, Finding, Panel, Results
from clipmem.report.findings.captions import sweep_panels
from clipmem.report.run_specs import RunSpec

WAYS = ("equal epochs", "equal steps")


def with_pairs(context: Context, pairs: int, way: str) -> RunSpec:
    """Return the study in which f trains on `pairs` pairs, as often as in the smallest, or for as many steps."""
    base = RunSpec(context.scale.sized).recipe(context.base)
    epochs = base.train.epochs
    if way == "equal steps":
        epochs = max(1, round(epochs * context.scale.sizes[len(context.scale.sizes) // 2] / pairs))
    settings = (*context.scale.sized, f"split.shared={pairs - base.split.candidate}", f"train.epochs={epochs}")
    return context.fewer(RunSpec(settings))


@FINDINGS.register("data-size")
class DataSize(Finding):
    """Memorization by number of training pairs."""

    title = "Data size"
    claim = "The more pairs there are to train on, the less a pair is memorized."
    published = ""
    limits = (
        "Not published: the claim is a common expectation. At equal epochs more pairs also mean more steps, at equal "
        "steps fewer repeats of each pair; both are shown, and the verdict is based on equal epochs. Each size draws "
        "its own candidates: a seed shares the initial weights, but no pairs."
    )

    def runs(self, context: Context) -> Mapping[str, RunSpec]:
        sizes = context.scale.sizes
        return {f"{pairs} pairs, {way}": with_pairs(context, pairs, way) for way in WAYS for pairs in sizes}

    def effects(self, context: Context, results: Results) -> list[Effect]:
        """The most pairs against the fewest."""
        few, many, of = context.scale.sizes[0], context.scale.sizes[-1], results.memorization
        return [
            results.effect(
                f"{way}: CLIPMem with {many:,} pairs minus that with {few:,}",
                of(with_pairs(context, many, way)), of(with_pairs(context, few, way)), BELOW, primary=k == 0,
            )
            for k, way in enumerate(WAYS)
        ]  # fmt: skip

    def panels(self, context: Context, results: Results) -> list[Panel]:
        x = context.scale.sizes
        runs = {way: [with_pairs(context, pairs, way) for pairs in x] for way in WAYS}
        return sweep_panels(context, results, "pairs that f trains on", x, runs, {})
