"""UnitMem by layer under several objectives, and whether CLIP is between supervised and self-supervised training.

A high UnitMem does not imply training on the image: a unit can respond to an image that its model never saw. g's
curve, over the same images, shows how much; only f minus g is due to training on them. Values depend on the number of
pairs: compare them within one table only, never with another set or with the published values.
"""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import polars as pl

from clipmem.functional import holm, paired_test
from clipmem.report.figures import STYLES, Figure, Line, Panel

CURVES_SCHEMA: dict[str, type[pl.DataType]] = {
    **dict.fromkeys(("run", "objective", "side"), pl.String),
    "seed": pl.Int64,
    "kind": pl.String,
    **dict.fromkeys(("layer", "layers", "n_units"), pl.Int64),
    **dict.fromkeys(("unitmem", "unitmem_median"), pl.Float64),
}
TITLES = {"clip": "CLIP", "supervised": "supervised", "simclr": "SimCLR"}  # of objectives, in texts
KINDS = {"mlp": "MLP units", "attn": "attention outputs"}  # of units, in display order
BETWEEN = ("clip", ("supervised", "simclr"))

# Wang, Dziedzic, Kim, Backes, Boenisch, "Captured by Captions: On Memorization and its Mitigation in CLIP Models",
# ICLR 2025 (arXiv 2502.07830), mean UnitMem of layers 1 to 12 of ViT-Base image towers, read off a figure to about
# ±0.003. Their self-supervised model is DINO-like, their supervised one has several labels an image (COCO). UnitMem
# grows with the number of pairs, and these are other pairs: compare the order and shape of curves, never their height.
UNITMEM: Mapping[str, Sequence[float]] = {
    "clip": (0.272, 0.280, 0.289, 0.296, 0.309, 0.325, 0.337, 0.351, 0.361, 0.376, 0.391, 0.411),
    "supervised": (0.265, 0.283, 0.293, 0.305, 0.320, 0.337, 0.345, 0.367, 0.388, 0.412, 0.440, 0.477),
    "simclr": (0.339, 0.346, 0.345, 0.349, 0.351, 0.355, 0.356, 0.355, 0.358, 0.362, 0.367, 0.376),
}


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
    """Compare the curves of runs with the same seeds, kinds and layers.

    Returns means over seeds by run and side (`curves`), f minus g of each run (`trained`) and the differences between
    runs under f (`differences`), each with its interval and a p-value adjusted within its family, and `between`.
    """
    runs = curves["run"].unique(maintain_order=True).to_list()
    layers = curves.select("kind", "layer", "layers").unique().sort("kind", "layer").rows(named=True)
    by_seed = curves.sort("seed").partition_by("run", "side", "kind", "layer", as_dict=True)

    def values_of(run: str, side: str, layer: Mapping[str, Any]) -> np.ndarray:
        return by_seed[run, side, layer["kind"], layer["layer"]][value].to_numpy()

    def test(a: np.ndarray, b: np.ndarray) -> dict[str, Any]:
        result = paired_test(a, b, confidence)
        return {name: getattr(result, name) for name in ("difference", "low", "high", "p")} | {"seeds": len(a)}

    def mean(values: np.ndarray) -> dict[str, Any]:
        result = paired_test(values, np.zeros_like(values), confidence)
        return {"mean": result.difference, "low": result.low, "high": result.high, "seeds": len(values)}

    means = [
        {**layer, "run": run, "side": side, **mean(values_of(run, side, layer))}
        for run in runs
        for side in ("f", "g")
        for layer in layers
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
    _adjust(trained)
    _adjust(differences)
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


def _sign(differences: Sequence[dict[str, Any]], site: tuple[str, int], first: str, second: str, level: float) -> int:
    """Return the sign of first minus second if significant, else 0."""
    for row in differences:
        if (row["kind"], row["layer"]) == site and {row["a"], row["b"]} == {first, second}:
            sign = int(np.sign(row["difference"])) * (1 if row["a"] == first else -1)
            return sign if _significant(row, level) else 0
    return 0


def _significant(row: Mapping[str, Any], level: float) -> bool:
    return row["p_holm"] is not None and row["p_holm"] <= level


def _adjust(rows: Sequence[dict[str, Any]]) -> None:
    """Add the Holm-adjusted p-value of each row of a family of tests; None with one seed."""
    adjusted = holm(np.array([np.nan if row["p"] is None else row["p"] for row in rows], dtype=np.float64))
    for row, p in zip(rows, adjusted.tolist(), strict=True):
        row["p_holm"] = None if np.isnan(p) else p


def _by_objective(curves: pl.DataFrame) -> dict[str, str]:
    rows = curves.select("objective", "run").unique(maintain_order=True).rows()
    names = [objective for objective, _ in rows]
    return {objective: run for objective, run in rows if names.count(objective) == 1}


def answers_of(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Group `between` by kind: a verdict over all layers, and the layers of each answer; [] without an answer."""
    answers: list[dict[str, Any]] = []
    for kind in KINDS:
        layers: dict[tuple[str, str], list[int]] = {}
        for row in document["between"]:
            if row["kind"] == kind:
                layers.setdefault((row["answer"], row["side"]), []).append(row["layer"])
        verdicts = {answer for answer, _ in layers}
        verdict = verdicts.pop() if len(verdicts) == 1 else "partly" if "yes" in verdicts else "inconclusive"
        parts = [{"answer": answer, "side": side, "layers": numbers} for (answer, side), numbers in layers.items()]
        answers += [{"kind": kind, "verdict": verdict, "parts": parts}] if parts else []
    return answers


def trained_of(document: Mapping[str, Any], kind: str) -> list[dict[str, Any]]:
    """Return for each run the layers in which f, which trained on the pairs, is significantly above or below g."""
    level, runs = 1 - document["confidence"], dict.fromkeys(row["run"] for row in document["trained"])
    significant = [row for row in document["trained"] if row["kind"] == kind and _significant(row, level)]

    def layers(run: str, sign: int) -> list[int]:
        return sorted(row["layer"] for row in significant if row["run"] == run and row["difference"] * sign > 0)

    return [{"run": run, "above": layers(run, 1), "below": layers(run, -1)} for run in runs]


def curves_figure(document: Mapping[str, Any]) -> Figure:
    """Draw mean UnitMem under f by relative depth, one panel per kind of unit, and the published curves."""
    styles = dict(zip(TITLES.values(), STYLES, strict=False))
    axes: dict[str, Any] = {"xlabel": "layer / layers", "xlim": (0, 1.04)}
    panels: list[Panel] = []
    for kind, title in KINDS.items():
        panel = Panel(title, ylabel="" if panels else "mean UnitMem", share="measured", **axes)
        for run, style in styles.items():
            rows = [row for row in document["curves"] if (row["run"], row["kind"], row["side"]) == (run, kind, "f")]
            rows.sort(key=lambda row: row["layer"])
            x = [row["layer"] / row["layers"] for row in rows]
            means, low, high = ([row[key] for row in rows] for key in ("mean", "low", "high"))
            panel.lines.append(Line(x, means, style, low, high, band=True))
        panels.append(panel)
    published = Panel("published, 12 layers", ylabel="", **axes)
    for objective, values in UNITMEM.items():
        depth = [k / len(values) for k in range(1, len(values) + 1)]
        published.lines.append(Line(depth, values, styles[TITLES[objective]]))
    panels.append(published)
    verdicts = [f"{KINDS[answer['kind']]}: {answer['verdict']}" for answer in answers_of(document)]
    title = f"Mean UnitMem by relative depth. CLIP between the others: {'; '.join(verdicts)}."
    return Figure(title, panels, columns=len(panels), height=280, legend=styles)
