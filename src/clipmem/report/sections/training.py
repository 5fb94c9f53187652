"""The training loss of every model."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipmem.base.folder import SIDES
from clipmem.report.figures import CANDIDATE, INDEPENDENT, INK, Figure, Panel, Style
from clipmem.report.run import Run, TrainingLog
from clipmem.report.sections import SECTIONS, Figures, Section, Shown
from clipmem.report.templating import names

Numbers = NDArray[np.float64]
MODELS = names("models")
_TARGET, _REFERENCE = Style(CANDIDATE, "-", ""), Style(INDEPENDENT, (0, (5, 2.5)), "")
_STYLES = {"f": _TARGET, "r": _TARGET, "g": _REFERENCE, "without": _REFERENCE}
_ROWS = 24  # with more models, the table has one row per kind, and only moving means are drawn
_POINTS = 300


@SECTIONS.register("training")
class Training(Section):
    """The training loss of every model."""

    nav, order = "Training", 150

    def data(self, subject: Run) -> Shown:
        """Return the mean loss of the first and last epoch, one row per model, or per kind if there are many."""
        logs = subject.logs
        if len(logs) <= _ROWS or {log.side for log in logs} <= set(SIDES):
            rows = [
                {"model": log.side, "seed": log.seed, "steps": [log.loss.size]}
                | {end: [value] for end, value in _ends(log).items()}
                for log in logs
            ]
            return {"rows": rows, "grouped": False}
        groups: dict[str, list[TrainingLog]] = {}
        for log in logs:
            groups.setdefault(group_of(log.side), []).append(log)
        return {"rows": [_group(MODELS[name], own) for name, own in groups.items()], "grouped": True}

    def figures(self, subject: Run) -> Figures:
        return {"curves": curves_figure(subject.logs)} if subject.logs else {}


def _ends(log: TrainingLog) -> dict[str, float]:
    ends = {"first": log.epoch.min(), "last": log.epoch.max()}
    return {name: float(log.loss[log.epoch == epoch].mean()) for name, epoch in ends.items()}


def _group(model: str, logs: Sequence[TrainingLog]) -> dict[str, Any]:
    ends = [_ends(log) for log in logs]
    spans = {name: [min(one[name] for one in ends), max(one[name] for one in ends)] for name in ("first", "last")}
    return {"model": model, "models": len(logs), "steps": sorted({log.loss.size for log in logs}), **spans}


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
    return Figure(title, [Panel("", "step", "training loss", draw=draw)], height=320, legend=legend)
