"""What does the balanced draw of the subsample protocol gain over independent draws? See docs/validation.md.

    python experiments/validation/balanced.py simulate      # "Balanced draws", first table: about a minute
    python experiments/validation/balanced.py runs BEFORE AFTER
    python experiments/validation/balanced.py --stored      # the second table, from balanced.parquet

*Simulated*: planted scores, x_ri = base_i + truth_i [i in D_r] + influence of other pairs in D_r + noise. The noise
differs by pair and is larger without the pair than with it, as in `tests/science/test_interval_coverage.py`; half of
its variance is shared by all pairs of a model. Both draws get the same truth, base, influences and noise, so the
comparison is paired.

*Runs*: two runs of `coverage-subsample.toml`, BEFORE by the last commit without `balanced_draw` (which drew
each model's part by itself), AFTER by this version.
"""

import json
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
from scipy import stats

import clipmem
from clipmem.base.random import generator
from clipmem.functional import in_out_means, jackknife_models
from clipmem.score.subsample import balanced_draw, matrices

HERE = Path(__file__).parent
RUNS = ("independent", "balanced")
STUDIES, N, NEIGHBOURS = 200, 300, 5
SPLITS = 20


class Study(NamedTuple):
    """A planted study before anybody is drawn: everything that both draws share."""

    base: np.ndarray
    truth: np.ndarray
    influence: np.ndarray  # of pair j on pair i, shape (n, n), mostly 0
    noise: np.ndarray  # of sd 1, shape (model, n)
    sd_out: np.ndarray


def plant(seed: int, models: int) -> Study:
    """Plant one study."""
    rng = generator(seed, "study")
    influence = np.zeros((N, N))
    for i in range(N):
        influence[i, rng.choice(N, NEIGHBOURS, replace=False)] = 0.1 * rng.normal(size=NEIGHBOURS)
    np.fill_diagonal(influence, 0)
    shared, own = rng.normal(size=(models, 1)), rng.normal(size=(models, N))
    return Study(
        rng.normal(0.3, 0.2, N),
        rng.normal(0.5, 0.2, N),
        influence,
        (shared + own) / np.sqrt(2),
        0.3 * np.exp(0.3 * rng.normal(size=N)),
    )


def draw(kind: str, seed: int, models: int, fraction: float) -> np.ndarray:
    """Draw who is in which model, shape (model, n)."""
    rng = generator(seed, kind)
    if kind == "balanced":
        return balanced_draw(np.ones(N, dtype=np.int64), models, round(fraction * models), rng)
    rank = rng.permuted(np.tile(np.arange(N), (models, 1)), axis=1)
    return rank < round(fraction * N)


def observe(study: Study, member: np.ndarray) -> np.ndarray:
    """Give the alignment of each pair under each model."""
    noise = study.noise * np.where(member, 0.05, study.sd_out)
    return study.base + study.truth * member + member @ study.influence.T + noise


def split_half(values: np.ndarray, member: np.ndarray, splits: int) -> tuple[float, float]:
    """Average over random halves: rank correlation of the pairs that both score, and the share that one cannot."""
    ranks: list[float] = []
    lost: list[float] = []
    for split in range(splits):
        order = generator(split, "halves").permutation(len(values))
        a, b = (in_out_means(values[half], member[half]).score for half in np.array_split(order, 2))
        both = np.isfinite(a) & np.isfinite(b)
        ranks.append(float(stats.spearmanr(a[both], b[both]).statistic))
        lost.append(1 - float(both.mean()))
    return float(np.mean(ranks)), float(np.mean(lost))


def simulated(models: int, fraction: float) -> dict[str, object]:
    """Compare the balanced draw with independent ones, at the same fraction and at the fraction k / R."""
    times = round(fraction * models)
    fractions = {"independent": fraction, "same_share": times / models, "balanced": fraction}
    found: dict[str, list[dict[str, float]]] = {kind: [] for kind in fractions}
    ratios: dict[str, list[float]] = {"independent": [], "same_share": []}
    for seed in range(STUDIES):
        study = plant(seed, models)
        errors: dict[str, np.ndarray] = {}
        for kind, share in fractions.items():
            member = draw(kind, seed, models, share)
            values = observe(study, member)
            score = in_out_means(values, member).score
            interval = jackknife_models(values, member, variance="moderated")
            known = np.isfinite(score)
            half, lost = split_half(values, member, 1)
            found[kind].append(
                {
                    "unscored": 1 - float(known.mean()),
                    "truth": float(stats.spearmanr(score[known], study.truth[known]).statistic),
                    "halves": half,
                    "lost": lost,
                    "covers": float(((interval.low <= study.truth) & (study.truth <= interval.high))[known].mean()),
                }
            )
            errors[kind] = (score - study.truth) ** 2
        for kind, of_study in ratios.items():
            known = np.isfinite(errors[kind])  # the error of a pair without a score cannot be taken
            of_study.append(float(np.log(errors["balanced"][known].mean() / errors[kind][known].mean())))
    row: dict[str, object] = {"models": models, "fraction": fraction, "times": times}
    for kind, of_study in ratios.items():
        centre, low, high = np.exp(interval_of(np.array(of_study))).tolist()
        row |= {f"ratio_{kind}": centre, f"ratio_{kind}_low": low, f"ratio_{kind}_high": high}
    for name in ("unscored", "truth", "halves", "lost", "covers"):
        before, after = (np.array([of[name] for of in found[kind]]) for kind in RUNS)
        row |= {f"{name}_{kind}": float(of.mean()) for kind, of in zip(RUNS, (before, after), strict=True)}
        _, row[f"{name}_low"], row[f"{name}_high"] = interval_of(after - before).tolist()
    return row


