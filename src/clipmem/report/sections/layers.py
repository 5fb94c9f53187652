"""LayerMem by layer, and what each layer adds to the one before."""

from collections.abc import Callable, Mapping
from typing import Any

import polars as pl

from clipmem.report.formats import signed
from clipmem.report.gallery import TOWERS
from clipmem.report.read import RunFiles
from clipmem.report.sections import SECTIONS, Section
from clipmem.report.sections.units import KIND_NAMES, kinds_of, last_layer, layer_line
from clipmem.report.verdicts import higher_of

_CLEAREST = 4
_BELOW = 0.05  # significance level of the adjusted p-values


@SECTIONS.register("layers")
class Layers(Section):
    """LayerMem by layer, and its difference from the layer before."""

    nav, order, screen = "Layers", 90, "localize"

    def applies(self, subject: RunFiles) -> bool:
        return subject.localized.layers is not None

    def data(self, subject: RunFiles) -> dict[str, Any]:
        layers = subject.localized.layers
        if layers is None:
            return {}
        pairs = layers.filter(pl.col("role") == "candidate")["n"].to_list()
        return {"pairs": max(pairs, default=0), "last": last_layers(layers), "control": against_control(layers)}

    def document(self, subject: RunFiles) -> Mapping[str, Any]:
        return {"layers": [] if subject.localized.layers is None else subject.localized.layers.to_dicts()}

    def figures(self, subject: RunFiles) -> Mapping[str, Callable[[str], str]]:
        layers = subject.localized.layers
        return {} if layers is None else {"layermem": lambda size: layermem_figure(layers, "candidate", size)}


def _main_kind(layers: pl.DataFrame) -> str:
    kinds = layers["kind"].unique().to_list()
    return "block" if "block" in kinds else min(kinds, default="block")


def last_layers(layers: pl.DataFrame) -> list[dict[str, Any]]:
    """Compare the last layer's LayerMem of candidates and control, by tower."""
    found: list[dict[str, Any]] = []
    for tower in TOWERS:
        own = layers.filter((pl.col("tower") == tower) & (pl.col("kind") == _main_kind(layers)))
        last = own.filter(pl.col("layer") == pl.col("layer").max())
        by_role = {row["role"]: {**row, "mean": row["layermem"]} for row in last.to_dicts()}
        candidate, control = by_role.get("candidate"), by_role.get("external")
        if candidate and control and None not in (candidate["low"], control["low"]):
            side = higher_of(candidate, control)
            found.append({"tower": tower, "candidate": candidate, "control": control, "side": side})
    return found


def against_control(layers: pl.DataFrame) -> dict[str, Any] | None:
    """Count where the candidates' LayerMem differs from the control's (one family of tests); None if untested."""
    if "control_p_holm" not in layers.columns:  # a table of an earlier version
        return None
    tested = layers.filter(pl.col("control_p_holm").is_not_null())
    found = tested.filter(pl.col("control_p_holm") < _BELOW).sort("control_p_holm")
    if tested.is_empty():
        return None
    clearest = [{**row, "kind": KIND_NAMES.get(row["kind"], row["kind"])} for row in found.head(_CLEAREST).to_dicts()]
    return {"tests": tested.height, "differ": found.height, "below": _BELOW, "clearest": clearest}


def layermem_figure(layers: pl.DataFrame, role: str, size: str) -> str:
    """Draw LayerMem by layer and its difference from the previous layer, for a role and the control."""
    from clipmem.report.figures import CONTROL, INK, OTHER, SHARED, STYLES, Panel, Style, small_multiples

    styles = {"block": STYLES[0], "attn": STYLES[1], "mlp": Style(SHARED, (0, (1, 2)), "^")}
    styles["embedding"] = Style(INK, "-", "D")
    own = layers.filter(pl.col("role") == role)
    main, kinds = _main_kind(own), kinds_of(own)
    control = layers.filter((pl.col("role") == "external") & (pl.col("kind") == main))
    has_control = role != "external" and control.height > 0
    panels: list[Panel] = []
    parts = (("layermem", ("low", "high"), "LayerMem"), ("delta", ("delta_low", "delta_high"), "difference"))
    for value, ends, name in parts:
        for tower in TOWERS:
            here = own.filter(pl.col("tower") == tower)
            panel = Panel(f"{tower} tower", "layer", name, zero=True, share=value, whole=True)
            panel.xlim, panel.draw = (0.6, last_layer(own)), _embedding_axis(here)
            if has_control:
                panel.lines.append(layer_line(control.filter(pl.col("tower") == tower), value, ends, CONTROL))
            for kind in kinds:
                band = ends if kind in (main, "embedding") else None
                rows = here.filter(pl.col("kind") == kind)
                panel.lines.append(layer_line(rows, value, band, styles.get(kind, OTHER)))
            panels.append(panel)
    legend = {KIND_NAMES.get(kind, "other"): styles.get(kind, OTHER) for kind in kinds}
    legend |= {f"control, {KIND_NAMES.get(main, 'other')}": CONTROL} if has_control else {}
    last = own.filter(pl.col("kind") == main).filter(pl.col("layer") == pl.col("layer").max().over("tower"))
    means = ", ".join(f"{row['tower']} {signed(row['layermem'])}" for row in last.sort("tower").to_dicts())
    title = f"LayerMem and its difference by layer. In the last layer: {means}."
    return small_multiples("layermem", size, panels, title, columns=2, height=250, legend=legend)


def _embedding_axis(rows: pl.DataFrame) -> Callable[[Any], None] | None:
    """Return a function that labels the embedding "emb." instead of a layer number."""
    found = rows.filter(pl.col("kind") == "embedding")["layer"].to_list()
    if not found:
        return None

    def name(value: float, _: int | None = None) -> str:
        return "emb." if round(value) == found[0] else f"{value:g}" if value < found[0] else ""

    return lambda axes: axes.xaxis.set_major_formatter(name)
