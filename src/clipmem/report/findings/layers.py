"""Finding 4: UnitMem of the image tower under CLIP is between supervised and self-supervised training."""

from collections.abc import Mapping
from functools import cache

import polars as pl

from clipmem.report.curves import curves_of, title_of
from clipmem.report.effects import ABOVE, FINDINGS, Context, Effect, Finding, Panel, Results, Series
from clipmem.report.published import ERROR, UNITMEM
from clipmem.report.run_specs import RunSpec
from clipmem.report.runs import FinishedRun

KIND = "mlp"
ONE_TOWER = ("score.alignment=sslmem-image", "embed.views=2", "evaluate.wordings=1")
_SIMCLR = ("train.crop_scale=[0.2, 1.0]", "train.flip=0.5", "train.color=0.5", "train.grayscale=0.2")


def settings_of(context: Context, objective: str) -> tuple[str, ...]:
    """Return the settings of a study with an objective; the supervised one's classes are those of the scale."""
    own = {"clip": (), "supervised": context.scale.classes, "simclr": _SIMCLR}[objective]
    return (f"train.objective={objective}", *own)


def paradigms(context: Context) -> dict[str, RunSpec]:
    """Return runs of the three objectives, trained to convergence, localized over the same pairs and views."""
    long = f"train.epochs={context.scale.converged}"
    found: dict[str, RunSpec] = {}
    for objective, cost in (("clip", 1.0), ("supervised", 0.7), ("simclr", 1.5)):
        alone = ONE_TOWER if objective != "clip" else ()
        found[objective] = RunSpec((*settings_of(context, objective), long, *alone), localize=True, cost=cost)
    return found


@cache
def _curve(run: FinishedRun) -> pl.DataFrame:
    units = run.table("units")
    curves = curves_of(units, run=run.name, objective=run.recipe.train.objective)
    return curves.filter((pl.col("side") == "f") & (pl.col("kind") == KIND)).sort("layer", "seed")


def _at(run: FinishedRun, layer: int) -> list[float]:
    return _curve(run).filter(pl.col("layer") == layer)["unitmem"].to_list()


@FINDINGS.register("layers")
class Layers(Finding):
    """UnitMem by layer."""

    title = "UnitMem by layer"
    claim = "In the last layer CLIP lies between supervised (above it) and self-supervised training (below it)."
    published = (
        f"Last of 12 layers: supervised {UNITMEM['supervised'][-1]}, CLIP {UNITMEM['clip'][-1]}, "
        f"self-supervised {UNITMEM['simclr'][-1]} (±{ERROR}). In layers 2 to 8 CLIP lies below both."
    )
    limits = (
        "SimCLR replaces the published DINO-like model, and one class per image the several labels. UnitMem depends on "
        "the number of pairs, so heights are not comparable. See docs/paradigms.md."
    )

    def runs(self, context: Context) -> Mapping[str, RunSpec]:
        return paradigms(context)

    def effects(self, context: Context, results: Results) -> list[Effect]:
        """The smaller of both differences in the last layer; also each of them, and those in the first layer."""
        runs = {name: results[spec] for name, spec in paradigms(context).items()}
        last = int(_curve(runs["clip"])["layer"].max())  # pyright: ignore[reportArgumentType]

        both = (("supervised", "clip"), ("clip", "simclr"))
        pairs = {layer: [(_at(runs[a], layer), _at(runs[b], layer)) for a, b in both] for layer in (last, 1)}
        measure = f"UnitMem in layer {last} of {last}: the smaller of the two differences below"
        each = [
            results.effect(f"UnitMem in layer {layer} of {last}: {title_of(a)} minus {title_of(b)}", *pair, ABOVE)
            for layer, own in pairs.items()
            for (a, b), pair in zip(both, own, strict=True)
        ]
        return [results.weakest(measure, pairs[last], ABOVE, primary=True), *each]

    def panels(self, context: Context, results: Results) -> list[Panel]:
        runs = {name: results[spec] for name, spec in paradigms(context).items()}
        ours: list[Series] = []
        for name, run in runs.items():
            layers = _curve(run)["layer"].unique().sort().to_list()
            x = [layer / layers[-1] for layer in layers]
            ours.append(results.series(title_of(name), x, [_at(run, layer) for layer in layers]))
        published = [
            Series(title_of(name), [k / len(values) for k in range(1, len(values) + 1)], list(values))
            for name, values in UNITMEM.items()
        ]
        return [
            Panel("here", "layer / layers", "mean UnitMem", ours),
            Panel("published", "layer / layers", "mean UnitMem", published, published=True),
        ]
