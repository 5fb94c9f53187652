"""UnitMem: how selectively a unit responds to a single pair; ClassMem, the same for classes.

UnitMem_u = (mu_max - mu_rest) / (mu_max + mu_rest), with mu_u(x) the mean activation of unit u over the views of x
(averaged over tokens or space first), mu_max the largest over the points, and mu_rest the mean of the others
(published equation, Wang et al., NeurIPS 2024) or their median (published code) (design, section 2). It needs no
reference model.

It is in [0, 1] only for nonnegative activations, as after a ReLU. GELU and attention outputs can be negative: apply
`nonnegative` before any averaging. Do not compare values for mean and median.

A high value need not be harmful: a unit for one rare concept looks the same. A unit with a single weak response scores
1: also check `mu_max`. More points raise mu_max and the value: compare equal numbers of points.
"""

from math import ceil, log
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Float64, Int
from torch import Tensor

from clipmem.base.errors import require, require_one_of, require_range
from clipmem.stats.checks import check_same_length
from clipmem.stats.tensor_checks import check_index

Rest = Literal["mean", "median"]


class UnitMem(NamedTuple):
    """UnitMem of each unit, float64, shape (unit,), and its terms.

    `value` is in [0, 1], and 0 for a `dead` unit, which is 0 for every point. `argmax` is the row of the point with the
    largest activation (the first of equals), -1 if dead. `relative_error` bounds the error of mu_rest: 0 except for a
    median from the sketch. The error of UnitMem is at most half of it (plus 2 smallest / mu_max if mu_rest is below the
    sketch's smallest value, 1e-6).
    """

    value: Float64[Tensor, " unit"]
    mu_max: Float64[Tensor, " unit"]
    mu_rest: Float64[Tensor, " unit"]
    argmax: Int[Tensor, " unit"]
    dead: Bool[Tensor, " unit"]
    relative_error: float = 0.0


def nonnegative(activation: Float[Tensor, "*batch unit"]) -> Float[Tensor, "*batch unit"]:
    """Return the positive part max(a, 0) of activations, to be applied before averaging over tokens and views.

    Example:
        >>> nonnegative(torch.tensor([-1.0, 2.0])).tolist()
        [0.0, 2.0]
    """
    return activation.clamp(min=0)


def _checked(block: Float[Tensor, "m other_unit"], units: int) -> Float[Tensor, "m unit"]:
    require_range("units of the activations", block.shape[1], units, units, "Use one state a layer.")
    values = block.detach().cpu()
    finite, hint = torch.isfinite(values), "Check the model and its input."
    got = f"{int((~finite).sum())} of {values.numel()} values not finite"
    require(bool(finite.all()), "activations", got, "finite numbers", hint)
    got = f"{int((values < 0).sum())} of {values.numel()} values below 0"
    hint = "Apply clipmem.functional.nonnegative before averaging."
    require(not bool((values < 0).any()), "activations", got, "0 or more", hint)
    return values


class UnitMemState:
    """UnitMem of a stream of points in constant memory; blocks may come in any order.

    Sum, maximum and argmax take 24 bytes per unit. For the median, all activations are held up to `hold_bytes`; beyond
    that a histogram with logarithmic bins is used (4.6 KB per unit, within 1%, see `quantile_sketch`). The choice
    depends on the number of points and their dtype, not on blocks; `relative_error` of the result shows it.

    Args:
        units: Number of units.
        hold_bytes: Limit of the activations held for the exact median; None: no median.

    Example:
        >>> state = UnitMemState(2)
        >>> state.update(torch.tensor([[1.0, 0.0], [3.0, 0.0]]), first_row=0)
        >>> found = state.result("mean")
        >>> found.value.tolist(), found.argmax.tolist(), found.dead.tolist()
        ([0.5, 0.0], [1, -1], [False, True])
    """

    def __init__(self, units: int, *, hold_bytes: int | None = None) -> None:
        self.units, self.points, self._hold_bytes = units, 0, hold_bytes
        self._sum = torch.zeros(units, dtype=torch.float64)
        self._max = torch.full((units,), -torch.inf, dtype=torch.float64)
        self._argmax = torch.full((units,), -1, dtype=torch.int64)
        self._spans: list[tuple[int, int]] = []  # half-open, sorted, disjoint
        self._held: list[Tensor] = []
        self._sketch: LogHistogram | None = None

    def _claim(self, first: int, stop: int) -> None:
        joined: list[tuple[int, int]] = []
        for start, end in sorted([*self._spans, (first, stop)]):
            touches = bool(joined) and start <= joined[-1][1]
            again = touches and start < joined[-1][1]
            hint = "Give each block the number of its first row, and each block once."
            require(not again, "activations", f"row {start} a second time", "each row once", hint)
            joined = [*joined[:-1], (joined[-1][0], end)] if touches else [*joined, (start, end)]
        self._spans = joined

    def _keep(self, block: Float[Tensor, "m unit"], limit: int) -> None:
        self._held.append(block.clone())
        if self._sketch is None and sum(t.numel() * t.element_size() for t in self._held) > limit:
            self._sketch = LogHistogram(self.units)
        if self._sketch is not None:
            for held in self._held:
                self._sketch.add(held)
            self._held = []

    def update(self, block: Float[Tensor, "m other_unit"], first_row: int) -> None:
        """Add a block of points.

        Args:
            block: Nonnegative activations, averaged over tokens and views, shape (m, unit).
            first_row: Number of the block's first point among all points.

        Raises:
            InputError: The number of units differs, a value is negative or not finite, or a row was seen before.
        """
        require_range("first_row", first_row, 0, hint="Count the points from 0.")
        values = _checked(block, self.units)
        if len(values) == 0:
            return
        self._claim(first_row, first_row + len(values))
        self.points += len(values)
        top = values.max(dim=0)  # the first of equal values
        highest, row = top.values.double(), top.indices + first_row
        better = (highest > self._max) | ((highest == self._max) & (row < self._argmax))
        self._max = torch.where(better, highest, self._max)
        self._argmax = torch.where(better, row, self._argmax)
        self._sum += values.sum(dim=0, dtype=torch.float64)
        if self._hold_bytes is not None:
            self._keep(values, self._hold_bytes)

    def _median_of_rest(self) -> Float64[Tensor, " unit"]:
        # the median of the rest is among the first points - 1 sorted values
        low, high = (self.points - 2) // 2, (self.points - 1) // 2
        if self._sketch is not None:
            middle = (self._sketch.order_statistic(low) + self._sketch.order_statistic(high)) / 2
            return torch.minimum(middle, self._max)
        ordered = torch.cat([block.double() for block in self._held]).sort(dim=0).values
        return (ordered[low] + ordered[high]) / 2

    def result(self, rest: Rest = "mean") -> UnitMem:
        """Return UnitMem of the points so far.

        Args:
            rest: "mean" (published equation) or "median" (published code) of the other points.

        Raises:
            InputError: Fewer than two points, or the median was not kept.
        """
        require_range("points of the activations", self.points, 2, hint="UnitMem compares a point with the others.")
        require_one_of("rest", rest, ("mean", "median") if self._hold_bytes is not None else ("mean",))
        if rest == "mean":
            # rounding could put the rest below 0 or above the maximum
            mu_rest = ((self._sum - self._max) / (self.points - 1)).clamp(min=0)
            mu_rest = torch.minimum(mu_rest, self._max)
        else:
            mu_rest = self._median_of_rest()
        dead = self._max == 0
        value = (self._max - mu_rest) / torch.where(dead, 1.0, self._max + mu_rest)
        error = RELATIVE_ERROR if rest == "median" and self._sketch is not None else 0.0
        return UnitMem(value, self._max.clone(), mu_rest, torch.where(dead, -1, self._argmax), dead, error)


