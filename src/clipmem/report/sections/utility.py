"""Utility on held-out pairs, and what fine-tuning lost of it on data that the user named."""

from collections.abc import Mapping

from clipmem.base.summary import Interval
from clipmem.base.summary import Utility as Measured
from clipmem.report.run import Run
from clipmem.report.sections import SECTIONS, Document, ScreenSection, Section, Shown
from clipmem.report.templating import names, words_of

METRICS: Mapping[str, Mapping[str, str]] = names("metrics")
ROWS = {key: name for metrics in METRICS.values() for key, name in metrics.items()}
SHARES = {key: name for key, name in ROWS.items() if not key.endswith("_loss")}
# left out in the terminal
_LONG = ("_recall", "zero_shot_acc5", "probe_acc5", "sublabel_acc5")
_COLUMN = 22
MARGIN = 0.02  # a loss below it counts as kept
_DECIDE = ("zero_shot_acc1", "image_retrieval_recall@5")


@SECTIONS.register("utility")
class Utility(Section):
    """Retrieval, zero-shot, linear probes and distances on pairs that no model trained on."""

    nav, order, screen, entry, detail = "Utility", 130, "report", "utility", True

    def data(self, subject: Run) -> Shown:
        utility, columns = subject.summary.utility, subject.words["columns"]
        if utility is None:
            return {}
        return measured(utility, {side: columns[side] for side in columns if side in utility.metrics})


@SECTIONS.register("evaluated")
class Evaluated(ScreenSection):
    """Retrieval, zero-shot, linear probes and distances of a model."""

    def data(self, subject: Document) -> Shown:
        # the end of a path identifies a model
        utility = Measured.model_validate(subject)
        short = {side: side if len(side) <= _COLUMN else f"…{side[1 - _COLUMN :]}" for side in utility.metrics}
        columns = words_of(subject["protocol"])["columns"] if "protocol" in subject else {}
        return measured(utility, {side: columns.get(side, name) for side, name in short.items()})


def measured(utility: Measured, columns: Mapping[str, str]) -> Shown:
    """Return what the templates show, from the entry `utility` of a summary or the output of `clipmem evaluate`."""
    entries = {name: entry for metrics in utility.metrics.values() for name, entry in metrics.items()}
    metrics_by_kind = {**METRICS, "other measures": utility.words} if utility.words else METRICS
    rows = [(key, name) for metrics in metrics_by_kind.values() for key, name in metrics.items() if key in entries]
    low: dict[str, list[str]] = {}  # what is not clearly above chance
    for side, metrics in ((side, utility.metrics[side]) for side in columns):
        for key, name in ((key, name) for key, name in rows if key in SHARES):
            least, chance = metrics[key].mean if metrics[key].low is None else metrics[key].low, utility.chance[key]
            if least is None or chance is None or least <= chance:
                low.setdefault(side, []).append(name)
    groups = [(kind, [row for row in rows if row[0] in metrics]) for kind, metrics in metrics_by_kind.items()]
    return {
        "found": utility,
        "over": next((entry.over for entry in entries.values()), "pairs"),
        "columns": columns,
        "rows": rows,
        "metrics_by_kind": [(kind, members) for kind, members in groups if members],
        "short": [row for row in rows if not row[0].endswith(_LONG)],
        "not_above": [(columns[side], names) for side, names in low.items()],
    }


@SECTIONS.register("retained")
class Retained(Section):
    """Zero-shot and retrieval before and after fine-tuning."""

    nav, order, screen, entry = "Forgetting", 135, "report", "retained"

    def data(self, subject: Run) -> Shown:
        retained, columns = subject.summary.retained, subject.words["columns"]
        if retained is None:
            return {}
        metrics = retained.metrics
        name = next((name for name in _DECIDE if name in metrics["base"]), None)
        change = metrics["f"][name].change if name else None
        return {
            "columns": {side: columns.get(side, side) for side in metrics if side != "base"},
            "rows": [(name, SHARES[name]) for name in SHARES if name in metrics["base"]],
            "decides": name and {"name": SHARES[name], "change": change},
            "verdict": verdict(change) if change else "not_measured",
            "margin": MARGIN,
        }


def verdict(change: Interval) -> str:
    """Judge a change of a share: `forgot` if its interval is below 0, `kept` if above -`MARGIN`, or `inconclusive`."""
    if change.low is None or change.high is None:
        return "inconclusive"
    return "forgot" if change.high < 0 else "kept" if change.low > -MARGIN else "inconclusive"
