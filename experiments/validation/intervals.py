"""How often do the intervals hold what they are of? Prints the tables of RESULTS.md, "Coverage".

    for r in coverage-four-way coverage-subsample; do
        clipmem run experiments/validation/$r.toml --out runs/$r
    done
    clipmem run experiments/validation/coverage-four-way.toml --out runs/coverage-means \\
        --set train.seeds=[0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23]
    python experiments/validation/intervals.py runs
    python experiments/validation/intervals.py --stored     # the same tables from the stored *.parquet

*Own protocol*: the models of one run are split in two halves; each half gives scores with intervals, and the interval
of their difference, with the errors of both (half-width sqrt(h_a² + h_b²)), should hold 0 as often as it claims.

*Means*: of 24 seeds, K are drawn, and K others; of the pairs, a random half, and the other half. The interval of the
difference of the two means, with the errors of both, should hold 0 as often as it claims.

*Another protocol*: a run's score minus the leave-one-out score of the same pair, over the 30 pairs of the ground truth
(`compare.py`). Its variance beyond both errors is the between-protocol component. The widened interval adds it, and the
mean shift; both are measured on the other 29 pairs, never on the pair that is judged.
"""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
import polars as pl
from compare import RUNS, joined
from scipy import stats

import clipmem
from clipmem.base.random import generator
from clipmem.functional import Interval, crossed_mean, half_difference, in_out_means, jackknife_models, seed_interval

HERE = Path(__file__).parent
OWN = ("coverage-four-way", "coverage-subsample")
LEVELS = (0.5, 0.8, 0.95)
MEANS = "coverage-means"
DRAWS = 2000
SPLITS = 50


def collect(folder: Path) -> pl.DataFrame:
    """Gather the alignments of the candidates (of the subsample run: the whole pool) under every model."""
    tables: list[pl.DataFrame] = []
    for name in OWN:
        run = clipmem.load_run(folder / name)
        candidates = run.splits.filter(pl.col("role") == "candidate").select("uid")
        own = run.seed_scores.join(candidates, on="uid", how="semi")
        tables.append(own.sort("seed", "uid").with_columns(pl.lit(name).alias("run")))
    return pl.concat(tables)


def matrix(table: pl.DataFrame, run: str, column: str) -> np.ndarray:
    """Give a column of one run as (model, pair); NaN where it is null."""
    own = table.filter(pl.col("run") == run).sort("seed", "uid")
    return own[column].fill_null(np.nan).to_numpy().reshape(own["seed"].n_unique(), -1)


def four_way_halves(table: pl.DataFrame, level: float) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield difference and half-width for every way to split the seeds in two halves."""
    differences = matrix(table, OWN[0], "f") - matrix(table, OWN[0], "g")
    seeds = range(len(differences))
    for first in combinations(seeds, len(differences) // 2):
        if 0 not in first:
            continue  # the other half of a split that was there
        halves = [differences[list(first)], differences[[k for k in seeds if k not in first]]]
        scores = [half.mean(axis=0) for half in halves]
        widths = [(found.high - found.low) / 2 for found in (seed_interval(half, level) for half in halves)]
        yield scores[0] - scores[1], np.hypot(*widths)


def subsample_halves(table: pl.DataFrame, level: float) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield difference and half-width for random halves of the models; pairs that a half cannot score are left out."""
    f, g = matrix(table, OWN[1], "f"), matrix(table, OWN[1], "g")
    member = np.isfinite(f)
    values = np.where(member, f, g)
    for split in range(SPLITS):
        order = generator(0, "coverage", split).permutation(len(values))
        halves = np.array_split(order, 2)
        scores = [in_out_means(values[half], member[half]).score for half in halves]
        found = [jackknife_models(values[half], member[half], confidence=level) for half in halves]
        width = np.hypot(*((one.high - one.low) / 2 for one in found))
        known = np.isfinite(scores[0] - scores[1]) & np.isfinite(width)
        yield (scores[0] - scores[1])[known], width[known]


