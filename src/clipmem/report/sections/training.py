"""The training loss of every model."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipmem.base.folder import SIDES
from clipmem.report.figures import CANDIDATE, INDEPENDENT, INK, LINE, SIZES, Sketch
from clipmem.report.run import Run, TrainingLog
from clipmem.report.sections import SECTIONS, Figures, Section, Shown

Numbers = NDArray[np.float64]
MODELS = {
    "f": "f, the target",
    "g": "g, the reference",
    "without": "retrained without one pair",
    "r": "a model on its part of the pairs",
    "other": "another model",
}
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
        return {"curves": lambda size: curves_figure(subject.logs, size)} if subject.logs else {}


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


def curves_figure(logs: Sequence[TrainingLog], size: str) -> str:
    """Draw every model's training loss: the logged values faint, their moving mean strong."""
    dashed = (0, (5, 2.5))
    styles = {
        "f": (CANDIDATE, "-"),
        "r": (CANDIDATE, "-"),
        "g": (INDEPENDENT, dashed),
        "without": (INDEPENDENT, dashed),
    }
    wide, few = size == "wide", len(logs) <= _ROWS
    with Sketch(f"curves-{size}", SIZES[size], 320 if wide else 280) as sketch:
        axes = sketch.figure.add_axes((0.075, 0.155, 0.905, 0.82) if wide else (0.13, 0.18, 0.85, 0.8))
        axes.grid(axis="y", color=LINE, linewidth=1)
        axes.set_axisbelow(True)
        # fewer points per model when there are many: a larger file would show no more
        points = max(_POINTS // 5, min(_POINTS, _POINTS * _ROWS // len(logs)))
        means = [smooth(log.loss, max(1, log.loss.size // 40)) for log in logs]
        for log, mean in zip(logs, means, strict=True):
            color, style = styles.get(group_of(log.side), (INK, (0, (1, 2))))
            every = max(1, -(-log.loss.size // points))
            if few:
                axes.plot(log.step[::every], log.loss[::every], color=color, linewidth=0.7, alpha=0.25)
            axes.plot(log.step[::every], mean[::every], color=color, linewidth=1.8 if few else 1.0, linestyle=style)
        # only the first few steps exceed the moving means: the axis covers these
        finite = np.concatenate(means)
        finite = finite[np.isfinite(finite)]
        if finite.size:
            axes.set_ylim(0, 1.08 * max(float(finite.max()), 1e-9))
        axes.set_xlabel("step")
        axes.set_ylabel("training loss")
        groups = [group for group in MODELS if any(group_of(log.side) == group for log in logs)]
        drawn = [styles.get(group, (INK, "--")) for group in groups]
        handles = [axes.plot([], [], color=color, linewidth=1.8, linestyle=style)[0] for color, style in drawn]
        labels = [MODELS[group] for group in groups]
        axes.legend(handles=handles, labels=labels, loc="upper right", fontsize=12, handlelength=2.6)
        return sketch.svg(f"Training loss of {len(logs)} models over their steps.")
