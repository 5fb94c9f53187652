"""Reweighting: pairs with suspect captions count less in the loss, judged during one training, without a reference.

What is known of a pair before training is how far its neighbors testify for it: images that look alike, by pixels, and
captions that read alike, by words (`clipmem.stats.agreement.softmax_agreement`). In training its own trajectory is
added: its mean margin over the epochs so far. A pair with low values of all three gets a low weight.

f and g use the same rule and the same testimony, and draw nothing; margins are those of each model, so the weight of a
shared pair in f differs from that in g as far as its margins do.

When not to trust it: a rare pair with a right caption has no neighbor that could testify and is learned late, so it
loses weight too. Comparing n pairs takes time proportional to n², above 30,000 to n^1.5.
"""

import hashlib
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import polars as pl
import torch
import torch.nn.functional as F  # noqa: N812
from jaxtyping import Float, Float32, Float64, Int, UInt8
from PIL import Image
from scipy.stats import rankdata
from torch import Tensor

from clipmem.base.errors import InputError, require
from clipmem.base.hashing import image_part, numbered
from clipmem.base.mitigations import ReweightSection
from clipmem.data.decoding import decode
from clipmem.mitigate.base import MITIGATIONS, Mitigation, Preparation, Training
from clipmem.models.protocol import Rows, Scalar
from clipmem.models.signals import Signals
from clipmem.stats.agreement import softmax_agreement
from clipmem.train.distributed import ALONE, contrastive_share, joined
from clipmem.train.hooks import Moment
from clipmem.train.recorder import AlignmentRecorder

TABLE = "mitigate/reweight"
_SIZE = 64  # of the images that features are computed on
Texts = Sequence[str | Sequence[str]]


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


class Reweighting:
    """A contrastive loss in which suspect pairs count less, for a training loop of your own: call it as your loss.

    The weights are those of `[mitigate.reweight]`: they change between epochs, and use margins of finished ones only.
    Of several processes of torch's default group, each contrasts its rows, and all get the same weights. A pair that
    a sampler repeats keeps its last margin, and one that it drops has none; a resumed training has none of before.

    Args:
        images: The training images, in the order of the data set; they are read once.
        captions: Their captions, one or several each.
        share: Fraction of pairs with a weight below 1: twice the share of mismatched captions that you expect; 0 only
            records.
        ids: The pairs' ids in the record, such as uids; by default their indices.

    Attributes:
        weights: Weight of each pair in the current epoch, shape (n,).

    Raises:
        InputError: There are no pairs, numbers of images and captions differ, or the share is not in [0, 1).
    """

    def __init__(self, images: Iterable[Image.Image], captions: Texts, share: float, ids: Texts | None = None) -> None:
        require(0 <= share < 1, "Reweighting share", f"{share}", "0 or more, below 1", "Use 0.4 if 20% are mismatched.")
        small = [np.asarray(image.convert("RGB").resize((_SIZE, _SIZE))) for image in images]
        got, hint = f"{len(small)} images, captions of {len(captions)}", "Pass both in the order of the data set."
        require(0 < len(small) == len(captions), "Reweighting", got, "captions of each image", hint)
        self.weights, names = torch.ones(len(small)), [str(name) for name in ids or range(len(small))]
        require(len(names) == len(small), "Reweighting ids", f"{len(names)} ids, {got}", "an id for each pair", hint)
        self._names, self.share, self._slots, self._hook = names, share, np.arange(len(small)), None
        if share:
            pixels = np.stack(small)
            texts = [[text] if isinstance(text, str) else list(text) for text in captions]
            group = numbered(image.tobytes().hex() for image in small)  # the same image is no neighbor of itself
            agreement = neighbor_agreement(Signals(names, texts, group, pixels=lambda rows: pixels[rows]))
            self._hook = Reweight(ReweightSection(share=share), 0, agreement)

    @cached_property
    def recorder(self) -> AlignmentRecorder:
        """Similarity and margin of each pair in every epoch."""
        return AlignmentRecorder(self._names, world=joined())  # made in the first step, when all processes have joined

    def __call__(self, index: Int[Tensor, " n"], image: Rows, text: Rows, scale: Tensor | float, epoch: int) -> Scalar:
        """Return the loss of a batch: L of `blocked_contrastive_loss` with the pairs' weights.

        `index` has the pairs' indices in the data set, from 0. Embeddings are normalized, `scale` is the factor of the
        similarities, and epochs count from 0. Shapes that differ and an index outside the data set raise `InputError`.
        """
        if image.requires_grad or text.requires_grad:  # not in an evaluation
            self.recorder.update(index, image, text, epoch)
        if self._hook is not None:
            self._hook.follow(self.recorder)
            moment = Moment(0, epoch, 0, self._slots, self._slots.astype(np.uint64))
            self.weights = self._hook.weigh(torch.ones(len(self._slots)), moment)
        weight, factor = self.weights[index.cpu()].to(image.device), torch.as_tensor(scale, device=image.device)
        with torch.autocast(image.device.type, enabled=False):
            return contrastive_share(image.float(), text.float(), factor.float(), ALONE, weight)

    def of_batch(
        self, index: Int[Tensor, " n"] | None, embedded: tuple[Rows, Rows], scale: Tensor | float, epoch: int, hint: str
    ) -> Scalar:
        """Return the loss for (image, text) of any length, for a callback; without an index, raise `InputError`."""
        expected = "the index of each pair in the data"
        if index is None:
            raise InputError("ReweightCallback", got="a batch without pair ids", expected=expected, hint=hint)
        u, v = (F.normalize(rows.float(), dim=-1) for rows in embedded)
        return self(index, u, v, scale, epoch)


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
