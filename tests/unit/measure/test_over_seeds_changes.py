"""Changes from a base model, pair by pair, against loops; and what a recipe may retain."""

import numpy as np
import pytest
import torch

from clipmem.base.errors import InputError
from clipmem.base.recipes import load_recipe
from clipmem.functional import crossed_mean
from clipmem.measure import hypersphere, retrieval
from clipmem.measure.over_seeds import Statistics, classification_entries, describe
from clipmem.measure.retrieval import Identity
from clipmem.models.passes import Embeddings

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
    found = retrieval.measure(models, same, GROUPS, statistics, against="base")
    plain = retrieval.measure(models, same, GROUPS, statistics)
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
    found = hypersphere.measure(models, same, GROUPS, 0.9, against="base")
    assert list(found["f"]) == ["alignment_loss", "image_uniformity_loss", "text_uniformity_loss"]
    for name, entry in found["f"].items():
        assert "change" not in found["base"][name]
        assert entry["change"]["mean"] == pytest.approx(entry["mean"] - found["base"][name]["mean"])
        assert entry["change"]["low"] < entry["change"]["mean"] < entry["change"]["high"]
    itself = hypersphere.measure({"base": models["base"], "f": models["base"]}, same, GROUPS, 0.9, against="base")
    for entry in itself["f"].values():
        assert [entry["change"][key] for key in ("mean", "low", "high")] == [0, 0, 0]


def test_retained_needs_a_pretrained_model():
    with pytest.raises(InputError, match="retained"):
        load_recipe("", ["evaluate.retained=emoji"])
    assert load_recipe("", ["evaluate.retained=emoji", "model.pretrained=x"]).evaluate.retained == "emoji"
