"""Write tables and plots of two RESULTS.md, here and of experiments/curate: `python benchmarks/page.py`.

Results are JSON files in `benchmarks/results/`, one per suite, written by `run.py --json`.
"""

import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

ROOT = Path(__file__).parents[1]
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
        parts.append("\n".join([f"{regime}, {kind}:", "", *lines]))
    return "\n\n".join(parts)


def bars(rows: Sequence[Mapping[str, Any]], file: Path) -> None:
    """Draw the AUROC of the best published detector and of clipmem's combinations, by kind, a panel per regime."""
    import matplotlib as mpl

    mpl.use("Agg")
    mpl.rcParams |= {"svg.hashsalt": "clipmem", "svg.fonttype": "none"}
    from matplotlib import pyplot as plt

    regimes, kinds = (list(dict.fromkeys(row[name] for row in rows)) for name in ("regime", "kind"))
    size = (2.4 + 2.2 * len(regimes), 3)
    figure, axes = plt.subplots(1, len(regimes), figsize=size, layout="constrained", sharey=True, squeeze=False)
    for axis, regime in zip(axes[0], regimes, strict=True):
        for name, marker in (("best published", "o"), ("clipmem, no model", "s"), ("clipmem, all signals", "D")):
            x = [
                max(r["auroc"] for r in rows if (r["regime"], r["kind"]) == (regime, kind) and _is(r, name))
                for kind in kinds
            ]
            axis.plot(x, range(len(kinds)), marker, label=name)
        axis.set(title=regime, xlabel="AUROC", xlim=(0.5, 1), yticks=range(len(kinds)), yticklabels=kinds)
        axis.grid(axis="x", alpha=0.3)
    axes[0][0].invert_yaxis()
    figure.legend(*axes[0][0].get_legend_handles_labels(), frameon=False, loc="outside lower center", ncols=3)
    file.parent.mkdir(exist_ok=True)
    figure.savefig(file, metadata={"Date": None, "Creator": None})
    plt.close(figure)


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
    import matplotlib as mpl

    mpl.use("Agg")
    mpl.rcParams |= {"svg.hashsalt": "clipmem", "svg.fonttype": "none"}
    from matplotlib import pyplot as plt

    measured = points(rows)
    figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3.2), layout="constrained")
    n, seconds = list(measured["s"]), [n * took for n, took in measured["s"].items()]
    left.loglog(n, seconds, "o-", label="measured")
    left.loglog(n, [seconds[-1] * k / n[-1] for k in n], "--", color="gray", label="linear")
    left.set(xlabel="pairs", ylabel="seconds of a study", title="Time")
    left.legend(frameon=False)
    right.semilogx(list(measured["MiB"]), list(measured["MiB"].values()), "o-")
    right.set(xlabel="pairs", ylabel="MiB, all processes", title="Peak memory", ylim=(0, None))
    file.parent.mkdir(exist_ok=True)
    figure.savefig(file, metadata={"Date": None, "Creator": None})
    plt.close(figure)


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
