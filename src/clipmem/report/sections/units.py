"""UnitMem by layer, and the units that respond most to a single pair."""

from collections.abc import Callable, Mapping
from typing import Any

import polars as pl

from clipmem.report.formats import plain
from clipmem.report.gallery import TOWERS, image_uri, top_units
from clipmem.report.read import RunFiles
from clipmem.report.sections import SECTIONS, Section

KINDS = ("block", "attn", "mlp", "embedding")
KIND_NAMES = {"attn": "attention", "mlp": "MLP", "block": "block", "embedding": "embedding"}


@SECTIONS.register("units")
class Units(Section):
    """UnitMem by layer, and the units that respond most to a single pair."""

    nav, order, screen = "Units", 70, "localize"

    def applies(self, subject: RunFiles) -> bool:
        return subject.localized.units is not None or subject.localized.layers is not None

    def data(self, subject: RunFiles) -> dict[str, Any]:
        units = subject.localized.units
        if units is None:
            return {"top": [], "several_seeds": False}
        planted = set(subject.splits.filter(pl.col("planted"))["uid"])
        rows = [
            {
                **row,
                "kind": KIND_NAMES.get(row["kind"], row["kind"]),
                "image": image_uri(subject.images.get(row["uid"])),
                "caption": next(iter(subject.trained_captions(row["uid"])), ""),
                "planted": row["uid"] in planted,
            }
            for row in top_units(units)
        ]
        by_tower = [(tower, [row for row in rows if row["tower"] == tower]) for tower in TOWERS]
        return {"top": [one for one in by_tower if one[1]], "several_seeds": units["seed"].n_unique() > 1}

    def document(self, subject: RunFiles) -> Mapping[str, Any]:
        return {"units": [] if subject.localized.units is None else top_units(subject.localized.units)}

    def figures(self, subject: RunFiles) -> Mapping[str, Callable[[str], str]]:
        layers = subject.localized.layers
        return {} if layers is None else {"unitmem": lambda size: unitmem_figure(layers, size)}


def kinds_of(rows: pl.DataFrame) -> list[str]:
    """Return the kinds of layers in a table, in display order."""
    there = set(rows["kind"].to_list())
    return [kind for kind in KINDS if kind in there] + sorted(there - set(KINDS))


def layer_line(rows: pl.DataFrame, value: str, ends: tuple[str, str] | None, style: Any) -> Any:
    """Return a column by layer as a panel's line, with its interval as a band."""
    from clipmem.report.figures import Line

    rows = rows.filter(pl.col(value).is_finite()).sort("layer")
    low, high = (rows[name].to_list() for name in ends) if ends else ((), ())
    return Line(rows["layer"].to_list(), rows[value].to_list(), style, low, high, band=True)


def last_layer(rows: pl.DataFrame) -> float:
    """Return the upper limit of the layer axis."""
    return max([1, *rows["layer"].to_list()]) + 0.4


def unitmem_figure(layers: pl.DataFrame, size: str) -> str:
    """Draw mean UnitMem by layer under f with its interval, and under g in gray."""
    from clipmem.report.figures import INK, OTHER, SOFT, STYLES, Panel, Style, small_multiples

    rows = layers.filter(pl.col("unitmem_mean").is_finite())
    styles = {"mlp": STYLES[0], "block": STYLES[0], "attn": STYLES[1], "embedding": Style(INK, "-", "D")}
    kinds = sorted(kinds_of(rows), key=lambda kind: kind != "mlp")
    has_reference = "reference_unitmem_mean" in rows.columns
    panels: list[Panel] = []
    for tower in TOWERS:
        panel = Panel(f"{tower} tower", "layer", "mean UnitMem", whole=True, share="y", xlim=(0.6, last_layer(rows)))
        for kind in kinds:
            own = rows.filter((pl.col("tower") == tower) & (pl.col("kind") == kind))
            style = styles.get(kind, OTHER)
            panel.lines.append(layer_line(own, "unitmem_mean", ("unitmem_low", "unitmem_high"), style))
            if has_reference:
                panel.lines.append(layer_line(own, "reference_unitmem_mean", None, style._replace(color=SOFT)))
        panels.append(panel)
    legend = {f"{KIND_NAMES.get(kind, 'other')}, f": styles.get(kind, OTHER) for kind in kinds}
    legend |= {"the same under g": Style(SOFT, "-", "")} if has_reference else {}
    last = rows.filter(pl.col("layer") == pl.col("layer").max().over("tower", "kind")).sort("tower", "kind")
    ends = ", ".join(f"{row['tower']} {row['kind']} {plain(row['unitmem_mean'])}" for row in last.to_dicts())
    title = f"Mean UnitMem by layer of both towers. In the last layer: {ends}."
    return small_multiples("unitmem", size, panels, title, columns=2, height=290, legend=legend)
