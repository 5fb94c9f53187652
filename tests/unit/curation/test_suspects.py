"""The list of suspects: its order, what marks change, and how many are expected to be wrong."""

import math
import random

import numpy as np
import polars as pl
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from clipmem.base.errors import InputError
from clipmem.curation import suspects
from clipmem.curation.aim import Aim
from clipmem.curation.suspects import Curation, apply_marks, choose, expectations, expected_wrong, learn, order_of
from clipmem.functional import auroc


def test_the_list_begins_with_all_suspects():
    # e by a rule, with a low score
    table = pl.DataFrame(
        {"uid": list("abcde"), "score": [0.2, 0.9, 0.5, 0.5, 0.1], "is_suspect": [False, True, False, False, True]}
    )
    assert table["uid"][order_of(table)].to_list() == list("becda")


def listed(n=200, good=0.0, seed=0):
    """A list whose order is noise; one of its two detectors knows the wrong pairs as well as `good` says."""
    drawn = np.random.default_rng(seed)
    wrong = np.arange(n) < n // 5
    score = np.sort(drawn.random(n))[::-1][drawn.permutation(n)]
    table = pl.DataFrame(
        {
            "uid": [f"u{k}" for k in range(n)],
            "score": score,
            "is_suspect": score > 0.9,
            "probability": score / 2,
            "kind": pl.Series(["mismatched" if one > 0.9 else None for one in score], dtype=pl.String),
            "noise_score": drawn.normal(size=n),
            "knows_score": drawn.normal(size=n) + good * wrong,
        }
    )
    return Curation(table, {"pairs": n}), wrong


def test_marked_pairs_come_first_and_last():
    curation, _ = listed()
    found = apply_marks(curation, {"u7": "wrong", "u8": "fine", "u9": "unsure", "other": "wrong"})
    ranked = found.table.sort("score", descending=True)
    assert ranked.row(0, named=True).items() >= {"uid": "u7", "is_suspect": True, "probability": 1.0}.items()
    assert ranked.row(-1, named=True).items() >= {"uid": "u8", "is_suspect": False, "probability": 0.0}.items()
    rest = ~pl.col("uid").is_in(["u7", "u8"])
    assert found.table.filter(rest).equals(curation.table.filter(rest))
    assert found.document["suspects"] == found.table["is_suspect"].sum()
    suspects = curation.table.filter("is_suspect")["uid"]
    assert found.document["kinds"] == {"mismatched": len(suspects) - ("u8" in suspects)}
    assert found.document["marks"] == {"wrong": 1, "fine": 1, "used": False, "learned": None, "list": None}


def test_a_better_order_is_learned():
    curation, wrong = listed(good=3.0)
    marks = {f"u{k}": "wrong" if wrong[k] else "fine" for k in (*range(15), *range(100, 130))}
    found = apply_marks(curation, marks)
    rest = ~pl.col("uid").is_in(list(marks))
    after, before = (one.table.filter(rest).sort("score", descending=True) for one in (found, curation))
    truth = {f"u{k}" for k in np.flatnonzero(wrong)}
    assert found.document["marks"]["used"]
    assert np.mean([uid in truth for uid in after["uid"].head(20)]) > 0.7
    # the probabilities belong to ranks, so their order is that of the scores
    assert after["probability"].is_sorted(descending=True)
    assert after["is_suspect"].sum() == pytest.approx(before["is_suspect"].sum(), abs=12)


def test_noise_changes_nothing():
    drawn, used = np.random.default_rng(1), 0
    for seed in range(20):
        curation, _ = listed(seed=seed)
        marks = {f"u{k}": ("wrong", "fine")[k] for k in ()} | {
            f"u{k}": str(drawn.choice(["wrong", "fine"])) for k in range(60)
        }
        used += apply_marks(curation, marks).document["marks"]["used"]
    assert used <= 4  # 1 is expected


@pytest.mark.parametrize(("wrong", "fine"), [(15, 4), (4, 30), (9, 10)])
def test_too_few_marks(wrong, fine):
    curation, _ = listed(good=3.0)
    marked = np.arange(200) < wrong + fine
    values = curation.table.select("noise_score", "knows_score").to_numpy()
    assert learn(values, curation.table["score"].to_numpy(), marked, np.arange(200) < wrong) is None


