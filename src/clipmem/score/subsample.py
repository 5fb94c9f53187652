"""The subsample protocol (after Feldman & Zhang 2020): R models on random parts of the pairs; every pair is scored.

score(pair) = mean A over the models that trained on it - mean A over those that did not. It costs R models for all
pairs together, where leaving out one pair at a time costs a model a pair. The pool is all pairs but the external ones,
which are the bank; as a control, each external pair gets a placebo membership (as if drawn, though no model saw it),
under which its score must be about 0.

Feldman & Zhang draw each model's part by itself. Here the draw is balanced: each pair is in exactly k = round(p R)
models, so every pair has a score and all scores rest on equally many models, and the models' sizes are equal to within
a pair. Near-duplicates (one group of the split table) are in or out together: a model that trained on a copy of a pair
did see it, and the score of such a pair is that of its group.

Not to be trusted with few models: with R = 8 and p = 0.7 a pair is missing from two.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
import torch

from clipmem.base.errors import InputError, RunError
from clipmem.base.random import derive_seed, generator
from clipmem.functional import AlignmentParts, alignment, range_normalise, spearman, top_overlap
from clipmem.functional.resampling import in_out_means, jackknife_models
from clipmem.score import summary
from clipmem.score.four_way import score_rows, seed_rows
from clipmem.score.protocol import PARTS, PROTOCOLS, Models, Protocol, ScoreTables
from clipmem.train.paired import TrainingSet, check_alike

SIDE = "r"


@PROTOCOLS.register("subsample")
class Subsample(Protocol):
    """In/out means over R models, each with a random start and a random part of the pool."""

    @property
    def count(self) -> int:
        """`subsample.models`."""
        return self.recipe.subsample.models

    @property
    def trained_pairs(self) -> int:
        """A fraction of the pool: of all pairs but the external ones."""
        split = self.recipe.split
        pool = split.shared + split.candidate + split.independent
        return round(pool * self.times / self.count)

    @property
    def times(self) -> int:
        """k, the number of models that train on each pair: `subsample.fraction` of them, to the nearest whole model.

        Raises:
            InputError: No model would train on a pair, or all would.
        """
        settings = self.recipe.subsample
        times = round(settings.fraction * settings.models)
        if not 0 < times < settings.models:
            raise InputError(
                "[subsample] fraction",
                got=f"{settings.fraction:g} of {settings.models} models, which is {times} of them for each pair",
                expected=f"1 to {settings.models - 1} of {settings.models} models",
                hint="Set subsample.fraction nearer to 0.5, or set subsample.models to more models.",
            )
        return times

    def check_pairs(self, pairs: pl.DataFrame) -> None:
        """Check that a pair can be in some models and out of others, and that the data have enough pairs.

        Raises:
            InputError: It cannot, or they have not.
        """
        _ = self.times
        super().check_pairs(pairs)

    def roles(self, splits: pl.DataFrame) -> pl.DataFrame:
        """Make every pair of the pool a candidate: all of them are measured."""
        pool = pl.when(pl.col("role") == "external").then("role").otherwise(pl.lit("candidate"))
        return splits.with_columns(pool.alias("role"))

    def training_sets(self, splits: pl.DataFrame) -> list[TrainingSet]:
        """Draw each model's part of the pool; all models have as many steps as the largest."""
        uids, member = self._draw(splits, "candidate", "subsample")
        largest = int(member.sum(axis=1).max())
        return [TrainingSet(SIDE, k, tuple(uids[had].tolist()), 0, largest=largest) for k, had in enumerate(member)]

    def _draw(self, splits: pl.DataFrame, role: str, stream: str) -> tuple[np.ndarray, np.ndarray]:
        """Draw who is in which model: the role's uids, sorted, and the memberships, shape (model, n)."""
        rows = splits.filter(pl.col("role") == role).sort("uid").with_row_index()
        # groups are numbered by their smallest uid: neither row order nor group names reach the draw
        group = rows.select(pl.col("index").min().over("group").rank("dense") - 1).to_series().to_numpy()
        drawn = balanced_draw(
            np.bincount(group), self.count, self.times, generator(self.recipe.split.seed, stream, "balanced")
        )
        return rows["uid"].to_numpy(), drawn[:, group]

    def check(self, models: Models, records: Mapping[tuple[str, int], Mapping[str, Any]]) -> None:
        """All models must have the same settings and number of steps, and the pairs that this version draws."""
        check_alike(records)
        for model in models:
            if records[model.side, model.seed].get("uids_sha256") != model.uids_sha256:
                raise RunError(
                    f"model {model.side} of seed {model.seed} was trained on other pairs than this version of clipmem "
                    "draws. Finish the study with the version that began it, or run it again in a new folder."
                )

    def score(self, splits: pl.DataFrame, models: Models, parts: Sequence[AlignmentParts]) -> ScoreTables:
        """Score every pair, with the standard error of in and out means, moderated over the pairs."""
        settings = self.recipe.score
        member = self.membership(splits, models)
        values = torch.stack([alignment(one, weight=settings.weight) for one in parts]).numpy()
        means = in_out_means(values, member)
        if not np.isfinite(means.score).all():
            raise RunError(
                f"{int((~np.isfinite(means.score)).sum())} pairs are in all models of this study or in none. "
                "This is a bug in clipmem; please report it."
            )
        error = jackknife_models(values, member, confidence=settings.confidence)
        candidates = (splits["role"] == "candidate").to_numpy()
        norm, _ = range_normalise(torch.from_numpy(means.score), torch.from_numpy(candidates))
        columns = {
            "clipmem": means.score,
            "clipmem_norm": norm.numpy(),
            "stderr": error.stderr,
            "low": error.low,
            "high": error.high,
        }
        for name in PARTS:
            of_part = in_out_means(np.stack([getattr(one, name).numpy() for one in parts]), member)
            columns |= {f"f_{name}": of_part.mean_in, f"g_{name}": of_part.mean_out}
        rows = [
            seed_rows(
                splits,
                model.seed,
                torch.from_numpy(np.where(member[k], values[k], np.nan)),
                torch.from_numpy(np.where(member[k], np.nan, values[k])),
            )
            for k, model in enumerate(models)
        ]
        return ScoreTables(score_rows(splits, columns), pl.concat(rows))

    def membership(self, splits: pl.DataFrame, models: Models) -> np.ndarray:
        """Say which model had which pair, shape (model, n); for external pairs a placebo, drawn in the same way."""
        external, placebo = self._draw(splits, "external", "placebo")
        seen = [set(model.uids).union(external[placebo[model.seed]].tolist()) for model in models]
        uids = splits["uid"].to_list()
        return np.array([[uid in own for uid in uids] for own in seen])

    def summarize(self, splits: pl.DataFrame, tables: ScoreTables, *, seed: int) -> dict[str, Any]:
        """Summarize over models and groups of pairs."""
        values, member = matrices(splits, tables.seed_scores)
        score = tables.scores["clipmem"].to_numpy()
        role, level = splits["role"].to_numpy(), self.recipe.score.confidence
        return {
            "seeds": sorted(tables.seed_scores["seed"].unique().to_list()),
            "roles": {
                name: {
                    "n": int((role == name).sum()),
                    **self._role(values, member, splits, role == name, seed),
                    "sd": float(score[role == name].std(ddof=1)),
                    "median": float(np.median(score[role == name])),
                }
                for name in ("candidate", "external")
            },
            "tests": summary.compare(score, role, (("candidate", "external"),), confidence=level),
            "paired": None,  # no model has a twin that differs in the pairs alone
            "noise_floor": None,
            "stability": halves(values, member, role == "candidate", seed=seed, confidence=level),
            "planted": summary.planted_in(
                score,
                splits["planted"].to_numpy(),
                _out(values, member),
                role == "candidate",
                confidence=level,
            ),
        }

    def _role(
        self, values: np.ndarray, member: np.ndarray, splits: pl.DataFrame, where: np.ndarray, seed: int
    ) -> dict[str, float]:
        groups = np.unique(splits["group"].to_numpy()[where], return_inverse=True)[1]
        settings = self.recipe.score
        return two_way_interval(
            values[:, where], member[:, where], groups, seed=seed, draws=settings.draws, confidence=settings.confidence
        )


