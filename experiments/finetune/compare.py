"""Which way of fine-tuning memorizes least at equal utility? The runs, tables and figures of RESULTS.md.

    clipmem run experiments/finetune/pretrain.toml --set data.path=icons.parquet --out runs/base
    python experiments/finetune/compare.py runs icons.parquet    # makes the runs, stores results.parquet
    python experiments/finetune/compare.py                       # tables and figures again, from results.parquet

The runs go below `runs`; finished ones are not repeated. `results.parquet` has one row per run and seed.
"""

import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

import clipmem
from clipmem.base.folder import RunFolder
from clipmem.functional import PairedTest, paired_test
from clipmem.report.figures import INK, LINE, STYLES, Figure, Line, Panel, Style, standalone
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
WIDTH = 720  # of a page of the docs, in CSS pixels
LEVELS = (0.18, 0.22, 0.25)  # of R@5
UTILITY, KEPT = "retrieval", "retained"
_NEAR = 3.5  # points of R@5 below which labels of two points would touch


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
    """Draw CLIPMem against retrieval by epochs, with intervals over seeds: a panel for each way, the others gray."""
    means = {
        way: [
            np.array([spread(factor * values_of(table, name, way=way, epochs=e, alpha=1.0)) for e in EPOCHS]).T.tolist()
            for name, factor in ((UTILITY, 100.0), ("clipmem", 1.0))
        ]
        for way in WAYS
    }

    def draw(way: str, axes: Any) -> None:
        (x, low, high), (y, _, _) = means[way]
        axes.hlines(y, low, high, color=STYLES[0].color, linewidth=1.5)
        for epochs, *position in zip(EPOCHS, x, y, strict=True):
            right = any(0 < position[0] - other < _NEAR for other in x)  # of a point that is close
            beside = {"xytext": (5 if right else -5, 6), "ha": "left" if right else "right", "fontsize": 12}
            axes.annotate(f"{epochs}", position, color=INK, textcoords="offset points", **beside)
        axes.set(xlim=(0, 34), ylim=(-0.02, 0.75))

    panels: list[Panel] = []
    for way in WAYS:
        panel = Panel(way, "R@5, unseen emoji, % (labels: epochs)", "mean memorization", draw=partial(draw, way))
        others = [means[other] for other in WAYS if other != way]
        panel.lines = [Line(x[0], y[0], Style(LINE, "-", "")) for x, y in others]
        panel.lines.append(Line(means[way][0][0], means[way][1][0], STYLES[0], *means[way][1][1:]))
        panels.append(panel)
    title = "Mean memorization against retrieval on unseen emoji for six ways of training, by number of epochs."
    return Figure(title, panels, columns=2, height=230, width=WIDTH).svg("ways", size)


def alpha_figure(table: pl.DataFrame, size: str) -> str:
    """Draw CLIPMem, retrieval and what is retained against alpha."""
    names = (
        ("clipmem", "mean memorization", 1.0),
        (UTILITY, "R@5, emoji, %", 100.0),
        (KEPT, "R@5, icons, %", 100.0),
    )
    alphas, panels = [*ALPHAS, 1.0], list[Panel]()
    legend = {f"{epochs} epochs": style for epochs, style in zip(INTERPOLATED, STYLES, strict=False)}
    for name, label, factor in names:
        panel = Panel(label, "alpha", "", share="%" if "%" in label else "", margin=46)
        for epochs, style in zip(INTERPOLATED, legend.values(), strict=True):
            each = [values_of(table, name, way="full", epochs=epochs, alpha=alpha) for alpha in alphas]
            mean, low, high = zip(*(spread(factor * values) for values in each), strict=True)
            panel.lines.append(Line(alphas, mean, style, low, high, band=True))
        panels.append(panel)
    title = "Mean memorization, retrieval on emoji and retrieval on icons against the weight of the fine-tuned model."
    return Figure(title, panels, columns=3, height=250, width=WIDTH, legend=legend).svg("alpha", size)


if __name__ == "__main__":
    if len(sys.argv) == 3:
        main(Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve())
    stored = pl.read_parquet(RESULTS)
    print(tables(stored))
    for label, draw in (("finetune-ways", ways_figure), ("finetune-alpha", alpha_figure)):
        (IMAGES / f"{label}.svg").write_text(standalone(draw(stored, "wide")), encoding="utf-8")
