"""Utility of several models on one set of pairs: what is measured, what is left out and why, chance of retrieval."""

import numpy as np
import pytest
import torch
from tests.reference import loops_utility as reference

from clipmem.base.random import derive_seed
from clipmem.base.sections import EvaluateSection
from clipmem.embed.passes import Embeddings
from clipmem.evaluate import retrieval
from clipmem.evaluate.classification import classification_metrics
from clipmem.evaluate.linear_probe import linear_probe
from clipmem.evaluate.over_seeds import Statistics
from clipmem.evaluate.prompts import make_prompts
from clipmem.evaluate.utility import TestPairs, Utility, class_numbers, only, why_not
from clipmem.evaluate.zero_shot import class_embeddings, zero_shot_ranks

N, C, D = 60, 6, 5
PROMPTS = make_prompts([f"c{k}" for k in range(C)], None, ["{}", "a {}"])
STATISTICS = Statistics(0.95, 200, 0)


def pairs(**changes):
    rng = np.random.default_rng(0)
    labels = rng.integers(C, size=N)
    labels[[3, 50]] = -1
    test = np.arange(N) >= 40
    options = {
        "labels": labels,
        "groups": np.arange(N) // 2,
        "test": test,
        "train": np.arange(N) < 30,
        "prompts": PROMPTS,
        "why": {},
    }
    return TestPairs(**{**options, **changes})


def model(seed, tested):
    generator = torch.Generator().manual_seed(seed)
    centers = torch.randn(C, D, generator=torch.Generator().manual_seed(99))
    image = centers[torch.from_numpy(tested.labels)] + torch.randn(N, D, generator=generator)
    views = torch.stack([image, torch.randn(N, D, generator=generator)], dim=1)
    text = torch.randn(2 * N, D, generator=generator)
    prompts = centers[PROMPTS.prompt_class] + 0.1 * torch.randn(len(PROMPTS.texts), D, generator=generator)
    return Embeddings(views, text, torch.arange(2 * N) % N), prompts


def measured(tested, seeds=(0, 1)):
    utility = Utility(tested, EvaluateSection(), STATISTICS)
    for seed in seeds:
        for side in ("f", "g"):
            embeddings, prompts = model(seed + 10 * (side == "g"), tested)
            utility.add(side, seed, embeddings, prompts, presentations=100 + seed)
    return utility


def test_every_number_is_that_of_its_model_alone():
    tested = pairs()
    utility = measured(tested)
    found = utility.document(utility.retrieval())
    assert found["seeds"] == {"f": [0, 1], "g": [0, 1]}
    assert found["presentations"] == {"f": [100, 101], "g": [100, 101]}
    assert found["n"] == {
        "test": 20,
        "labeled": 19,
        "captions": 40,
        "probe_train": 29,
        "probe_test": 19,
        "classes": 6,
        "classes_in_test": len(set(tested.labels[tested.tested])),
    }
    where = tested.tested
    for side in ("f", "g"):
        for k, seed in enumerate((0, 1)):
            embeddings, prompts = model(seed + 10 * (side == "g"), tested)
            image = embeddings.image[:, 0]
            classes = class_embeddings(prompts, torch.tensor(PROMPTS.prompt_class), C)
            ranks = zero_shot_ranks(image[torch.from_numpy(where)], classes, tested.labels[where])
            for name, value in classification_metrics(ranks, tested.labels[where], C).items():
                assert found["metrics"][side][f"zero_shot_{name}"]["by_seed"][k] == value
            probe = linear_probe(
                image.numpy()[tested.trained],
                tested.labels[tested.trained],
                tested.groups[tested.trained],
                image.numpy()[where],
                tested.labels[where],
                seed=derive_seed(0, "probe"),
            )
            assert found["probe"]["c"][side][k] == probe.c
            for name, value in classification_metrics(probe.ranks, tested.labels[where], C).items():
                assert found["metrics"][side][f"linear_probe_{name}"]["by_seed"][k] == value
            test = only(embeddings, tested.test)
            alone = retrieval.measure(
                {"x": {0: test}}, np.ones(20, bool), tested.groups[tested.test], Statistics(0.9, 1, 0)
            )
            assert (
                found["metrics"][side]["image_retrieval_recall@5"]["by_seed"][k]
                == (alone["x"]["image_retrieval_recall@5"]["mean"])
            )
    for metrics in found["metrics"].values():
        assert set(found["chance"]) == set(metrics)
        for entry in metrics.values():
            assert entry["mean"] == pytest.approx(np.mean(entry["by_seed"]))
            assert entry["low"] <= entry["mean"] <= entry["high"]
    train = tested.labels[tested.trained]
    commonest = np.bincount(train).argmax()
    assert found["probe"]["commonest_class_acc1"] == (tested.labels[where] == commonest).mean()


def test_the_second_view_and_the_other_pairs_tell_nothing():
    tested = pairs()
    utility, other = measured(tested), Utility(tested, EvaluateSection(), STATISTICS)
    idle = torch.from_numpy(~tested.test & ~tested.trained)
    for seed in (0, 1):
        for side in ("f", "g"):
            embeddings, prompts = model(seed + 10 * (side == "g"), tested)
            image, text = embeddings.image.clone(), embeddings.text.clone()
            image[idle], image[:, 1] = 7.0, -3.0
            text[~torch.from_numpy(tested.test)[embeddings.text_pair]] = 2.0
            other.add(side, seed, Embeddings(image, text, embeddings.text_pair), prompts, presentations=100 + seed)
    assert other.document(other.retrieval()) == utility.document(utility.retrieval())


