"""UnitMem by layer of several runs side by side, and whether CLIP lies between the other paradigms.

Read with care. UnitMem says how much a unit answers one image more than the others, and a unit can do so for an
image that its model never saw: beside f's curve stands g's, over the same images, which g did not train on. Only f
minus g is due to training on them. And values depend on how many pairs were passed, so they compare within one table
and never with those of another set, the published ones included.
"""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import polars as pl
from jaxtyping import Float64

from clipmem.functional import holm, paired_test

CURVES_SCHEMA: dict[str, type[pl.DataType]] = {
    **dict.fromkeys(("run", "objective", "side"), pl.String),
    "seed": pl.Int64,
    "kind": pl.String,
    **dict.fromkeys(("layer", "layers", "n_units"), pl.Int64),
    **dict.fromkeys(("unitmem", "unitmem_median"), pl.Float64),
}
NAMES = {"clip": "CLIP", "siglip": "SigLIP", "supervised": "supervised", "simclr": "SimCLR"}
BETWEEN = ("clip", ("supervised", "simclr"))


def curves_of(units: pl.DataFrame, *, run: str, objective: str) -> pl.DataFrame:
    """Average UnitMem over the units of each layer of the image tower, for each model of a run: `CURVES_SCHEMA`."""
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
    """Compare the runs of a table of curves, with the same seeds, kinds and layers, by layer: a JSON document."""
    runs = curves["run"].unique(maintain_order=True).to_list()
    places = curves.select("kind", "layer", "layers").unique().sort("kind", "layer").rows(named=True)
    parts = curves.partition_by("run", "side", "kind", "layer", as_dict=True)
    means: list[dict[str, Any]] = []
    trained: list[dict[str, Any]] = []
    differences: list[dict[str, Any]] = []

    def values_of(run: str, side: str, place: Mapping[str, Any]) -> Float64[np.ndarray, " seed"]:
        return parts[run, side, place["kind"], place["layer"]].sort("seed")[value].to_numpy()

    def test(a: Float64[np.ndarray, " seed"], b: Float64[np.ndarray, " seed"]) -> dict[str, Any]:
        found = paired_test(a, b, confidence)
        return {"difference": found.difference, "low": found.low, "high": found.high, "p": found.p, "seeds": len(a)}

    for run in runs:
        f, g = ([values_of(run, side, place) for place in places] for side in ("f", "g"))
        for side, own in (("f", f), ("g", g)):
            for place, values in zip(places, own, strict=True):
                # Student's interval of a mean is that of paired differences from 0
                found = test(values, np.zeros_like(values))
                ends = {"mean": found["difference"], "low": found["low"], "high": found["high"]}
                means.append({**place, "run": run, "side": side, **ends, "seeds": len(values)})
        trained += [{**place, "run": run, **test(a, b)} for place, a, b in zip(places, f, g, strict=True)]
    for a, b in combinations(runs, 2):
        differences += [
            {**place, "a": a, "b": b, **test(values_of(a, "f", place), values_of(b, "f", place))} for place in places
        ]
    for family in (trained, differences):
        _correct(family)
    document = {"confidence": confidence, "value": value, "curves": means, "trained": trained}
    document["differences"] = differences
    document["between"] = between(differences, _by_objective(curves), 1 - confidence)
    return document


def between(differences: Sequence[dict[str, Any]], name: dict[str, str], level: float) -> list[dict[str, Any]]:
    """Say for each kind and layer whether CLIP's UnitMem lies between that of supervised and of SimCLR.

    Both differences (CLIP minus supervised, CLIP minus SimCLR) must be shown, at Holm's adjusted p <= `level`. `yes`:
    they have opposite signs. `no`: the same sign, and `side` says whether CLIP lies `above` or `below` both. Else
    `inconclusive`: at least one is not shown to differ from 0. `name` maps objectives to names of runs; without all
    three the result is empty.
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
    """Return the sign of first minus second where it is shown, else 0."""
    for row in differences:
        if (row["kind"], row["layer"]) == place and {row["a"], row["b"]} == {first, second}:
            shown = row["p_holm"] is not None and row["p_holm"] <= level
            return shown * int(np.sign(row["difference"])) * (1 if row["a"] == first else -1)
    return 0


def _correct(rows: list[dict[str, Any]]) -> None:
    """Add Holm's adjusted p to each row; null where a test has no p (one seed, or no spread)."""
    raw = np.array([np.nan if row["p"] is None else row["p"] for row in rows], dtype=np.float64)
    for row, p in zip(rows, holm(raw), strict=True):
        row["p_holm"] = None if np.isnan(p) else float(p)


def _by_objective(curves: pl.DataFrame) -> dict[str, str]:
    """Name the run of each objective, of those that one run alone has."""
    couples = curves.select("objective", "run").unique(maintain_order=True).rows()
    names = [objective for objective, _ in couples]
    return {objective: run for objective, run in couples if names.count(objective) == 1}
