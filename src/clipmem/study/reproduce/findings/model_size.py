"""A reviewers' question: does the size of the image tower or of the text tower matter more for memorization?"""

from collections.abc import Mapping
from itertools import product

from clipmem.study.reproduce.finding import ABOVE, FINDINGS, UTILITIES, Context, Effect, Finding, Panel, Results
from clipmem.study.reproduce.findings.distributions import BASE
from clipmem.study.reproduce.wanted import Wanted

_BASE_WIDTH = 128


def sized(image: int, text: int) -> Wanted:
    """Return the base study with towers of other widths."""
    if image == text == _BASE_WIDTH:
        return BASE
    cost = 0.6 * (image / _BASE_WIDTH) ** 1.6 + 0.4 * (text / _BASE_WIDTH) ** 1.6
    return Wanted((f"model.name=clipmem-i{image}-t{text}",), cost=cost)


@FINDINGS.register("model-size")
class ModelSize(Finding):
    """The grid of sizes."""

    title = "Model size"
    claim = "A larger tower memorizes more, of either kind."
    published = ""
    limits = "Not published: the claim is what is commonly expected. Widths vary, depths do not."

    def runs(self, context: Context) -> Mapping[str, Wanted]:
        """Every width of the image tower with every width of the text tower; none where the scale has no grid."""
        widths = context.scale.widths
        return {f"image {image}, text {text}": sized(image, text) for image, text in product(widths, widths)}

    def effects(self, context: Context, results: Results) -> list[Effect]:
        """The widest against the narrowest tower of each kind, the other as in the base study."""
        widths = context.scale.widths
        if not widths:
            return []
        small, large = widths[0], widths[-1]
        found: list[Effect] = []
        for name, low, high in (
            ("image", sized(small, _BASE_WIDTH), sized(large, _BASE_WIDTH)),
            ("text", sized(_BASE_WIDTH, small), sized(_BASE_WIDTH, large)),
        ):
            said = f"{name} tower {large} wide less {small} wide"
            found.append(
                results.effect(f"{said}: CLIPMem", results.memorization(high), results.memorization(low), ABOVE, "above 0")
            )
            for metric, words in UTILITIES.items():
                a, b = results.utility(high, metric), results.utility(low, metric)
                if a and b:
                    found.append(results.effect(f"{said}: {words}", a, b, ABOVE, "shown beside", counts=False))
        return found

    def panels(self, context: Context, results: Results) -> list[Panel]:
        """A curve over the image tower's width for each width of the text tower."""
        widths = context.scale.widths
        series = [
            results.series(f"text {text}", widths, [results.memorization(sized(image, text)) for image in widths])
            for text in widths
        ]
        return [Panel("here", "width of the image tower", "CLIPMem", series)] if widths else []
