"""A sentence that judges must follow the interval, not the mean."""

import copy
from typing import Any

import pytest
from tests.report.run_folder import Built

from clipmem.report import numbers, wording

ROLE = {"n": 5, "mean": 0.2, "low": 0.1, "high": 0.3, "sd": 0.1, "median": 0.2}


@pytest.fixture
def summary(two_seeds: Built) -> dict[str, Any]:
    return copy.deepcopy(dict(two_seeds.summary))


@pytest.mark.parametrize(
    ("mean", "low", "high", "text"),
    [
        (0.2, 0.1, 0.3, "The model memorized pairs it was trained on"),
        (0.2, -0.1, 0.5, "No memorization shown on average"),
        (0.2, 0.0, 0.5, "No memorization shown on average"),
        (-0.2, -0.3, -0.1, "The candidates score below 0: check this run"),
        (0.2, None, None, "No memorization shown on average"),
    ],
)
def test_headline_follows_the_interval(
    summary: dict[str, Any], mean: float, low: float | None, high: float | None, text: str
) -> None:
    summary["roles"]["candidate"] |= {"mean": mean, "low": low, "high": high}
    assert wording.headline(summary) == text


def test_found_says_whether_the_intervals_exclude_zero(summary: dict[str, Any]) -> None:
    summary["roles"] = {
        "candidate": dict(ROLE),
        "external": {**ROLE, "mean": 0.01, "low": -0.02, "high": 0.04},
    }
    summary["planted"] |= {"n": 8, "auroc": 0.9, "low": 0.8, "high": 1.0}
    first, second, third = wording.what_was_found(summary)
    assert first.endswith("score +0.200 on average (95 % interval [+0.100, +0.300], which excludes 0).")
    assert second.endswith("score +0.010 [-0.020, +0.040]; as it should be, the interval holds 0.")
    assert third.endswith("with an AUROC of 0.900 [0.800, 1.000], better than chance (0.5).")
    summary["roles"] = {"candidate": {**ROLE, "low": -0.1}, "external": dict(ROLE)}
    summary["planted"] |= {"low": 0.5}
    first, second, third = wording.what_was_found(summary)
    assert first.endswith("[-0.100, +0.300], which does not exclude 0).")
    assert ". This interval excludes 0: part of the score has another cause" in second
    assert third.endswith("not shown to be better than chance (0.5).")


def planted(ours: tuple[float, float, float], theirs: tuple[float, float, float]) -> dict[str, Any]:
    keys = ("auroc", "low", "high")
    return {
        **dict(zip(keys, ours, strict=True)),
        "reference_alignment_auroc": dict(zip(keys, theirs, strict=True)),
    }


def test_the_rival_is_named_when_it_is_better() -> None:
    text = wording.planted_verdict(planted((0.8, 0.75, 0.85), (0.95, 0.9, 0.99)))
    assert text.startswith(
        "Low alignment under g alone finds the planted pairs better (0.950 [0.900, 0.990]) than CLIPMem "
        "does (0.800 [0.750, 0.850])"
    )
    text = wording.planted_verdict(planted((0.95, 0.9, 0.99), (0.8, 0.75, 0.85)))
    assert text.startswith(
        "CLIPMem finds the planted pairs better (0.950 [0.900, 0.990]) than low alignment under g alone does"
    )


def test_overlapping_intervals_are_not_a_victory() -> None:
    text = wording.planted_verdict(planted((0.8, 0.7, 0.9), (0.85, 0.75, 0.95)))
    assert "cannot be told apart" in text
    assert text.endswith("The higher number is that of low alignment under g alone.")
    assert wording.planted_verdict(planted((0.9, 0.7, 0.95), (0.85, 0.75, 0.95))).endswith(
        "The higher number is that of CLIPMem."
    )
    assert wording.planted_verdict(planted((0.9, 0.7, 0.95), (0.9, 0.75, 0.95))).endswith("The numbers are equal.")


def test_the_range_is_that_of_the_formula(summary: dict[str, Any]) -> None:
    """|A| ≤ 1 + 2 w, and CLIPMem is a difference of two."""
    for weight, bound in ((1.0, "±6 "), (0.5, "±4 "), (0.0, "±2 ")):
        summary["weight"] = weight
        assert bound in dict(wording.trust(summary))["Its range"]


@pytest.mark.parametrize(
    ("seeds", "text"),
    [
        ([0], "has one seed, so no score has an error"),
        ([0, 1], "two seeds, so the errors"),
        ([0, 1, 2], "has 3 seeds:"),
    ],
)
def test_few_seeds_are_called_noisy(summary: dict[str, Any], seeds: list[int], text: str) -> None:
    summary["seeds"] = seeds
    assert text in dict(wording.trust(summary))["When not to trust it"]


def test_numbers_that_do_not_exist_are_not_zero() -> None:
    for write in (numbers.plain, numbers.signed, numbers.percent, numbers.p_value):
        assert write(None) == "n/a"
        assert write(float("nan")) == "n/a"
    assert numbers.interval({"low": float("nan"), "high": 1.0}) == "no interval"
    assert numbers.percent_interval({"low": None, "high": None}) == "no interval"
    assert not numbers.excludes_zero({"low": None, "high": 1.0})
    assert numbers.signed(-0.0) == numbers.signed(0.0004) == numbers.signed(-0.0004) == "0.000"
    assert numbers.duration(3599.6) == "1 h 0 min"
