"""Metrics over seeds and changes from a base model: values by seed and pair, intervals against loops."""

import inspect

import numpy as np
import pytest
import torch
from scipy import stats

from clipmem.base.errors import InputError
from clipmem.base.recipes import load_recipe
from clipmem.functional import crossed_mean
from clipmem.measure import retrieval
from clipmem.measure.hypersphere import Hypersphere
from clipmem.measure.over_seeds import Statistics, class_mean, classification_entries, describe, mean_of_means
from clipmem.measure.retrieval import Identity
from clipmem.measure.zero_shot import classification_metrics
from clipmem.models.passes import Embeddings

HYPERSPHERE = Hypersphere()

raw = inspect.unwrap(class_mean)


def study(seeds=3, n=60, c=6, seed=0):
    rng = np.random.default_rng(seed)
    labels = np.minimum(rng.geometric(0.4, size=n) - 1, c - 1)
    return rng.integers(1, c + 1, size=(seeds, n)).astype(float), labels, np.arange(n) // 2


def test_the_values_by_seed_are_those_of_each_model_alone():
    ranks, labels, groups = study()
    found = classification_entries(ranks, labels, groups, 6, 0.95)
    assert list(found) == ["acc1", "acc5", "mean_per_class_recall"]
    for name, entry in found.items():
        assert set(entry) == {"mean", "low", "high", "over", "by_seed"}
        expected = [classification_metrics(row, labels, 6)[name] for row in ranks]
        assert entry["by_seed"] == pytest.approx(expected)
        assert entry["mean"] == pytest.approx(np.mean(expected))
        assert entry["low"] < entry["mean"] < entry["high"]


def test_the_interval_is_close_to_that_of_a_bootstrap_over_pairs():
    ranks, labels, groups = study(seed=2, seeds=2)
    hits = (ranks <= 1).astype(float)
    found = class_mean(hits, labels, groups)
    rng, means = np.random.default_rng(1), []
    members = [np.flatnonzero(groups == one) for one in np.unique(groups)]
    for _ in range(4000):
        rows = np.concatenate([members[k] for k in rng.integers(len(members), size=len(members))])
        means.append(np.mean([[hits[k, rows][labels[rows] == c].mean() for c in set(labels[rows])] for k in range(2)]))
    assert found.mean == pytest.approx(np.mean([[hits[k, labels == c].mean() for c in set(labels)] for k in range(2)]))
    assert found.high - found.low == pytest.approx(2 * stats.t.ppf(0.975, 29) * np.std(means), rel=0.15)


def test_with_one_class_it_is_the_interval_of_the_mean():
    values, groups = np.random.default_rng(0).random((4, 40)), np.arange(40) // 3
    one, other = class_mean(values, np.zeros(40, dtype=int), groups), crossed_mean(values, groups)
    assert one[:3] == pytest.approx(other[:3], rel=0.01)  # of 40 pairs: sqrt(40 / 39)
    assert one.over == other.over


def test_the_order_of_pairs_is_of_no_account():
    ranks, labels, groups = study()
    hits = (ranks <= 1).astype(float)
    found, rows = class_mean(hits, labels, groups), np.random.default_rng(0).permutation(60)
    assert class_mean(hits[:, rows], labels[rows], groups[rows])[:3] == pytest.approx(found[:3])
    narrow = class_mean(hits, labels, groups, confidence=0.5)
    assert found.low < narrow.low < narrow.high < found.high


def test_rates_stay_within_0_and_1():
    hits = np.ones((1, 20))
    hits[0, 0] = 0.0
    found = mean_of_means([hits], [np.arange(20)], 0.95, share=True)
    whole = crossed_mean(hits, np.arange(20))
    assert (found.mean, found.low, found.high) == (whole.mean, whole.low, 1.0)
    assert whole.high > 1


@pytest.mark.parametrize("hit", [0.0, 1.0])
@pytest.mark.parametrize("seeds", [1, 3])
def test_a_share_at_an_end_has_the_interval_of_as_many_trials_as_groups(hit, seeds):
    hits, groups, labels = np.full((seeds, 40), hit), np.arange(40) // 2, np.arange(40) % 2
    labels[:30] = 0  # 35 pairs of one class, 5 of the other: as sure as 17 of equal weight
    ranks = np.where(hits == 1, 1.0, 2.0)
    found = [
        mean_of_means([hits], [groups], 0.95, share=True),
        mean_of_means([hits, hits], [groups, groups], 0.95, share=True),
        mean_of_means([hits, hits[:, :20]], [groups, groups[:20]], 0.9, share=True),
    ]
    by_class = classification_entries(ranks, labels, groups, 2, 0.95)["mean_per_class_recall"]
    ends = [(one.mean, one.low, one.high) for one in found] + [tuple(by_class[key] for key in ("mean", "low", "high"))]
    for (mean, low, high), level, trials in zip(ends, (0.95, 0.95, 0.9, 0.95), (20, 20, 20, 17), strict=True):
        bound = ((1 - level) / 2) ** (1 / trials)  # of no miss in so many trials
        expected = (1.0, bound, 1.0) if hit else (0.0, 0.0, 1 - bound)
        assert (mean, low, high) == pytest.approx(expected)


