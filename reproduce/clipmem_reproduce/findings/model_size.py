"""Not published: does the size of the image tower or of the text tower matter more for memorization?"""

from collections.abc import Mapping, Sequence

from clipmem_reproduce.effects import ABOVE, Effect, Panel, Results
from clipmem_reproduce.finding import Context, Sweep, label
from clipmem_reproduce.spec import RunSpec

_TINY_WIDTH = 128
_BOTH = "both towers"


class ModelSize(Sweep):
    name = "model-size"
    title = "Model size"
    claim = "A larger tower memorizes more, of either kind."
    limits = "Not published: the claim is a common expectation. Widths vary, depths do not."
    negligible = 0.01
    levels, names, xlabel = "widths", ("image tower", "text tower", _BOTH), "width"

    def levels_of(self, context: Context) -> Mapping[str, Sequence[int]]:
        """A planned reproduction varies one tower at a time."""
        curves = super().levels_of(context)
        return {name: curves[name] for name in curves if name != _BOTH or not context.scale.crossed}

    def run(self, context: Context, curve: str, level: int) -> tuple[str, RunSpec]:
        """The verdict rests on the runs that vary one tower; they have all seeds."""
        image, text = (_TINY_WIDTH if curve == fixed else level for fixed in ("text tower", "image tower"))
        base = context.base.model.name
        model = "clipmem-tiny" if image == text == _TINY_WIDTH else f"clipmem-i{image}-t{text}"
        cost = 0.6 * (image / _TINY_WIDTH) ** 1.6 + 0.4 * (text / _TINY_WIDTH) ** 1.6
        cost *= 1 if base == "clipmem-tiny" else 6
        spec = RunSpec({} if model == base else {"model.name": model}, cost=cost)
        fewer = image == text and not context.scale.crossed
        return f"{curve} {level}", context.fewer(spec) if fewer else spec

    def effects(self, context: Context, results: Results) -> list[Effect]:
        """The widest minus the narrowest tower of each kind: the smaller of both, then each."""
        widths, metric = context.scale.widths, context.scale.utility
        if not widths:
            return []
        wide, curves = f"{widths[-1]} wide minus {widths[0]} wide", self.curves(context)
        each: list[Effect] = []
        for name, runs in curves.items():
            for measure in ("clipmem", metric):
                each += results.contrast(f"{name} {wide}: {label(measure)}", runs[-1], runs[0], ABOVE, measure)
        single = [(results.values(runs[-1]), results.values(runs[0])) for name, runs in curves.items() if name != _BOTH]
        smaller = results.weakest(f"{wide}, CLIPMem: the smaller of both towers", single, ABOVE, primary=True)
        return [smaller, *each]

    def panels(self, context: Context, results: Results) -> list[Panel]:
        """Memorization alone."""
        widths = context.scale.widths
        series = [
            results.series(name, widths, [results.values(run) for run in runs])
            for name, runs in self.curves(context).items()
        ]
        return [Panel("memorization", self.xlabel, label("clipmem"), series)] if widths else []
