"""The rule that says whether a claim holds: every case, and the exact text of its errors."""

import math

import pytest

from clipmem.base.errors import InputError
from clipmem.functional import Claim, verdict

CASES = [
    # interval, claim, answer
    ((0.1, 0.3), Claim("above"), "yes"),
    ((-0.3, -0.1), Claim("above"), "no"),
    ((-0.1, 0.3), Claim("above"), "inconclusive"),
    ((0.0, 0.3), Claim("above"), "inconclusive"),  # 0 is not excluded
    ((-0.3, 0.0), Claim("above"), "no"),  # nothing above 0 is left
    ((-0.3, -0.1), Claim("below"), "yes"),
    ((0.1, 0.3), Claim("below"), "no"),
    ((0.0, 0.0), Claim("above"), "no"),
    # the claimed side is shown: its size does not matter
    ((0.001, 0.002), Claim("above", 0.5), "yes"),
    # neither side is shown, and the claimed size is out of reach
    ((-0.01, 0.02), Claim("above", 0.05), "no"),
    ((-0.02, 0.01), Claim("below", 0.05), "no"),
    ((-0.01, 0.05), Claim("above", 0.05), "inconclusive"),
    ((-0.04, 0.04), Claim("zero", 0.05), "yes"),
    ((0.05, 0.1), Claim("zero", 0.05), "no"),
    ((-0.1, -0.05), Claim("zero", 0.05), "no"),
    ((0.04, 0.06), Claim("zero", 0.05), "inconclusive"),
    ((-0.1, 0.1), Claim("zero", 0.05), "inconclusive"),
    ((None, None), Claim("above"), "inconclusive"),
    ((None, None), Claim("zero", 0.05), "inconclusive"),
    ((0.1, None), Claim("above"), "inconclusive"),
]


@pytest.mark.parametrize(("ends", "claim", "answer"), CASES)
def test_every_case(ends, claim, answer):
    assert verdict(*ends, claim) == answer


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((0.3, 0.1, Claim("above")), "interval: got [0.3, 0.1]"),
        ((math.nan, 0.1, Claim("above")), "low: got nan"),
        (
            (0.0, 0.1, Claim("zero")),
            "size of the claim: got 0 with side 'zero'",
        ),
        (
            (0.0, 0.1, Claim("below", -0.2)),
            "size of the claim: got -0.2 with side 'below'",
        ),
        (
            (0.0, 0.1, Claim("up")),  # pyright: ignore[reportArgumentType]
            "side of the claim: got 'up'",
        ),
    ],
)
def test_errors(arguments, text):
    with pytest.raises(InputError) as error:
        verdict(*arguments)
    assert f"{error.value.what}: got {error.value.got}" == text