def unitmem(activation: Float[Tensor, "n unit"], *, rest: Rest = "mean") -> UnitMem:
    """Return UnitMem of activations; see `UnitMemState` for streams.

    UnitMem_u = (mu_max - mu_rest) / (mu_max + mu_rest) (Wang et al., NeurIPS 2024). Higher: more selective.

    Args:
        activation: mu_u(x), averaged over tokens and views, nonnegative, shape (n, unit), n >= 2.
        rest: "mean" or "median" of the other points.

    Raises:
        InputError: As for `UnitMemState.update` and `UnitMemState.result`.

    Example:
        >>> unitmem(torch.tensor([[1.0], [4.0], [1.0]]), rest="median").value.tolist()
        [0.6]
    """
    state = UnitMemState(activation.shape[1], hold_bytes=activation.numel() * activation.element_size())
    state.update(activation, 0)
    return state.result(rest)


class ClassMemState:
    """ClassMem of a stream of points: UnitMem over the mean activations of classes.

    ClassMem_u = (mu_max - mu_rest) / (mu_max + mu_rest) over class means mu_u(c) = mean_{x in c} mu_u(x) (design,
    section 2). Memory is one float64 per class and unit. Classes without points do not count.

    Example:
        >>> state = ClassMemState(2, 1)
        >>> state.update(torch.tensor([[1.0], [3.0], [6.0]]), torch.tensor([0, 0, 1]))
        >>> found = state.result()
        >>> found.value.tolist(), found.argmax.tolist()
        ([0.5], [1])
    """

    def __init__(self, classes: int, units: int) -> None:
        self._sum = torch.zeros(classes, units, dtype=torch.float64)
        self._count = torch.zeros(classes, dtype=torch.int64)

    def update(self, block: Float[Tensor, "m other_unit"], label: Int[Tensor, " labels"]) -> None:
        """Add a block of points, shape (m, unit), with the class of each, shape (m,); errors as in `UnitMemState`."""
        classes, units = self._sum.shape
        check_same_length("activations", len(block), "label", len(label))
        check_index("label", label, 0, classes, "Number the classes from 0.")
        self._sum.index_add_(0, label.long(), _checked(block, units).double())
        self._count += torch.bincount(label, minlength=classes)

    def result(self, rest: Rest = "mean") -> UnitMem:
        """Return ClassMem of the points so far; `argmax` is a class. At least two classes must have points."""
        present = torch.nonzero(self._count)[:, 0]
        scores = unitmem(self._sum[present] / self._count[present].unsqueeze(1), rest=rest)
        return scores._replace(argmax=torch.where(scores.dead, -1, present[scores.argmax.clamp(min=0)]))


RELATIVE_ERROR = 0.01
SMALLEST = 1e-6
LARGEST = 1e4


class LogHistogram:
    """Counts of non-negative values in logarithmic bins, one histogram per unit.

    Order statistics of many streams in fixed memory, after DDSketch. A value x > 0 falls into bin i = ceil(log_g x),
    g = (1 + a) / (1 - a), and is returned as 2 g^i / (g + 1), with an error of at most a x (Masson, Rim & Lee 2019,
    "DDSketch", Lemma 2). The bins are fixed, so the result does not depend on the order of values or on blocks. The
    bound holds between `SMALLEST` and `LARGEST`; smaller values are returned as 0, larger ones as `LARGEST`. Memory is
    4 bytes per bin and stream, with 1,152 bins. Values must not be negative.

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
