"""Not published: does the size of the image tower or of the text tower matter more for memorization?"""

from collections.abc import Mapping
from itertools import product

from clipmem.analysis.effects import ABOVE, FINDINGS, UTILITIES, Context, Effect, Finding, Panel, Results, weakest
from clipmem.analysis.findings.distributions import BASE
from clipmem.analysis.run_specs import RunSpec

_TINY_WIDTH = 128


def sized(context: Context, image: int, text: int) -> RunSpec:
    """Return the base study with towers of the given widths (those of clipmem-tiny are 128 wide)."""
    tiny = image == text == _TINY_WIDTH
    if tiny and context.base.model.name == "clipmem-tiny" and not context.scale.grid:
        return BASE
    name = "clipmem-tiny" if tiny else f"clipmem-i{image}-t{text}"
    cost = 0.6 * (image / _TINY_WIDTH) ** 1.6 + 0.4 * (text / _TINY_WIDTH) ** 1.6
    return RunSpec(
        (f"model.name={name}", *context.scale.grid), cost=cost * (1 if context.base.model.name == "clipmem-tiny" else 6)
    )


@FINDINGS.register("model-size")
class ModelSize(Finding):
    """The grid of sizes."""

    title = "Model size"
    claim = "A larger tower memorizes more, of either kind."
    published = ""
    limits = "Not published: the claim is a common expectation. Widths vary, depths do not."

    def runs(self, context: Context) -> Mapping[str, RunSpec]:
        widths = context.scale.widths
        return {f"image {image}, text {text}": sized(context, image, text) for image, text in product(widths, widths)}

    def effects(self, context: Context, results: Results) -> list[Effect]:
        """The widest minus the narrowest tower of each kind, the other 128 wide: the smaller of both, then each."""
        widths = context.scale.widths
        if not widths:
            return []
        small, large = widths[0], widths[-1]
        towers = {
            "image": (sized(context, small, _TINY_WIDTH), sized(context, large, _TINY_WIDTH)),
            "text": (sized(context, _TINY_WIDTH, small), sized(context, _TINY_WIDTH, large)),
        }
        of = results.memorization
        found = [
            results.effect(
                f"{name} tower {large} wide minus {small} wide: CLIPMem", of(high), of(low), ABOVE, primary=primary
            )
            for primary in (True, False)
            for name, (low, high) in towers.items()
        ]
        both, each = found[:2], found[2:]
        for name, (low, high) in towers.items():
            for metric, words in UTILITIES.items():
                a, b = results.utility(high, metric), results.utility(low, metric)
                if a and b:
                    measure = f"{name} tower {large} wide minus {small} wide: {words}"
                    each.append(results.effect(measure, a, b, ABOVE))
        return [weakest(f"{large} wide minus {small} wide, CLIPMem: the smaller of both towers", both), *each]

    def panels(self, context: Context, results: Results) -> list[Panel]:
        widths = context.scale.widths
        series = [
            results.series(
                f"text {text}", widths, [results.memorization(sized(context, image, text)) for image in widths]
            )
            for text in widths
        ]
        return [Panel("here", "width of the image tower", "CLIPMem", series)] if widths else []
