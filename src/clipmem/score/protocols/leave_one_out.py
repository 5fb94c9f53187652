"""Leave-one-out: retrain without one pair, for a list of pairs. The ground truth that other protocols are judged by.

score(i) = mean over seeds of A(f) - A(f without i), f being trained on shared + candidate. Each retrained model has the
start of f and the order of f, with that one pair left out of its batches. Still not free of noise: training is chaotic,
and two models that differ in one pair differ everywhere a little. The external pairs, each scored against one retrained
model as a pair left out is, show how much.
"""

from dataclasses import replace

import numpy as np
import polars as pl

from clipmem.base.random import generator
from clipmem.base.require import require
from clipmem.score.design import Design
from clipmem.score.protocols.base import PROTOCOLS, Protocol
from clipmem.train.paired import training_set


@PROTOCOLS.register("leave-one-out")
class LeaveOneOut(Protocol):
    """One f a seed, and one more model for each pair left out and seed."""

    summary = "One more model for each of a few pairs, trained without it: the ground truth."

    @property
    def count(self) -> int:
        """One model a seed, and one for each seed and pair left out."""
        settings = self.recipe.leave_one_out
        return len(self.recipe.train.seeds) * (1 + (len(settings.uids) or settings.pairs))

    def check_pairs(self, pairs: pl.DataFrame) -> None:
        """Check too that there are as many candidates as are to be left out, and that those named are in the data."""
        super().check_pairs(pairs)
        self._check_count(self.recipe.split.candidate)
        unknown = sorted(set(self.recipe.leave_one_out.uids) - set(pairs["uid"]))
        hint = "`clipmem data ids` lists the uids of a finished run."
        require(not unknown, "[leave_one_out] uids", "".join(unknown[:1]), "uids of the data", hint)

    def _check_count(self, candidates: int) -> None:
        settings = self.recipe.leave_one_out
        require(
            settings.uids or settings.pairs <= candidates,
            "[leave_one_out] pairs",
            f"{settings.pairs:,} of {candidates:,} candidates",
            f"at most {candidates:,}",
            "Set leave_one_out.pairs to fewer, or split.candidate and split.independent to more.",
        )

    def left_out(self, splits: pl.DataFrame) -> list[str]:
        """Return the pairs to leave out: those the recipe lists, or as many candidates as it asks for, at random."""
        settings = self.recipe.leave_one_out
        pool = splits.filter(pl.col("role") == "candidate")["uid"].sort().to_list()
        if settings.uids:
            unknown = sorted(set(settings.uids) - set(pool))
            found = "".join(unknown[:1])
            require(not unknown, "[leave_one_out] uids", found, "uids of candidates", "See splits.parquet.")
            return sorted(settings.uids)
        self._check_count(len(pool))
        planted = splits.filter(pl.col("planted"))["uid"].sort().to_list()
        rest = [uid for uid in pool if uid not in set(planted)]
        stream = generator(self.recipe.split.seed, "leave one out")
        first = [planted[k] for k in stream.permutation(len(planted))[: settings.pairs // 3]]
        others = [rest[k] for k in stream.permutation(len(rest))[: settings.pairs - len(first)]]
        return sorted([*first, *others])

    def design(self, splits: pl.DataFrame) -> Design:
        """F of each seed, then f without each pair left out; those pairs and the external ones are scored.

        Each external pair is compared with one retrained model, drawn by its uid: the mean over all of them would have
        less noise than the score of a pair left out, and could not show it.
        """
        whole = [training_set(splits, "f", seed) for seed in self.recipe.train.seeds]
        left_out = self.left_out(splits)
        models = whole + [replace(one, side=f"without-{uid}", left_out=uid) for uid in left_out for one in whole]
        place, sign = {uid: k for k, uid in enumerate(left_out)}, np.zeros((len(models), splits.height), dtype=np.int8)
        seeds = len(whole)
        for at, (uid, role) in enumerate(splits.select("uid", "role").iter_rows()):
            if uid not in place and role != "external":
                continue
            stream = generator(self.recipe.split.seed, "leave one out control", uid)
            k = place[uid] if uid in place else int(stream.integers(len(left_out)))
            sign[:seeds, at] = 1
            sign[seeds * (k + 1) : seeds * (k + 2), at] = -1
        return Design(models, sign)
