"""Not published: does the size of the image tower or of the text tower matter more for memorization?"""

from collections.abc import Mapping

from clipmem.report.effects import ABOVE, FINDINGS, Context, Effect, Finding, Panel, Results
from clipmem.report.findings.captions import label
from clipmem.report.run_specs import RunSpec

_TINY_WIDTH = 128


def sized(context: Context, image: int, text: int) -> RunSpec:
    """Return the base study with towers of the given widths (those of clipmem-tiny are 128 wide).

    The verdict rests on the runs that vary one tower; they have all seeds.
    """
    name = "clipmem-tiny" if image == text == _TINY_WIDTH else f"clipmem-i{image}-t{text}"
    cost = 0.6 * (image / _TINY_WIDTH) ** 1.6 + 0.4 * (text / _TINY_WIDTH) ** 1.6
    own = () if name == context.base.model.name else (f"model.name={name}",)
    spec = RunSpec(own, cost=cost if context.base.model.name == "clipmem-tiny" else 6 * cost)
    return context.fewer(spec) if image == text else spec


def towers(context: Context) -> dict[str, list[RunSpec]]:
    """Return the runs by width of the image tower, of the text tower, and of both; the other is 128 wide."""
    widths = context.scale.widths
    return {
        "image tower": [sized(context, width, _TINY_WIDTH) for width in widths],
        "text tower": [sized(context, _TINY_WIDTH, width) for width in widths],
        "both towers": [sized(context, width, width) for width in widths],
    }


@FINDINGS.register("model-size")
class ModelSize(Finding):
    """Widths of the towers."""

    title = "Model size"
    claim = "A larger tower memorizes more, of either kind."
    published = ""
    limits = "Not published: the claim is a common expectation. Widths vary, depths do not."

    def runs(self, context: Context) -> Mapping[str, RunSpec]:
        widths = context.scale.widths
        return {
            f"{name} {width}": run
            for name, runs in towers(context).items()
            for width, run in zip(widths, runs, strict=True)
        }

    def effects(self, context: Context, results: Results) -> list[Effect]:
        """The widest minus the narrowest tower of each kind: the smaller of both, then each."""
        widths, of = context.scale.widths, results.memorization
        if not widths:
            return []
        wide, metric, each, alone = f"{widths[-1]} wide minus {widths[0]} wide", context.scale.utility, [], []
        for name, runs in towers(context).items():
            values = of(runs[-1]), of(runs[0])
            each.append(results.effect(f"{name} {wide}: CLIPMem", *values, ABOVE))
            if name != "both towers":
                alone.append(values)
            a, b = results.utility(runs[-1], metric), results.utility(runs[0], metric)
            if a and b:
                each.append(results.effect(f"{name} {wide}: {label(metric)}", a, b, ABOVE))
        name = f"{wide}, CLIPMem: the smaller of both towers"
        return [results.weakest(name, alone, ABOVE, primary=True), *each]

    def panels(self, context: Context, results: Results) -> list[Panel]:
        widths = context.scale.widths
        series = [
            results.series(name, widths, [results.memorization(run) for run in runs])
            for name, runs in towers(context).items()
        ]
        return [Panel("here", "width", "CLIPMem", series)] if widths else []