def interval_of(values: np.ndarray) -> np.ndarray:
    """Give a mean over studies and its 95 % t interval."""
    half = stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    return values.mean() + np.array([0.0, -half, half])


def collect(folders: list[str]) -> pl.DataFrame:
    """Gather the alignments of the pool under every model of both runs."""
    tables: list[pl.DataFrame] = []
    for name, folder in zip(RUNS, folders, strict=True):
        run = clipmem.load_run(folder)
        pool = run.splits.filter(pl.col("role") == "candidate").sort("uid")
        values, member = matrices(pool, run.seed_scores.join(pool.select("uid"), on="uid", how="semi"))
        tables.append(
            pl.DataFrame(
                {"uid": pool["uid"], "value": values.T.astype(np.float32), "member": member.T},
                schema={
                    "uid": pl.String,
                    "value": pl.Array(pl.Float32, len(values)),
                    "member": pl.Array(pl.Boolean, len(values)),
                },
            ).with_columns(pl.lit(name).alias("run"))
        )
    return pl.concat(tables)


def of_models(values: np.ndarray, member: np.ndarray) -> np.ndarray:
    """Split-half agreement and mean squared standard error."""
    scored = np.isfinite(in_out_means(values, member).score)
    error = jackknife_models(values[:, scored], member[:, scored], variance="moderated").stderr
    return np.array([split_half(values, member, SPLITS)[0], np.mean(error**2)])


def of_run(table: pl.DataFrame, name: str) -> dict[str, object]:
    """Say what one run gives; the intervals are from a jackknife over its models."""
    own = table.filter(pl.col("run") == name).sort("uid")
    values, member = own["value"].to_numpy().T.astype(np.float64), own["member"].to_numpy().T
    score = in_out_means(values, member).score
    whole, models = of_models(values, member), np.arange(len(values))
    without = np.array([of_models(values[models != r], member[models != r]) for r in models])
    error = np.sqrt((len(models) - 1) * without.var(axis=0))
    inside = member.sum(axis=0)
    return {
        "run": name,
        "models": len(models),
        "pairs": len(score),
        "unscored": int((~np.isfinite(score)).sum()),
        "in_least": int(inside.min()),
        "in_most": int(inside.max()),
        "size_least": int(member.sum(axis=1).min()),
        "size_most": int(member.sum(axis=1).max()),
        "halves": whole[0],
        "halves_stderr": error[0],
        "variance": whole[1],
        "variance_stderr": error[1],
    }


def compared(rows: list[dict[str, object]]) -> dict[str, object]:
    """Give the difference of the split-half agreements and the ratio of the variances, with 95 % intervals."""
    before, after = ({key: value for key, value in row.items() if isinstance(value, float)} for row in rows)
    change = after["halves"] - before["halves"]
    error = np.hypot(before["halves_stderr"], after["halves_stderr"])
    ratio = np.log(after["variance"] / before["variance"])
    of_ratio = np.hypot(*(row["variance_stderr"] / row["variance"] for row in (before, after)))
    z = stats.norm.ppf(0.975)
    return {
        "halves_change": change,
        "halves_low": change - z * error,
        "halves_high": change + z * error,
        "variance_ratio": np.exp(ratio),
        "ratio_low": np.exp(ratio - z * of_ratio),
        "ratio_high": np.exp(ratio + z * of_ratio),
    }


def main() -> None:
    """Print a table and write it."""
    file, stored = HERE / "balanced.json", HERE / "balanced.parquet"
    document = json.loads(file.read_text("utf-8")) if file.is_file() else {}
    if sys.argv[1] == "simulate":
        made = {"simulated": [simulated(models, p) for models in (8, 16, 48) for p in (0.5, 0.7)]}
    else:
        if sys.argv[1] == "runs":
            collect(sys.argv[2:]).write_parquet(stored, compression_level=19)
        rows = [of_run(pl.read_parquet(stored), name) for name in RUNS]
        made = {"runs": rows, "compared": [compared(rows)]}
    file.write_text(json.dumps(document | made, indent=1) + "\n", encoding="utf-8")
    for name, rows in made.items():
        print(f"\n{name}")
        with pl.Config(
            tbl_rows=-1, tbl_cols=-1, tbl_width_chars=200, float_precision=3, tbl_formatting="ASCII_MARKDOWN"
        ):
            print(pl.DataFrame(rows))


if __name__ == "__main__":
    main()
