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
from pathlib import Path
from typing import Any

from clipmem.report.figures import CANDIDATE, INDEPENDENT, SOFT, sketch, standalone, svg_of
from clipmem.report.formats import interval, plain, signed
from clipmem.study.validating import DOCUMENT

HERE = Path(__file__).parent
PAGE = HERE / "RESULTS.md"
FRONTIER = HERE.parents[1] / "src" / "clipmem" / "scoring" / "pair_scores" / "frontier.json"
FIGURE = HERE.parents[1] / "docs" / "images" / "estimators.svg"
_BLOCK = re.compile(r"(<!-- validated: ([\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)
REGIMES = ("emoji-artists", "icons")
_PRINTED = re.compile(r"(<!-- printed -->\n).*?(<!-- end -->)", re.DOTALL)
_SHOWN = {"raw": SOFT, "distilled": CANDIDATE, "closed-form": INDEPENDENT}

Document = dict[str, Any]


def stored(name: str) -> Document:
    """Read a stored validation."""
    return json.loads((HERE / f"{name}.json").read_text(encoding="utf-8"))


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


def figure(documents: dict[str, Document]) -> str:
    """Draw agreement against cost, a panel for each data set; filled: full-size shadow models, open: proxies."""
    with sketch(760, 330) as canvas:
        for k, (name, found) in enumerate(documents.items()):
            axes = canvas.add_axes((0.08 + 0.48 * k, 0.16, 0.42, 0.72))
            for estimator, color in _SHOWN.items():
                for proxy in (False, True):
                    own = [one for one in found["estimators"] if (one["estimator"], one["proxy"]) == (estimator, proxy)]
                    if not own:
                        continue
                    costs = [max(one["cost"], 0.03) for one in own]
                    axes.plot(costs, [one["agreement"] for one in own], "-", color=color, linewidth=1.2)
                    axes.errorbar(
                        costs,
                        [one["agreement"] for one in own],
                        [
                            [max(0.0, one["agreement"] - one["low"]) for one in own],
                            [max(0.0, one["high"] - one["agreement"]) for one in own],
                        ],
                        fmt="o",
                        color=color,
                        markerfacecolor="white" if proxy else color,
                        label=estimator + (", small shadow models" if proxy else ""),
                    )
            axes.set_xscale("log")
            axes.set_ylim(0, 1)
            axes.set_xticks([0.03, 0.1, 0.3, 1, 3, 8], ["0", "0.1", "0.3", "1", "3", "8"])
            axes.set_xlabel("cost of shadow models, in trainings of f")
            axes.set_title(name)
            if k == 0:
                axes.set_ylabel("agreement with the ground truth")
                axes.legend(loc="lower right", fontsize=10)
        text = "; ".join(
            f"{name}: {one['estimator']} at cost {plain(one['cost'], 2)}: {plain(one['agreement'])}"
            for name, found in documents.items()
            for one in found["estimators"]
            if one["estimator"] in _SHOWN
        )
        return svg_of(canvas, "estimators", f"Agreement of estimators with the ground truth. {text}.")


def frontier(documents: dict[str, Document]) -> list[Document]:
    """Return the options that were measured on every data set, with their agreement on each, for `--budget`."""
    keys = ("estimator", "pairs", "proxy")
    measured = {
        name: {tuple(one[key] for key in keys): round(one["agreement"], 3) for one in found["estimators"]}
        for name, found in documents.items()
    }
    every = set.intersection(*(set(one) for one in measured.values()))
    rows = sorted(every, key=lambda one: (one[1], not one[2], one[0]))
    return [dict(zip(keys, one, strict=True)) | {"agreement": {k: v[one] for k, v in measured.items()}} for one in rows]


def write_page() -> None:
    """Insert the tables into RESULTS.md, draw their figure, and write the frontier of `--budget`."""
    documents = {name: stored(name) for name in REGIMES}
    text = PAGE.read_text(encoding="utf-8")
    tables = {name: table(document) for name, document in documents.items()}
    text = _BLOCK.sub(lambda found: f"{found[1]}{tables.get(found[2], 'Not run yet.')}\n{found[3]}", text)
    text = _PRINTED.sub(lambda found: f"{found[1]}{printed(stored('printed'))}\n{found[2]}", text)
    PAGE.write_text(text, encoding="utf-8")
    lines = ",\n".join(f" {json.dumps(row)}" for row in frontier(documents))
    FRONTIER.write_text(f"[\n{lines}\n]\n", encoding="utf-8")
    FIGURE.write_text(standalone(figure(documents)), encoding="utf-8")


if __name__ == "__main__":
    for given in sys.argv[1:]:
        regime, folder = given.split("=", 1)
        (HERE / f"{regime}.json").write_bytes((Path(folder) / DOCUMENT).read_bytes())
    write_page()
