"""The halves protocol: f trains on all pairs of the pool, and pairs of shadow models on complementary random halves.

Of the two shadow models a and b of a pair, which start from the same weights, exactly one trained on each pair i of the
pool: D(i) = A(i) under that one - A(i) under the other, the effect of training on the pair in a random experiment. Its
mean is that of CLIPMem. D of one pair is noisy; an estimator (`clipmem.scoring.pair_scores`) makes scores of single
pairs from it and from what f knows of them. The external pairs are the bank, with a placebo membership as control.

Near-duplicates (groups of the split table) are in the same half.

When not to trust it: shadow models train on half of the pairs, so memorization is that of a data set half as large.
"""

from pathlib import Path

import numpy as np
import polars as pl

from clipmem import models
from clipmem.base.errors import require
from clipmem.base.random import generator
from clipmem.scoring.design import Design
from clipmem.scoring.pair_scores import PAIR_SCORES
from clipmem.scoring.protocols.base import PROTOCOLS, Records
from clipmem.scoring.protocols.subsample import Subsample, balanced_draw, group_numbers
from clipmem.train.paired import TrainingSet, check_alike
from clipmem.train.recorder import read_trajectory, recorded_uids

HALVES = ("half-a", "half-b")
SMALLEST = 200


@PROTOCOLS.register("halves")
class Halves(Subsample):
    """f on the pool, and pairs of shadow models on complementary halves of it; scores by an estimator."""

    epsilon_attack = "lira"  # the references of a target are other couples, drawn independently
    summary = "f and a few models on random halves of the pairs: estimates every pair."

    @property
    def estimator(self) -> str:
        return self.recipe.halves.estimator

    @property
    def stages(self) -> tuple[str, ...]:
        return super().stages if self.recipe.halves.pairs else ("train", "embed", "estimate")

    @property
    def count(self) -> int:
        return 1 + 2 * self.recipe.halves.pairs

    @property
    def trained_pairs(self) -> int:
        """The mean over f and the shadow models."""
        return round(self.pool * (1 + self.recipe.halves.pairs) / self.count)

    def check_pairs(self, pairs: pl.DataFrame) -> None:
        """Also check that there are enough pairs, and that the shadow models see f's images and are not larger."""
        section, score, key = self.recipe.halves, PAIR_SCORES[self.estimator], "[halves] estimator"
        got, hint = f"{self.estimator!r}, good for {', '.join(sorted(score.good_for))}", "Set it to distilled."
        require("memorization" in score.good_for, key, got, "a score that estimates CLIPMem", hint)
        got = f"{self.estimator!r}, without shadow models"
        hint = "Set halves.pairs to 1 or more, or a larger --budget."
        require("shadow models" not in score.needs or section.pairs, key, got, "2 shadow models or more", hint)
        recorded = section.trajectory if section.model else self.recipe.train.record
        got, hint = f"{self.estimator!r}, without a record of f's training", "Set train.record or halves.trajectory."
        require("trajectory" not in score.needs or recorded, key, got, "a record", hint)
        subject, hint = "[halves] trajectory", "Omit it, or name that model in halves.model."
        require(section.model or not section.trajectory, subject, "no halves.model", "an existing f", hint)
        planted = self.recipe.split.planted or self.recipe.split.planted_share
        got = f"{planted:g} of pairs that an existing f saw unchanged"
        require(not (section.model and planted), "[split] planted", got, "0", "Set it to 0.")
        hint = "Use more pairs: set split.candidate."
        require(self.pool >= SMALLEST, "[split]", f"{self.pool:,} pairs to score", f"at least {SMALLEST}", hint)
        model, proxy = self.recipe.model, self.recipe.halves.proxy
        if proxy:
            subject = f"[halves] proxy = {proxy!r}"
            require(not model.pretrained, subject, "a pretrained f", "an f from scratch", "Set halves.proxy to ''.")
            models.openclip.check(proxy)
            full, small = models.openclip.geometry_of_config(model.name), models.openclip.geometry_of_config(proxy)
            require(full == small, subject, f"images of {small}", f"those of {model.name}: {full}", "Choose another.")
        super(Subsample, self).check_pairs(pairs)

    def roles(self, splits: pl.DataFrame) -> pl.DataFrame:
        """Also check that the record of an existing f is of the pool and not of the external pairs."""
        splits, file = super().roles(splits), self.recipe.halves.trajectory
        if file:
            record = Path(file)
            read_trajectory(record, splits.filter(pl.col("role") != "external")["uid"].to_list())
            seen = recorded_uids(record) & set(splits.filter(role="external")["uid"])
            got = f"a record of {len(seen):,} external pairs, which f must not have seen"
            hint = "Add pairs that f did not train on, with the role external (data.role_column)."
            require(not seen, f"{file}", got, "of no external pair", hint)
        return splits

    def design(self, splits: pl.DataFrame) -> Design:
        """F, whose scores are not compared, then each pair of shadow models; external pairs have placebo halves."""
        role, everyone = splits["role"].to_numpy(), splits["uid"].to_numpy()
        pool = tuple(sorted(everyone[role != "external"].tolist()))
        f = TrainingSet("f", 0, pool, 0, exists=bool(self.recipe.halves.model))
        models, signs = [f], [np.zeros(splits.height, dtype=np.int8)]
        for k in range(self.recipe.halves.pairs):
            sign = np.zeros(splits.height, dtype=np.int8)
            for name in ("candidate", "external"):
                group = group_numbers(splits.filter(pl.col("role") == name))
                stream = generator(self.recipe.split.seed, "halves", name, k)
                sign[role == name] = np.where(balanced_draw(np.bincount(group), 2, 1, stream)[0][group], 1, -1)
            halves = [tuple(sorted(everyone[(sign == s) & (role != "external")].tolist())) for s in (1, -1)]
            largest, proxy = max(map(len, halves)), self.recipe.halves.proxy
            for side, uids in zip(HALVES, halves, strict=True):
                models.append(TrainingSet(side, k, uids, 0, largest=largest, model=proxy))
            signs += [sign, -sign]
        return Design(models, np.stack(signs))

    def check(self, design: Design, records: Records) -> None:  # noqa: ARG002
        """Check that the shadow models differ only in their pairs and seeds."""
        halves = {key: record for key, record in records.items() if key[0] in HALVES}
        if halves:
            check_alike(halves)
