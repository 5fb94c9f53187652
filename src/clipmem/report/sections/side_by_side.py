"""Localized runs side by side: UnitMem by layer, and whether CLIP is between supervised and SimCLR."""

import tomllib
from collections.abc import Mapping, Sequence
from typing import Any

from clipmem.report.figures import OTHER, STYLES, Figure, Line, Panel
from clipmem.report.run import Run
from clipmem.report.sections import SECTIONS, Document, Figures, Section, Shown
from clipmem.report.templating import names, template_text

DOCUMENT = "localize/side_by_side.json"
KINDS = names("units")
OBJECTIVES = ("clip", "supervised", "simclr", "siglip")
_TRIO = {"clip", "supervised", "simclr"}

# mean UnitMem of layers 1 to 12 of published image towers, to draw next to those of a run
UNITMEM: Mapping[str, Sequence[float]] = tomllib.loads(template_text("published.toml"))["unitmem"]
SOURCE = "Wang et al., ICLR 2025"


@SECTIONS.register("side_by_side")
class SideBySide(Section):
    """UnitMem by layer of several localized runs, and the published curves."""

    nav, order, screen = "Side by side", 80, "localize"

    def applies(self, subject: Run) -> bool:
        return bool(subject.document(DOCUMENT))

    def data(self, subject: Run) -> Shown:
        return compared(subject.document(DOCUMENT))

    def document(self, subject: Run) -> Document:
        return {"side_by_side": subject.document(DOCUMENT)}

    def figures(self, subject: Run) -> Figures:
        return {"side_by_side": side_by_side_figure(subject.document(DOCUMENT))}


def kinds_of(document: Document) -> list[str]:
    """Return the kinds of units in a document, in display order."""
    there = {row["kind"] for row in document["curves"]}
    return [kind for kind in KINDS if kind in there] + sorted(there - set(KINDS))


def compared(document: Document) -> dict[str, Any]:
    """Group the answers by kind of unit and by answer, and order the rows of the table."""
    kinds, alpha = kinds_of(document), 1 - document["confidence"]
    order = {kind: k for k, kind in enumerate(kinds)}
    return {
        "side_by_side": document,
        "names": {kind: KINDS.get(kind, kind) for kind in kinds},
        "answers": [one for kind in kinds if (one := _answers(document, kind))],
        "trained": [{"kind": kind, "runs": _trained(document, kind, alpha)} for kind in kinds],
        "rows": sorted(document["differences"], key=lambda row: (order[row["kind"]], row["layer"])),
        "seeds": document["curves"][0]["seeds"],
        "trio": {run["objective"] for run in document["runs"]} >= _TRIO,
        "source": SOURCE,
        "published_layers": layers_between(),
    }


def _answers(document: Document, kind: str) -> dict[str, Any] | None:
    """Return the layers in which CLIP is between the two others, and the verdict over all; None without these runs."""
    rows = [row for row in document["between"] if row["kind"] == kind]
    parts: dict[tuple[str, str], list[int]] = {}
    for row in rows:
        parts.setdefault((row["answer"], row["side"]), []).append(row["layer"])
    answers = {answer for answer, _ in parts}
    verdict = answers.pop() if len(answers) == 1 else "partly" if "yes" in answers else "inconclusive"
    listed = [{"answer": answer, "side": side, "layers": layers} for (answer, side), layers in parts.items()]
    return {"kind": kind, "verdict": verdict, "parts": listed} if rows else None


def _trained(document: Document, kind: str, alpha: float) -> list[dict[str, Any]]:
    """Return for each run the layers in which f, which trained on the pairs, is significantly above or below g."""
    found: list[dict[str, Any]] = []
    for run in (entry["run"] for entry in document["runs"]):
        rows = [row for row in document["trained"] if (row["run"], row["kind"]) == (run, kind)]
        shown = [row for row in rows if row["p_holm"] is not None and row["p_holm"] <= alpha]
        above, below = (sorted(row["layer"] for row in shown if row["difference"] * sign > 0) for sign in (1, -1))
        found.append({"run": run, "above": above, "below": below})
    return found


def styles_of(document: Document) -> dict[str, Any]:
    """Assign each run the style of its objective; a second run of the same objective gets an unused one."""
    own = dict(zip(OBJECTIVES, STYLES, strict=False))
    spare = [style for name, style in own.items() if name not in {run["objective"] for run in document["runs"]}]
    given: dict[str, Any] = {}
    for run in document["runs"]:
        style = own.get(run["objective"], OTHER)
        given[run["run"]] = style if style not in given.values() else spare.pop(0) if spare else OTHER
    return given


def side_by_side_figure(document: Document) -> Figure:
    """Draw mean UnitMem under f by relative depth, one panel per kind of unit, and the published curves."""
    kinds, styles = kinds_of(document), styles_of(document)
    axes: dict[str, Any] = {"xlabel": "layer / layers", "xlim": (0, 1.04)}
    panels: list[Panel] = []
    for kind in kinds:
        panel = Panel(KINDS.get(kind, kind), ylabel="" if panels else "mean UnitMem", **axes)
        for run, style in styles.items():
            rows = [row for row in document["curves"] if (row["run"], row["kind"], row["side"]) == (run, kind, "f")]
            rows.sort(key=lambda row: row["layer"])
            x = [row["layer"] / row["layers"] for row in rows]
            means, low, high = ([row[key] for row in rows] for key in ("mean", "low", "high"))
            panel.lines.append(Line(x, means, style, low, high, band=True))
        panels.append(panel)
    published = Panel("published, 12 layers", ylabel="", **axes)
    for objective, values in UNITMEM.items():
        depth = [(k + 1) / len(values) for k in range(len(values))]
        published.lines.append(Line(depth, values, STYLES[OBJECTIVES.index(objective)]))
    panels.append(published)
    verdicts = [f"{KINDS.get(one['kind'], one['kind'])}: {one['verdict']}" for one in compared(document)["answers"]]
    title = f"Mean UnitMem by relative depth. CLIP between the others: {'; '.join(verdicts) or 'no answer'}."
    return Figure(title, panels, columns=len(panels), height=280, legend=styles)


def layers_between() -> list[int]:
    """Return the layers (from 1) in which the published CLIP curve is between the other two."""
    rows = zip(UNITMEM["clip"], UNITMEM["supervised"], UNITMEM["simclr"], strict=True)
    return [layer for layer, (clip, *others) in enumerate(rows, start=1) if min(others) < clip < max(others)]
