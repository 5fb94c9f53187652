"""UnitMem: how much one unit responds to a single pair rather than to all of them; ClassMem, the same for classes.

UnitMem_u = (mu_max - mu_rest) / (mu_max + mu_rest), with mu_u(x) the mean activation of unit u over the views of x
(averaged over tokens or space first), mu_max the largest over the points, and mu_rest the mean of the others
(published equation, Wang et al., NeurIPS 2024) or their median (published code) (design, section 2). It needs one
model and no reference.

The equation is a number in [0, 1] only for activations that are not negative, as after a ReLU. GELU and attention
outputs are negative at times: `nonnegative` says what is done about it ("relu": negatives are set to 0, "abs":
their size counts, "check": refuse them), and results name the choice. Apply it to the activation itself, before any
averaging, with the function `nonnegative`: after averaging it means something else. Do not compare two choices, nor
mean with median.

Do not read a high value as harm: a unit that knows one rare thing well looks the same. A unit that is silent but
for one weak response scores 1; look at `mu_max` too. More points make mu_max larger and the value higher, so
compare equal numbers of points.
"""

from typing import Literal, NamedTuple, cast

import torch
from jaxtyping import Bool, Float, Float64, Int
from torch import Tensor

from clipmem.base.errors import InputError
from clipmem.functional.quantile_sketch import RELATIVE_ERROR, LogHistogram

NonNegative = Literal["check", "relu", "abs"]
Rest = Literal["mean", "median"]
Median = Literal["no", "auto", "exact", "sketch"]

HOLD_BYTES = 256 * 2**20  # activations held for an exact median, by one state


class UnitMem(NamedTuple):
    """UnitMem of each unit, shape (unit,), and what it was made from.

    Attributes:
        value: UnitMem in [0, 1], float64. 0 where `dead`: there is no response that anything could own.
        mu_max: Largest activation of the unit over the points.
        mu_rest: Mean or median activation over the other points.
        argmax: Row of the point with the largest activation (the first of equals); -1 where `dead`.
        dead: Whether the unit is 0 for every point (the equation is 0/0 there).
        points: Number of points.
        rest: "mean", "median" (exact) or "median (sketch)".
        nonnegative: What was done about negative activations.
        relative_error: Bound of the relative error of mu_rest: 0 but for the sketch. UnitMem is then off by at most
            half of it (plus 2 smallest / mu_max where mu_rest is below the sketch's smallest value, 1e-6).
    """

    value: Float64[Tensor, "unit"]
    mu_max: Float64[Tensor, "unit"]
    mu_rest: Float64[Tensor, "unit"]
    argmax: Int[Tensor, "unit"]
    dead: Bool[Tensor, "unit"]
    points: int
    rest: str
    nonnegative: str
    relative_error: float


def nonnegative(activation: Float[Tensor, "*batch unit"], how: NonNegative) -> Float[Tensor, "*batch unit"]:
    """Make activations non-negative, before they are averaged over tokens and views.

    Args:
        activation: Any number of leading axes, finite, shape (*batch, unit).
        how: "relu" max(a, 0); "abs" |a|; "check" gives them back and refuses negative ones.

    Returns:
        Activations >= 0, same shape and dtype.

    Raises:
        InputError: A value is not finite; one is negative and `how` is "check"; or `how` is another word.

    Example:
        >>> nonnegative(torch.tensor([-1.0, 2.0]), "abs").tolist()
        [1.0, 2.0]
    """
    if how not in ("check", "relu", "abs"):
        raise InputError("nonnegative", got=repr(how), expected="'check', 'relu' or 'abs'", hint="Choose one of them.")
    infinite = int((~torch.isfinite(activation)).sum())
    if infinite:
        raise InputError(
            "activations",
            got=f"{infinite} of {activation.numel()} values not finite",
            expected="finite numbers",
            hint="Look at the model and its input.",
        )
    negative = int((activation < 0).sum()) if how == "check" else 0
    if negative:
        raise InputError(
            "activations",
            got=f"{negative} of {activation.numel()} values below 0",
            expected="activations that are not negative",
            hint="Choose nonnegative='relu' or 'abs' and say so with the result.",
        )
    if how == "abs":
        return activation.abs()
    return activation.clamp(min=0) if how == "relu" else activation


