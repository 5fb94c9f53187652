"""Retrieval on the external pairs of a study, and the interval of a median rank, against loops."""

import numpy as np
import pytest

from clipmem.measure import retrieval
from clipmem.measure.over_seeds import Statistics
from clipmem.measure.retrieval import Identity
from clipmem.measure.utility import only
from tests.reference import loops as reference
from tests.unit.scoring.test_summary import EXTERNAL, N, models


@pytest.fixture(scope="module")
def found():
    made = {side: [only(one, EXTERNAL) for one in own.values()] for side, own in models((0, 1, 2)).items()}
    first = made["f"][0]
    same = Identity(np.arange(len(first.image)), np.arange(len(first.text)))
    return made, retrieval.measure(made, same, (np.arange(N) // 2)[EXTERNAL], Statistics(0.95, 400, 0)).document()


def test_retrieval_is_the_loop(found):
    made, result = found
    assert result["n"] == 5
    expected = {"image_retrieval_recall@1": 0.2, "image_retrieval_recall@5": 1.0}
    assert {name: result["chance"][name] for name in expected} == pytest.approx(expected)
    assert set(result["chance"]) == set(result["f"])
    for side in "fg":
        ranks = {"image_retrieval": [], "text_retrieval": []}
        for one in made[side]:
            image_ranks, text_ranks = reference.retrieval_ranks(
                one.image[:, 0].tolist(), one.text.tolist(), one.text_pair.tolist()
            )
            ranks["image_retrieval"].append(image_ranks)
            ranks["text_retrieval"].append(text_ranks)
        assert len(result[side]) == 2 * 5 + 4
        for name, by_seed in ranks.items():
            for k in (1, 5, 10):
                expected = np.mean([reference.recall(row, k) for row in by_seed])
                assert result[side][f"{name}_recall@{k}"]["mean"] == pytest.approx(expected)
            assert result[side][f"{name}_median_rank"]["mean"] == pytest.approx(
                np.mean([np.median(row) for row in by_seed])
            )


def test_retrieval_intervals_hold_the_mean(found):
    for side in "fg":
        for name, interval in found[1][side].items():
            assert interval["low"] <= interval["mean"] <= interval["high"], name
        assert found[1][side]["image_retrieval_recall@1"]["low"] < found[1][side]["image_retrieval_recall@1"]["high"]


def interval_of(ranks, groups, **changes):
    statistics = Statistics(0.95, 2000, 0)._replace(**changes)
    return retrieval._median_interval(np.array(ranks, dtype=np.float64), np.array(groups), statistics)


def test_median_interval_against_a_plain_bootstrap():
    rng = np.random.default_rng(5)
    ranks, groups = rng.integers(1, 40, size=(2, 31)).astype(float), np.arange(31) // 2
    found = interval_of(ranks, groups)
    names, medians = np.unique(groups), []
    for _ in range(2000):
        chosen = np.concatenate([np.flatnonzero(groups == one) for one in rng.choice(names, len(names))])
        medians.append(np.mean([np.median(row[chosen]) for row in ranks]))
    low, high = np.quantile(medians, [0.025, 0.975])
    assert found.mean == np.mean([np.median(row) for row in ranks])
    assert abs(found.low - low) <= 2
    assert abs(found.high - high) <= 2
    assert found.low < found.mean < found.high
    assert interval_of(ranks, groups) == found
    assert interval_of(ranks, groups, seed=1) != found
    narrow = interval_of(ranks, groups, confidence=0.5)
    assert found.low < narrow.low
    assert narrow.high < found.high


def test_median_interval_at_the_ends():
    assert interval_of([[3, 1, 2]], [4, 4, 4]) == (2.0, None, None, "pairs")  # one group: no spread
    assert interval_of([[2.5] * 6], range(6)) == (2.5, 2.5, 2.5, "pairs")
    # groups go together: both halves of the data are one draw
    found = interval_of([[1, 1, 1, 9, 9, 9]], [0, 0, 0, 1, 1, 1])
    assert (found.mean, found.low, found.high) == (5.0, 1.0, 9.0)
