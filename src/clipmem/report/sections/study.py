"""Sections of a study: setup, meaning, data, roles, pairs, training, retrieval, provenance, credits."""

import re
import tomllib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipmem.base.folder import SIDES
from clipmem.base.summary import Records
from clipmem.data.skipped import left_out_sentence
from clipmem.report.figures import CANDIDATE, INDEPENDENT, INK, Figure, Panel, Style
from clipmem.report.gallery import EXAMPLES, cards, pick, ranked_candidates, shown_credits
from clipmem.report.run import Run, TrainingLog
from clipmem.report.sections import SECTIONS, Document, Figures, Section, Shown
from clipmem.report.templating import names

Numbers = NDArray[np.float64]
MODELS = names("models")
_TARGET, _REFERENCE = Style(CANDIDATE, "-", ""), Style(INDEPENDENT, (0, (5, 2.5)), "")
_STYLES = {"f": _TARGET, "r": _TARGET, "g": _REFERENCE, "without": _REFERENCE}
_ROWS = 24  # with more models, the table has one row per kind, and only moving means are drawn
_POINTS = 300
_IN_TERMINAL = 10
_SHOWN_ELSEWHERE = ("seeds", "epochs", "precision")
_WEIGHTS = re.compile(r"\.(safetensors|pt|pth|bin|ckpt)(#ema)?$")
_MACHINE = ("device", "processor", "platform")


@SECTIONS.register("meaning")
class Meaning(Section):
    """What the score means, its range, and when not to trust it."""

    nav, order = "How to read", 35

    def data(self, subject: Run) -> Shown:
        weight, measure = float(subject.summary.weight), subject.measure
        bound = 2 * (1 + 2 * weight) if measure["banked"] else float(measure["bound"])
        return {"seeds": len(subject.summary.seeds), "weight": weight, "bound": bound}


@SECTIONS.register("regime")
class Regime(Section):
    """Whether the pairs of the study have near-duplicates, and what a high score means then."""

    nav, order, screen, entry, detail = "Regime", 45, "report", "regime", True


@SECTIONS.register("roles")
class Roles(Section):
    """Mean of the score in each role, tests between roles, stability."""

    nav, order, screen = "Roles and tests", 40, "report"

    def data(self, subject: Run) -> Shown:
        summary, stable = subject.summary, subject.summary.stability
        candidates = summary.roles["candidate"].n
        return {
            "seeds": len(summary.seeds),
            "candidates": candidates,
            # a tenth of fewer than ten pairs is less than one pair
            "tenth": stable.top10_overlap if stable and candidates >= 10 else None,
            "hundredth": stable.top1_overlap if stable and candidates >= 100 else None,
            "paired": summary.paired,
        }


@SECTIONS.register("estimate")
class Estimate(Section):
    """Which estimator made the scores, at what cost, and the expected agreement of each estimator with the truth."""

    nav, order, screen, entry = "Estimate", 40, "report", "estimate"

    def data(self, subject: Run) -> Shown:
        estimate = subject.summary.estimate
        if estimate is None:
            return {}
        agreed = [(name, agreement) for name, agreement in estimate.agreement.items() if agreement is not None]
        return {
            "found": estimate,
            "rows": sorted(agreed, key=lambda row: -abs(row[1].value)),
            "chosen": estimate.agreement.get(estimate.estimator),
        }


@SECTIONS.register("gallery")
class Gallery(Section):
    """The most and the least memorized pairs, with images and captions."""

    nav, order, screen = "Pairs", 50, "report"

    def data(self, subject: Run) -> Shown:
        ranked = ranked_candidates(subject.scores)
        most, least = (cards(subject, rows, ranked) for rows in pick(ranked))
        first = cards(subject, ranked.head(_IN_TERMINAL), ranked)
        return {"ranked": ranked.height, "most": most, "least": least, "first": first, "examples": EXAMPLES}


@SECTIONS.register("retrieval")
class Retrieval(Section):
    """Recall and median rank of retrieval on held-out pairs."""

    nav, order = "Retrieval", 140

    def data(self, subject: Run) -> Shown:
        retrieval = subject.summary.retrieval
        metrics = (retrieval and retrieval.model_extra) or {}
        sides = [side for side in subject.words["columns"] if side in metrics]
        ranks = [f"{way}_retrieval_median_rank" for way in ("image", "text")]
        has_rank = all(rank in metrics[side] for side in sides for rank in ranks)
        return {"found": retrieval, "sides": sides, "has_rank": has_rank}


@SECTIONS.register("reproduce")
class Provenance(Section):
    """Command, recipe, versions and hashes of the run."""

    nav, order, screen = "Reproduce", 800, "report"

    def data(self, subject: Run) -> Shown:
        left_out = _left_out(subject.summary.records)
        return {"manifest": subject.manifest, "recipe_lines": subject.recipe_text.splitlines(), "left_out": left_out}


@SECTIONS.register("credits")
class Credits(Section):
    """Credits of the images and captions shown."""

    nav, order = "Credits", 900

    def data(self, subject: Run) -> Shown:
        return {"credits": shown_credits(subject)}