def balanced_draw(sizes: np.ndarray, models: int, times: int, stream: np.random.Generator) -> np.ndarray:
    """Draw for each group the models that train on it: exactly `times` of them, all models about equally large.

    Each group's models are a uniform draw, independent of the other groups'. Then groups move, at random, from larger
    to smaller models until the sizes differ by at most one pair, or until no group that the largest model has and the
    smallest has not is small enough to bring the two nearer (where groups are large, rarely). That changes few
    memberships (0.6 % of those of 1,700 pairs in 16 models) and treats all models alike, so each group's models, looked
    at alone, are still a uniform draw.

    Args:
        sizes: Pairs in each group, shape (group,).
        models: R, the number of models.
        times: k, the number of models that each group is in, 0 < k < R.
        stream: Where the random numbers come from.

    Returns:
        Which model trains on which group, shape (model, group).

    Example:
        >>> drawn = balanced_draw(np.ones(10, dtype=int), 4, 2, np.random.default_rng(0))
        >>> drawn.sum(axis=0).tolist(), drawn.sum(axis=1).tolist()
        ([2, 2, 2, 2, 2, 2, 2, 2, 2, 2], [5, 5, 5, 5])
    """
    member = stream.permuted(np.tile(np.arange(models) < times, (len(sizes), 1)), axis=1).T.copy()
    totals = member @ sizes
    goal = totals.mean()
    while True:
        large, small = int(totals.argmax()), int(totals.argmin())
        gap = int(totals[large] - totals[small])
        # a group of `gap` pairs or more would only turn the two round
        movable = np.flatnonzero(member[large] & ~member[small] & (sizes < gap))
        if gap <= 1 or len(movable) == 0:
            # argmax and argmin prefer the first of equal models: no model's number may matter
            return member[stream.permutation(models)]
        movable = stream.permutation(movable)
        surplus = min(totals[large] - goal, goal - totals[small])
        moved = movable[: max(1, int(np.searchsorted(sizes[movable].cumsum(), surplus, side="right")))]
        member[large, moved], member[small, moved] = False, True
        totals[large] -= sizes[moved].sum()
        totals[small] += sizes[moved].sum()