def test_one_group_has_no_interval():
    found = class_mean(np.array([[1.0, 0.0, 0.0]]), np.array([0, 0, 1]), np.zeros(3, dtype=int))
    assert found == (0.25, None, None, "pairs")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": np.zeros(2, dtype=int)}, "values and labels: got 3 and 2 values, expected one value a pair in both."
         " Join both on the pairs' uid first."),
        ({"confidence": 1.0}, "confidence: got 1.0, expected a number between 0 and 1. Use 0.95."),
        ({"values": np.zeros((1, 0))}, "values: got no value, expected at least one. Check which pairs were selected."),
    ],
)  # fmt: skip
def test_errors(changes, message):
    options = {"values": np.ones((1, 3)), "labels": np.arange(3), "groups": np.arange(3), **changes}
    with pytest.raises(InputError) as error:
        raw(options.pop("values"), options.pop("labels"), options.pop("groups"), **options)
    assert str(error.value) == message


SEEDS, N, CLASSES = 3, 24, 4
RNG = np.random.default_rng(0)
LABELS = RNG.integers(0, CLASSES, N)
GROUPS = np.arange(N) // 2
RANKS, BASE = (RNG.integers(1, CLASSES + 1, (count, N)).astype(np.float64) for count in (SEEDS, 1))


def test_the_change_of_an_accuracy_is_taken_pair_by_pair():
    found = classification_entries(RANKS, LABELS, GROUPS, CLASSES, 0.9, BASE)
    plain = classification_entries(RANKS, LABELS, GROUPS, CLASSES, 0.9)
    hits = np.array([[float(RANKS[k, i] <= 1) - float(BASE[0, i] <= 1) for i in range(N)] for k in range(SEEDS)])
    assert found["acc1"]["change"]["mean"] == pytest.approx(sum(hits.flatten()) / hits.size)
    assert found["acc1"]["change"] == crossed_mean(hits, GROUPS, confidence=0.9)._asdict()
    assert found["acc1"]["change"]["over"] == "pairs and seeds"
    by_class = [hits[:, [i for i in range(N) if LABELS[i] == c]].mean() for c in range(CLASSES)]
    assert found["mean_per_class_recall"]["change"]["mean"] == pytest.approx(sum(by_class) / CLASSES)
    for name, entry in plain.items():  # the rest is as without a base model
        assert entry == {key: value for key, value in found[name].items() if key != "change"}


def test_a_model_compared_with_itself_has_not_changed():
    found = classification_entries(BASE, LABELS, GROUPS, CLASSES, 0.9, BASE)
    for entry in found.values():
        assert [entry["change"][key] for key in ("mean", "low", "high")] == [0, 0, 0]
    assert "change" not in describe([BASE], [GROUPS], 0.9)


def embeddings(seed):
    rng = np.random.default_rng(seed)
    text_pair = np.repeat(np.arange(N), [k % 2 + 1 for k in range(N)])
    image, text = rng.normal(size=(N, 1, 3)), rng.normal(size=(len(text_pair), 3))
    return Embeddings(torch.from_numpy(image), torch.from_numpy(text), torch.from_numpy(text_pair))


def test_the_change_of_retrieval_is_taken_query_by_query():
    models = {"base": [embeddings(9)], "f": [embeddings(k) for k in range(SEEDS)]}
    owner, statistics = models["base"][0].text_pair.numpy(), Statistics(0.9, 200, 0)
    same = Identity(np.arange(N), np.arange(len(owner)))
    found = retrieval.measure(models, same, GROUPS, statistics, against="base").metrics
    plain = retrieval.measure(models, same, GROUPS, statistics).metrics
    assert found["base"] == plain["base"]
    for name, entry in found["f"].items():
        assert {key: value for key, value in entry.items() if key != "change"} == plain["f"][name]
        assert entry["change"]["mean"] == pytest.approx(plain["f"][name]["mean"] - plain["base"][name]["mean"])
        assert (entry["change"]["low"] is None) == name.endswith("median_rank")
    ranks = [retrieval.retrieve(one.image[:, 0], one.text, one.text_pair) for one in models["f"]]
    base = retrieval.retrieve(models["base"][0].image[:, 0], models["base"][0].text, models["base"][0].text_pair)
    hits = np.array([(one.image.rank <= 5) - 1.0 * (base.image.rank <= 5) for one in ranks])
    expected = crossed_mean(hits, GROUPS[owner], confidence=0.9)._asdict()
    change = found["f"]["image_retrieval_recall@5"]["change"]
    assert change.pop("over") == expected.pop("over")
    assert change == pytest.approx(expected, rel=1e-9)
    both = [found["f"][f"{way}_retrieval_mAP"]["change"]["mean"] for way in ("image", "text")]
    assert found["f"]["retrieval_mAP"]["change"]["mean"] == pytest.approx(np.mean(both))


def test_the_change_of_distances_is_that_of_their_means():
    models = {"base": [embeddings(9)], "f": [embeddings(k) for k in range(SEEDS)]}
    same = Identity(np.arange(N), np.arange(len(models["base"][0].text)))
    found = HYPERSPHERE.measure(models, same, GROUPS, 0.9, against="base")
    assert list(found["f"]) == ["alignment_loss", "image_uniformity_loss", "text_uniformity_loss"]
    for name, entry in found["f"].items():
        assert "change" not in found["base"][name]
        assert entry["change"]["mean"] == pytest.approx(entry["mean"] - found["base"][name]["mean"])
        assert entry["change"]["low"] < entry["change"]["mean"] < entry["change"]["high"]
    itself = HYPERSPHERE.measure({"base": models["base"], "f": models["base"]}, same, GROUPS, 0.9, against="base")
    for entry in itself["f"].values():
        assert [entry["change"][key] for key in ("mean", "low", "high")] == [0, 0, 0]


def test_retained_needs_a_pretrained_model():
    with pytest.raises(InputError, match="retained"):
        load_recipe("", ["evaluate.retained=emoji"])
    assert load_recipe("", ["evaluate.retained=emoji", "model.pretrained=x"]).evaluate.retained == "emoji"
