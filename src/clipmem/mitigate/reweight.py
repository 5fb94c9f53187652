"""Reweighting: pairs with suspect captions count less in the loss, judged during one training, without a reference.

What is known of a pair before training is how far its neighbors testify for it: images that look alike, by pixels, and
captions that read alike, by words (`clipmem.stats.agreement.softmax_agreement`). In training its own trajectory is
added: its mean margin over the epochs so far. A pair with low values of all three gets a low weight.

f and g use the same rule and the same testimony, and draw nothing; margins are those of each model, so the weight of a
shared pair in f differs from that in g as far as its margins do.

When not to trust it: a rare pair with a right caption has no neighbor that could testify and is learned late, so it
loses weight too. Comparing n pairs takes time proportional to n².
"""

import hashlib
from pathlib import Path

import numpy as np
import polars as pl
import torch
from jaxtyping import Float, Float32, Float64, Int, UInt8
from scipy.stats import rankdata
from torch import Tensor

from clipmem.base.hashing import image_part, numbered
from clipmem.base.mitigations import ReweightSection
from clipmem.data.decoding import decode
from clipmem.mitigate.base import MITIGATIONS, Mitigation, Preparation, Training
from clipmem.models.signals import Signals
from clipmem.stats.agreement import softmax_agreement
from clipmem.train.hooks import Moment
from clipmem.train.recorder import AlignmentRecorder

TABLE = "mitigate/reweight"
_SIZE = 64  # of the images that features are computed on


def pair_weights(
    agreement: Float64[np.ndarray, "n 2"], margin: Float[np.ndarray, "epoch n"], *, share: float
) -> Float32[np.ndarray, " n"]:
    """Return the weight of each pair in the loss, from 0 to 1.

    With r(x) the rank of a pair among all n, from 1 for the lowest to n, ties at their mean,

        s = r(agreement by image) + r(agreement by caption) + r(mean margin over epochs)
        w = min(1, r(s) / (share n))

    Args:
        agreement: Agreement with neighbors by image and by caption, shape (n, 2).
        margin: Margins recorded so far (`AlignmentRecorder.margin`), shape (epoch, n); for a pair without any, the mean
            of the other two ranks takes the place of the third.
        share: Fraction of pairs whose weight is below 1, in (0, 1).

    Returns:
        Weights, shape (n,).

    Example:
        >>> agreement = np.array([[0.1, 0.2], [0.5, 0.9], [0.6, 0.3], [0.7, 0.8]])
        >>> pair_weights(agreement, np.empty((0, 4)), share=0.5).tolist()
        [0.5, 1.0, 1.0, 1.0]
    """
    ranks = rankdata(agreement, axis=0)
    by_margin, recorded = ranks.mean(axis=1), ~np.isnan(margin).all(axis=0)
    if len(margin):
        by_margin[recorded] = rankdata(np.nanmean(margin[:, recorded], axis=0, dtype=np.float64))
    suspect = rankdata(ranks.sum(axis=1) + by_margin)
    return np.minimum(1, suspect / (share * len(suspect))).astype(np.float32)


def neighbor_agreement(signals: Signals) -> Float64[np.ndarray, "n 2"]:
    """Return how far the captions of images that look alike agree with a pair's own, and the reverse, in [-1, 1]."""
    images, words = torch.from_numpy(signals.shapes_and_colors), torch.from_numpy(signals.words[:])
    both = (softmax_agreement(*sides, group=signals.group).numpy() for sides in ((images, words), (words, images)))
    return np.stack(list(both), axis=1)


@MITIGATIONS.register("reweight")
class Reweight(Mitigation):
    """`[mitigate.reweight]`; `agreement` has a row per slot."""

    summary = "Lower the weight of pairs with suspect captions in the loss, during training."
    follows = True

    def __init__(self, section: ReweightSection, seed: int, agreement: Float64[np.ndarray, "n 2"]) -> None:
        super().__init__(section, seed)
        self._agreement = agreement
        self._record: AlignmentRecorder | None = None
        self._epoch, self._weights = -1, torch.ones(0)

    @classmethod
    def prepare(cls, preparation: Preparation) -> list[Path]:
        """Compare every pair of the study with its neighbors, once for all models."""
        uids = preparation.splits.filter(pl.col("role") != "external")["uid"].sort().to_list()
        captions, images = preparation.captions(), dict(preparation.pairs.select("uid", "image").iter_rows())

        def pixels(rows: Int[np.ndarray, " k"]) -> UInt8[np.ndarray, "k size size 3"]:
            contents = preparation.read([images[uids[row]] for row in rows])
            return np.stack([decode(data, _SIZE, resize_mode="squash") for data in contents])

        group = numbered(map(image_part, uids))  # pairs of the same image do not testify for each other
        agreement = neighbor_agreement(Signals(uids, [captions[uid] for uid in uids], group, pixels=pixels))
        table = pl.DataFrame({"uid": uids, "by_image": agreement[:, 0], "by_caption": agreement[:, 1]})
        return [preparation.folder.write(TABLE, table)]

    @classmethod
    def hook(cls, training: Training) -> "Reweight":
        table = training.folder.read(TABLE)
        rows = dict(zip(table["uid"], table.select("by_image", "by_caption").rows(), strict=True))
        agreement = np.array([rows[uid] for uid in training.plan.uids], dtype=np.float64)
        return cls(cls.section_of(training.recipe), training.plan.seed, agreement)

    def content(self) -> str:
        return hashlib.sha256(self._agreement.tobytes()).hexdigest()

    def follow(self, record: AlignmentRecorder) -> None:
        self._record = record

    def weigh(self, weights: Float[Tensor, " n"], moment: Moment) -> Float[Tensor, " n"]:
        if moment.epoch != self._epoch and self._record is not None:
            # finished epochs only, so that a resumed training sees what it saw before
            margin = self._record.margin[: moment.epoch]
            self._weights = torch.from_numpy(pair_weights(self._agreement, margin, share=self.section.share))
            self._epoch = moment.epoch
        return weights * self._weights[moment.slots]