def own_protocol(table: pl.DataFrame) -> list[dict[str, object]]:
    """Say how often the interval of the difference of two halves holds 0; least and most over the splits."""
    rows: list[dict[str, object]] = []
    for name, halves in ((OWN[0], four_way_halves), (OWN[1], subsample_halves)):
        for level in LEVELS:
            shares = [float(np.mean(np.abs(difference) <= width)) for difference, width in halves(table, level)]
            rows.append(
                {
                    "run": name,
                    "models_a_half": matrix(table, name, "f").shape[0] // 2,
                    "splits": len(shares),
                    "claimed": level,
                    "covered": float(np.mean(shares)),
                    "least": min(shares),
                    "most": max(shares),
                }
            )
    return rows


def collect_means(folder: Path) -> pl.DataFrame:
    """Gather CLIPMem of candidate and independent pairs by seed, with the groups of near-duplicates."""
    run = clipmem.load_run(folder / MEANS)
    wanted = run.splits.filter(pl.col("role").is_in(["candidate", "independent"])).select("uid", "role", "group")
    own = run.seed_scores.join(wanted, on="uid").select(
        "uid", "role", "group", "seed", clipmem=pl.col("f") - pl.col("g")
    )
    return own.sort("role", "uid", "seed")


def means(table: pl.DataFrame) -> list[dict[str, object]]:
    """Say how often the interval of the difference of two means, of other seeds and other pairs, holds 0."""
    roles = [table.filter(pl.col("role") == role) for role in ("candidate", "independent")]
    seeds = table["seed"].n_unique()
    values = [own["clipmem"].to_numpy().reshape(-1, seeds).T for own in roles]
    groups = [np.unique(own["group"].to_numpy(), return_inverse=True)[1].reshape(-1, seeds)[:, 0] for own in roles]
    stream, rows = generator(0, "means"), list[dict[str, object]]()
    for count in (2, 3, 5):
        held: dict[str, list[bool]] = {"candidate mean": [], "half-difference": []}
        for _ in range(DRAWS):
            order = stream.permutation(seeds)[: 2 * count].reshape(2, count)
            sides = [stream.permutation(own.max() + 1)[own] % 2 for own in groups]
            found: dict[str, list[Interval]] = {name: [] for name in held}
            for half in (0, 1):
                own, others = (value[order[half]][:, side == half] for value, side in zip(values, sides, strict=True))
                here = [group[side == half] for group, side in zip(groups, sides, strict=True)]
                found["candidate mean"].append(crossed_mean(own, here[0]))
                found["half-difference"].append(half_difference(own, others, here[0], here[1] + len(groups[0])))
            for name, (a, b) in found.items():
                width = np.hypot((a.high or 0.0) - a.mean, (b.high or 0.0) - b.mean)
                held[name].append(bool(abs(a.mean - b.mean) <= width))
        rows += [
            {"mean": name, "seeds": count, "over": found[name][0].over, "covered": float(np.mean(one))}
            for name, one in held.items()
        ]
    shared = [value.mean(axis=1) for value in values]
    rows.append({"mean": "sd over seeds of the candidate mean", "covered": float(shared[0].std(ddof=1))})
    rows.append(
        {"mean": "sd over seeds of the half-difference", "covered": float(((shared[0] - shared[1]) / 2).std(ddof=1))}
    )
    return rows


def component(difference: np.ndarray, error: np.ndarray) -> tuple[float, float]:
    """Return the mean shift between two protocols and the sd of what else parts them beyond both errors."""
    excess = float(difference.var(ddof=1) - np.mean(error**2))
    return float(difference.mean()), max(excess, 0.0) ** 0.5


