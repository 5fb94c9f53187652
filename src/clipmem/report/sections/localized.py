"""Sections of a localized run: UnitMem by layer and top units, LayerMem by layer, the share of each tower."""

from functools import partial
from typing import Any, NamedTuple

import polars as pl

from clipmem.base.summary import Interval
from clipmem.report.figures import CONTROL, INK, OTHER, SHARED, SOFT, STYLES, Figure, Line, Panel, Style
from clipmem.report.formats import Side, higher_of, plain, signed
from clipmem.report.gallery import TOWERS, UNITS_TABLE, image_uri, top_units
from clipmem.report.run import Run
from clipmem.report.sections import SECTIONS, Document, Figures, Section, Shown
from clipmem.report.templating import names

KINDS = ("block", "attn", "mlp", "embedding")
KIND_NAMES = names("layers")
LAYERS_TABLE, SHARES, SETTINGS = "localize/layers", "localize/towers.json", "localize/settings.json"
_CLEAREST = 4
_BELOW = 0.05  # significance level of the adjusted p-values


@SECTIONS.register("units")
class Units(Section):
    """UnitMem by layer, and the units that respond most to a single pair."""

    nav, order, screen, entry = "Units", 70, "localize", UNITS_TABLE

    def data(self, subject: Run) -> Shown:
        units, top = subject.table(UNITS_TABLE), {tower: list[Shown]() for tower in TOWERS}
        for row in top_units(units).to_dicts():
            top[row["tower"]].append(
                {
                    **row,
                    "kind": KIND_NAMES.get(row["kind"], row["kind"]),
                    "image": image_uri(subject.gallery.get(row["uid"])),
                    "caption": next(iter(subject.trained_captions(row["uid"])), ""),
                    "planted": row["uid"] in subject.planted,
                }
            )
        return {"top": [group for group in top.items() if group[1]], "several_seeds": units["seed"].n_unique() > 1}

    def document(self, subject: Run) -> Document:
        return {"units": top_units(subject.table(UNITS_TABLE)).to_dicts()}

    def figures(self, subject: Run) -> Figures:
        return {"unitmem": unitmem_figure(subject.table(LAYERS_TABLE))}


def kinds_of(rows: pl.DataFrame) -> list[str]:
    """Return the kinds of layers in a table, in display order."""
    return sorted(set(rows["kind"]), key=lambda kind: (KINDS.index(kind) if kind in KINDS else len(KINDS), kind))


def layer_line(rows: pl.DataFrame, value: str, ends: tuple[str, str] | None, style: Style) -> Line:
    """Return a column by layer as a panel's line, with its interval as a band."""
    rows = rows.filter(pl.col(value).is_finite()).sort("layer")
    low, high = (rows[name].to_list() for name in ends) if ends else ((), ())
    return Line(rows["layer"].to_list(), rows[value].to_list(), style, low, high, band=True)


def last_layer(rows: pl.DataFrame) -> float:
    """Return the upper limit of the layer axis."""
    return max([1, *rows["layer"].to_list()]) + 0.4


_STYLES = {
    "block": STYLES[0],
    "attn": STYLES[1],
    "mlp": Style(SHARED, (0, (1, 2)), "^"),
    "embedding": Style(INK, "-", "D"),
}


def unitmem_figure(layers: pl.DataFrame) -> Figure:
    """Draw mean UnitMem by layer under f with its interval, and under g in gray."""
    rows = layers.filter(pl.col("unitmem_mean").is_finite())
    kinds = sorted(kinds_of(rows), key=lambda kind: kind != "mlp")
    styles = {kind: STYLES[0] if kind == "mlp" else _STYLES.get(kind, OTHER) for kind in kinds}
    panels: list[Panel] = []
    for tower in TOWERS:
        panel = Panel(f"{tower} tower", "layer", "mean UnitMem", whole=True, share="y", xlim=(0.6, last_layer(rows)))
        for kind, style in styles.items():
            of_kind = rows.filter((pl.col("tower") == tower) & (pl.col("kind") == kind))
            panel.lines.append(layer_line(of_kind, "unitmem_mean", ("unitmem_low", "unitmem_high"), style))
            panel.lines.append(layer_line(of_kind, "reference_unitmem_mean", None, style._replace(color=SOFT)))
        panels.append(panel)
    legend = {f"{KIND_NAMES.get(kind, 'other')}, f": style for kind, style in styles.items()}
    legend["the same under g"] = Style(SOFT, "-", "")
    last = rows.filter(pl.col("layer") == pl.col("layer").max().over("tower", "kind")).sort("tower", "kind")
    ends = ", ".join(f"{row['tower']} {row['kind']} {plain(row['unitmem_mean'])}" for row in last.to_dicts())
    title = f"Mean UnitMem by layer of both towers. In the last layer: {ends}."
    return Figure(title, panels, columns=2, height=290, legend=legend)


