"""Compare the balanced draw of the subsample protocol with independent draws. See RESULTS.md.

    python experiments/validation/balanced.py simulate      # "Balanced draws", first table: about a minute
    python experiments/validation/balanced.py runs BEFORE AFTER
    python experiments/validation/balanced.py --stored      # the second table, from balanced.parquet

*Simulated*: planted scores, x_ri = base_i + truth_i [i in D_r] + influence of other pairs in D_r + noise. The noise is
as large as in the runs of the second table (sd 0.12 with the pair and without it, the influences included), differs by
pair, and half of its variance is shared by all pairs of a model. Both draws get the same truth, base, influences and
noise, so the comparison is paired.

*Runs*: two runs of `coverage-subsample.toml`, BEFORE by the last commit without `balanced_draw` (which drew
each model's part by itself), AFTER by this version.
"""

import json
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from scipy import stats

import clipmem
from clipmem.base.random import generator
from clipmem.functional import in_out_means, jackknife_models
from clipmem.scoring.design import ScoreTables
from clipmem.scoring.protocols.subsample import balanced_draw
from clipmem.scoring.summary import Scored

HERE = Path(__file__).parent
RUNS = ("independent", "balanced")
STUDIES, N, NEIGHBORS = 100, 300, 5
SPLITS = 40


class Study(NamedTuple):
    """A planted study before the draw: everything that both draws share."""

    base: np.ndarray
    truth: np.ndarray
    influence: np.ndarray  # of pair j on pair i, shape (n, n), mostly 0
    noise: np.ndarray  # of sd 1, shape (model, n)
    noise_sd: np.ndarray  # of each pair


def _spearman(x: np.ndarray, y: np.ndarray) -> float:
    found: Any = stats.spearmanr(x, y)
    return float(found.statistic)


def plant(seed: int, models: int) -> Study:
    """Plant one study."""
    rng = generator(seed, "study")
    influence = np.zeros((N, N))
    for i in range(N):
        influence[i, rng.choice(N, NEIGHBORS, replace=False)] = 0.05 * rng.normal(size=NEIGHBORS)
    np.fill_diagonal(influence, 0)
    shared, own = rng.normal(size=(models, 1)), rng.normal(size=(models, N))
    return Study(
        rng.normal(0.3, 0.2, N),
        rng.normal(0.5, 0.2, N),
        influence,
        (shared + own) / np.sqrt(2),
        0.1 * np.exp(0.3 * rng.normal(size=N)),
    )


def draw(kind: str, seed: int, models: int, fraction: float) -> np.ndarray:
    """Draw which pair is in which model, shape (model, n)."""
    rng = generator(seed, kind)
    if kind == "balanced":
        return balanced_draw(np.ones(N, dtype=np.int64), models, round(fraction * models), rng)
    rank = rng.permuted(np.tile(np.arange(N), (models, 1)), axis=1)
    return rank < round(fraction * N)


def observe(study: Study, member: np.ndarray) -> np.ndarray:
    """Return the alignment of each pair under each model."""
    return study.base + study.truth * member + member @ study.influence.T + study.noise * study.noise_sd


