"""Leave-one-out: retrain without one pair, for a list of pairs. The ground truth that other protocols are judged by.

score(i) = mean over seeds of A(f) - A(f without i), f being trained on shared + candidate. Each retrained model has the
start of f and the order of f, with that one pair left out of its batches. Still not free of noise: training is chaotic,
and two models that differ in one pair differ everywhere a little. The external pairs, each scored against one retrained
model as a pair left out is, show how much.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
import torch

from clipmem.base.errors import InputError
from clipmem.base.random import generator
from clipmem.functional import AlignmentParts, alignment, bootstrap_mean, range_normalise, seed_interval
from clipmem.score import summary
from clipmem.score.four_way import score_rows, seed_rows
from clipmem.score.protocol import PROTOCOLS, Models, Protocol, ScoreTables, mean_parts
from clipmem.train.paired import TrainingSet, check_alike, training_set


@PROTOCOLS.register("leave-one-out")
class LeaveOneOut(Protocol):
    """One f a seed, and one more model for each pair left out and seed."""

    @property
    def count(self) -> int:
        """One model a seed, and one for each seed and pair left out."""
        settings = self.recipe.leave_one_out
        return len(self.recipe.train.seeds) * (1 + (len(settings.uids) or settings.pairs))

    def check_pairs(self, pairs: pl.DataFrame) -> None:
        """Check too that there are as many candidates as are to be left out, and that those named are in the data.

        Raises:
            InputError: There are not, or one of them is not.
        """
        super().check_pairs(pairs)
        self._check_count(self.recipe.split.candidate)
        unknown = sorted(set(self.recipe.leave_one_out.uids) - set(pairs["uid"]))
        if unknown:
            raise InputError(
                "[leave_one_out] uids",
                got=unknown[0],
                expected="uids of the data",
                hint="`clipmem data ids` lists the uids of a finished run.",
            )

    def _check_count(self, candidates: int) -> None:
        settings = self.recipe.leave_one_out
        if not settings.uids and settings.pairs > candidates:
            raise InputError(
                "[leave_one_out] pairs",
                got=f"{settings.pairs:,} of {candidates:,} candidates",
                expected=f"at most {candidates:,}",
                hint="Set leave_one_out.pairs to fewer, or split.candidate and split.independent to more.",
            )

    def left_out(self, splits: pl.DataFrame) -> list[str]:
        """Return the pairs to leave out: those the recipe lists, or as many candidates as it asks for, at random."""
        settings = self.recipe.leave_one_out
        pool = splits.filter(pl.col("role") == "candidate")["uid"].sort().to_list()
        if settings.uids:
            unknown = sorted(set(settings.uids) - set(pool))
            if unknown:
                raise InputError(
                    "[leave_one_out] uids", got=unknown[0], expected="uids of candidates", hint="See splits.parquet."
                )
            return sorted(settings.uids)
        self._check_count(len(pool))
        planted = splits.filter(pl.col("planted"))["uid"].sort().to_list()
        rest = [uid for uid in pool if uid not in set(planted)]
        stream = generator(self.recipe.split.seed, "leave one out")
        first = [planted[k] for k in stream.permutation(len(planted))[: settings.pairs // 3]]
        others = [rest[k] for k in stream.permutation(len(rest))[: settings.pairs - len(first)]]
        return sorted([*first, *others])

    def training_sets(self, splits: pl.DataFrame) -> list[TrainingSet]:
        """F of each seed, then f without each pair."""
        whole = [training_set(splits, "f", seed) for seed in self.recipe.train.seeds]
        return whole + [
            TrainingSet(f"without-{uid}", one.seed, one.uids, one.shared, left_out=uid)
            for uid in self.left_out(splits)
            for one in whole
        ]

    def check(self, models: Models, records: Mapping[tuple[str, int], Mapping[str, Any]]) -> None:  # noqa: ARG002
        """All models must have the same settings, and those of a seed the same start and steps."""
        check_alike(records)

    def score(self, splits: pl.DataFrame, models: Models, parts: Sequence[AlignmentParts]) -> ScoreTables:
        """Score the pairs left out and, as a control, the external pairs; nobody else is in the tables.

        Each external pair is scored against one retrained model, drawn by its uid: the mean over all of them would have
        less noise than the score of a pair left out, and could not show it.
        """
        settings, seeds = self.recipe.score, self.recipe.train.seeds
        place = {(model.side, model.seed): k for k, model in enumerate(models)}
        values = torch.stack([alignment(one, weight=settings.weight) for one in parts])
        left = {model.left_out: model.side for model in models if model.left_out}
        rows = splits.with_row_index().filter(pl.col("uid").is_in(list(left)) | (pl.col("role") == "external"))
        sides = list(left.values())
        f = torch.full((len(seeds), rows.height), torch.nan, dtype=torch.float64)
        g = f.clone()
        columns = {f"{side}_{part}": np.zeros(rows.height) for side in "fg" for part in AlignmentParts._fields}
        for at, (index, uid) in enumerate(zip(rows["index"], rows["uid"], strict=True)):
            stream = generator(self.recipe.split.seed, "leave one out control", uid)
            without = left[uid] if uid in left else sides[stream.integers(len(sides))]
            for k, seed in enumerate(seeds):
                f[k, at] = values[place["f", seed], index]
                g[k, at] = values[place[without, seed], index]
            for side, name in (("f", "f"), ("g", without)):
                means = mean_parts([parts[place[name, seed]] for seed in seeds])
                for part, mean in means.items():
                    columns[f"{side}_{part}"][at] = mean[index]
        score = f.mean(dim=0) - g.mean(dim=0)
        norm, _ = range_normalise(score, torch.from_numpy((rows["role"] == "candidate").to_numpy()))
        interval = seed_interval((f - g).numpy(), settings.confidence)
        columns = {"clipmem": score.numpy(), "clipmem_norm": norm.numpy(), **interval._asdict(), **columns}
        return ScoreTables(
            score_rows(rows, columns),
            pl.concat([seed_rows(rows, seed, f[k], g[k]) for k, seed in enumerate(seeds)]),
        )

    def summarize(self, splits: pl.DataFrame, tables: ScoreTables, *, seed: int) -> dict[str, Any]:
        """Summarize the pairs left out and the control."""
        rows = splits.filter(pl.col("uid").is_in(tables.scores["uid"].to_list()))
        scored = summary.Scored(rows, tables.scores, tables.seed_scores)
        settings = self.recipe.score
        roles: dict[str, Any] = {}
        for role in ("candidate", "external"):
            where = scored.of(role)
            interval = bootstrap_mean(
                scored.f[:, where] - scored.g[:, where],
                scored.group[where],
                seed=seed,
                draws=settings.draws,
                confidence=settings.confidence,
            )
            values = scored.clipmem[where]
            roles[role] = {
                "n": int(where.sum()),
                **interval._asdict(),
                "sd": float(values.std(ddof=1)) if len(values) > 1 else None,
                "median": float(np.median(values)),
            }
        return {
            "seeds": scored.seeds,
            "roles": roles,
            "tests": summary.compare(
                scored.clipmem, scored.role, (("candidate", "external"),), confidence=settings.confidence
            ),
            "paired": summary.paired(scored, confidence=settings.confidence),
            "noise_floor": summary.floor(scored, seed=seed, draws=settings.draws, confidence=settings.confidence),
            "stability": summary.stability(scored, confidence=settings.confidence),
            "planted": summary.planted(scored, confidence=settings.confidence),
        }
