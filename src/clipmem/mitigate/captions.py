"""Several captions per pair: each presentation shows one of them, drawn uniformly.

With K captions, pair i shows caption floor(K u(seed, e, i)) in epoch e, u uniform in [0, 1). The number of
presentations is that of one caption (Wang et al. 2025, section 5). `train.captions` and `mitigate.captions.count` both
use this rule.
"""

from collections.abc import Sequence
from typing import Any, Protocol, TypeVar, runtime_checkable

import numpy as np
import polars as pl
from jaxtyping import UInt64
from torch.utils.data import Dataset

from clipmem.base.errors import require
from clipmem.base.recipes import Recipe
from clipmem.mitigate.base import MITIGATIONS, Mitigation
from clipmem.train.loop import draw_captions

T = TypeVar("T")


def sample_captions(
    captions: Sequence[Sequence[T]], keys: UInt64[np.ndarray, " n"], *, epoch: int, seed: int = 0
) -> list[T]:
    """Choose one caption of each pair for an epoch.

    Args:
        captions: The captions of each pair, at least one.
        keys: A 64-bit number per pair that determines its draws, shape (n,).
        epoch: The epoch.
        seed: Seed of the draws.

    Raises:
        InputError: A pair has no caption.

    Example:
        >>> sample_captions([["a cat"], ["a dog", "the dog"]], np.array([5, 6], dtype=np.uint64), epoch=3)[0]
        'a cat'
    """
    counts = np.array([len(texts) for texts in captions], dtype=np.int64)
    if len(counts):
        bare = f"captions of pair {int(counts.argmin())}"
        require(counts.all(), bare, "none", "one or more", "Leave the pair out.")
    return [texts[k] for texts, k in zip(captions, draw_captions(keys, counts, seed=seed, epoch=epoch), strict=True)]


@runtime_checkable
class _Pairs(Protocol):
    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


class CaptionSampling(Dataset[tuple[Any, T]]):
    """A map-style dataset of (image, one of its captions), for `torch.utils.data.DataLoader`.

    Call `set_epoch` before each epoch, as with torch's `DistributedSampler`. With persistent workers, which have copies
    of the dataset, create a new loader instead.

    Args:
        pairs: A dataset of (image, captions), captions being a sequence of texts or of token tensors.
        seed: Seed of the draws.
        keys: A 64-bit number per item; by default its index.

    Example:
        >>> data = CaptionSampling([("image 0", ["a cat", "the cat"])], seed=1)
        >>> data.set_epoch(2)
        >>> data[0] in {("image 0", "a cat"), ("image 0", "the cat")}
        True
    """

    def __init__(self, pairs: _Pairs, *, seed: int = 0, keys: UInt64[np.ndarray, " n"] | None = None) -> None:
        self._pairs, self._seed, self._epoch = pairs, seed, 0
        self._keys = np.arange(len(pairs), dtype=np.uint64) if keys is None else keys

    def set_epoch(self, epoch: int) -> None:
        """Draw the captions of this epoch."""
        self._epoch = epoch

    def __len__(self) -> int:
        return len(self._pairs)

    def __getitem__(self, index: int) -> tuple[Any, T]:
        image, captions = self._pairs[index]
        [caption] = sample_captions([captions], self._keys[index : index + 1], epoch=self._epoch, seed=self._seed)
        return image, caption


@MITIGATIONS.register("captions")
class Captions(Mitigation):
    """`[mitigate.captions]`: increases the number of captions from which the training loop draws."""

    summary = "Draw from several captions of a pair in training."

    @classmethod
    def captions_of_pair(cls, recipe: Recipe) -> int:
        return cls.section_of(recipe).count

    @classmethod
    def check(cls, recipe: Recipe, pairs: pl.DataFrame) -> None:
        count = cls.section_of(recipe).count
        several = count < 2 or (pairs["captions"].list.len() > 1).any()
        got, expected = f"{count} with {pairs.height:,} pairs of one caption each", "pairs with several captions"
        hint = "Use data with several captions per image, or [mitigate.caption_variants], which generates them."
        require(several, "[mitigate.captions] count", got, expected, hint)
