"""Exponential moving average of the weights during training (Polyak and Juditsky 1992).

    θ̄_0 = θ_0,   θ̄_k = d θ̄_{k-1} + (1 - d) θ_k after step k

The model written is θ̄. The average starts at the initial weights, without a correction for this bias: after K steps
they have the weight d^K in it. It includes the running averages of batch norm. An embedding row of a token that no
caption has is θ_0 times a factor known from weight decay, so that its average is θ_0 times the average factor.
"""

import torch
from torch import Tensor

from clipmem.mitigate.base import MITIGATIONS, Mitigation
from clipmem.train.hooks import Weights

_FACTOR = "factor of unused rows"


@MITIGATIONS.register("average")
class Average(Mitigation):
    """`[mitigate.average]`."""

    summary = "Average the weights over the steps of training."

    def __init__(self, section: object, seed: int = 0) -> None:
        super().__init__(section, seed)
        self._means: dict[str, Tensor] = {}

    def step(self, weights: Weights, decay: float) -> None:
        now = {name: weight.detach() for name, weight in weights}
        now[_FACTOR] = torch.tensor(decay, dtype=torch.float64)
        if not self._means:
            self._means = {name: weight.clone() for name, weight in now.items()}
        for name, mean in self._means.items():
            mean.lerp_(now[name], 1 - self.section.decay)

    def end(self, weights: Weights, decay: float) -> float:  # noqa: ARG002
        for name, weight in weights:
            weight.detach().copy_(self._means[name])
        return float(self._means[_FACTOR])

    def tensors(self) -> dict[str, Tensor]:
        return self._means