def matrices(splits: pl.DataFrame, seed_scores: pl.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Read alignments and memberships, each of shape (model, n), back from the table `seed_scores`."""
    order = pl.DataFrame({"uid": splits["uid"], "row": np.arange(splits.height)})
    table = seed_scores.join(order, on="uid").sort("seed", "row")
    shape = (table["seed"].n_unique(), splits.height)
    member = table["f"].is_not_null().to_numpy().reshape(shape)
    return table.select(pl.coalesce("f", "g")).to_series().to_numpy().reshape(shape), member


def two_way_interval(
    values: np.ndarray, member: np.ndarray, groups: np.ndarray, *, seed: int, draws: int, confidence: float
) -> dict[str, float]:
    """Mean score of some pairs with a percentile interval that resamples models and groups of pairs.

    Every pair has models on both sides, but a resample of the models may have none on one side of a pair: that resample
    leaves the pair out.

    Args:
        values: Alignments, shape (model, n).
        member: Which model had which pair, shape (model, n).
        groups: Group of each pair, whole numbers from 0, shape (n,).
        seed: Seed of the draws.
        draws: How many draws.
        confidence: Level of the interval.
    """
    models, pairs = generator(seed, "models"), generator(seed, "groups")
    count = int(groups.max()) + 1
    means: list[float] = []
    for _ in range(draws):
        weight = models.multinomial(len(values), np.full(len(values), 1 / len(values))).astype(np.float64)
        inside, outside = weight @ member, weight @ ~member
        usable = (inside > 0) & (outside > 0)
        times = pairs.multinomial(count, np.full(count, 1 / count))[groups] * usable
        if times.sum() == 0:
            continue
        score = weight @ (values * member) / np.maximum(inside, 1) - weight @ (values * ~member) / np.maximum(
            outside, 1
        )
        means.append(float((score * times).sum() / times.sum()))
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return {"mean": float(in_out_means(values, member).score.mean()), "low": float(low), "high": float(high)}


def halves(
    values: np.ndarray, member: np.ndarray, where: np.ndarray, *, seed: int, confidence: float
) -> dict[str, Any] | None:
    """Compare the order that two random halves of the models give.

    The draw is balanced over all models, not over half of them: a pair with few models on a side may have none there in
    a half. Such pairs are left out and counted in `unscored`.

    Args:
        values: Alignments, shape (model, n).
        member: Which model had which pair, shape (model, n).
        where: The pairs to compare, shape (n,).
        seed: Seed of the halves.
        confidence: Level of the interval.

    Returns:
        Rank correlation with its interval, overlaps of the tops, numbers of models and `unscored`; None when fewer than
        ten pairs have a score in both halves.
    """
    order = generator(derive_seed(seed, "halves"), "order").permutation(len(values))
    a, b = (in_out_means(values[part], member[part]).score for part in np.array_split(order, 2))
    both = where & np.isfinite(a) & np.isfinite(b)
    if both.sum() < 10:
        return None
    rank = spearman(a[both], b[both], confidence)
    return {
        **rank._asdict(),
        **{name: top_overlap(a[both], b[both], share) for name, share in summary.TOPS.items()},
        "halves": [len(part) for part in np.array_split(order, 2)],
        "unscored": int((where & ~both).sum()),
    }


def _out(values: np.ndarray, member: np.ndarray) -> np.ndarray:
    return in_out_means(values, member).mean_out
