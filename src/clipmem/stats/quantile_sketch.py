"""Order statistics of many streams in fixed memory: histograms with logarithmic bins, after DDSketch.

A value x > 0 falls into bin i = ceil(log_g x), g = (1 + a) / (1 - a), and is returned as 2 g^i / (g + 1), with an error
of at most a x (Masson, Rim & Lee 2019, "DDSketch", Lemma 2). The bins are fixed, so the result does not depend on the
order of values or on blocks. The bound holds between `SMALLEST` and `LARGEST`; smaller values are returned as 0, larger
ones as `LARGEST`. Memory is 4 bytes per bin and stream, with 1,152 bins. Values must not be negative.
"""

from math import ceil, log

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from clipmem.base.require import require_range

RELATIVE_ERROR = 0.01
SMALLEST = 1e-6
LARGEST = 1e4


class LogHistogram:
    """Counts of non-negative values in logarithmic bins, one histogram per unit.

    Example:
        >>> sketch = LogHistogram(1)
        >>> sketch.add(torch.tensor([[1.0], [3.0], [2.0]]))
        >>> abs(sketch.order_statistic(1).item() - 2.0) <= 0.02
        True
    """

    def __init__(self, units: int) -> None:
        self._log_gamma = log((1 + RELATIVE_ERROR) / (1 - RELATIVE_ERROR))
        self._first = ceil(log(SMALLEST) / self._log_gamma)
        bins = ceil(log(LARGEST) / self._log_gamma) - self._first + 1
        # bin 0 counts values below SMALLEST
        self._counts = torch.zeros(units, bins + 1, dtype=torch.int32)

    def add(self, values: Float[Tensor, "m unit"]) -> None:
        """Count a block of values, finite and >= 0, shape (m, unit)."""
        values = values.detach().cpu().double()
        index = torch.ceil(torch.log(values.clamp(min=SMALLEST)) / self._log_gamma).long() - self._first + 1
        index = torch.where(values < SMALLEST, 0, index.clamp(1, self._counts.shape[1] - 1))
        self._counts.scatter_add_(1, index.T, torch.ones((), dtype=torch.int32).expand(index.T.shape))

    def order_statistic(self, rank: int) -> Float64[Tensor, " unit"]:
        """Return the value of the given rank (0 is the smallest) of each unit, within the relative error."""
        total = int(self._counts[0].sum()) if len(self._counts) else rank + 1
        require_range("rank", rank, 0, total - 1, "Add values first.")
        index = (self._counts.cumsum(dim=1, dtype=torch.int64) <= rank).sum(dim=1)
        gamma = (1 + RELATIVE_ERROR) / (1 - RELATIVE_ERROR)
        value = 2 * torch.exp((index - 1 + self._first).double() * self._log_gamma) / (gamma + 1)
        return torch.where(index == 0, 0.0, value.clamp(max=LARGEST))
