"""The design of a study: the matrix of which model trained on which pair, and the scores that follow from it.

The sign of a model is +1 for pairs it trained on, -1 for unseen pairs, and 0 for pairs it is not used for:
clipmem(i) = mean of A over +1 - mean of A over -1. If the models of each seed are paired (one of each sign for every
pair, with the same initialization and order), the error of a score is over seeds, otherwise over models, without 0.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import NamedTuple

import numpy as np
import polars as pl
import torch

from clipmem.base.errors import RunError, require
from clipmem.stats.alignment import AlignmentParts, alignment
from clipmem.stats.centering import trimmed_means
from clipmem.stats.checks import mean_where
from clipmem.stats.intervals import seed_interval
from clipmem.stats.memorization import clipmem, range_normalize
from clipmem.stats.resampling import in_out_means, jackknife_models
from clipmem.train.paired import TrainingSet

PARTS = AlignmentParts._fields


class ScoreTables(NamedTuple):
    """A study's score tables, rows of `scores` sorted by uid (see `clipmem.base.tables`)."""

    scores: pl.DataFrame
    seed_scores: pl.DataFrame


@dataclass(frozen=True)
class Design:
    """The models of a study and the pairs they are used for.

    Attributes:
        models: The training sets, in training order.
        sign: int8, shape (model, n), columns in the order of the split table: 1 seen, -1 unseen, 0 unused.
    """

    models: Sequence[TrainingSet]
    sign: np.ndarray

    @property
    def seeds(self) -> list[int]:
        """The unique seeds of the models that score pairs, in training order."""
        used: list[bool] = (self.sign != 0).any(axis=1).tolist()
        return list(dict.fromkeys(model.seed for model, is_used in zip(self.models, used, strict=True) if is_used))

    @cached_property
    def scored(self) -> np.ndarray:
        """Mask of the pairs that have models of both signs, shape (n,)."""
        return np.asarray((self.sign > 0).any(axis=0) & (self.sign < 0).any(axis=0))

    @cached_property
    def couples(self) -> np.ndarray:
        """Rows of complements, shape (couple, 2): two models of a seed, one +1 wherever the other is -1."""
        sign, seeds = self.sign, [model.seed for model in self.models]
        alike = [(a, b) for a, b in combinations(range(len(seeds)), 2) if seeds[a] == seeds[b] and sign[a].any()]
        return np.array([(a, b) for a, b in alike if (sign[a] == -sign[b]).all()], dtype=np.int64).reshape(-1, 2)

    @cached_property
    def sides(self) -> list[str]:
        """Side of each model: `g` if it is used as one that did not see a pair; `f` for all where every model is."""
        unseen = [bool(row.any()) for row in self.sign < 0]
        return ["g" if less and not all(unseen) else "f" for less in unseen]

    def by_seed(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Average seen and unseen models by seed, each of shape (seed, n); NaN if a seed has none."""
        of = [[k for k, model in enumerate(self.models) if model.seed == seed] for seed in self.seeds]
        seen, unseen = (
            np.stack([mean_where(values[rows], (self.sign[rows] * side) > 0) for rows in of]) for side in (1, -1)
        )
        return seen, unseen


class _Compared(NamedTuple):
    """Alignments of the scored pairs: by seed under seen and unseen models, by model, and the score."""

    seen: np.ndarray
    unseen: np.ndarray
    values: np.ndarray
    score: np.ndarray

    @property
    def paired(self) -> bool:
        """Whether each seed has seen and unseen models of every pair."""
        return bool(np.isfinite(self.seen).all() and np.isfinite(self.unseen).all())


def combine(
    design: Design,
    splits: pl.DataFrame,
    parts: Sequence[AlignmentParts],
    *,
    weight: float,
    confidence: float,
    wordings: Sequence[AlignmentParts] = (),
) -> ScoreTables:
    """Combine the models' alignments into the score tables of the scored pairs.

    `parts` has those of each model of the design, then, if there is one, of the base model: a_base = A(base), learned =
    mean of A over the models that did not see the pair - a_base. Both are null without a base model. clipmem_centered =
    clipmem - mean over seeds of the trimmed mean of the external pairs; null without pairs of models, or without
    external pairs. `wordings` has those of each model over all captions; without them, their columns are null.
    """
    parts, base = parts[: len(design.models)], parts[len(design.models) :]
    rows, sign = splits.filter(pl.Series(design.scored)), design.sign[:, design.scored]
    if not rows.height:
        raise RunError("no pair has both seen and unseen models. This is a bug in clipmem; please report it.")
    seen, unseen, values, score = compared = _compared(design, parts, weight)
    unknown = (np.broadcast_to(np.nan, x.shape) for x in compared)
    over = _compared(design, wordings, weight) if wordings else _Compared(*unknown)
    if compared.paired:
        error = seed_interval(seen - unseen, confidence)
        external = (seen - unseen)[:, (rows["role"] == "external").to_numpy()]
        shift = trimmed_means(external)[0].mean() if external.size else np.nan
    else:
        shift = np.nan
        error = jackknife_models(values, sign > 0, confidence=confidence)
    candidates, norm = (rows["role"] == "candidate").to_numpy(), np.full_like(score, np.nan)
    if len(np.unique(score[candidates])) > 1:
        norm = range_normalize(torch.from_numpy(score), torch.from_numpy(candidates))[0].numpy()
    a_base = alignment(base[0], weight=weight).numpy()[design.scored] if base else np.full(len(score), np.nan)
    columns = {
        "clipmem": score,
        "clipmem_norm": norm,
        "clipmem_centered": score - shift,
        **{name: getattr(error, name) for name in ("stderr", "low", "high")},
        **{
            f"{side}_{name}": mean_where(np.stack([getattr(x, name).numpy() for x in parts])[:, design.scored], mask)
            for side, mask in (("f", sign > 0), ("g", sign < 0))
            for name in PARTS
        },
        "a_base": a_base,
        "learned": mean_where(values, sign < 0) - a_base,
        "clipmem_wordings": over.score,
    }
    by_seed = {"f": seen, "g": unseen, "f_wordings": over.seen, "g_wordings": over.unseen}
    return ScoreTables(
        _table(rows.select("uid", "role", "planted"), columns),
        pl.concat(
            _table(
                rows.select("uid", pl.lit(seed, pl.Int64).alias("seed")),
                {name: column[k] for name, column in by_seed.items()},
            )
            for k, seed in enumerate(design.seeds)
        ),
    )


def _compared(design: Design, parts: Sequence[AlignmentParts], weight: float) -> _Compared:
    values = torch.stack([alignment(part, weight=weight) for part in parts]).numpy()
    seen, unseen = (part[:, design.scored] for part in design.by_seed(values))
    values, member = values[:, design.scored], design.sign[:, design.scored] > 0
    compared = _Compared(seen, unseen, values, np.zeros(0))
    if compared.paired:
        return compared._replace(score=clipmem(torch.from_numpy(seen), torch.from_numpy(unseen)).numpy())
    got, hint = "0 (not used) for unpaired models", "Give each seed a seen and an unseen model of every scored pair."
    require(design.sign[:, design.scored].all(), "design", got, "1 or -1 for every model and scored pair", hint)
    return compared._replace(score=in_out_means(values, member).score)


def _table(rows: pl.DataFrame, columns: dict[str, np.ndarray]) -> pl.DataFrame:
    return rows.with_columns(*(pl.Series(name, columns.pop(name)).fill_nan(None) for name in list(columns)))
