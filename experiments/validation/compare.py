"""Compare the protocols with leave-one-out: print the tables of RESULTS.md and write validation.json.

    for r in four-way leave-one-out subsample-short subsample-long; do
        clipmem run experiments/validation/$r.toml --out runs/$r
    done
    python experiments/validation/compare.py runs

The scores (uid, clipmem, stderr, low, high, planted) are in `scores.parquet`; `--stored` prints the same tables from
this file, without any run.
"""

import json
import sys
from pathlib import Path

import numpy as np
import polars as pl

import clipmem
from clipmem.functional import auroc, spearman, top_overlap

HERE = Path(__file__).parent
RUNS = ("leave-one-out", "four-way", "subsample-short", "subsample-long")
COLUMNS = ("uid", "role", "planted", "clipmem", "stderr", "low", "high")


def collect(folder: Path) -> pl.DataFrame:
    """Collect the scores of all runs in one table with the column `run`."""
    tables = [
        clipmem.load_run(folder / name).scores.select(COLUMNS).with_columns(pl.lit(name).alias("run")) for name in RUNS
    ]
    return pl.concat(tables)


def joined(table: pl.DataFrame, left: str, right: str) -> pl.DataFrame:
    """Join two runs' scores of the pairs that both measured (not the control)."""
    a, b = (
        table.filter((pl.col("run") == name) & (pl.col("role") != "external") & pl.col("clipmem").is_not_null())
        for name in (left, right)
    )
    # the four-way protocol measures only the candidates against a model that did not train on them
    a, b = (x.filter(pl.col("role") == "candidate") for x in (a, b))
    return a.join(b, on="uid", suffix="_truth")


def agreement(table: pl.DataFrame, left: str, right: str) -> dict[str, object]:
    """Rank correlation and top-tenth overlap of two runs; how often the left one's intervals hold the other's score."""
    both = joined(table, left, right)
    a, b = both["clipmem"].to_numpy(), both["clipmem_truth"].to_numpy()
    rank = spearman(a, b)
    inside = (both["low"] <= both["clipmem_truth"]) & (both["clipmem_truth"] <= both["high"])
    # the truth has an error too, which the interval of the difference must include
    error = np.hypot(both["stderr"].to_numpy(), both["stderr_truth"].to_numpy())
    covered = np.abs(a - b) <= 1.96 * error
    return {
        "run": left,
        "against": right,
        "pairs": both.height,
        "spearman": rank.spearman,
        "low": rank.low,
        "high": rank.high,
        "top10_overlap": top_overlap(a, b, 0.1),
        "mean_difference": float(np.mean(a - b)),
        "covers_score": float(np.mean(inside.to_numpy())),
        "covers_with_both_errors": float(np.mean(covered)),
    }


def planted(table: pl.DataFrame, name: str) -> dict[str, object]:
    """AUROC of the swapped pairs among the candidates of one run."""
    own = table.filter((pl.col("run") == name) & (pl.col("role") == "candidate") & pl.col("clipmem").is_not_null())
    # in the subsample runs every pair of the pool is a candidate; planted ones are the same 20
    found = auroc(own["clipmem"].to_numpy(), own["planted"].to_numpy())
    return {
        "run": name,
        "planted": int(own["planted"].sum()),
        "rest": int((~own["planted"]).sum()),
        "auroc": found.mean,
        "low": found.low,
        "high": found.high,
    }


def control(table: pl.DataFrame, name: str) -> dict[str, object]:
    """Return the scores of the external pairs, whose truth is 0."""
    own = table.filter((pl.col("run") == name) & (pl.col("role") == "external"))["clipmem"].drop_nulls().to_numpy()
    return {"run": name, "n": len(own), "mean": float(own.mean()), "mean_size": float(np.abs(own).mean())}


def main() -> None:
    """Print and write the comparison."""
    stored = HERE / "scores.parquet"
    if sys.argv[1] != "--stored":
        collect(Path(sys.argv[1])).write_parquet(stored)
    table = pl.read_parquet(stored)
    couples = [(name, "leave-one-out") for name in RUNS[1:]]
    couples += [("four-way", "subsample-short"), ("four-way", "subsample-long"), ("subsample-long", "subsample-short")]
    result = {
        "agreement": [agreement(table, left, right) for left, right in couples],
        "planted": [planted(table, name) for name in RUNS],
        "control": [control(table, name) for name in RUNS],
    }
    (HERE / "validation.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    for name, rows in result.items():
        print(f"\n{name}")
        with pl.Config(
            tbl_rows=-1, tbl_cols=-1, tbl_width_chars=140, float_precision=3, tbl_formatting="ASCII_MARKDOWN"
        ):
            print(pl.DataFrame(rows))


if __name__ == "__main__":
    main()