@SECTIONS.register("run")
class Setup(Section):
    """Roles of the split, models, training, machine, time."""

    nav, order = "What was run", 700

    def data(self, subject: Run) -> Shown:
        recipe = tomllib.loads(subject.recipe_text)  # only what it says
        model, training = (
            {key: value for key, value in recipe.get(section, {}).items() if value not in ("", [], {})}
            for section in ("model", "train")
        )
        record: Document = subject.manifest.get("given") or {}
        models = [
            {
                "kind": kind,
                "number": number,
                **{key: entry[key] for key in ("name", "parameters", "image_size")},
                "weights": [(name, sha[:16]) for name, sha in entry["files"].items() if _WEIGHTS.search(name)],
            }
            for kind in ("target", "reference")
            for number, entry in enumerate(record.get(kind, ()))
        ]
        return {
            "given": {"models": models, "roles": record["roles"]} if record else {},
            "fraction": recipe.get("subsample", {}).get("fraction"),
            "model_name": model.pop("name", ""),
            "model": model,
            "epochs": sorted({int(log.epoch.max()) + 1 for log in subject.logs}),
            "steps": sorted({log.step.size for log in subject.logs}),
            "training": {key: value for key, value in training.items() if key not in _SHOWN_ELSEWHERE},
            "machine": [str(subject.manifest[name]) for name in _MACHINE if subject.manifest.get(name)],
            "left_out": _left_out(subject.summary.records),
            "seconds": subject.summary.seconds,
        }


def _left_out(records: Records | None) -> str:
    return left_out_sentence(records) if records else ""


@SECTIONS.register("training")
class Training(Section):
    """The training loss of every model."""

    nav, order = "Training", 150

    def data(self, subject: Run) -> Shown:
        """Return the mean loss of the first and last epoch, one row per model, or per kind if there are many."""
        logs = subject.logs
        ends = [
            [float(log.loss[log.epoch == epoch].mean()) for epoch in (log.epoch.min(), log.epoch.max())] for log in logs
        ]
        if len(logs) <= _ROWS or {log.side for log in logs} <= set(SIDES):
            rows = [
                {"model": log.side, "seed": log.seed, "steps": [log.loss.size], "first": [first], "last": [last]}
                for log, (first, last) in zip(logs, ends, strict=True)
            ]
            return {"rows": rows, "grouped": False}
        groups: dict[str, list[int]] = {}
        for k, log in enumerate(logs):
            groups.setdefault(group_of(log.side), []).append(k)
        rows: list[Shown] = []
        for name, members in groups.items():
            first, last = ([min(losses), max(losses)] for losses in zip(*(ends[k] for k in members), strict=True))
            steps = sorted({logs[k].loss.size for k in members})
            rows.append({"model": MODELS[name], "models": len(members), "steps": steps, "first": first, "last": last})
        return {"rows": rows, "grouped": True}

    def figures(self, subject: Run) -> Figures:
        return {"curves": curves_figure(subject.logs)} if subject.logs else {}


def group_of(side: str) -> str:
    """Return the kind of model that a folder `models/SIDE` holds, a key of `MODELS`."""
    side = "without" if side.startswith("without-") else side
    return side if side in MODELS else "other"


def smooth(values: Numbers, window: int) -> Numbers:
    """Return the moving mean over `window` values, fewer at the ends."""
    half = min(window, values.size) // 2
    total = np.append(0.0, np.cumsum(values, dtype=np.float64))
    index = np.arange(values.size)
    low, high = np.maximum(index - half, 0), np.minimum(index + half + 1, values.size)
    return (total[high] - total[low]) / (high - low)


def curves_figure(logs: Sequence[TrainingLog]) -> Figure:
    """Draw every model's training loss: the logged values faint, their moving mean strong."""
    groups = [group_of(log.side) for log in logs]
    styles = {group: _STYLES.get(group, Style(INK, (0, (1, 2)), "")) for group in MODELS if group in groups}
    means = [smooth(log.loss, max(1, log.loss.size // 40)) for log in logs]
    few = len(logs) <= _ROWS
    # fewer points per model when there are many: a larger file would show no more
    points = max(_POINTS // 5, min(_POINTS, _POINTS * _ROWS // len(logs)))

    def draw(axes: Any) -> None:
        for group, log, mean in zip(groups, logs, means, strict=True):
            color, dashes, _ = styles[group]
            every = max(1, -(-log.loss.size // points))
            if few:
                axes.plot(log.step[::every], log.loss[::every], color=color, linewidth=0.7, alpha=0.25)
            axes.plot(log.step[::every], mean[::every], color=color, linewidth=1.8 if few else 1.0, linestyle=dashes)
        # only the first few steps exceed the moving means: the axis covers these
        finite = np.concatenate(means)
        finite = finite[np.isfinite(finite)]
        if finite.size:
            axes.set_ylim(0, 1.08 * max(float(finite.max()), 1e-9))

    legend = {MODELS[group]: style for group, style in styles.items()}
    title = f"Training loss of {len(logs)} models over their steps."
    return Figure(title, [Panel("", "step", "training loss", draw=draw)], height=250, legend=legend)