def _combine(
    mu_max: Float64[Tensor, "unit"], mu_rest: Float64[Tensor, "unit"], argmax: Int[Tensor, "unit"]
) -> tuple[Float64[Tensor, "unit"], Int[Tensor, "unit"], Bool[Tensor, "unit"]]:
    """Return UnitMem, argmax with -1 where dead, and the dead units."""
    dead = mu_max == 0
    value = (mu_max - mu_rest) / torch.where(dead, 1.0, mu_max + mu_rest)
    return value, torch.where(dead, -1, argmax), dead


class UnitMemState:
    """UnitMem of a stream of points, block by block, in memory that does not grow with their number.

    Blocks may come in any order and in several processes (`merge`). Sum, maximum and argmax are kept: 24 bytes a
    unit. The median of the rest needs more; `median` says how it is found:

    - "no": not at all (the default; `result("mean")` only);
    - "exact": all activations are held, an error when they take more than `hold_bytes`;
    - "sketch": a histogram with logarithmic bins, 4.6 KB a unit, within 1 % (`quantile_sketch`);
    - "auto": exact as long as that fits `hold_bytes`, the sketch beyond. Which it was depends on the number of
      points and their dtype, not on the blocks, and the result says which.

    Args:
        units: Number of units.
        nonnegative: What to do about negative values in the blocks; "check" when the function `nonnegative` was
            applied before averaging, as it should be.
        median: See above.
        hold_bytes: Limit of the activations held for the exact median.
        device: Where the state lives.

    Example:
        >>> state = UnitMemState(2, median="exact")
        >>> state.update(torch.tensor([[1.0, 0.0], [3.0, 0.0]]), first_row=0)
        >>> found = state.result("mean")
        >>> found.value.tolist(), found.argmax.tolist(), found.dead.tolist()
        ([0.5, 0.0], [1, -1], [False, True])
    """

    def __init__(
        self,
        units: int,
        *,
        nonnegative: NonNegative = "check",
        median: Median = "no",
        hold_bytes: int = HOLD_BYTES,
        device: torch.device | str = "cpu",
    ) -> None:
        if median not in ("no", "auto", "exact", "sketch"):
            raise InputError(
                "median", got=repr(median), expected="'no', 'auto', 'exact' or 'sketch'", hint="Choose one of them."
            )
        self.units, self.points, self._median, self._hold_bytes = units, 0, median, hold_bytes
        self._how: NonNegative = nonnegative
        self._sum = torch.zeros(units, dtype=torch.float64, device=device)
        self._max = torch.full((units,), -torch.inf, dtype=torch.float64, device=device)
        self._argmax = torch.full((units,), -1, dtype=torch.int64, device=device)
        self._rows: list[tuple[int, int]] = []  # half-open, sorted, not touching: grows with gaps, not with rows
        self._held: list[Tensor] = []
        self._sketch = LogHistogram(units, device=device) if median == "sketch" else None

    @property
    def device(self) -> torch.device:
        """Where the state lives."""
        return self._sum.device

    @property
    def nbytes(self) -> int:
        """Memory that the state takes, in bytes."""
        kept = [self._sum, self._max, self._argmax, *self._held]
        return sum(t.numel() * t.element_size() for t in kept) + (self._sketch.nbytes if self._sketch else 0)

    def _claim(self, spans: list[tuple[int, int]]) -> None:
        """Note the rows as seen; raise when one was seen before."""
        joined: list[tuple[int, int]] = []
        for start, stop in sorted([*self._rows, *spans]):
            if joined and start < joined[-1][1]:
                raise InputError(
                    "activations",
                    got=f"row {start} a second time",
                    expected="each row once",
                    hint="Give each block the number of its first row, and each block once.",
                )
            if joined and start == joined[-1][1]:
                joined[-1] = (joined[-1][0], stop)
            else:
                joined.append((start, stop))
        self._rows = joined

    def _take_maximum(self, maximum: Float64[Tensor, "unit"], row: Int[Tensor, "unit"]) -> None:
        better = (maximum > self._max) | ((maximum == self._max) & (row < self._argmax))
        self._max = torch.where(better, maximum, self._max)
        self._argmax = torch.where(better, row, self._argmax)

    def _keep(self, blocks: list[Tensor]) -> None:
        """Keep activations for the median: held, or poured into the sketch once they no longer fit."""
        if self._median == "no":
            return
        if self._sketch is None:
            self._held += blocks
            size = sum(t.numel() * t.element_size() for t in self._held)
            if size <= self._hold_bytes:
                return
            if self._median == "exact":
                raise InputError(
                    "median='exact'",
                    got=f"{size:,} bytes of activations",
                    expected=f"at most {self._hold_bytes:,}",
                    hint="Use median='auto' or 'sketch', or raise hold_bytes.",
                )
            self._sketch, blocks, self._held = LogHistogram(self.units, device=self.device), self._held, []
        for block in blocks:
            self._sketch.add(block)

    def update(self, block: Float[Tensor, "m unit"], first_row: int) -> None:
        """Take in a block of points.

        Args:
            block: Activation of each unit for each point, averaged over tokens and views, shape (m, unit).
            first_row: Number of the block's first point among all, >= 0: argmax counts from there.

        Raises:
            InputError: Another number of units, a value not finite, a negative one under "check", rows seen before,
                or more than `hold_bytes` under median="exact".
        """
        if block.shape[1] != self.units:
            raise InputError(
                "activations", got=f"{block.shape[1]} units", expected=f"{self.units}", hint="Use one state a layer."
            )
        if first_row < 0:
            raise InputError("first_row", got=f"{first_row}", expected="0 or more", hint="Count the points from 0.")
        if len(block) == 0:
            return
        values = nonnegative(block.detach().to(self.device), self._how)
        self._claim([(first_row, first_row + len(block))])
        self.points += len(block)
        top = values.max(dim=0)  # the first of equal values
        self._take_maximum(top.values.double(), top.indices + first_row)
        self._sum += values.sum(dim=0, dtype=torch.float64)
        self._keep([values.clone()] if self._median != "no" else [])

    def merge(self, other: "UnitMemState") -> None:
        """Take in the points of another state with the same settings and other rows; the other is left as it is.

        Args:
            other: A state made with the same arguments.

        Raises:
            InputError: The settings differ, or a row is in both.
        """
        mine = (self.units, self._how, self._median, self._hold_bytes)
        theirs = (other.units, other._how, other._median, other._hold_bytes)
        if mine != theirs:
            raise InputError(
                "states",
                got=f"(units, nonnegative, median, hold_bytes) {theirs}",
                expected=f"{mine}",
                hint="Make both states with the same arguments.",
            )
        self._claim(other._rows)
        self.points += other.points
        self._take_maximum(other._max.to(self.device), other._argmax.to(self.device))
        self._sum += other._sum.to(self.device)
        self._keep([block.to(self.device) for block in other._held])
        if other._sketch is not None:
            if self._sketch is None:  # what fitted here did not fit there
                self._sketch, held, self._held = LogHistogram(self.units, device=self.device), self._held, []
                for block in held:
                    self._sketch.add(block)
            self._sketch.merge(other._sketch)

    def _median_of_rest(self) -> Float64[Tensor, "unit"]:
        # Without its largest, a sorted column keeps its order: the rest's median is among the first points - 1 values.
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

        Returns:
            UnitMem with maxima, argmax and dead units, shape (unit,).

        Raises:
            InputError: Fewer than two points, or the median was not kept.
        """
        if self.points < 2:
            raise InputError(
                "activations",
                got=f"{self.points} points",
                expected="at least two",
                hint="UnitMem compares a point with the others: give more.",
            )
        if rest not in ("mean", "median"):
            raise InputError("rest", got=repr(rest), expected="'mean' or 'median'", hint="Choose one of the two.")
        if rest == "median" and self._median == "no":
            raise InputError(
                "rest",
                got="'median' of a state that keeps none",
                expected="'mean'",
                hint="Make the state with median='auto'.",
            )
        error, name = 0.0, str(rest)
        if rest == "mean":
            # Rounding could leave the rest below 0 or above the maximum.
            mu_rest = ((self._sum - self._max) / (self.points - 1)).clamp(min=0)
            mu_rest = torch.minimum(mu_rest, self._max)
        else:
            mu_rest = self._median_of_rest()
            if self._sketch is not None:
                error, name = RELATIVE_ERROR, "median (sketch)"
        value, argmax, dead = _combine(self._max, mu_rest, self._argmax)
        return UnitMem(value, self._max.clone(), mu_rest, argmax, dead, self.points, name, self._how, error)


def unitmem(activation: Float[Tensor, "n unit"], *, rest: Rest = "mean", nonnegative: NonNegative = "check") -> UnitMem:
    """UnitMem of activations that are all there; see `UnitMemState` for streams.

    UnitMem_u = (mu_max - mu_rest) / (mu_max + mu_rest) (Wang et al., NeurIPS 2024). Higher: more owned by one point.

    Args:
        activation: mu_u(x), averaged over tokens and views, shape (n, unit), n >= 2.
        rest: "mean" or "median" of the other points.
        nonnegative: What to do about negative values.

    Returns:
        UnitMem with maxima, argmax and dead units, shape (unit,).

    Raises:
        InputError: As for `UnitMemState.update` and `UnitMemState.result`.

    Example:
        >>> unitmem(torch.tensor([[1.0], [4.0], [1.0]]), rest="median").value.tolist()
        [0.6]
    """
    size = activation.numel() * activation.element_size()
    state = UnitMemState(
        activation.shape[1],
        nonnegative=nonnegative,
        median="exact" if rest == "median" else "no",
        hold_bytes=size,
        device=activation.device,
    )
    state.update(activation, 0)
    return state.result(rest)


class ClassMemState:
    """ClassMem of a stream of points: UnitMem with the classes' mean activations in the place of the points.

    ClassMem_u = (mu_max - mu_rest) / (mu_max + mu_rest) over class means mu_u(c) = mean_{x in c} mu_u(x) (design,
    section 2). Memory is one float64 a class and unit. Classes without a point do not count.

    Args:
        classes: Number of classes.
        units: Number of units.
        nonnegative: As for `UnitMemState`.
        device: Where the state lives.

    Example:
        >>> state = ClassMemState(2, 1)
        >>> state.update(torch.tensor([[1.0], [3.0], [6.0]]), torch.tensor([0, 0, 1]))
        >>> found = state.result()
        >>> found.value.tolist(), found.argmax.tolist()
        ([0.5], [1])
    """

    def __init__(
        self, classes: int, units: int, *, nonnegative: NonNegative = "check", device: torch.device | str = "cpu"
    ) -> None:
        self._how: NonNegative = nonnegative
        self._sum = torch.zeros(classes, units, dtype=torch.float64, device=device)
        self._count = torch.zeros(classes, dtype=torch.int64, device=device)

    def update(self, block: Float[Tensor, "m unit"], label: Int[Tensor, "m"]) -> None:
        """Take in a block of points with the class of each.

        Args:
            block: Activations averaged over tokens and views, shape (m, unit).
            label: Class of each point, in [0, classes), shape (m,).

        Raises:
            InputError: Shapes differ, a label is out of range, or a value is not finite or negative under "check".
        """
        classes, units = self._sum.shape
        if block.shape[1] != units:
            raise InputError(
                "activations", got=f"{block.shape[1]} units", expected=f"{units}", hint="Use one state a layer."
            )
        if len(label) != len(block):
            raise InputError(
                "label",
                got=f"{len(label)} labels for {len(block)} points",
                expected="one label a point",
                hint="Give each point its class.",
            )
        outside = (label < 0) | (label >= classes)
        if bool(outside.any()):
            row = int(torch.nonzero(outside)[0])
            raise InputError(
                "label",
                got=f"{int(label[row])} in row {row}",
                expected=f"classes from 0 to {classes - 1}",
                hint="Number the classes from 0.",
            )
        values = nonnegative(block.detach().to(self._sum.device), self._how).double()
        label = label.to(self._sum.device).long()
        self._sum.index_add_(0, label, values)
        self._count += torch.bincount(label, minlength=classes)

    def merge(self, other: "ClassMemState") -> None:
        """Take in the points of another state with the same settings.

        Args:
            other: A state made with the same arguments.

        Raises:
            InputError: The settings differ.
        """
        if self._sum.shape != other._sum.shape or self._how != other._how:
            raise InputError(
                "states",
                got=f"shape {tuple(other._sum.shape)}, {other._how}",
                expected=f"shape {tuple(self._sum.shape)}, {self._how}",
                hint="Make both states with the same arguments.",
            )
        self._sum += other._sum.to(self._sum.device)
        self._count += other._count.to(self._sum.device)

    def result(self, rest: Rest = "mean") -> UnitMem:
        """Return ClassMem of the points so far; `argmax` is a class and `points` the number of classes with points.

        Args:
            rest: "mean" or "median" of the other classes (exact).

        Returns:
            ClassMem, shape (unit,).

        Raises:
            InputError: Fewer than two classes have points.
        """
        present = torch.nonzero(self._count)[:, 0]
        means = self._sum[present] / self._count[present].unsqueeze(1)
        found = unitmem(means, rest=rest)
        argmax = torch.where(found.dead, -1, present[found.argmax.clamp(min=0)])
        return found._replace(argmax=argmax, nonnegative=cast(str, self._how))