def other_protocol(table: pl.DataFrame) -> list[dict[str, object]]:
    """Say how often a protocol's score agrees with leave-one-out: with both errors, and widened by what parts them."""
    rows: list[dict[str, object]] = []
    for name in RUNS[1:]:
        both = joined(table, name, "leave-one-out")
        difference = (both["clipmem"] - both["clipmem_truth"]).to_numpy()
        error = np.hypot(both["stderr"].to_numpy(), both["stderr_truth"].to_numpy())
        n = len(difference)
        shift, between = component(difference, error)
        row: dict[str, object] = {
            "run": name,
            "pairs": n,
            "shift": shift,
            "error_sd": float(np.mean(error**2)) ** 0.5,
            "between_sd": between,
        }
        for level in LEVELS:
            plain = np.abs(difference) <= stats.norm.ppf((1 + level) / 2) * error
            held: list[bool] = []
            for k in range(n):
                rest = np.arange(n) != k
                center, sd = component(difference[rest], error[rest])
                # the shift is an estimate too; its error is that of a mean over the other pairs
                variance = error[k] ** 2 + sd**2 + difference[rest].var(ddof=1) / (n - 1)
                held.append(bool(abs(difference[k] - center) <= stats.t.ppf((1 + level) / 2, n - 2) * variance**0.5))
            row |= {f"plain_{level:g}": float(plain.mean()), f"widened_{level:g}": float(np.mean(held))}
        # what 30 pairs can say of the last of these shares
        exact = stats.binomtest(sum(held), n).proportion_ci(method="exact")
        row |= {"widened_low": float(exact.low), "widened_high": float(exact.high)}
        rows.append(row)
    return rows


def shared_out(table: pl.DataFrame) -> list[dict[str, object]]:
    """Share out what parts three runs of equal length, on the pairs of the ground truth, among the three.

    With v(a, b) the between-protocol variance of a couple and one component a run, v(a, b) = v_a + v_b; three couples
    give the three. Negative estimates become 0. Intervals: percentiles over pairs drawn with replacement.
    """
    names = RUNS[:3]
    truth = joined(table, names[1], names[0]).select("uid")
    couples = {pair: joined(table, *pair).join(truth, on="uid", how="semi").sort("uid") for pair in _couples(names)}
    columns = {
        pair: (
            (both["clipmem"] - both["clipmem_truth"]).to_numpy(),
            np.hypot(both["stderr"].to_numpy(), both["stderr_truth"].to_numpy()),
        )
        for pair, both in couples.items()
    }
    stream = generator(0, "shared out")
    n = truth.height
    drawn = np.array([_solved(names, columns, stream.integers(n, size=n)) for _ in range(2000)])
    here = _solved(names, columns, np.arange(n))
    low, high = np.quantile(drawn, [0.025, 0.975], axis=0)
    return [
        {"run": name, "component_sd": float(here[k]), "low": float(low[k]), "high": float(high[k])}
        for k, name in enumerate(names)
    ]


def _couples(names: Sequence[str]) -> list[tuple[str, str]]:
    return [(names[1], names[0]), (names[2], names[0]), (names[2], names[1])]


def _solved(
    names: Sequence[str], columns: Mapping[tuple[str, str], tuple[np.ndarray, np.ndarray]], rows: np.ndarray
) -> np.ndarray:
    ab, ac, bc = (columns[pair][0][rows].var(ddof=1) - np.mean(columns[pair][1][rows] ** 2) for pair in _couples(names))
    return np.sqrt(np.maximum([(ab + ac - bc) / 2, (ab + bc - ac) / 2, (ac + bc - ab) / 2], 0.0))


def main() -> None:
    """Print and write both tables."""
    stored = HERE / "coverage.parquet"
    if sys.argv[1] != "--stored":
        collect(Path(sys.argv[1])).write_parquet(stored)
        collect_means(Path(sys.argv[1])).write_parquet(HERE / "means.parquet")
    result = {
        "own protocol": own_protocol(pl.read_parquet(stored)),
        "means": means(pl.read_parquet(HERE / "means.parquet")),
        "leave-one-out": other_protocol(pl.read_parquet(HERE / "scores.parquet")),
        "shared out": shared_out(pl.read_parquet(HERE / "scores.parquet")),
    }
    (HERE / "coverage.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    for name, rows in result.items():
        print(f"\n{name}")
        with pl.Config(
            tbl_rows=-1,
            tbl_cols=-1,
            tbl_width_chars=160,
            float_precision=3,
            fmt_str_lengths=60,
            tbl_formatting="ASCII_MARKDOWN",
        ):
            print(pl.DataFrame(rows))


if __name__ == "__main__":
    main()
