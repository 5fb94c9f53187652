"""The subsample protocol (Feldman & Zhang 2020): R models, each on a random part of the pairs; every pair is scored.

score(pair) = mean A over the models that had it - mean A over those that had not. It costs R models for all pairs
together, where leaving out one pair at a time costs a model a pair. The pool is all pairs but the external ones, which
are the bank; as a control, each external pair gets a placebo membership (as if drawn, though no model saw it),
under which its score must be about 0.

Not to be trusted with few models: with R = 8 and p = 0.7 a pair is missing from two or three.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
import torch

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
        return round(self.recipe.subsample.fraction * (split.shared + split.candidate + split.independent))

    def roles(self, splits: pl.DataFrame) -> pl.DataFrame:
        """Make every pair of the pool a candidate: all of them are measured."""
        pool = pl.when(pl.col("role") == "external").then("role").otherwise(pl.lit("candidate"))
        return splits.with_columns(pool.alias("role"))

    def training_sets(self, splits: pl.DataFrame) -> list[TrainingSet]:
        """Draw each model's part of the pool: round(fraction * pool) pairs, without replacement."""
        pool = np.array(splits.filter(pl.col("role") == "candidate")["uid"].sort().to_list())
        settings = self.recipe.subsample
        count = round(settings.fraction * len(pool))
        models: list[TrainingSet] = []
        for k in range(settings.models):
            drawn = generator(self.recipe.split.seed, "subsample", k).permutation(len(pool))[:count]
            models.append(TrainingSet(SIDE, k, tuple(pool[np.sort(drawn)].tolist()), 0))
        return models

    def check(self, records: Mapping[tuple[str, int], Mapping[str, Any]]) -> None:
        """All models must have the same settings and number of steps."""
        check_alike(records)

    def score(self, splits: pl.DataFrame, models: Models, parts: Sequence[AlignmentParts]) -> ScoreTables:
        """Score every pair, with the standard error of in and out means, moderated over the pairs."""
        settings = self.recipe.score
        member = self.membership(splits, models)
        values = torch.stack([alignment(one, weight=settings.weight) for one in parts]).numpy()
        means = in_out_means(values, member)
        error = jackknife_models(values, member, confidence=settings.confidence, variance="moderated")
        candidates = (splits["role"] == "candidate").to_numpy() & np.isfinite(means.score)
        scored = torch.from_numpy(np.nan_to_num(means.score))
        norm, _ = range_normalise(scored, torch.from_numpy(candidates))
        columns = {
            "clipmem": means.score,
            "clipmem_norm": np.where(np.isfinite(means.score), norm.numpy(), np.nan),
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
        """Say which model had which pair, shape (model, n); for external pairs a placebo draw of the same size."""
        uids = splits["uid"].to_list()
        external = np.flatnonzero((splits["role"] == "external").to_numpy())
        member = np.zeros((len(models), len(uids)), dtype=np.bool_)
        for k, model in enumerate(models):
            had = set(model.uids)
            member[k] = [uid in had for uid in uids]
            drawn = generator(self.recipe.split.seed, "placebo", model.seed).permutation(len(external))
            member[k, external[drawn[: round(self.recipe.subsample.fraction * len(external))]]] = True
        return member

    def summarize(self, splits: pl.DataFrame, tables: ScoreTables, *, seed: int) -> dict[str, Any]:
        """Summarize over models and groups of pairs."""
        values, member = matrices(splits, tables.seed_scores)
        score = tables.scores["clipmem"].fill_null(np.nan).to_numpy()
        role, level = splits["role"].to_numpy(), self.recipe.score.confidence
        kept = np.isfinite(score)
        return {
            "seeds": sorted(tables.seed_scores["seed"].unique().to_list()),
            "roles": {
                name: {
                    "n": int((kept & (role == name)).sum()),
                    **self._role(values, member, splits, kept & (role == name), seed),
                    "sd": float(score[kept & (role == name)].std(ddof=1)),
                    "median": float(np.median(score[kept & (role == name)])),
                }
                for name in ("candidate", "external")
            },
            "tests": summary.compare(score[kept], role[kept], (("candidate", "external"),), confidence=level),
            "paired": None,  # no model has a twin that differs in the pairs alone
            "noise_floor": None,
            "stability": halves(values, member, kept & (role == "candidate"), seed=seed, confidence=level),
            "planted": summary.planted_in(
                score,
                splits["planted"].to_numpy(),
                _out(values, member),
                kept & (role == "candidate"),
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

    A draw in which a pair has no model on one side leaves that pair out.

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
    """Compare the order that two random halves of the models give: None when a half cannot score three pairs."""
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
    }


def _out(values: np.ndarray, member: np.ndarray) -> np.ndarray:
    return in_out_means(values, member).mean_out
