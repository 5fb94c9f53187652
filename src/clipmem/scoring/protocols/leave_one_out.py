"""Leave-one-out: retrain without one pair, for a list of pairs; the ground truth for other protocols.

score(i) = mean over seeds of A(f) - A(f without i), with f trained on shared + candidate. Retrained models have f's
initialization and order, without the one pair.

When not to trust it: training is chaotic, so that models which differ in one pair differ a little everywhere. The
scores of external pairs, each against one retrained model, show this noise.
"""

from dataclasses import replace

import numpy as np
import polars as pl

from clipmem.base.errors import require
from clipmem.base.random import generator
from clipmem.scoring.design import Design
from clipmem.scoring.protocols.base import PROTOCOLS, Protocol
from clipmem.train.paired import training_set


@PROTOCOLS.register("leave-one-out")
class LeaveOneOut(Protocol):
    """One f per seed, and one model per seed and pair left out."""

    summary = "One more model per pair, trained without it: the ground truth for a few pairs."

    @property
    def count(self) -> int:
        settings = self.recipe.leave_one_out
        return len(self.recipe.train.seeds) * (1 + (len(settings.uids) or settings.pairs))

    def check_pairs(self, pairs: pl.DataFrame) -> None:
        """Also check that there are enough candidates, and that named pairs exist."""
        super().check_pairs(pairs)
        self._check_count(self.recipe.split.candidate)
        unknown = sorted(set(self.recipe.leave_one_out.uids) - set(pairs["uid"]))
        hint = "List the uids of a finished run with `clipmem export ids`."
        require(not unknown, "[leave_one_out] uids", "".join(unknown[:1]), "uids of the data", hint)

    def _check_count(self, candidates: int) -> None:
        settings, subject = self.recipe.leave_one_out, "[leave_one_out] pairs"
        got, expected = f"{settings.pairs:,} of {candidates:,} candidates", f"at most {candidates:,}"
        hint = "Reduce leave_one_out.pairs, or increase split.candidate and split.independent."
        require(settings.uids or settings.pairs <= candidates, subject, got, expected, hint)

    def left_out(self, splits: pl.DataFrame) -> list[str]:
        """Return the pairs to leave out: those listed in the recipe, or random candidates."""
        settings = self.recipe.leave_one_out
        pool = splits.filter(pl.col("role") == "candidate")["uid"].sort().to_list()
        if settings.uids:
            unknown = sorted(set(settings.uids) - set(pool))
            got = "".join(unknown[:1])
            require(not unknown, "[leave_one_out] uids", got, "uids of candidates", "See splits.parquet.")
            return sorted(settings.uids)
        self._check_count(len(pool))
        planted = splits.filter(pl.col("planted"))["uid"].sort().to_list()
        rest = [uid for uid in pool if uid not in set(planted)]
        stream = generator(self.recipe.split.seed, "leave one out")
        most = max(settings.pairs // 3, settings.pairs - len(rest))  # more where there are too few others
        first = [planted[k] for k in stream.permutation(len(planted))[:most]]
        others = [rest[k] for k in stream.permutation(len(rest))[: settings.pairs - len(first)]]
        return sorted([*first, *others])

    def design(self, splits: pl.DataFrame) -> Design:
        """F of each seed, then f without each pair; those pairs and the external ones are scored.

        Each external pair is compared with one retrained model, sampled by its uid, so that its score is as noisy as
        that of a pair left out.
        """
        complete = [training_set(splits, "f", seed) for seed in self.recipe.train.seeds]
        left_out = self.left_out(splits)
        models = complete + [replace(f, side=f"without-{uid}", left_out=uid) for uid in left_out for f in complete]
        index, sign = {uid: k for k, uid in enumerate(left_out)}, np.zeros((len(models), splits.height), dtype=np.int8)
        seeds = len(complete)
        for at, (uid, role) in enumerate(splits.select("uid", "role").iter_rows()):
            if uid not in index and role != "external":
                continue
            stream = generator(self.recipe.split.seed, "leave one out control", uid)
            k = index[uid] if uid in index else int(stream.integers(len(left_out)))
            sign[:seeds, at] = 1
            sign[seeds * (k + 1) : seeds * (k + 2), at] = -1
        return Design(models, sign)
