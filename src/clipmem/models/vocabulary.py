"""Training with only the token-embedding rows that the captions use: exact, and faster for small models.

The gradient of an unused row is zero: AdamW multiplies it by (1 - lr * weight_decay) per step, so that its final value
is known. Steps of a tiny model, with 6 million weights in such rows and 1.5 million others, are 1.5 times faster in
batches of 16, and 1.1 times in batches of 128 (`python benchmarks/run.py --suite passes`).
"""

import torch
from jaxtyping import Int
from torch import Tensor, nn


class Vocabulary:
    """Replaces an embedding table by the rows of the token ids in `used`, until `expand`.

    Ids keep their order, so that `argmax` pooling still finds end-of-text.
    """

    def __init__(self, embedding: nn.Embedding, used: Int[Tensor, "m length"]) -> None:
        self._embedding = embedding
        self._full = embedding.weight.detach().clone()
        # 0 is the padding
        self.ids = torch.unique(torch.cat([used.flatten(), torch.zeros(1, dtype=used.dtype)]))
        self._position = torch.full((len(self._full),), -1, dtype=torch.long)
        self._position[self.ids] = torch.arange(len(self.ids))
        self._trained = embedding.weight.requires_grad
        embedding.weight = nn.Parameter(self._full[self.ids].clone(), requires_grad=self._trained)

    def compact(self, tokens: Int[Tensor, "n length"]) -> Int[Tensor, "n length"]:
        """Map token ids to rows of the compact table; unused tokens to -1."""
        self._position = self._position.to(tokens.device)
        return self._position[tokens]

    def expand(self, decay: float) -> None:
        """Restore the whole table, with unused rows multiplied by `decay`."""
        trained = self._embedding.weight.detach()
        full = (self._full * decay).to(trained.device)
        full[self.ids.to(trained.device)] = trained
        self._embedding.weight = nn.Parameter(full, requires_grad=self._trained)
