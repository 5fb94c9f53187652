"""Signals: what passes over models left behind for every pair. Scores of pairs read them, never a model."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64, Int, UInt8
from torch import Tensor

from clipmem.base.errors import InputError, require
from clipmem.data.features import caption_features, image_features
from clipmem.models.embeddings import Runner, in_turn
from clipmem.stats.checks import mean_where

T = TypeVar("T")


@dataclass(frozen=True)
class Trajectory:
    """What one training recorded of its own pairs in each epoch, as they were shown; NaN where a pair was left out.

    Attributes:
        similarity: Cosine of image and caption, in [-1, 1].
        margin: Similarity minus the largest one to another image or caption of the batch, in [-2, 2].
    """

    similarity: Float32[np.ndarray, "epoch n"]
    margin: Float32[np.ndarray, "epoch n"]

    @property
    def mean_margin(self) -> Float64[np.ndarray, " n"]:
        """Each pair's mean margin over the epochs that have one; NaN without any.

        Raises:
            InputError: Nothing was recorded of any pair.
        """
        valid = ~np.isnan(self.margin)
        hint = "Set train.record = true and train again."
        require(valid.any(), "trajectory", "no margin of any pair", "those of a training", hint)
        return mean_where(self.margin.astype(np.float64), valid)


@dataclass(frozen=True)
class Halves:
    """Models that each trained on a random half of the pairs.

    Attributes:
        alignment: A of each pair under each model, minus its mean over held-out pairs.
        member: Whether the model trained on the pair.
        proxy: Whether they are smaller than f, so that only the order of their scores carries over.
    """

    alignment: Float64[np.ndarray, "model n"]
    member: Bool[np.ndarray, "model n"]
    proxy: bool = False

    @property
    def effect(self) -> Float64[np.ndarray, "pair n"]:
        """D: A under the shadow model that trained on the pair, minus A under its complement, rows 2k and 2k + 1."""
        a, b = self.alignment[::2], self.alignment[1::2]
        return np.where(self.member[::2], a - b, b - a)


@dataclass(frozen=True, eq=False)
class Signals:
    """The pairs that f trained on, and what is known of them.

    Attributes:
        uids: The pairs.
        captions: Their captions in training, at least one each.
        group: Group number of near-duplicates: pairs of one group are never on both sides of a fit.
        image: Mean unit embedding of each image under f, or under another model; None without one.
        text: The same of the captions.
        logit_scale: Factor of f's similarities in its softmax loss; None without f, or if its loss is another.
        alignment: A under f; None without held-out pairs.
        pixels: Decodes the images of some rows: uint8, shape (k, size, size, 3).
        trajectory: What f's training recorded; None if nothing was.
        halves: Shadow models, each row with its complement; None if there are none.
        scores: Columns of a finished study by name (`clipmem`, `g_alignment`, ...), NaN for pairs it does not score.
        seed: Of random numbers, such as folds.
        unseen: Whether the model did not train on these pairs, so that its image embeddings are evidence of them.
        scratch: Folder for what takes long with many pairs, so that an interrupted command resumes; None = no folder.
        device: Device that compares many pairs.
        run: Who does parts of these comparisons (see `embeddings.Runner`).
    """

    uids: Sequence[str]
    captions: Sequence[Sequence[str]]
    group: Int[np.ndarray, " n"]
    image: Float[Tensor, "n d"] | None = None
    text: Float[Tensor, "n d"] | None = None
    logit_scale: float | None = None
    alignment: Float64[np.ndarray, " n"] | None = None
    pixels: Callable[[Int[np.ndarray, " k"]], UInt8[np.ndarray, "k size size 3"]] | None = None
    trajectory: Trajectory | None = None
    halves: Halves | None = None
    scores: Mapping[str, Float64[np.ndarray, " n"]] = field(default_factory=dict[str, Float64[np.ndarray, " n"]])
    seed: int = 0
    unseen: bool = False
    scratch: Path | None = None
    device: str = "cpu"
    run: Runner = in_turn
    _made: dict[Callable[..., Any], Any] = field(default_factory=dict[Callable[..., Any], Any], init=False, repr=False)

    def once(self, make: Callable[..., T], *more: object) -> T:
        """Return make(signals, ...) as computed by the first call: several pair scores need the same of a data set."""
        return self._made[make] if make in self._made else self._made.setdefault(make, make(self, *more))

    @cached_property
    def words(self) -> Float[np.ndarray, "n p"]:
        """Features of the captions (`data.features.caption_features`), computed once for all scores."""
        return caption_features(self.captions)

    @cached_property
    def shapes_and_colors(self) -> Float32[np.ndarray, "n p"]:
        """Features of the images without a model (`data.features.image_features`), computed once."""
        if self.pixels is None:
            hint = "Give a model, or the images."
            raise InputError("closed form", got="no embeddings and no images", expected="one of them", hint=hint)
        return image_features(self.pixels, len(self.uids))

    @property
    def evidence(self) -> dict[str, Float[np.ndarray, "n p"]]:
        """Features of the images by which other pairs can testify, by name: `pixels`, and embeddings if `unseen`.

        Those of a model that trained on the pairs memorized what they should testify: they serve without images only.
        """
        embedded = self.image is not None and (self.unseen or self.pixels is None)
        features = {"embeddings": self.image.cpu().numpy()} if self.image is not None and embedded else {}
        return features if self.pixels is None and features else {**features, "pixels": self.shapes_and_colors}
