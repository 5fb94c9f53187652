"""What the score tables say, as numbers with intervals: roles, tests, noise floor, stability, planted pairs."""

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np
import polars as pl

from clipmem.functional import (
    auroc,
    bootstrap_mean,
    compare_groups,
    holm,
    noise_floor,
    paired_test,
    precision_at_n,
    roc_curve,
    spearman,
    top_overlap,
)

ROLES = ("shared", "candidate", "independent", "external")
TOPS = {"top1_overlap": 0.01, "top10_overlap": 0.1}
_COMPARED = (("candidate", "external"), ("candidate", "shared"), ("independent", "external"))


class Scored:
    """The score tables as arrays, rows in the order of the split table.

    Args:
        splits: Table `splits`.
        scores: Table `scores`.
        seed_scores: Table `seed_scores`.
    """

    def __init__(self, splits: pl.DataFrame, scores: pl.DataFrame, seed_scores: pl.DataFrame) -> None:
        self.role = splits["role"].to_numpy()
        self.planted = splits["planted"].to_numpy()
        self.group = np.unique(splits["group"].to_numpy(), return_inverse=True)[1].astype(np.int64)
        self.clipmem = scores["clipmem"].to_numpy()
        self.seeds: list[int] = sorted(seed_scores["seed"].unique().to_list())
        by_seed = [seed_scores.filter(pl.col("seed") == seed) for seed in self.seeds]
        self.f = np.stack([table["f"].to_numpy() for table in by_seed])
        self.g = np.stack([table["g"].to_numpy() for table in by_seed])

    def of(self, role: str) -> np.ndarray:
        """Tell which pairs have the role."""
        return self.role == role


def roles(scored: Scored, *, seed: int, draws: int, confidence: float) -> dict[str, Any]:
    """Mean, bootstrap interval (over groups and seeds), sd and median of the scores of each role that there is."""
    summary: dict[str, Any] = {}
    for role in ROLES:
        where = scored.of(role)
        if not where.any():  # of given models nobody need know which pairs were shared
            continue
        differences = scored.f[:, where] - scored.g[:, where]
        interval = bootstrap_mean(differences, scored.group[where], seed=seed, draws=draws, confidence=confidence)
        values = scored.clipmem[where]
        summary[role] = {
            "n": int(where.sum()),
            **interval._asdict(),
            "sd": float(values.std(ddof=1)) if len(values) > 1 else None,
            "median": float(np.median(values)),
        }
    return summary


def tests(scored: Scored, *, confidence: float) -> list[dict[str, Any]]:
    """Compare the roles of the four-way protocol, those that there are (see `compare`)."""
    couples = [couple for couple in _COMPARED if all(scored.of(role).any() for role in couple)]
    return compare(scored.clipmem, scored.role, couples, confidence=confidence)


def compare(
    scores: np.ndarray, role: np.ndarray, couples: Sequence[tuple[str, str]], *, confidence: float
) -> list[dict[str, Any]]:
    """Compare couples of roles by Welch's and Mann and Whitney's tests, with effect sizes.

    `welch_p_holm` and `mannwhitney_p_holm` are adjusted by Holm for the number of couples, each test by itself.
    """
    rows: list[dict[str, Any]] = [
        {"a": a, "b": b, **compare_groups(scores[role == a], scores[role == b], confidence)._asdict()}
        for a, b in couples
    ]
    for name in ("welch_p", "mannwhitney_p"):
        adjusted = holm(np.array([np.nan if row[name] is None else row[name] for row in rows]))
        for row, p in zip(rows, adjusted.tolist(), strict=True):
            row[f"{name}_holm"] = None if np.isnan(p) else p
    return rows


def paired(scored: Scored, *, confidence: float) -> dict[str, Any] | None:
    """Test the candidates' mean under f against that under g, one number a seed: None with one seed.

    f and g of a seed share their start and the order of what both saw, so the seed's part cancels in the difference.
    """
    where = scored.of("candidate")
    if len(scored.seeds) < 2:
        return None
    found = paired_test(scored.f[:, where].mean(axis=1), scored.g[:, where].mean(axis=1), confidence)
    return {"role": "candidate", "seeds": len(scored.seeds), **found._asdict()}


def floor(scored: Scored, *, seed: int, draws: int, confidence: float) -> dict[str, Any] | None:
    """Compare f with f of another seed on the candidates: what a score is worth by chance."""
    where = scored.of("candidate")
    result = noise_floor(scored.f[:, where], scored.group[where], seed=seed, draws=draws, confidence=confidence)
    return None if result is None else result._asdict()


def stability(scored: Scored, *, confidence: float) -> dict[str, Any] | None:
    """Compare the candidates' order between single seeds.

    `top1_overlap` and `top10_overlap` are the shares of pairs that two seeds both put into the top hundredth and tenth
    (below 150 candidates the top hundredth is one pair). `spearman`, `low` and `high` are averages over the pairs of
    seeds: what to expect of one seed against another, with the interval that a single such comparison has.
    """
    where = scored.of("candidate")
    single = scored.f[:, where] - scored.g[:, where]
    couples = list(combinations(range(len(single)), 2))
    if not couples:
        return None
    ranks = [spearman(single[a], single[b], confidence) for a, b in couples]
    return {
        **{end: _mean([getattr(rank, end) for rank in ranks]) for end in ("spearman", "low", "high")},
        **{
            name: float(np.mean([top_overlap(single[a], single[b], share) for a, b in couples]))
            for name, share in TOPS.items()
        },
    }


def _mean(values: Sequence[float | None]) -> float | None:
    """Average what is defined; None when nothing is (fewer than four candidates, or all scores equal)."""
    defined = [value for value in values if value is not None]
    return float(np.mean(defined)) if defined else None


def planted(scored: Scored, *, confidence: float) -> dict[str, Any] | None:
    """Say how well the score finds the candidates that were given wrong captions (see `planted_in`)."""
    return planted_in(
        scored.clipmem, scored.planted, scored.g.mean(axis=0), scored.of("candidate"), confidence=confidence
    )


def planted_in(
    scores: np.ndarray, planted: np.ndarray, reference: np.ndarray, where: np.ndarray, *, confidence: float
) -> dict[str, Any] | None:
    """Say how well a score finds planted pairs, and beside it how well low alignment alone does.

    Args:
        scores: The scores, shape (n,).
        planted: Which pairs are planted, shape (n,).
        reference: Alignment under models that did not see the pair, shape (n,).
        where: The pairs to look among, shape (n,).
        confidence: Level of the intervals.

    Returns:
        AUROC of both with intervals, means, precision and the ROC curve; None when none or all are planted.
    """
    wrong, values = planted[where], scores[where]
    if not wrong.any() or wrong.all():
        return None
    found = auroc(values, wrong, confidence)
    fpr, tpr = roc_curve(values, wrong)
    plain = auroc(-reference[where], wrong, confidence)
    return {
        "n": int(wrong.sum()),
        "rest": int((~wrong).sum()),
        "auroc": found.mean,
        "low": found.low,
        "high": found.high,
        "mean_planted": float(values[wrong].mean()),
        "mean_rest": float(values[~wrong].mean()),
        "precision_at_n": precision_at_n(values, wrong, int(wrong.sum())),
        "roc": {"fpr": fpr.tolist(), "tpr": tpr.tolist()},
        "reference_alignment_auroc": {"auroc": plain.mean, "low": plain.low, "high": plain.high},
    }
