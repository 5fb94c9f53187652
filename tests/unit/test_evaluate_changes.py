"""Changes from a base model, pair by pair, against loops; and what a recipe may retain."""

import numpy as np
import pytest
import torch

from clipmem.base.errors import InputError
from clipmem.base.recipes import load_recipe
from clipmem.embed.passes import Embeddings
from clipmem.evaluate import retrieval
from clipmem.evaluate.over_seeds import Statistics, changed, classification_entries
from clipmem.functional import crossed_mean

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
    assert changed(BASE, None, GROUPS, 0.9) == {}


def embeddings(seed):
    rng = np.random.default_rng(seed)
    text_pair = np.repeat(np.arange(N), [k % 2 + 1 for k in range(N)])
    image, text = rng.normal(size=(N, 1, 3)), rng.normal(size=(len(text_pair), 3))
    return Embeddings(torch.from_numpy(image), torch.from_numpy(text), torch.from_numpy(text_pair))


def test_the_change_of_retrieval_is_taken_query_by_query():
    models = {"base": {0: embeddings(9)}, "f": {k: embeddings(k) for k in range(SEEDS)}}
    every, statistics = np.ones(N, dtype=bool), Statistics(0.9, 200, 0)
    found = retrieval.measure(models, every, GROUPS, statistics, against="base")
    plain = retrieval.measure(models, every, GROUPS, statistics)
    assert found["base"] == plain["base"]
    for name, entry in found["f"].items():
        assert {key: value for key, value in entry.items() if key != "change"} == plain["f"][name]
        assert entry["change"]["mean"] == pytest.approx(plain["f"][name]["mean"] - plain["base"][name]["mean"])
        assert (entry["change"]["low"] is None) == name.endswith("median_rank")
    ranks = [
        retrieval.retrieval_ranks(one.image[:, 0], one.text, one.text_pair)[0].numpy() for one in models["f"].values()
    ]
    [base] = [
        retrieval.retrieval_ranks(one.image[:, 0], one.text, one.text_pair)[0].numpy()
        for one in models["base"].values()
    ]
    owner = models["base"][0].text_pair.numpy()
    hits = np.array([[float(own[q] <= 5) - float(base[q] <= 5) for q in range(len(base))] for own in ranks])
    expected = crossed_mean(hits, GROUPS[owner], confidence=0.9)._asdict()
    assert found["f"]["image_retrieval_recall@5"]["change"] == expected


def test_retained_needs_a_pretrained_model():
    with pytest.raises(InputError, match="retained"):
        load_recipe("", ["evaluate.retained=emoji"])
    assert load_recipe("", ["evaluate.retained=emoji", "model.pretrained=x"]).evaluate.retained == "emoji"
