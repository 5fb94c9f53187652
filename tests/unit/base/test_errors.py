"""The checks of `clipmem.base.errors`: what passes, and the four parts of what does not."""

import math

import pytest

from clipmem.base.errors import InputError, require, require_columns, require_one_of, require_range


def refusal(check, *args, **kwargs):
    with pytest.raises(InputError) as caught:
        check(*args, **kwargs)
    return caught.value


def test_require_raises_with_its_four_parts():
    error = refusal(require, [], "[train] seeds", "none", "one or more", "Set train.seeds.")
    assert (error.what, error.got, error.expected, error.hint) == (
        "[train] seeds",
        "none",
        "one or more",
        "Set train.seeds.",
    )
    require([1], "", "", "")


def test_a_choice_names_the_near_ones():
    require_one_of("--device", "cpu", ("auto", "cpu", "cuda"))
    error = refusal(require_one_of, "--device", "cudo", ("auto", "cpu", "cuda"))
    assert (error.got, error.expected) == ("'cudo'", "auto, cpu, cuda")
    assert "cuda" in error.hint
    far = refusal(require_one_of, "--device", "horse", ("auto", "cpu", "cuda"))
    assert far.hint
    assert not any(name in far.hint for name in ("auto", "cpu", "cuda"))  # `expected` lists them


@pytest.mark.parametrize(
    ("value", "low", "high", "expected"),
    [(-1, 0, None, "0 or more"), (2, None, 1, "at most 1"), (2, 0, 1, "0 to 1"), (math.nan, 0, 1, "0 to 1")],
)
def test_a_range(value, low, high, expected):
    assert refusal(require_range, "weight", value, low, high).expected == expected


@pytest.mark.parametrize("value", [0, 0.5, 1])
def test_both_ends_of_a_range_are_in_it(value):
    require_range("weight", value, 0, 1)


def test_columns_that_are_missing_are_named():
    require_columns("t", ["uid", "role"], ["uid"])
    error = refusal(require_columns, "t", ["uid"], ["uid", "clipmem"])
    assert error.expected == "also clipmem"
    assert "uid" in error.got