def test_unknown_scores_are_in_the_middle():
    curation, wrong = listed(good=3.0)
    values = curation.table.select("noise_score", "knows_score").to_numpy().copy()
    values[::3, 0] = np.nan
    found = learn(values, curation.table["score"].to_numpy(), np.arange(200) < 100, wrong)
    assert found is not None
    assert found.list_auroc == pytest.approx(auroc(curation.table["score"].to_numpy()[:100], wrong[:100]).mean)
    assert np.isfinite(found.score).all()


def expected_by_loop(p, marked, is_wrong, grid=20_001):
    """The number and its interval from the equations: the shift by search over a grid, sums by loops."""
    p = [min(max(value, 0.001), 0.999) for value in p]

    def shifted(value, d):
        return 1 / (1 + math.exp(-math.log(value / (1 - value)) - d))

    def posterior(d):
        total = -d * d / 2
        for value, seen, bad in zip(p, marked, is_wrong, strict=True):
            if seen:
                total += math.log(shifted(value, d) if bad else 1 - shifted(value, d))
        return total

    d = max(np.linspace(-10, 10, grid).tolist(), key=posterior)
    number = chance = 0.0
    information, limit = 1.0, 0
    for value, seen, bad in zip(p, marked, is_wrong, strict=True):
        q = shifted(value, d)
        if seen:
            information += q * (1 - q)
            number += bad
        else:
            number += q
            chance += q * (1 - q)
        limit += not (seen and not bad)
    width = 1.959964 * math.sqrt(chance + chance**2 / information)
    certain = sum(seen and bad for seen, bad in zip(marked, is_wrong, strict=True))
    return number, max(certain, number - width), min(limit, number + width)


@pytest.mark.parametrize("seed", range(5))
def test_the_expected_number_against_a_loop(seed):
    stream = np.random.default_rng(seed)
    p, marked = stream.random(30), stream.random(30) < 0.4
    is_wrong = marked & (stream.random(30) < 0.8)
    np.testing.assert_allclose(expected_wrong(p, marked, is_wrong), expected_by_loop(p, marked, is_wrong), atol=0.01)


@given(st.lists(st.tuples(st.floats(0, 1), st.sampled_from(["", "wrong", "fine"])), min_size=1, max_size=60))
def test_the_interval_holds_what_marks_allow(pairs):
    p = np.array([value for value, _ in pairs])
    wrong, fine = (np.array([mark == name for _, mark in pairs]) for name in ("wrong", "fine"))
    number, low, high = expected_wrong(p, wrong | fine, wrong)
    assert wrong.sum() <= low <= number + 1e-9
    assert number - 1e-9 <= high <= len(p) - fine.sum()
    if (wrong | fine).all():
        assert number == low == high == wrong.sum()
    elif not wrong.any() and not fine.any():
        assert number == pytest.approx(np.clip(p, 0.001, 0.999).sum())


@pytest.mark.parametrize("marks", [0, 20, 80])
def test_the_interval_covers_the_number_of_wrong_pairs(marks):
    """Pairs marked from the head of the list, whose probabilities are all off by one shift of the log odds."""
    covered, widths = 0, []
    for seed in range(400):
        stream = np.random.default_rng(seed)
        p = np.sort(stream.beta(2, 1, 200))[::-1]
        log_odds = np.log(p / (1 - p)) + stream.normal()
        wrong = stream.random(200) < 1 / (1 + np.exp(-log_odds))
        marked = np.arange(200) < marks
        _, low, high = expected_wrong(p, marked, wrong & marked)
        covered += low <= wrong.sum() <= high
        widths.append(high - low)
    assert 0.91 <= covered / 400 <= 0.98
    assert np.mean(widths) < {0: 140, 20: 110, 80: 45}[marks]


NO_AIM = ["0", "-1", "1.5", "many", "precision", "precision=0", "recall=1.01", "recall=nan", "top=0", "prec=0.5", "1e3"]


@pytest.mark.parametrize("text", ["", *NO_AIM, "9" * 400])
def test_an_aim_that_is_none(text):
    with pytest.raises(InputError) as error:
        Aim.parse(text, "--suspects")
    assert (error.value.what, error.value.got) == ("--suspects", repr(text))


