"""How many pairs of the list are suspects: what a user asks for."""

from typing import NamedTuple

from clipmem.base.errors import require


class Aim(NamedTuple):
    """What the suspects are chosen for, in the order of their probabilities.

    Attributes:
        name: `top` = so many pairs, `precision` = as many as there may be with this expected share of mismatched
            captions, `recall` = as few as there may be with this expected share of all mismatched captions.
        value: The number or the share.
    """

    name: str
    value: float

    @classmethod
    def parse(cls, text: str, argument: str = "suspects") -> "Aim":
        """Read `200`, `precision=0.7` or `recall=0.5`.

        Raises:
            InputError: It is none of these.

        Example:
            >>> Aim.parse("precision=0.7")
            Aim(name='precision', value=0.7)
        """
        name, _, number = text.rpartition("=")
        is_share, is_count = name in {"precision", "recall"}, name in {"", "top"} and number.isdecimal()
        try:
            value = float(number)
        except ValueError:
            value = 0.0
        valid = (is_share and 0 < value <= 1) or (is_count and 1 <= value <= 1e9)
        expected = "a number of pairs, precision=SHARE or recall=SHARE, shares above 0 and at most 1"
        require(valid, argument, repr(text), expected, "For example precision=0.7.")
        return cls(name or "top", value)
