"""Which way of fine-tuning memorizes least at equal utility? The runs, tables and figures of RESULTS.md.

    clipmem run experiments/finetune/pretrain.toml --set data.path=icons.parquet --out runs/base
    python experiments/finetune/compare.py runs icons.parquet    # makes the runs, stores results.parquet
    python experiments/finetune/compare.py                       # tables and figures again, from results.parquet

The runs go below `runs`; finished ones are not repeated. `results.parquet` has one row per run and seed.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

import clipmem
from clipmem.base.folder import RunFolder
from clipmem.functional import PairedTest, paired_test
from clipmem.report.figures import SIZES, sketch, standalone, svg_of
from clipmem.report.run import read_finished

HERE = Path(__file__).parent
RESULTS, IMAGES = HERE / "results.parquet", HERE.parents[1] / "docs" / "images"
EPOCHS = (1, 3, 10, 30)
ALPHAS = (0.0, 0.25, 0.5, 0.75)
INTERPOLATED = (10, 30)  # epochs of the runs whose weights are interpolated with the base
RETAINED = 1000  # icons that the base was not trained on
LORA = ("train.adapter=lora", "train.lr=1e-3")
WAYS = {
    "full": ("train.lr=3e-4",),
    "image tower frozen": ("train.lr=3e-4", "train.freeze=[image]"),
    "text tower frozen": ("train.lr=3e-4", "train.freeze=[text]"),
    "LoRA, rank 4": (*LORA, "train.lora.rank=4", "train.lora.alpha=8"),
    "LoRA, rank 16": (*LORA, "train.lora.rank=16", "train.lora.alpha=32"),
    "from scratch": ("train.lr=1e-3",),
}
COLORS = ("#1b4965", "#ca6702", "#0a9396", "#9b2226", "#bb3e03", "#6c757d")
LEVELS = (0.18, 0.22, 0.25)  # of R@5
UTILITY, KEPT = "retrieval", "retained"


def main(runs: Path, icons: Path) -> None:
    """Make all runs and store their results."""
    base, held_out = runs / "base" / "models" / "f" / "seed-0", runs / "retained.parquet"
    if not held_out.is_file():
        _write_retained(runs / "base", icons, held_out)
    rows: list[dict[str, object]] = []
    for way, settings in WAYS.items():
        start = [] if way == "from scratch" else [f"model.pretrained={base}", f"evaluate.retained={held_out}"]
        for epochs in EPOCHS:
            name = f"{way.replace(',', '').replace(' ', '-')}-{epochs}"
            changes = [*settings, *start, f"train.epochs={epochs}"]
            rows += _made(runs / name, changes, way, epochs, 1.0)
            if way == "full" and epochs in INTERPOLATED:
                for alpha in ALPHAS:
                    more = [f"mitigate.interpolate.alpha={alpha}", f"mitigate.interpolate.run={runs / name}"]
                    rows += _made(runs / f"{name}-alpha-{alpha}", [*changes, *more], way, epochs, alpha)
            pl.DataFrame(rows).write_parquet(RESULTS)


def _write_retained(base: Path, icons: Path, out: Path) -> None:
    """Write icons that the base was not trained on."""
    folder = RunFolder(base)
    unseen = folder.read("splits").filter(role="external")["uid"]
    keys = folder.read("pairs").filter(pl.col("uid").is_in(unseen.implode()))["key"].sort().head(RETAINED)
    rows = keys.str.extract(r"(\d+)$").cast(pl.Int64).to_list()
    pl.read_parquet(icons)[rows].select("image", "captions").write_parquet(out)


def _made(folder: Path, settings: list[str], way: str, epochs: int, alpha: float) -> list[dict[str, object]]:
    """Run a study, unless it is finished, and measure it by seed."""
    print(f"{folder.name}: {' '.join(settings)}", flush=True)
    clipmem.run(HERE / "finetune.toml", folder, settings=settings)
    run = read_finished(folder)
    candidates, independent = run.memorization(run.uids("candidate")), run.memorization(run.uids("independent"))
    planted = run.memorization(run.planted)

    def mean_recall(prefix: str) -> list[float | None]:
        found = [run.utility.get(f"{prefix}{side}_retrieval_recall@5") for side in ("image", "text")]
        return [None] * len(run.seeds) if None in found else np.mean(np.array(found, dtype=float), axis=0).tolist()

    return [
        {"way": way, "epochs": epochs, "alpha": alpha, "seed": seed, "clipmem": (own - other) / 2, "planted": wrong}
        | {UTILITY: recall, KEPT: kept}
        for seed, own, other, wrong, recall, kept in zip(
            run.seeds, candidates, independent, planted, mean_recall(""), mean_recall("retained_"), strict=True
        )
    ]


# ---- tables and figures from the stored results


def values_of(table: pl.DataFrame, name: str, **where: object) -> np.ndarray:
    """Return a measure by seed."""
    return table.filter(**where).sort("seed")[name].cast(pl.Float64).to_numpy()


def shown(values: np.ndarray, *, percent: bool = False) -> str:
    """Format the mean of values by seed with its 95% t interval; alone if all are equal."""
    if not np.isfinite(values).all():
        return "-"
    found, digits = tested(100 * values if percent else values), 1 if percent else 3
    if found.low is None or found.high is None:
        return f"{found.difference:.{digits}f}"
    return f"{found.difference:.{digits}f} [{found.low:.{digits}f}, {found.high:.{digits}f}]"


def tested(values: np.ndarray) -> PairedTest:
    """Return the mean of values by seed with its t interval."""
    return paired_test(values, np.zeros_like(values), 0.95)


def at_equal_utility(table: pl.DataFrame, way: str, level: float) -> np.ndarray:
    """Return CLIPMem by seed where a way's retrieval first reaches `level`; NaN where it never does.

    Between two numbers of epochs, CLIPMem is interpolated linearly in retrieval.
    """
    found: list[float] = []
    for seed in sorted(set(table["seed"])):
        own = table.filter(way=way, alpha=1.0, seed=seed).sort("epochs")
        utility, memory = own[UTILITY].to_numpy(), own["clipmem"].to_numpy()
        above = np.flatnonzero(utility >= level)
        at = int(above[0]) if len(above) else 0
        ends = slice(max(at - 1, 0), at + 1)
        found.append(float(np.interp(level, utility[ends], memory[ends])) if len(above) else np.nan)
    return np.array(found)


def tables(table: pl.DataFrame) -> str:
    """Return the tables as Markdown."""
    lines = [
        "| way | epochs | mean memorization | CLIPMem of swapped captions | R@5, emoji, % | R@5, icons, % |",
        "| --- " * 6 + "|",
    ]
    for way in WAYS:
        for epochs in EPOCHS:
            where = {"way": way, "epochs": epochs, "alpha": 1.0}
            cells = [shown(values_of(table, name, **where)) for name in ("clipmem", "planted")]
            cells += [shown(values_of(table, name, **where), percent=True) for name in (UTILITY, KEPT)]
            lines.append(f"| {way} | {epochs} | {' | '.join(cells)} |")
    lines += ["", "| epochs | alpha | mean memorization | R@5, emoji, % | R@5, icons, % |", "| --- " * 5 + "|"]
    for epochs in INTERPOLATED:
        for alpha in (*ALPHAS, 1.0):
            where = {"way": "full", "epochs": epochs, "alpha": alpha}
            cells = [shown(values_of(table, "clipmem", **where))]
            cells += [shown(values_of(table, name, **where), percent=True) for name in (UTILITY, KEPT)]
            lines.append(f"| {epochs} | {alpha:g} | {' | '.join(cells)} |")
    best = {
        way: max(EPOCHS, key=lambda e, way=way: values_of(table, UTILITY, way=way, epochs=e, alpha=1.0).mean())
        for way in WAYS
    }
    lines += ["", "| way | best epochs | R@5 there, % | minus full, points | mean memorization there | minus full |"]
    lines += ["| --- " * 6 + "|"]
    full = {name: values_of(table, name, way="full", epochs=best["full"], alpha=1.0) for name in (UTILITY, "clipmem")}
    for way in WAYS:
        own = {name: values_of(table, name, way=way, epochs=best[way], alpha=1.0) for name in full}
        cells = [shown(own[UTILITY], percent=True), shown(own[UTILITY] - full[UTILITY], percent=True)]
        cells += [shown(own["clipmem"]), shown(own["clipmem"] - full["clipmem"])]
        lines.append(f"| {way} | {best[way]} | {' | '.join(cells)} |")
    lines += ["", "| way | " + " | ".join(f"at R@5 of {100 * level:.0f}%" for level in LEVELS) + " |"]
    lines += ["| --- " * (1 + len(LEVELS)) + "|"]
    for way in WAYS:
        lines.append(f"| {way} | {' | '.join(shown(at_equal_utility(table, way, level)) for level in LEVELS)} |")
    towers = [
        [at_equal_utility(table, f"{tower} tower frozen", level) for tower in ("image", "text")] for level in LEVELS
    ]
    lines.append(f"| image tower frozen minus text | {' | '.join(shown(a - b) for a, b in towers)} |")
    return "\n".join(lines)


def spread(values: np.ndarray) -> tuple[float, float, float]:
    """Return mean and interval of values by seed, for figures."""
    found = tested(values)
    return tuple(found.difference if end is None else end for end in (found.difference, found.low, found.high))


def ways_figure(table: pl.DataFrame, size: str) -> str:
    """Draw CLIPMem against retrieval, a line of epochs for each way, with intervals over seeds."""
    with sketch(SIZES[size], 460) as canvas:
        axes = canvas.add_axes((0.09, 0.14, 0.88, 0.83))
        for way, color in zip(WAYS, COLORS, strict=True):
            x, y = (
                np.array([spread(values_of(table, name, way=way, epochs=e, alpha=1.0)) for e in EPOCHS]).T
                for name in (UTILITY, "clipmem")
            )
            style: dict[str, Any] = {"color": color, "linestyle": "--" if way == "from scratch" else "-"}
            axes.plot(100 * x[0], y[0], marker="o", markersize=4, label=way, **style)
            axes.hlines(y[0], 100 * x[1], 100 * x[2], color=color, linewidth=1, alpha=0.6)
            axes.vlines(100 * x[0], np.maximum(y[1], 1e-4), y[2], color=color, linewidth=1, alpha=0.6)
            for place in zip(EPOCHS, 100 * x[0], y[0], strict=True):
                axes.annotate(
                    f"{place[0]}", place[1:], xytext=(4, 4), textcoords="offset points", fontsize=9, color=color
                )
        axes.set_yscale("log")
        axes.set_ylim(1e-3, 1)
        axes.set_xlabel("R@5 on unseen emoji, %")
        axes.set_ylabel("mean memorization (CLIPMem)")
        axes.legend(fontsize=11)
        title = "Mean memorization against retrieval on unseen emoji for six ways of training, by number of epochs."
        return svg_of(canvas, f"ways-{size}", title)


def alpha_figure(table: pl.DataFrame, size: str) -> str:
    """Draw CLIPMem, retrieval and what is retained against alpha."""
    names = (
        ("clipmem", "mean memorization", 1.0),
        (UTILITY, "R@5, emoji, %", 100.0),
        (KEPT, "R@5, icons, %", 100.0),
    )
    alphas = [*ALPHAS, 1.0]
    with sketch(SIZES[size], 300) as canvas:
        for k, (name, label, factor) in enumerate(names):
            axes = canvas.add_axes((0.07 + 0.325 * k, 0.18, 0.25, 0.72))
            for epochs, color in zip(INTERPOLATED, COLORS, strict=False):
                each = [values_of(table, name, way="full", epochs=epochs, alpha=alpha) for alpha in alphas]
                mean, low, high = np.array([spread(factor * one) for one in each]).T
                axes.fill_between(alphas, low, high, color=color, alpha=0.2, linewidth=0)
                axes.plot(alphas, mean, color=color, marker="o", markersize=4, label=f"{epochs} epochs")
            axes.set_xlabel("alpha")
            axes.set_title(label, fontsize=12)
            if k == 0:
                axes.legend(fontsize=11)
        title = (
            "Mean memorization, retrieval on emoji and retrieval on icons against the weight of the fine-tuned model."
        )
        return svg_of(canvas, f"alpha-{size}", title)


if __name__ == "__main__":
    if len(sys.argv) == 3:
        main(Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve())
    stored = pl.read_parquet(RESULTS)
    print(tables(stored))
    for label, draw in (("finetune-ways", ways_figure), ("finetune-alpha", alpha_figure)):
        (IMAGES / f"{label}.svg").write_text(standalone(draw(stored, "wide")), encoding="utf-8")