def split_half(values: np.ndarray, member: np.ndarray, splits: int) -> tuple[float, float]:
    """Average over random halves: rank correlation of the pairs that both score, and the share that one cannot."""
    ranks: list[float] = []
    lost: list[float] = []
    for split in range(splits):
        order = generator(split, "halves").permutation(len(values))
        a, b = (in_out_means(values[half], member[half]).score for half in np.array_split(order, 2))
        both = np.isfinite(a) & np.isfinite(b)
        ranks.append(_spearman(a[both], b[both]))
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
            interval = jackknife_models(values, member)
            known = np.isfinite(score)
            half, lost = split_half(values, member, 1)
            found[kind].append(
                {
                    "unscored": 1 - float(known.mean()),
                    "truth": _spearman(score[known], study.truth[known]),
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
        center, low, high = np.exp(interval_of(np.array(of_study))).tolist()
        row |= {f"ratio_{kind}": center, f"ratio_{kind}_low": low, f"ratio_{kind}_high": high}
    for name in ("unscored", "truth", "halves", "lost", "covers"):
        before, after = (np.array([of[name] for of in found[kind]]) for kind in RUNS)
        row |= {f"{name}_{kind}": float(of.mean()) for kind, of in zip(RUNS, (before, after), strict=True)}
        _, row[f"{name}_low"], row[f"{name}_high"] = interval_of(after - before).tolist()
    return row


def interval_of(values: np.ndarray) -> np.ndarray:
    """Return a mean over studies and its 95% t interval."""
    half = stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    return values.mean() + np.array([0.0, -half, half])


def collect(folders: list[str]) -> pl.DataFrame:
    """Collect the alignments of the pool under every model of both runs."""
    tables: list[pl.DataFrame] = []
    for name, folder in zip(RUNS, folders, strict=True):
        run = clipmem.load_run(folder)
        pool = run.splits.filter(pl.col("role") == "candidate").sort("uid")
        kept = (table.join(pool.select("uid"), on="uid", how="semi") for table in (run.scores, run.seed_scores))
        scored = Scored(pool, ScoreTables(*kept))
        tables.append(tabulate(name, pool, scored.values, scored.seen))
    return pl.concat(tables)


def tabulate(name: str, pool: pl.DataFrame, values: np.ndarray, member: np.ndarray) -> pl.DataFrame:
    """Put one run's alignments and memberships in a table, a row a pair."""
    models = len(values)
    columns = {"value": values.T.astype(np.float32), "member": member.T}
    kinds = {"value": pl.Array(pl.Float32, models), "member": pl.Array(pl.Boolean, models)}
    return pool.select(pl.lit(name).alias("run"), "uid", "group").hstack(pl.DataFrame(columns, schema=kinds))


def of_models(values: np.ndarray, member: np.ndarray) -> np.ndarray:
    """Split-half agreement and mean squared standard error."""
    scored = np.isfinite(in_out_means(values, member).score)
    error = jackknife_models(values[:, scored], member[:, scored]).stderr
    return np.array([split_half(values, member, SPLITS)[0], np.mean(error**2)])


def of_run(table: pl.DataFrame, name: str) -> dict[str, object]:
    """Say what one run gives; the errors are from a jackknife over its models. Pairs without near-duplicates only."""
    whole = table.filter(pl.col("run") == name).sort("uid")
    own = whole.filter(pl.len().over("group") == 1)
    values, member = own["value"].to_numpy().T.astype(np.float64), own["member"].to_numpy().T
    models = np.arange(len(values))
    found = of_models(values, member)
    without = np.array([of_models(values[models != r], member[models != r]) for r in models])
    error = np.sqrt((len(models) - 1) * without.var(axis=0))
    members = whole["member"].to_numpy().T
    inside, sizes = members.sum(axis=0), members.sum(axis=1)
    return {
        "run": name,
        "models": len(models),
        "pairs": whole.height,
        "single": own.height,
        "unscored": int(((inside == 0) | (inside == len(models))).sum()),
        "in_least": int(inside.min()),
        "in_most": int(inside.max()),
        "size_least": int(sizes.min()),
        "size_most": int(sizes.max()),
        "halves": found[0],
        "halves_stderr": error[0],
        "variance": found[1],
        "variance_stderr": error[1],
    }


def at_equal_counts(values: np.ndarray, member: np.ndarray, seed: int = 0) -> np.ndarray:
    """Give the variance of a score if each pair were in k models, over that at the counts drawn, with a 95 % interval.

    Both from the variances s_in² and s_out² of the same real models, over pairs with two models on each side: the ratio
    of mean(s_in²/k + s_out²/(R - k)) to mean(s_in²/a + s_out²/b). Percentile bootstrap over pairs.
    """
    models, inside = len(values), member.sum(axis=0)
    some = (inside > 1) & (inside < models - 1)
    values, member, inside = values[:, some], member[:, some], inside[some]
    k = round(float(member.mean() * models))
    sides = [np.where(mask, values, np.nan) for mask in (member, ~member)]
    s_in, s_out = (np.nanvar(side, axis=0, ddof=1) for side in sides)
    now, before = s_in / k + s_out / (models - k), s_in / inside + s_out / (models - inside)
    drawn = generator(seed, "pairs").integers(len(now), size=(2000, len(now)))
    ratios = now[drawn].mean(axis=1) / before[drawn].mean(axis=1)
    return np.array([now.mean() / before.mean(), *np.quantile(ratios, [0.025, 0.975])])


def compared(table: pl.DataFrame, rows: list[dict[str, object]]) -> dict[str, float]:
    """Compare both runs: difference of split-half agreements, ratio of variances, mean scores; with 95 % intervals."""
    before, after = ({key: value for key, value in row.items() if isinstance(value, float)} for row in rows)
    change = after["halves"] - before["halves"]
    ratio = np.log(after["variance"] / before["variance"])
    errors = (
        np.hypot(before["halves_stderr"], after["halves_stderr"]),
        np.hypot(before["variance_stderr"] / before["variance"], after["variance_stderr"] / after["variance"]),
    )
    z = stats.norm.ppf(0.975)
    document = {
        "halves_change": change,
        "halves_low": change - z * errors[0],
        "halves_high": change + z * errors[0],
        "variance_ratio": np.exp(ratio),
        "ratio_low": np.exp(ratio - z * errors[1]),
        "ratio_high": np.exp(ratio + z * errors[1]),
    }
    first = table.filter(pl.col("run") == RUNS[0]).sort("uid")
    counts = at_equal_counts(first["value"].to_numpy().T.astype(np.float64), first["member"].to_numpy().T)
    document |= dict(zip(("counts_ratio", "counts_low", "counts_high"), counts.tolist(), strict=True))
    scores: list[pl.DataFrame] = []
    for name in RUNS:
        own = table.filter(pl.col("run") == name).sort("uid")
        score = in_out_means(own["value"].to_numpy().T.astype(np.float64), own["member"].to_numpy().T).score
        scores.append(own.select("uid", "group", pl.len().over("group").alias("size"), pl.Series(name, score)))
    both = scores[0].join(scores[1].select("uid", "balanced"), on="uid").filter(pl.col("independent").is_finite())
    for kind, chosen in (("single", pl.col("size") == 1), ("grouped", pl.col("size") > 1)):
        groups = both.filter(chosen).group_by("group").agg(pl.col(RUNS).mean()).sort("group")
        center, low, high = interval_of((groups["balanced"] - groups["independent"]).to_numpy()).tolist()
        document |= {f"{kind}_groups": float(groups.height), f"{kind}_change": center}
        document |= {f"{kind}_low": low, f"{kind}_high": high}
        document |= {f"{kind}_{name}": float(groups[name].to_numpy().mean()) for name in RUNS}
    return document


def main() -> None:
    """Print a table and write it."""
    file, stored = HERE / "balanced.json", HERE / "balanced.parquet"
    document = json.loads(file.read_text("utf-8")) if file.is_file() else {}
    if sys.argv[1] == "simulate":
        made = {"simulated": [simulated(models, p) for models in (8, 16, 48) for p in (0.5, 0.7)]}
    else:
        if sys.argv[1] == "runs":
            collect(sys.argv[2:]).write_parquet(stored, compression_level=19)
        table = pl.read_parquet(stored)
        rows = [of_run(table, name) for name in RUNS]
        made = {"runs": rows, "compared": [compared(table, rows)]}
    file.write_text(json.dumps(document | made, indent=1) + "\n", encoding="utf-8")
    for name, rows in made.items():
        print(f"\n{name}")
        with pl.Config(
            tbl_rows=-1, tbl_cols=-1, tbl_width_chars=200, float_precision=3, tbl_formatting="ASCII_MARKDOWN"
        ):
            print(pl.DataFrame(rows))


if __name__ == "__main__":
    main()
