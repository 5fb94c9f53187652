"""Training with only the token-embedding rows that the captions use: exact, and faster for small models.

A row that no caption uses has a zero gradient. AdamW keeps its moments at zero and only shrinks it by
(1 - lr * weight_decay) a step, so that its final value is known without touching it: rows * product of the factors.
A tiny model has 6 million such numbers and 1.5 million others: its steps are 1.5 times as fast in batches of 16, 1.1
times in batches of 128 (`python benchmarks/run.py --suite passes`).
"""

import torch
from jaxtyping import Int
from torch import Tensor, nn


class Vocabulary:
    """Replaces an embedding's table by the rows of the token ids in `used`, and back.

    Ids keep their order, so that a read-out at the largest id (open_clip's `argmax` pooling) still finds end-of-text.
    """

    def __init__(self, embedding: nn.Embedding, used: Int[Tensor, "m length"]) -> None:
        self._embedding = embedding
        self._full = embedding.weight.detach().clone()
        # 0 is the padding that trimming leaves, whether or not a caption uses it
        self.ids = torch.unique(torch.cat([used.flatten(), torch.zeros(1, dtype=used.dtype)]))
        self._position = torch.full((len(self._full),), -1, dtype=torch.long)
        self._position[self.ids] = torch.arange(len(self.ids))
        embedding.weight = nn.Parameter(self._full[self.ids].clone())

    def compact(self, tokens: Int[Tensor, "n length"]) -> Int[Tensor, "n length"]:
        """Map token ids to rows of the small table; a token that is not among those in use gets no row (-1)."""
        self._position = self._position.to(tokens.device)  # once: copied for every batch, it would hold up the device
        return self._position[tokens]

    def expand(self, decay: float) -> None:
        """Bring the whole table back: trained rows as they are, the others multiplied by `decay`."""
        trained = self._embedding.weight.detach()
        full = (self._full * decay).to(trained.device)
        full[self.ids.to(trained.device)] = trained
        self._embedding.weight = nn.Parameter(full)
