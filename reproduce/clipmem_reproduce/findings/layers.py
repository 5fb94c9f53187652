"""Finding 4: UnitMem of the image tower under CLIP is between supervised and self-supervised training."""

from collections.abc import Mapping
from dataclasses import replace
from functools import cache

import polars as pl

from clipmem_reproduce.curves import TITLES, UNITMEM, curves_of
from clipmem_reproduce.effects import ABOVE, Effect, Panel, Results, Series
from clipmem_reproduce.finding import Context, Finding
from clipmem_reproduce.measured import Measured
from clipmem_reproduce.spec import RunSpec, Settings

KIND = "mlp"
ERROR = 0.003  # with which the published values were read off a figure
ONE_TOWER: Settings = {"score.alignment": "sslmem-image", "embed.views": 2, "evaluate.wordings": 1}
_SIMCLR = {"train.crop_scale": [0.2, 1.0], "train.flip": 0.5, "train.color": 0.5, "train.grayscale": 0.2}
_COST = {"clip": 1.0, "supervised": 0.7, "simclr": 1.5}


def under(context: Context, objective: str, study: Settings) -> RunSpec:
    """Return the base study under an objective; the classes of the supervised one are those of the scale."""
    more: dict[str, Settings] = {"supervised": context.scale.classes, "simclr": _SIMCLR}
    return RunSpec({"train.objective": objective}, {**more.get(objective, {}), **study})


def paradigms(context: Context) -> dict[str, RunSpec]:
    """Return runs of the three objectives, trained to convergence, localized over the same pairs and views."""
    specs: dict[str, RunSpec] = {}
    classes = next(iter(context.scale.class_sets.values()), {})
    for objective, cost in _COST.items():
        study = under(context, objective, {**(ONE_TOWER if objective != "clip" else {}), **context.scale.layered})
        study = study.with_settings({}, classes if objective == "supervised" else {})
        settings = {**study.settings, "train.epochs": context.scale.converged}
        specs[objective] = RunSpec(settings, study.study, localize=True, cost=cost)
    return specs


def by_classes(context: Context) -> dict[str, RunSpec]:
    """Return the supervised runs with other classes than those that decide, by the words for them."""
    run = paradigms(context)["supervised"]
    return {
        f"supervised, {name}": replace(run, study={**run.study, **classes})
        for name, classes in list(context.scale.class_sets.items())[1:]
    }


@cache
def _curve(run: Measured) -> pl.DataFrame:
    curves = curves_of(run.units, run=run.run.path.name, objective=run.run.recipe.train.objective)
    return curves.filter((pl.col("side") == "f") & (pl.col("kind") == KIND)).sort("layer", "seed")


def _layers(results: Results, spec: RunSpec) -> list[int]:
    return _curve(results.each(spec)[0])["layer"].unique().sort().to_list()


def _at(results: Results, spec: RunSpec, layer: int) -> list[float]:
    return results.by_seed(spec, lambda run: _curve(run).filter(pl.col("layer") == layer)["unitmem"].to_list())


class Layers(Finding):
    name = "layers"
    title = "UnitMem by layer"
    claim = "In the last layer CLIP lies between supervised (above it) and self-supervised training (below it)."
    published = (
        f"Last of 12 layers: supervised {UNITMEM['supervised'][-1]}, CLIP {UNITMEM['clip'][-1]}, "
        f"self-supervised {UNITMEM['simclr'][-1]} (±{ERROR}). In layers 2 to 8 CLIP lies below both."
    )
    limits = (
        "SimCLR replaces the published DINO-like model, and one class per image the several labels. UnitMem depends on "
        "the number of pairs, so heights are not comparable. See experiments/paradigms/RESULTS.md."
    )
    negligible = 0.02

    def runs(self, context: Context) -> Mapping[str, RunSpec]:
        return {**paradigms(context), **by_classes(context)}

    def effects(self, context: Context, results: Results) -> list[Effect]:
        """The smaller of both differences in the last layer; also each of them, and those in the first layer."""
        runs = paradigms(context)
        last = _layers(results, runs["clip"])[-1]
        both = (("supervised", "clip"), ("clip", "simclr"))
        pairs = {
            layer: [(_at(results, runs[a], layer), _at(results, runs[b], layer)) for a, b in both]
            for layer in (last, 1)
        }
        each = [
            results.effect(f"UnitMem in layer {layer} of {last}: {TITLES[a]} minus {TITLES[b]}", *pair, ABOVE)
            for layer, of_layer in pairs.items()
            for (a, b), pair in zip(both, of_layer, strict=True)
        ]
        each += [
            results.effect(
                f"UnitMem in layer {last} of {last}: {name} minus CLIP",
                _at(results, run, last),
                _at(results, runs["clip"], last),
                ABOVE,
            )
            for name, run in by_classes(context).items()
        ]
        measure = f"UnitMem in layer {last} of {last}: the smaller of the two differences below"
        return [results.weakest(measure, pairs[last], ABOVE, primary=True), *each]

    def panels(self, context: Context, results: Results) -> list[Panel]:
        ours: list[Series] = []
        for name, spec in paradigms(context).items():
            layers = _layers(results, spec)
            x = [layer / layers[-1] for layer in layers]
            ours.append(results.series(TITLES[name], x, [_at(results, spec, layer) for layer in layers]))
        theirs = [
            Series(TITLES[name], [k / len(values) for k in range(1, len(values) + 1)], list(values))
            for name, values in UNITMEM.items()
        ]
        xlabel, ylabel = "layer / layers", "mean UnitMem"
        return [Panel("here", xlabel, ylabel, ours), Panel("published", xlabel, ylabel, theirs, published=True)]
