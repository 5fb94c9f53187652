"""Measure which effects each metric detects: the power of paired seeds, and how well a metric repeats itself.

    python experiments/utility/power.py             # writes the tables of RESULTS.md from the stored reproductions

A configuration is a run of experiments/reproduce/REGIME/runs.parquet on the pairs of the base study: a mitigation, a
length, a width. Its effect under seed k is d_k = metric(run, k) - metric(base, k).

    sd       = sqrt(mean over configurations of the variance of d_k over seeds)
    smallest = the δ that a two-sided paired t-test at 5% finds with 80% power: with n seeds, P(T > t) = 0.8 for a
               noncentral T with n - 1 degrees of freedom and noncentrality δ sqrt(n) / sd
    even/odd = correlation, over configurations, of the mean over even seeds with that over odd ones
"""

import re
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from scipy import optimize, stats

ROOT = Path(__file__).parents[2]
PAGE = Path(__file__).parent / "RESULTS.md"
SEEDS = (4, 8, 16)
_METRICS = {
    "clipmem": "mean memorization",
    "clipmem_wordings": "mean memorization, all captions",
    "clipmem candidate": "mean CLIPMem of candidates",
    "retrieval_wordings_recall@5": "`retrieval_wordings_recall@5`",
    "retrieval_recall@5": "`retrieval_recall@5`",
    "retrieval_mAP": "`retrieval_mAP`",
    "zero_shot_concept_acc1": "`zero_shot_concept_acc1`",
    "zero_shot_concept_acc5": "`zero_shot_concept_acc5`",
    "zero_shot_acc1": "`zero_shot_acc1`",
    "linear_probe_acc1": "`linear_probe_acc1`",
    "linear_probe_sublabel_acc1": "`linear_probe_sublabel_acc1`",
    "alignment_loss": "`alignment_loss`",
}
# other pairs, or another kind of training
_OTHER = re.compile(r"\b(split|data|alignment|objective|protocol|localize|model\.pretrained)\b")


def smallest(sd: float, seeds: int, power: float = 0.8) -> float:
    """Return the smallest effect that a paired t-test over so many seeds finds with this power."""
    limit = stats.t.ppf(0.975, seeds - 1)

    def missing(shift: float) -> float:
        return float(stats.nct.sf(limit, seeds - 1, shift)) - power

    root: Any = optimize.brentq(missing, 0, 10)
    return float(root) * sd / np.sqrt(seeds)


def table(runs: pl.DataFrame) -> str:
    """Return the table of one regime."""
    kept = runs.filter(
        ~pl.col("settings").map_elements(lambda text: bool(_OTHER.search(text)), return_dtype=pl.Boolean)
    )
    base = kept.filter(pl.col("settings") == "").select("measure", "seed", base="value")
    configurations = kept.filter(pl.col("settings") != "")
    paired = configurations.join(base, on=["measure", "seed"]).with_columns(change=pl.col("value") - pl.col("base"))
    lines = [
        f"| metric | base | sd over paired seeds | {' | '.join(f'{n} seeds' for n in SEEDS)} | even/odd seeds |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for metric, title in _METRICS.items():
        own = paired.filter(pl.col("measure") == metric)
        spread = own.group_by("run").agg(pl.col("change").var(), pl.len()).filter(pl.col("len") > 1)["change"]
        if spread.is_empty():
            continue
        sd = float(np.sqrt(spread.to_numpy().mean()))
        halves = own.group_by("run", even=pl.col("seed") % 2 == 0).agg(pl.col("value").mean())
        halves = halves.pivot("even", index="run", values="value").drop_nulls()
        retest = np.corrcoef(halves["true"], halves["false"])[0, 1] if len(halves) > 2 else np.nan
        level = base.filter(pl.col("measure") == metric)["base"].mean()
        effects = " | ".join(f"{smallest(sd, n):.4f}" for n in SEEDS)
        lines.append(f"| {title} | {level:.3f} | {sd:.4f} | {effects} | {retest:.2f} |")
    runs_used, seeds = paired["run"].n_unique(), paired["seed"].n_unique()
    return "\n".join([f"{runs_used} configurations, up to {seeds} seeds:", "", *lines])


def write_page() -> None:
    """Insert the tables between the marks of RESULTS.md."""
    text = PAGE.read_text(encoding="utf-8")
    for mark in re.finditer(r"<!-- power: ([\w-]+) -->\n", text):
        runs = pl.read_parquet(ROOT / "experiments" / "reproduce" / mark[1] / "runs.parquet")
        before, _, rest = text.partition(mark[0])
        text = before + mark[0] + table(runs) + rest[rest.index("\n<!-- end -->") :]
    PAGE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    write_page()