@given(
    st.lists(st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.9, 1.0]), min_size=1, max_size=30),
    st.integers(0, 5),
    st.sampled_from(["7", "top=2", "precision=0.7", "precision=1", "recall=0.5", "recall=1"]),
    st.randoms(),
)
@example([0.0, 0.5, 0.9, 0.9, 0.9, 1.0], 0, "precision=0.7", random.Random(0))  # 4.2 / 6 is rounded down
@example([0.0], 2, "recall=1", random.Random(0))
def test_suspects_as_an_aim_asks(probabilities, flagged, text, stream):
    """Of the first `flagged` pairs a rule is certain: they are in every list by precision or recall."""
    probabilities, aim = [1.0] * flagged + probabilities, Aim.parse(text)
    n = len(probabilities)
    scores = [stream.random() for _ in range(n)]
    columns = {"uid": [f"u{k}" for k in range(n)], "score": scores, "probability": probabilities}
    kind = pl.Series(
        [stream.choice(["vague", "hygiene"]) for _ in range(flagged)] + [None] * (n - flagged), dtype=pl.String
    )
    is_suspect = [value >= 0.5 for value in probabilities]
    table = pl.DataFrame(columns).with_columns(is_suspect=pl.Series(is_suspect), kind=kind)
    chosen = choose(Curation(table, {}), aim)
    # from the definition: the length of a list that is best for the aim
    order = sorted(range(0 if aim.name == "top" else flagged, n), key=lambda k: (-probabilities[k], -scores[k]))
    lists = [[probabilities[k] for k in order[:length]] for length in range(len(order) + 1)]
    whole = math.fsum(lists[-1])
    fits = {
        "top": [length for length in range(len(lists)) if length <= aim.value][-1:],
        "precision": [
            length for length in range(1, len(lists)) if math.fsum(lists[length]) / length >= aim.value - 1e-12
        ][-1:],
        "recall": [
            length for length in range(len(lists)) if math.fsum(lists[length]) >= aim.value * whole - 1e-12 and whole
        ][:1],
    }[aim.name]
    suspects = {*order[: max(fits, default=0)], *(() if aim.name == "top" else range(flagged))}
    assert chosen.table["is_suspect"].to_list() == [k in suspects for k in range(n)]
    assert chosen.document["suspects"] == len(suspects)
    assert chosen.document["by_rule"] == len(suspects & set(range(flagged)))
    assert chosen.table.drop("is_suspect").equals(table.drop("is_suspect"))


def test_a_list_beyond_the_pairs_with_reasons_is_refused(monkeypatch):
    monkeypatch.setattr(suspects, "LISTED", 30)
    curation, _ = listed()
    assert choose(curation, Aim("top", 30)).table["is_suspect"].sum() == 30
    with pytest.raises(InputError) as error:
        choose(curation, Aim("recall", 0.9))
    assert error.value.what == "--suspects recall=0.9"
    assert error.value.expected == "at most 30"


def test_the_expected_rates_of_a_list():
    """In the order of the list: suspects first, also one marked as wrong, then by score; without one by rule."""
    table = pl.DataFrame(
        {
            "uid": list("abcdef"),
            "score": [0.1, 0.9, 0.8, 0.5, 0.4, 1.0],
            "probability": [1.0, 0.8, 0.6, 0.3, 0.0, 1.0],
            "is_suspect": [True, True, False, False, False, True],
            "kind": ["mismatched", "mismatched", "vague", None, None, "vague"],
        }
    )
    share = {"found": True, "assumed": 0.2, "low": 0.1, "high": 0.3}

    def rates(*lengths, **changes):
        return [rate._asdict() for rate in expectations(Curation(table, {"expected": share | changes}), lengths)]

    # at half of the share .8 is .4; at three halves it would be 1.2; what is certain stays
    two = {"length": 2, "precision": 0.9, "low": (1 + 0.4) / 2, "high": (1 + 1) / 2, "recall": 1.8 / 2.7}
    five = {"length": 5, "precision": 2.7 / 5, "low": 1.85 / 5, "high": 3.35 / 5, "recall": 1.0}
    assert rates(2, 5, 6, 0) == [pytest.approx(two), pytest.approx(five)]
    assert rates(1)[0]["precision"] == pytest.approx(0.8)  # a higher score than the marked one
    assert rates(2, found=False) == rates(2, assumed=0.0) == []