@SECTIONS.register("layers")
class Layers(Section):
    """LayerMem by layer, and its difference from the layer before."""

    nav, order, screen, entry = "Layers", 90, "localize", LAYERS_TABLE

    def data(self, subject: Run) -> Shown:
        layers = subject.table(LAYERS_TABLE)
        pairs = layers.filter(pl.col("role") == "candidate")["n"].to_list()
        return {"pairs": max(pairs, default=0), "last": last_layers(layers), "control": against_control(layers)}

    def document(self, subject: Run) -> Document:
        return {"layers": subject.table(LAYERS_TABLE).to_dicts()}

    def figures(self, subject: Run) -> Figures:
        return {"layermem": layermem_figure(subject.table(LAYERS_TABLE))}


def _main_kind(layers: pl.DataFrame) -> str:
    kinds = layers["kind"].unique().to_list()
    return "block" if "block" in kinds else min(kinds, default="block")


class Contrast(NamedTuple):
    """LayerMem of candidates and control in the last layer of a tower, and the side that the candidates are on."""

    tower: str
    candidate: Interval
    control: Interval
    side: Side


def last_layers(layers: pl.DataFrame) -> list[Contrast]:
    """Compare the last layer's LayerMem of candidates and control, by tower."""
    contrasts: list[Contrast] = []
    for tower in TOWERS:
        rows = layers.filter((pl.col("tower") == tower) & (pl.col("kind") == _main_kind(layers)))
        last = rows.filter(pl.col("layer") == pl.col("layer").max()).select("role", "layermem", "low", "high")
        by_role = {role: Interval(mean=mean, low=low, high=high) for role, mean, low, high in last.iter_rows()}
        candidate, control = by_role.get("candidate"), by_role.get("external")
        if candidate and control and None not in (candidate.low, control.low):
            contrasts.append(Contrast(tower, candidate, control, higher_of(candidate, control)))
    return contrasts


def against_control(layers: pl.DataFrame) -> Shown | None:
    """Count where the candidates' LayerMem differs from the control's (one family of tests); None if untested."""
    tested = layers.filter(pl.col("control_p_holm").is_not_null())
    clear = tested.filter(pl.col("control_p_holm") < _BELOW).sort("control_p_holm")
    if tested.is_empty():
        return None
    clearest = [{**row, "kind": KIND_NAMES.get(row["kind"], row["kind"])} for row in clear.head(_CLEAREST).to_dicts()]
    return {"tests": tested.height, "differ": clear.height, "below": _BELOW, "clearest": clearest}


def layermem_figure(layers: pl.DataFrame) -> Figure:
    """Draw LayerMem by layer and its difference from the previous layer, for the candidates and the control."""
    candidates = layers.filter(pl.col("role") == "candidate")
    main, kinds = _main_kind(candidates), kinds_of(candidates)
    control = layers.filter((pl.col("role") == "external") & (pl.col("kind") == main))

    def name_embedding(rows: pl.DataFrame, axes: Any) -> None:
        """Label the embedding "emb." instead of a layer number."""
        layers = rows.filter(pl.col("kind") == "embedding")["layer"].to_list()

        def text(value: float, _: int | None = None) -> str:
            return "emb." if round(value) == layers[0] else f"{value:g}" if value < layers[0] else ""

        if layers:
            axes.xaxis.set_major_formatter(text)

    panels: list[Panel] = []
    parts = (("layermem", ("low", "high"), "LayerMem"), ("delta", ("delta_low", "delta_high"), "difference"))
    for value, ends, name in parts:
        for tower in TOWERS:
            here = candidates.filter(pl.col("tower") == tower)
            panel = Panel(f"{tower} tower", "layer", name, zero=True, share=value, whole=True)
            panel.xlim, panel.draw = (0.6, last_layer(candidates)), partial(name_embedding, here)
            if control.height:
                panel.lines.append(layer_line(control.filter(pl.col("tower") == tower), value, ends, CONTROL))
            for kind in kinds:
                band = ends if kind in (main, "embedding") else None
                rows = here.filter(pl.col("kind") == kind)
                panel.lines.append(layer_line(rows, value, band, _STYLES.get(kind, OTHER)))
            panels.append(panel)
    legend = {KIND_NAMES.get(kind, "other"): _STYLES.get(kind, OTHER) for kind in kinds}
    legend |= {f"held-out pairs, {KIND_NAMES.get(main, 'other')}": CONTROL} if control.height else {}
    last = candidates.filter(pl.col("kind") == main).filter(pl.col("layer") == pl.col("layer").max().over("tower"))
    means = ", ".join(f"{row['tower']} {signed(row['layermem'])}" for row in last.sort("tower").to_dicts())
    title = f"LayerMem and its difference by layer. In the last layer: {means}."
    return Figure(title, panels, columns=2, height=250, legend=legend)


@SECTIONS.register("towers")
class Towers(Section):
    """The share of the image tower and of the text tower in the score."""

    nav, order, screen = "Towers", 100, "localize"

    def applies(self, subject: Run) -> bool:
        data = self.data(subject)
        return bool(data["left_out"] or data["rows"])

    def data(self, subject: Run) -> Shown:
        shares = subject.document(SHARES)
        roles = shares.get("roles", {})
        rows = [roles[role] | {"role": role} for role in subject.roles if role in roles]
        # why the text tower, and with it the tower swap, was left out
        return {"shares": shares, "rows": rows, "left_out": subject.document(SETTINGS).get("untrained_text")}

    def document(self, subject: Run) -> Document:
        return {"towers": subject.document(SHARES)}
