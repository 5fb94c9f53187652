"""UnitMem by layer of several runs, and whether CLIP is between the other paradigms.

A high UnitMem does not imply training on the image: a unit can respond to an image that its model never saw. g's
curve, over the same images, shows how much; only f minus g is due to training on them. Values depend on the number of
pairs: compare them within one table only, never with another set or with the published values.
"""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import polars as pl

from clipmem.base.declared import declared
from clipmem.base.folder import SIDES
from clipmem.report.frontier import adjust, difference, mean_over_seeds

CURVES_SCHEMA: dict[str, type[pl.DataType]] = {
    **dict.fromkeys(("run", "objective", "side"), pl.String),
    "seed": pl.Int64,
    "kind": pl.String,
    **dict.fromkeys(("layer", "layers", "n_units"), pl.Int64),
    **dict.fromkeys(("unitmem", "unitmem_median"), pl.Float64),
}
BETWEEN = ("clip", ("supervised", "simclr"))


def title_of(objective: str) -> str:
    """Return the name of an objective in texts."""
    return declared("objectives", objective).title or objective


def curves_of(units: pl.DataFrame, *, run: str, objective: str) -> pl.DataFrame:
    """Average UnitMem over the units of each layer of the image tower, by model of a run (`CURVES_SCHEMA`)."""
    image = units.filter(pl.col("tower") == "image")
    return (
        image.group_by("side", "seed", "kind", "layer")
        .agg(pl.col("unitmem").count().cast(pl.Int64).alias("n_units"), pl.col("unitmem", "unitmem_median").mean())
        .with_columns(
            pl.lit(run).alias("run"),
            pl.lit(objective).alias("objective"),
            pl.lit(image["layer"].max(), dtype=pl.Int64).alias("layers"),
        )
        .select(pl.col(name).cast(dtype) for name, dtype in CURVES_SCHEMA.items())
        .sort("side", "seed", "kind", "layer")
    )


def compare_curves(curves: pl.DataFrame, confidence: float = 0.95, value: str = "unitmem") -> dict[str, Any]:
    """Compare the curves of runs with the same seeds, kinds and layers; return the content of `side_by_side.json`."""
    runs = curves["run"].unique(maintain_order=True).to_list()
    layers = curves.select("kind", "layer", "layers").unique().sort("kind", "layer").rows(named=True)
    by_seed = curves.sort("seed").partition_by("run", "side", "kind", "layer", as_dict=True)

    def values_of(run: str, side: str, layer: Mapping[str, Any]) -> list[float]:
        return by_seed[run, side, layer["kind"], layer["layer"]][value].to_list()

    def test(a: list[float], b: list[float]) -> dict[str, Any]:
        tested = difference(a, b, confidence)
        return {name: tested[name] for name in ("difference", "low", "high", "p")} | {"seeds": len(a)}

    means = [
        {**layer, "run": run, "side": side, **mean_over_seeds(values, confidence), "seeds": len(values)}
        for run in runs
        for side in SIDES
        for layer in layers
        for values in [values_of(run, side, layer)]
    ]
    trained = [
        {**layer, "run": run, **test(values_of(run, "f", layer), values_of(run, "g", layer))}
        for run in runs
        for layer in layers
    ]
    differences = [
        {**layer, "a": a, "b": b, **test(values_of(a, "f", layer), values_of(b, "f", layer))}
        for a, b in combinations(runs, 2)
        for layer in layers
    ]
    adjust(trained)
    adjust(differences)
    document = {"confidence": confidence, "value": value, "curves": means, "trained": trained}
    answers = between(differences, _by_objective(curves), 1 - confidence)
    return document | {"differences": differences, "between": answers}


def between(differences: Sequence[dict[str, Any]], name: dict[str, str], level: float) -> list[dict[str, Any]]:
    """Decide by kind and layer whether CLIP's UnitMem is between that of supervised and of SimCLR.

    The answer is `yes` if the differences from both are significant (Holm-adjusted p <= `level`) with opposite signs,
    `no` if they are significant with the same sign (`side`: CLIP is `above` or `below` both), else `inconclusive`.
    `name` maps objectives to names of runs; without all three the result is empty.
    """
    middle, others = BETWEEN
    if not {middle, *others} <= set(name):
        return []
    answers: list[dict[str, Any]] = []
    for kind, layer, layers in sorted({(row["kind"], row["layer"], row["layers"]) for row in differences}):
        signs = [_sign(differences, (kind, layer), name[middle], name[other], level) for other in others]
        answer = "inconclusive" if 0 in signs else "yes" if sum(signs) == 0 else "no"
        side = "" if answer != "no" else "above" if signs[0] > 0 else "below"
        answers.append({"kind": kind, "layer": layer, "layers": layers, "answer": answer, "side": side})
    return answers


def _sign(differences: Sequence[dict[str, Any]], place: tuple[str, int], first: str, second: str, level: float) -> int:
    """Return the sign of first minus second if significant, else 0."""
    for row in differences:
        if (row["kind"], row["layer"]) == place and {row["a"], row["b"]} == {first, second}:
            shown = row["p_holm"] is not None and row["p_holm"] <= level
            return shown * int(np.sign(row["difference"])) * (1 if row["a"] == first else -1)
    return 0


def _by_objective(curves: pl.DataFrame) -> dict[str, str]:
    rows = curves.select("objective", "run").unique(maintain_order=True).rows()
    names = [objective for objective, _ in rows]
    return {objective: run for objective, run in rows if names.count(objective) == 1}
