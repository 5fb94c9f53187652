"""Store validations of estimators, and write the tables of RESULTS.md and their figure from them.

clipmem validate-estimators experiments/estimators/emoji-artists.toml --proxy clipmem-tiny-32 --out validated
python experiments/estimators/record.py emoji-artists=validated    # stores validated/validated.json, writes the page
clipmem validate-estimators experiments/estimators/printed.toml --truth 12 --out printed
python experiments/estimators/record.py printed=printed            # whether the printed agreement is right
python experiments/estimators/record.py                            # writes the page again
"""

import json
import re
import sys
from functools import partial
from pathlib import Path
from typing import Any

from clipmem.report.figures import PAPER, SOFT, STYLES, Figure, Line, Panel, Style, standalone
from clipmem.report.formats import interval, plain, signed
from clipmem.scoring.pair_scores import PAIR_SCORES
from clipmem.study.validating import DOCUMENT

HERE = Path(__file__).parent
PAGE = HERE / "RESULTS.md"
FRONTIER = HERE.parents[1] / "src" / "clipmem" / "scoring" / "pair_scores" / "frontier.json"
FIGURE = HERE.parents[1] / "docs" / "images" / "estimators.svg"
_BLOCK = re.compile(r"(<!-- validated: ([\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)
REGIMES = ("emoji-artists", "icons")
UNTOUCHED = "clip-art"  # looked at once, after all choices: neither in the frontier nor in the figure
_PRINTED = re.compile(r"(<!-- printed -->\n).*?(<!-- end -->)", re.DOTALL)
_EVERY = re.compile(r"(<!-- every printed -->\n).*?(<!-- end -->)", re.DOTALL)
_SHOWN: dict[str, Style] = dict(zip(("distilled", "closed-form", "raw"), STYLES, strict=False))
_FREE = 0.03  # where a cost of 0 stands on the logarithmic axis
WIDTH = 720  # of a page of the docs, in CSS pixels

Document = dict[str, Any]


def stored(name: str) -> Document:
    """Read a stored validation, less estimators that clipmem has no longer."""
    document = json.loads((HERE / f"{name}.json").read_text(encoding="utf-8"))
    return document | {"estimators": [one for one in document["estimators"] if one["estimator"] in PAIR_SCORES]}


def table(found: Document) -> str:
    """Return the table of one data set."""
    lines = [
        f"{found['pairs']:,} pairs, {found['planted']} of them with swapped captions. Ground truth: "
        f"{2 * found['truth']} shadow models, reliability {plain(found['reliability'], 2)}.",
        "",
        "| estimator | shadow models | cost | agreement | without swapped captions | above `raw` with 4 | seconds |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for one in found["estimators"]:
        kind = f" {found['proxy']}" if one["proxy"] else ""
        models = f"{2 * one['pairs']}{kind}" if one["pairs"] else "none"
        above = one["above_raw"]
        lines.append(
            f"| `{one['estimator']}` | {models} | {plain(one['cost'], 2)} "
            f"| {plain(one['agreement'])} {interval(one)} | {plain(one['among_clean'])} "
            f"| {signed(above['mean'])} {interval(above, sign=True)} | {plain(one['seconds'], 1)} |"
        )
    return "\n".join(lines)


def printed(found: Document) -> str:
    """Return the table of printed and true agreements, a row for each set of shadow models."""
    lines = ["| estimator | shadow models | printed | true | difference |", "| --- | --- | --- | --- | --- |"]
    for one in found["estimators"]:
        for case in one["printed"]:
            numbers = [plain(case["printed"]), plain(case["agreement"]), signed(case["printed"] - case["agreement"])]
            lines.append(f"| `{one['estimator']}` | {2 * one['pairs']} | {' | '.join(numbers)} |")
    means = list[str]()
    for name in dict.fromkeys(one["estimator"] for one in found["estimators"] if one["printed"]):
        cases = [case for one in found["estimators"] if one["estimator"] == name for case in one["printed"]]
        off = sum(case["printed"] - case["agreement"] for case in cases) / len(cases)
        means.append(f"{signed(off)} for `{name}`")
    return "\n".join([*lines, "", f"Mean difference: {', '.join(means)}."])


def every_printed() -> str:
    """Return the table of all printed agreements that are stored: how far they are off, by data and estimator."""
    lines = [
        "| data | estimator | cases | mean difference | largest | within 0.05 |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    all_of = list[float]()
    names = {
        "printed": "drawings, smallest models",
        "emoji-artists": "drawings",
        "icons": "icons",
        UNTOUCHED: "clip art",
    }
    for name, data in names.items():
        for estimator in ("raw", "distilled"):
            cases = [
                case["printed"] - case["agreement"]
                for one in stored(name)["estimators"]
                for case in one["printed"]
                if one["estimator"] == estimator
            ]
            all_of += cases
            values = f"{signed(sum(cases) / len(cases))} | {signed(max(cases, key=abs))}"
            lines.append(f"| {data} | `{estimator}` | {len(cases)} | {values} | {_near(cases)} |")
    return "\n".join([*lines, "", f"Within 0.05: {_near(all_of)} of {len(all_of)}."])


def _near(differences: list[float]) -> int:
    return sum(abs(one) <= 0.05 for one in differences)


def figure(documents: dict[str, Document]) -> str:
    """Draw agreement against cost, a panel for each data set; filled: full-size shadow models, open: proxies."""

    def draw(estimators: list[Document], axes: Any) -> None:
        for one in estimators:
            if one["proxy"] and one["estimator"] in _SHOWN:
                color, _, mark = _SHOWN[one["estimator"]]
                axes.plot(max(one["cost"], _FREE), one["agreement"], mark, color=color, markerfacecolor=PAPER)
        axes.text(0.98, 0.04, "open: small shadow models", transform=axes.transAxes, ha="right", color=SOFT, size=12)
        axes.set(xscale="log", ylim=(0, 1))
        axes.set_xticks([_FREE, 0.1, 0.3, 1, 3, 8], ["0", "0.1", "0.3", "1", "3", "8"])
        axes.set_xticks([], minor=True)

    panels: list[Panel] = []
    for name, found in documents.items():
        panel = Panel(name, "cost of shadow models, in trainings of f", "agreement with the ground truth")
        panel.draw = partial(draw, found["estimators"])
        for estimator, style in _SHOWN.items():
            for proxy in (False, True):
                own = [one for one in found["estimators"] if (one["estimator"], one["proxy"]) == (estimator, proxy)]
                x = [max(one["cost"], _FREE) for one in own]
                y, low, high = ([one[key] for one in own] for key in ("agreement", "low", "high"))
                panel.lines.append(Line(x, y, style, low, high))
        panels.append(panel)
    text = "; ".join(
        f"{name}: {one['estimator']} at cost {plain(one['cost'], 2)}: {plain(one['agreement'])}"
        for name, found in documents.items()
        for one in found["estimators"]
        if one["estimator"] in _SHOWN
    )
    title = f"Agreement of estimators with the ground truth. {text}."
    return Figure(title, panels, columns=2, height=310, width=WIDTH, legend=_SHOWN).svg("estimators", "wide")


def frontier(documents: dict[str, Document]) -> list[Document]:
    """Return the options that were measured on every data set, with their agreement on each, for `--budget`."""
    keys = ("estimator", "pairs", "proxy")
    measured = {
        name: {tuple(one[key] for key in keys): round(one["agreement"], 3) for one in found["estimators"]}
        for name, found in documents.items()
    }
    for item in (PAIR_SCORES[name] for name in PAIR_SCORES):
        for name, held_out in item.fitted_on.items():  # by weights that were fitted on the others
            measured.get(name, {})[item.name, 0, False] = held_out
    every = set.intersection(*(set(one) for one in measured.values()))
    rows = sorted(every, key=lambda one: (one[1], not one[2], one[0]))
    agreed = ({"agreement": {name: values[row] for name, values in measured.items()}} for row in rows)
    return [dict(zip(keys, row, strict=True)) | one for row, one in zip(rows, agreed, strict=True)]


def write_page() -> None:
    """Insert the tables into RESULTS.md, draw their figure, and write the frontier of `--budget`."""
    documents = {name: stored(name) for name in REGIMES}
    text = PAGE.read_text(encoding="utf-8")
    tables = {name: table(document) for name, document in {**documents, UNTOUCHED: stored(UNTOUCHED)}.items()}
    text = _BLOCK.sub(lambda found: f"{found[1]}{tables.get(found[2], 'Not run yet.')}\n{found[3]}", text)
    text = _PRINTED.sub(lambda found: f"{found[1]}{printed(stored('printed'))}\n{found[2]}", text)
    text = _EVERY.sub(lambda found: f"{found[1]}{every_printed()}\n{found[2]}", text)
    PAGE.write_text(text, encoding="utf-8")
    lines = ",\n".join(f" {json.dumps(row)}" for row in frontier(documents))
    FRONTIER.write_text(f"[\n{lines}\n]\n", encoding="utf-8")
    FIGURE.write_text(standalone(figure(documents)), encoding="utf-8")


if __name__ == "__main__":
    for given in sys.argv[1:]:
        regime, folder = given.split("=", 1)
        (HERE / f"{regime}.json").write_bytes((Path(folder) / DOCUMENT).read_bytes())
    write_page()
