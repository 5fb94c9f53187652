"""Text masking: every token of a caption is left out with probability p, anew in every presentation.

A token t of the caption (its start and end tokens never) stays if u(seed, step, pair, position of t) >= p; if none
would stay, the one with the largest u does. What stays keeps its order and moves up: CLIP's vocabulary has no mask
token, and a caption of length L has one of L (1 - p) tokens in the mean, a little more for short ones.
"""

import numpy as np
import torch
from jaxtyping import Int, UInt64
from torch import Tensor

from clipmem.base.random import derive_seed, uniform
from clipmem.base.require import require
from clipmem.mitigate.base import MITIGATIONS, Mitigation
from clipmem.train.hooks import Moment


def drop_tokens(
    tokens: Int[Tensor, "n length"], keys: UInt64[np.ndarray, " n"], *, probability: float, seed: int, step: int
) -> Int[Tensor, "n length"]:
    """Leave tokens out.

    Args:
        tokens: Token ids, a start token first, an end token last, then padding with 0; shape (n, length).
        keys: One 64-bit number a row, shape (n,): the same number, the same draws.
        probability: p, from 0 to below 1.
        seed: Seed of the draws.
        step: Which presentation it is.

    Returns:
        Token ids padded with 0, shape (n, length).

    Raises:
        InputError: The probability is not in [0, 1).

    Example:
        >>> tokens = torch.tensor([[90, 5, 6, 7, 91, 0]])
        >>> short = drop_tokens(tokens, np.array([3], dtype=np.uint64), probability=0.5, seed=0, step=0)
        >>> short[0, 0].item(), 91 in short, short.shape
        (90, True, torch.Size([1, 6]))
    """
    require(0 <= probability < 1, "probability", f"{probability}", "0 to below 1", "Set probability below 1.")
    if probability == 0 or tokens.numel() == 0:
        return tokens
    values = tokens.cpu().numpy()
    length = values.shape[1]
    place = np.arange(length)
    # the last token that is not padding; 0 may also be a word's id
    end = length - 1 - (values[:, ::-1] != 0).argmax(axis=1)
    drawn = uniform(keys, derive_seed(seed, "text mask", step), length)
    word = (place > 0) & (place < end[:, None])
    stays = ~word | (drawn >= probability)
    none_left = ~(word & stays).any(axis=1) & word.any(axis=1)
    best = np.where(word, drawn, -1.0).argmax(axis=1)
    stays[none_left, best[none_left]] = True
    stays &= place <= end[:, None]
    order = np.argsort(~stays, axis=1, kind="stable")
    moved = np.where(place < stays.sum(axis=1)[:, None], np.take_along_axis(values, order, axis=1), 0)
    return torch.from_numpy(moved).to(tokens.device)


@MITIGATIONS.register("text_masking")
class TextMasking(Mitigation):
    """`[mitigate.text_masking]`."""

    summary = "Leave words out of captions, anew in every presentation."

    def tokens(self, tokens: Int[Tensor, "n length"], moment: Moment) -> Int[Tensor, "n length"]:
        return drop_tokens(tokens, moment.keys, probability=self.section.probability, seed=self.seed, step=moment.step)
