"""Order statistics of many streams in fixed memory: histograms with logarithmic bins, after DDSketch.

A value x > 0 falls into bin i = ceil(log_g x), g = (1 + a) / (1 - a), and is given back as 2 g^i / (g + 1): never
further from x than a x (Masson, Rim & Lee 2019, "DDSketch", Lemma 2). The bins are fixed beforehand, so adding is
counting: the result does not depend on the order or on the blocks, and two sketches add up exactly.

The bound holds for values between `smallest` and `largest`. Values below `smallest` come back as 0, those above
`largest` as `largest`. Memory is 4 bytes a bin and stream: 1,152 bins for the limits below. Do not use it for
values of either sign.
"""

from math import ceil, log

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from clipmem.base.errors import InputError

RELATIVE_ERROR = 0.01
SMALLEST = 1e-6
LARGEST = 1e4


class LogHistogram:
    """Counts of non-negative values in logarithmic bins, one histogram a unit.

    Args:
        units: Number of streams.
        relative_error: a, between 0 and 1.
        smallest: Below it a value counts as 0; > 0.
        largest: Above it a value counts as `largest`.
        device: Where the counts live.

    Example:
        >>> sketch = LogHistogram(1)
        >>> sketch.add(torch.tensor([[1.0], [3.0], [2.0]]))
        >>> abs(sketch.order_statistic(1).item() - 2.0) <= 0.02
        True
    """

    def __init__(
        self,
        units: int,
        *,
        relative_error: float = RELATIVE_ERROR,
        smallest: float = SMALLEST,
        largest: float = LARGEST,
        device: torch.device | str = "cpu",
    ) -> None:
        if not (0 < relative_error < 1 and 0 < smallest < largest):
            raise InputError(
                "quantile sketch",
                got=f"relative error {relative_error}, values from {smallest} to {largest}",
                expected="an error between 0 and 1, and 0 < smallest < largest",
                hint="Use the defaults.",
            )
        self.relative_error, self.smallest, self.largest = relative_error, smallest, largest
        self._log_gamma = log((1 + relative_error) / (1 - relative_error))
        self._first = ceil(log(smallest) / self._log_gamma)
        bins = ceil(log(largest) / self._log_gamma) - self._first + 1
        # Bin 0 holds what counts as 0.
        self._counts = torch.zeros(units, bins + 1, dtype=torch.int32, device=device)

    @property
    def nbytes(self) -> int:
        """Memory of the counts, in bytes."""
        return self._counts.numel() * self._counts.element_size()

    def _compatible(self, other: "LogHistogram") -> bool:
        mine = (self.relative_error, self.smallest, self.largest, self._counts.shape)
        return mine == (other.relative_error, other.smallest, other.largest, other._counts.shape)

    def add(self, values: Float[Tensor, "m unit"]) -> None:
        """Count a block of values, finite and >= 0, shape (m, unit)."""
        values = values.detach().to(self._counts.device).double()
        index = torch.ceil(torch.log(values.clamp(min=self.smallest)) / self._log_gamma).long() - self._first + 1
        index = torch.where(values < self.smallest, 0, index.clamp(1, self._counts.shape[1] - 1))
        ones = torch.ones((), dtype=torch.int32, device=self._counts.device)
        self._counts.scatter_add_(1, index.T, ones.expand(index.T.shape))

    def merge(self, other: "LogHistogram") -> None:
        """Add the counts of another sketch with the same limits and units."""
        if not self._compatible(other):
            raise InputError(
                "quantile sketch",
                got="another number of units, or other limits",
                expected="two sketches that were made alike",
                hint="Make both with the same arguments.",
            )
        self._counts += other._counts.to(self._counts.device)

    def order_statistic(self, rank: int) -> Float64[Tensor, "unit"]:
        """Return the value of the given rank (0 is the smallest) of each unit, within the relative error."""
        total = int(self._counts[0].sum()) if len(self._counts) else 0
        if len(self._counts) and not 0 <= rank < total:
            raise InputError(
                "rank", got=f"{rank}", expected=f"a whole number from 0 to {total - 1}", hint="Add values first."
            )
        index = (self._counts.cumsum(dim=1, dtype=torch.int64) <= rank).sum(dim=1)
        gamma = (1 + self.relative_error) / (1 - self.relative_error)
        value = 2 * torch.exp((index - 1 + self._first).double() * self._log_gamma) / (gamma + 1)
        return torch.where(index == 0, 0.0, value.clamp(max=self.largest))
