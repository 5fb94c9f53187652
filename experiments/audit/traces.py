"""Does the training of one model tell which pairs are at risk, without reference models? (RESULTS.md)

    python experiments/audit/traces.py OUT    # trains the 16 models of drawings.toml with a recorder; a table

Of each model, its members are ranked by what the recorder kept of that one training: the interquartile range of a
pair's loss over the epochs (LT-IQR, Pollock et al. 2025), its mean loss, its last loss, and minus its mean margin. The
loss is log(1 + exp(-margin / 0.07)), against the hardest other pair of the batch. What is to be found is the tenth of
the members whose risk beyond false alarms is highest by `clipmem audit`, in which each of the 16 models is the target
once and a reference for the others.

Decided before the first run: the share of a tenth, and the precision of the first tenth of the ranking as the measure,
with t intervals over the 16 models.
"""

import sys
from pathlib import Path

import numpy as np
import polars as pl

import clipmem
from clipmem.functional import paired_test
from clipmem.train.recorder import read_trajectory

HERE = Path(__file__).parent
SHARE, TAU = 0.1, 0.07


def rankings(margin: np.ndarray) -> dict[str, np.ndarray]:
    """Return what ranks pairs, by name, from their margins in each epoch: higher = more at risk."""
    loss = np.logaddexp(0, -margin.astype(np.float64) / TAU)
    low, high = np.quantile(loss, (0.25, 0.75), axis=0)
    return {
        "IQR of the loss": high - low,
        "mean loss": loss.mean(axis=0),
        "last loss": loss[-1],
        "mean margin, negated": -margin.mean(axis=0),
        "at random": np.random.default_rng(0).random(margin.shape[1]),
    }


def precision(score: np.ndarray, risk: np.ndarray) -> float:
    """Return the share of the first pairs by a score that are among the first by the risk; of ties, their part."""
    count = round(SHARE * len(score))
    first = np.argsort(-score, kind="stable")[:count]
    edge = np.sort(risk)[-count]
    tied = (count - (risk > edge).sum()) / (risk == edge).sum()
    return float(np.where(risk[first] > edge, 1.0, np.where(risk[first] == edge, tied, 0.0)).mean())


def main(out: Path) -> None:
    """Train, audit, and print the table."""
    run = clipmem.run(HERE / "drawings.toml", out, settings={"train.record": True})
    if not (out / "audit" / "pairs.parquet").is_file():
        clipmem.audit(run)
    pairs = pl.read_parquet(out / "audit" / "pairs.parquet")
    risks = dict(pairs.select("uid", pl.col("risk") - pl.col("false_alarm")).iter_rows())
    rows: dict[str, list[float]] = {}
    for model in sorted(out.glob("models/*/seed-*")):
        with np.load(model / "trajectory.npz") as file:
            uids = [uid.decode() for uid in file["uids"].tolist()]
        margin, risk = read_trajectory(model, uids).margin, np.array([risks[uid] for uid in uids])
        for name, score in rankings(margin).items():
            rows.setdefault(name, []).append(precision(score, risk))
    print(f"| ranked by | members at risk among the first {SHARE:.0%} |\n| --- | --- |")
    for name, by_model in rows.items():
        mean = paired_test(by_model, [0.0] * len(by_model), 0.95)
        print(f"| {name} | {mean.difference:.3f} [{mean.low:.3f}, {mean.high:.3f}] |")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
