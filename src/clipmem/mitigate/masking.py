"""Text masking: drop every token of a caption with probability p, independently in every presentation.

A token t (except the start and end tokens) is kept if u(seed, step, pair, position of t) >= p; if none is kept, the one
with the largest u is. The kept tokens move up, because CLIP's vocabulary has no mask token. A caption of L tokens keeps
L (1 - p) on average, slightly more if it is short.
"""

import numpy as np
import torch
from jaxtyping import Int, UInt64
from torch import Tensor

from clipmem.base.errors import require
from clipmem.base.random import derive_seed, uniform
from clipmem.mitigate.base import MITIGATIONS, Mitigation
from clipmem.train.hooks import Moment


def drop_tokens(
    tokens: Int[Tensor, "n length"], keys: UInt64[np.ndarray, " n"], *, probability: float, seed: int, step: int
) -> Int[Tensor, "n length"]:
    """Drop random tokens.

    Args:
        tokens: Token ids: a start token, the caption, an end token, then padding with 0; shape (n, length).
        keys: A 64-bit number per row that determines its draws, shape (n,).
        probability: p, from 0 to below 1.
        seed: Seed of the draws.
        step: Number of the presentation.

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
    position = np.arange(length)
    # the last nonzero token, because 0 can also be the id of a word
    end = length - 1 - (values[:, ::-1] != 0).argmax(axis=1)
    draws = uniform(keys, derive_seed(seed, "text mask", step), length)
    word = (position > 0) & (position < end[:, None])
    stays = ~word | (draws >= probability)
    none_left = ~(word & stays).any(axis=1) & word.any(axis=1)
    best = np.where(word, draws, -1.0).argmax(axis=1)
    stays[none_left, best[none_left]] = True
    stays &= position <= end[:, None]
    order = np.argsort(~stays, axis=1, kind="stable")
    moved = np.where(position < stays.sum(axis=1)[:, None], np.take_along_axis(values, order, axis=1), 0)
    return torch.from_numpy(moved).to(tokens.device)


@MITIGATIONS.register("text_masking")
class TextMasking(Mitigation):
    """`[mitigate.text_masking]`."""

    summary = "Drop random tokens of captions in every presentation."

    def tokens(self, tokens: Int[Tensor, "n length"], moment: Moment) -> Int[Tensor, "n length"]:
        # an odd caption may end like this, most do not
        padded = 2 * ((tokens[:, -1] != 0) & (tokens[:, -1] == tokens[:, -2])).sum() > len(tokens)
        plain = bool((tokens >= 0).all() and (tokens[:, 0] == tokens[0, 0]).all()) and not padded
        got, expected = "a model with other tokens", "start token, words, end token, then padding with 0, as in CLIP"
        require(plain, "[mitigate.text_masking]", got, expected, "Use text_noise or other_captions with this model.")
        return drop_tokens(tokens, moment.keys, probability=self.section.probability, seed=self.seed, step=moment.step)
