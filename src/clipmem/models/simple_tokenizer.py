"""open_clip's own tokenizer, loaded once per process, which remembers the texts it has seen.

Every model of a study embeds the same captions, and in many data sets pairs share them: cleaning and splitting them
again takes as long as a tiny model's forward pass.
"""

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import open_clip
import torch
from jaxtyping import Int
from torch import Tensor

# texts kept: their ids take 40 MB at 77 tokens
_KEPT = 1 << 17


class SimpleTokenizer:
    """Calls open_clip's tokenizer for texts that were not seen before; ids are the same."""

    def __init__(self, length: int, settings: Mapping[str, Any]) -> None:
        self._tokenizer = open_clip.SimpleTokenizer(context_length=length, **settings)
        self._ids: dict[str, np.ndarray] = {}

    def __call__(self, texts: Sequence[str]) -> Int[Tensor, "n length"]:
        """Return the token ids of each text, padded with 0."""
        # a reduction drops other words of a long text each time
        if self._tokenizer.reduction_fn is not None or not 0 < len(texts) <= _KEPT:
            return self._tokenizer(list(texts))
        if len(self._ids) + len(texts) > _KEPT:
            self._ids = {}  # not cleared: other threads may be reading it
        ids = self._ids
        new = [text for text in dict.fromkeys(texts) if text not in ids]
        if new:
            # token ids are below 2^16
            ids |= zip(new, self._tokenizer(new).numpy().astype(np.int32), strict=True)
        return torch.from_numpy(np.stack([ids[text] for text in texts]).astype(np.int64))


def simple_tokenizer(length: int, settings: Mapping[str, Any]) -> SimpleTokenizer:
    """Return the tokenizer of these settings, the same one for every model."""
    return _shared(length, json.dumps(settings, sort_keys=True))


@lru_cache(maxsize=8)
def _shared(length: int, settings: str) -> SimpleTokenizer:
    return SimpleTokenizer(length, json.loads(settings))
