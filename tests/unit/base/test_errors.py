"""Errors: standard parents, text of one line, near names, and the checks that raise them."""

import math
import time

import pytest

from clipmem.base.errors import (
    ClipmemError,
    InputError,
    RunError,
    did_you_mean,
    require,
    require_columns,
    require_one_of,
    require_range,
    shorten,
)


def test_errors_have_standard_parents_and_exit_codes():
    assert issubclass(InputError, ValueError)
    assert InputError.exit_code == 2
    assert issubclass(RunError, RuntimeError)
    assert RunError.exit_code == 1
    assert issubclass(InputError, ClipmemError)
    assert str(InputError("a", got="b", expected="c", hint="Do d.")) == "a: got b, expected c. Do d."
    assert str(InputError("a")) == "a"
    assert str(InputError("a", hint="Do d.")) == "a. Do d."


def test_shorten_keeps_both_ends():
    assert shorten("x" * 10) == repr("x" * 10)
    text = shorten("a" * 100 + "b" * 100, limit=21)
    assert len(text) == 21
    assert text.startswith("'aaa")
    assert text.endswith("bbb'")


def test_near_names_are_suggested():
    assert did_you_mean("epoch", ["epochs", "lr"]) == "Did you mean 'epochs'?"
    assert did_you_mean("zzz", ["b", "a"], kind="key") == "Known keys: a, b."


def test_near_names_of_huge_names_are_found_at_once():
    name, known = "x" * 100_000, ["y" * 100_000, *(f"column_{k}" * 20_000 for k in range(50)), "epochs"]
    started = time.process_time()
    assert len(did_you_mean(name, known)) < 10_000
    assert did_you_mean("epoch", known) == "Did you mean 'epochs'?"
    assert time.process_time() - started < 1


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