def test_without_labels_there_is_retrieval_alone():
    tested = pairs(labels=np.full(N, -1), prompts=None)
    why = why_not(tested.labels, tested.groups, tested.test, tested.train, 0, unlabeled="no external pair has a label")
    assert why == dict.fromkeys(("zero_shot", "linear_probe"), "no external pair has a label")
    utility = Utility(pairs(labels=np.full(N, -1), prompts=None, why=why), EvaluateSection(), STATISTICS)
    embeddings, _ = model(0, pairs())
    utility.add("f", 0, embeddings, None)
    found = utility.document(utility.retrieval())
    assert {name.split("_retrieval")[0] for name in found["metrics"]["f"]} == {"image", "text"}
    assert set(found["chance"]) == set(found["metrics"]["f"])
    assert (found["classes"], found["probe"], found["skipped"]) == ([], None, why)


@pytest.mark.parametrize(
    ("changes", "classes", "text", "expected"),
    [
        ({}, C, "", {}),
        ({}, C, "no text tower", {"zero_shot": "no text tower", "retrieval": "no text tower"}),
        (
            {"labels": np.zeros(N, dtype=int)},
            1,
            "",
            dict.fromkeys(("zero_shot", "linear_probe"), "there is only one class"),
        ),
        (
            {"labels": np.where(np.arange(N) < 30, 2, 1)},
            C,
            "",
            {"linear_probe": "30 pairs to train on have fewer than 2 classes"},
        ),
        (
            {"groups": np.zeros(N, dtype=int)},
            C,
            "",
            {"linear_probe": "the pairs to train on are one group, and choosing C needs a second one"},
        ),
        ({"train": np.ones(N, dtype=bool)}, C, "", {"linear_probe": "no labeled pair is left to test on"}),
        (
            {"labels": np.arange(N)},
            N,
            "",
            {"linear_probe": "30 pairs to train on have 30 classes, fewer than two pairs a class"},
        ),
    ],
)
def test_what_is_not_measured_says_why(changes, classes, text, expected):
    one = pairs(**changes)
    found = why_not(one.labels, one.groups, one.test, one.train, classes, unlabeled="no labels", text=text)
    assert found == expected


def test_numbers_of_classes():
    assert class_numbers(["b", "", "a", "b"], ["a", "b"]).tolist() == [1, -1, 0, 1]
    with pytest.raises(ValueError, match="^labels: got 'x', expected a, b"):
        class_numbers(["x"], ["a", "b"])


def test_only_some_pairs():
    embeddings = Embeddings(
        torch.arange(8.0).reshape(4, 2, 1), torch.arange(5.0)[:, None], torch.tensor([3, 0, 1, 3, 2])
    )
    found = only(embeddings, np.array([False, True, False, True]))
    assert found.image.flatten().tolist() == [2.0, 6.0]
    assert found.text.flatten().tolist() == [2.0, 0.0, 3.0]  # pair by pair
    assert found.text_pair.tolist() == [0, 1, 1]


# ---- chance of retrieval


@pytest.mark.parametrize("captions", [[1] * 7, [5] * 12, [1, 2, 3, 4, 40], [1], [3, 1]])
def test_chance_is_what_random_orders_reach(captions):
    found = retrieval.chance(np.array(captions))
    n = len(captions)
    for k in (1, 5, 10):
        assert found[f"image_retrieval_recall@{k}"] == min(1.0, k / n)
        expected = reference.text_recall_by_chance(captions, k)
        assert found[f"text_retrieval_recall@{k}"] == pytest.approx(expected)
    assert found["image_retrieval_median_rank"] == (n + 1) / 2


def test_with_one_caption_each_both_ways_have_the_same_chance():
    for n in (1, 2, 9, 30):
        found = retrieval.chance(np.ones(n, dtype=int))
        for name in ("recall@1", "recall@5", "recall@10", "median_rank"):
            assert found[f"text_retrieval_{name}"] == pytest.approx(found[f"image_retrieval_{name}"])


def test_chance_of_several_captions_is_that_of_random_embeddings():
    rng = np.random.default_rng(0)
    captions = np.array([1, 2, 5] * 20)
    pair = np.repeat(np.arange(60), captions)
    ranks = []
    for _ in range(40):
        image, text = torch.from_numpy(rng.normal(size=(60, 64))), torch.from_numpy(rng.normal(size=(160, 64)))
        ranks.append(retrieval.recall_at_k(image, text, torch.from_numpy(pair)).text_ranks.numpy())
    found, ranks = retrieval.chance(captions), np.concatenate(ranks)
    for k in (1, 5, 10):
        assert (ranks <= k).mean() == pytest.approx(found[f"text_retrieval_recall@{k}"], abs=0.02)
    assert np.median(ranks) == pytest.approx(found["text_retrieval_median_rank"], abs=3)
