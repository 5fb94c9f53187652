"""Write tables and plots of two RESULTS.md, here and of experiments/curate: `python benchmarks/page.py`.

Results are JSON files in `benchmarks/results/`, one per suite, written by `run.py --json`.
"""

import json
import re
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import Any

from clipmem.report.figures import DASHED, LINE, SOFT, STYLES, Figure, Line, Panel, Style, standalone

sys.path.insert(0, str(Path(__file__).parent))

ROOT = Path(__file__).parents[1]
WIDTH = 720  # of a page of the docs, in CSS pixels
RESULTS, PAGE = ROOT / "benchmarks" / "results", ROOT / "benchmarks" / "RESULTS.md"
PLOT = ROOT / "docs/images/scale.svg"
CURATE, DETECTORS = ROOT / "experiments" / "curate" / "RESULTS.md", ROOT / "docs/images/curate.svg"
_BLOCK = re.compile(r"(<!-- results: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
_PEERS = {
    "open_clip": "open_clip",
    "loop": "one pair at a time",
    "bare": "bare",
    "before": "before",
    "full": "nothing frozen",
    "default": "default",
}


def table(document: Mapping[str, Any]) -> str:
    """Format the rows of a suite as Markdown, with the machine below."""
    if "detector" in document["rows"][0]:
        return f"{detectors(document['rows'])}\n\n{_machine(document['machine'])}"
    if "check" in document["rows"][0]:
        return f"{explorer(document['rows'])}\n\n{_machine(document['machine'])}"
    lines = [
        "| case | against | ratio | range | clipmem | other | unit |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in document["rows"]:
        spread = f"{row['low']:.2f} to {row['high']:.2f}" if row["rounds"] > 1 else "one round"
        lines.append(
            f"| {row['case']} | {_PEERS[row['against']]} | **{row['ratio']:.2f}** | {spread} | "
            f"{row['ours']:,.4g} | {row['theirs']:,.4g} | {row['unit']} |"
        )
    return "\n".join([*lines, "", _machine(document["machine"])])


def explorer(rows: Sequence[Mapping[str, Any]]) -> str:
    """Format the rows of `view.py` as Markdown."""
    lines = ["| check | median | largest | demanded | rounds |", "| --- | --- | --- | --- | --- |"]
    for row in rows:
        median, largest = (
            f"{row[name]:.{2 if row['unit'] == 's' else 0}f} {row['unit']}" for name in ("median", "largest")
        )
        demand = row["demand"] and f"at most {row['demand']}"
        lines.append(f"| {row['check']} | {median} | {largest} | {demand} | {row['rounds']} |")
    return "\n".join(lines)


def detectors(rows: Sequence[Mapping[str, Any]]) -> str:
    """Format the rows of the suite `curate` as Markdown, a table per regime and kind of mismatched caption."""
    parts = list[str]()
    for regime, kind in dict.fromkeys((row["regime"], row["kind"]) for row in rows):
        lines = [
            "| detector | AUROC | average precision | AUROC minus best published | seconds on one core |",
            "| --- | --- | --- | --- | --- |",
        ]
        for row in rows:
            if (row["regime"], row["kind"]) == (regime, kind):
                name = row["detector"] + " (published)" * row["published"]
                name = f"**{name}**" if row["detector"].startswith("clipmem,") else name
                spread = f"{row['low']:+.3f} to {row['high']:+.3f}"
                numbers = f"{row['auroc']:.3f} | {row['precision']:.3f} | {spread} | {row['seconds']:.1f}"
                lines.append(f"| {name} | {numbers} |")
        parts.append("\n".join([f"{regime}, {kind}; models trained on the mismatched captions, too:", "", *lines]))
    return "\n\n".join(parts)


def bars(rows: Sequence[Mapping[str, Any]], file: Path) -> None:
    """Draw the AUROC of the best published detector and of clipmem's combinations, and their differences from it."""
    kinds = list(dict.fromkeys((row["regime"], row["kind"]) for row in rows))
    heights = {
        kind: k + 1.3 * list(dict.fromkeys(regime for regime, _ in kinds)).index(kind[0])
        for k, kind in enumerate(kinds)
    }
    names = ("clipmem, all signals", "clipmem, no model", "best published")
    styles: dict[str, Style] = dict(zip(names, STYLES, strict=False))
    offset = dict(zip(styles, (-0.22, 0.0, 0.22), strict=True))

    def best(kind: tuple[str, str], name: str) -> Mapping[str, Any]:
        return max((r for r in rows if (r["regime"], r["kind"]) == kind and _is(r, name)), key=itemgetter("auroc"))

    def draw(axes: Any, *, minus: bool) -> None:
        axes.grid(axis="y", visible=False)
        axes.grid(axis="x", color=LINE, linewidth=1)
        for kind, height in heights.items():
            published = best(kind, "best published")["auroc"]
            for name, (color, _, mark) in styles.items():
                row, y = best(kind, name), height + offset[name]
                if minus and name != "best published":
                    axes.plot([row["low"], row["high"]], [y, y], color=color, linewidth=2)
                if not minus or name != "best published":
                    axes.plot(row["auroc"] - published * minus, y, mark, color=color, markersize=6)
        for regime in dict.fromkeys(regime for regime, _ in kinds):
            top = min(height for (name, _), height in heights.items() if name == regime)
            if not minus:
                axes.text(0.51, top - 0.85, regime, va="center", color=SOFT, size=12)
        if minus:
            axes.axvline(0, color=SOFT, linewidth=1, linestyle=DASHED)
        axes.set(ylim=(max(heights.values()) + 0.6, -1.3), **({} if minus else {"xlim": (0.5, 1)}))
        axes.set_yticks(list(heights.values()), ["" if minus else kind for _, kind in kinds], fontsize=12)

    difference = partial(draw, minus=True)
    panels = [
        Panel("AUROC", "AUROC (0.5 = chance)", "", margin=200, draw=partial(draw, minus=False)),
        Panel("minus the best published", "difference, 95% interval", "", margin=40, draw=difference),
    ]
    title = "AUROC of clipmem and of the best published detector, and their differences, by kind of mismatched caption."
    _write(Figure(title, panels, columns=2, height=520, width=WIDTH, legend=styles), file)


def _write(figure: Figure, file: Path) -> None:
    file.write_text(standalone(figure.svg(file.stem, "wide")), encoding="utf-8")


def _is(row: Mapping[str, Any], name: str) -> bool:
    return row["published"] if name == "best published" else row["detector"] == name


def _machine(found: Mapping[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items() if name != "clipmem")
    bf16 = "bf16" if found["bf16"] else "no bf16"
    place = found["gpu"] or f"{found['processor']}, {found['cores']} cores, {bf16}"
    return f"{place}; Python {found['python']}, {versions}; load before {found['load_before']:.1f}."


def page(text: str, results: Mapping[str, Mapping[str, Any]]) -> str:
    """Insert the tables between the page's marks; suites without results are unchanged."""
    return _BLOCK.sub(
        lambda found: f"{found[1]}\n{table(results[found[2]])}\n\n{found[3]}" if found[2] in results else found[0],
        text,
    )


def stored() -> dict[str, dict[str, Any]]:
    """Read the stored results by suite."""
    return {file.stem: json.loads(file.read_text(encoding="utf-8")) for file in sorted(RESULTS.glob("*.json"))}


def points(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[int, float]]:
    """Return the results of the suite `memory` by number of pairs: seconds per pair, and MiB."""
    found: dict[str, dict[int, float]] = {"s": {}, "MiB": {}}
    for row in rows:
        few, many = (int(number.replace(",", "")) for number in re.findall(r"[\d,]*\d", row["case"])[:2])
        found[row["unit"]] |= {few: row["theirs"], many: row["ours"]}
    return {unit: dict(sorted(values.items())) for unit, values in found.items()}


def plot(rows: Sequence[Mapping[str, Any]], file: Path) -> None:
    """Draw time and memory against the number of pairs, on logarithmic axes."""
    measured = points(rows)
    n, seconds = list(measured["s"]), [n * took for n, took in measured["s"].items()]
    sizes, memory = list(measured["MiB"]), list(measured["MiB"].values())

    def logarithmic(axes: Any, *, both: bool) -> None:
        axes.set(xscale="log", **({"yscale": "log"} if both else {"ylim": (0, None)}))
        axes.xaxis.set_major_formatter(lambda pairs, _: f"{pairs:,.0f}")
        if both:
            axes.yaxis.set_major_formatter(lambda seconds, _: f"{seconds:,.0f}")
            axes.annotate(
                "linear",
                (n[0], seconds[-1] * n[0] / n[-1]),
                xytext=(16, 0),
                textcoords="offset points",
                va="center",
                color=SOFT,
                size=12,
            )
        for x, y in zip(n, seconds, strict=True) if both else zip(sizes, memory, strict=True):
            axes.annotate(f"{y:,.0f}", (x, y), xytext=(0, 8), textcoords="offset points", ha="center", size=12)

    linear = Line([n[0], n[-1]], [seconds[-1] * n[0] / n[-1], seconds[-1]], Style(SOFT, DASHED, ""))
    time = Panel("Time", "pairs", "seconds of a study", [linear, Line(n, seconds, STYLES[0])])
    peak = Panel("Peak memory", "pairs", "MiB, all processes", [Line(sizes, memory, STYLES[0])])
    time.draw, peak.draw = partial(logarithmic, both=True), partial(logarithmic, both=False)
    title = f"Time and peak memory of a study of {n[0]:,} to {n[-1]:,} pairs; memory on an axis from 0."
    _write(Figure(title, [time, peak], columns=2, height=280, width=WIDTH), file)


def main() -> None:
    """Write the page and the plot."""
    results = stored()
    for file in (PAGE, CURATE):
        file.write_text(page(file.read_text(encoding="utf-8"), results), encoding="utf-8")
    if "memory" in results:
        plot(results["memory"]["rows"], PLOT)
    if "curate" in results:
        bars(results["curate"]["rows"], DETECTORS)


if __name__ == "__main__":
    main()
