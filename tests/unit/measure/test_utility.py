"""Utility of several models on one set of pairs: what is measured, what is left out and why."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from clipmem.base.errors import InputError
from clipmem.base.random import derive_seed
from clipmem.base.sections import EvaluateSection
from clipmem.measure import hypersphere, retrieval
from clipmem.measure.linear_probe import linear_probe
from clipmem.measure.over_seeds import Statistics
from clipmem.measure.retrieval import Identity
from clipmem.measure.utility import PROBES, Classes, TestPairs, Utility, class_numbers, only, why_not
from clipmem.measure.zero_shot import class_embeddings, classification_metrics, make_prompts, zero_shot_ranks
from clipmem.models.passes import Embeddings

N, C, D = 60, 6, 5
PROMPTS = make_prompts([f"c{k}" for k in range(C)], None, ["{}", "a {}"])
CONCEPTS = make_prompts([f"c{k // 2}{'ab'[k % 2]}" for k in range(2 * C)], None, ["the {}"])
STATISTICS = Statistics(0.95, 200, 0)


def pairs(labels=None, why=(), **changes):
    rng = np.random.default_rng(0)
    if labels is None:
        labels = rng.integers(C, size=N)
        labels[[3, 50]] = -1
    # the concepts and the finer labels: two of each class
    finer = np.where(labels < 0, -1, 2 * labels + rng.integers(2, size=N))
    test = np.arange(N) >= 40
    options = {
        "groups": np.arange(N) // 2,
        "test": test,
        "train": np.arange(N) < 30,
        "classes": {
            "label": Classes(PROMPTS.classes, labels, PROMPTS),
            "concept": Classes(CONCEPTS.classes, np.where(test, finer, -1), CONCEPTS),
            "sublabel": Classes(CONCEPTS.classes, finer),
        },
        "same": Identity(np.arange(20), np.arange(40)),
        "why": dict(why),
    }
    return TestPairs(**{**options, **changes})


def model(seed, tested):
    generator = torch.Generator().manual_seed(seed)
    centers = torch.randn(C, D, generator=torch.Generator().manual_seed(99))
    labels = tested.classes["label"].labels
    image = centers[torch.from_numpy(labels)] + torch.randn(N, D, generator=generator)
    views = torch.stack([image, torch.randn(N, D, generator=generator)], dim=1)
    text = torch.randn(2 * N, D, generator=generator)
    classes = [*PROMPTS.prompt_class, *(k // 2 for k in CONCEPTS.prompt_class)]
    prompts = centers[classes] + 0.1 * torch.randn(len(classes), D, generator=generator)
    return Embeddings(views, text, torch.arange(2 * N) % N), prompts


def measured(tested, seeds=(0, 1)):
    utility = Utility(tested, EvaluateSection(), STATISTICS)
    for seed in seeds:
        for side in ("f", "g"):
            embeddings, prompts = model(seed + 10 * (side == "g"), tested)
            utility.add(side, seed, embeddings, prompts, samples_seen=100 + seed)
    return utility


def test_models_with_one_frozen_image_tower_share_their_probes(monkeypatch):
    tested, calls = pairs(), []

    def counted(*parts, **settings):
        calls.append(1)
        return linear_probe(*parts, **settings)

    monkeypatch.setattr("clipmem.measure.utility.linear_probe", counted)
    utility = Utility(tested, EvaluateSection(), STATISTICS)
    (first, prompts), (second, _) = model(0, tested), model(1, tested)
    utility.add("f", 0, first, prompts)
    utility.add("g", 0, second._replace(image=first.image.clone()), prompts)
    assert len(calls) == len(PROBES)
    utility.add("g", 1, second, prompts)
    assert len(calls) == 2 * len(PROBES)
    probes = [measured.probes for side in ("f", "g") for measured in utility.models[side]]
    for task in PROBES:
        assert np.array_equal(probes[0][task].ranks, probes[1][task].ranks)
        assert not np.array_equal(probes[0][task].ranks, probes[2][task].ranks)


def test_every_number_is_that_of_its_model_alone():
    tested = pairs()
    utility = measured(tested)
    found = utility.document(utility.retrieval())
    label, concept, finer = (tested.classes[kind] for kind in ("label", "concept", "sublabel"))
    assert found["seeds"] == {"f": [0, 1], "g": [0, 1]}
    assert found["samples_seen"] == {"f": [100, 101], "g": [100, 101]}
    where, m = tested.test & (label.labels >= 0), len(PROMPTS.texts)
    assert found["n"] == {
        "test": 20, "labeled": 19, "captions": 40, "probe_train": 29, "probe_test": 19, "classes": 6,
        "classes_in_test": len(set(label.labels[where])), "concepts": 12, "with_concept": 19, "sublabels": 12,
    }  # fmt: skip
    for side in ("f", "g"):
        metrics = found["metrics"][side]
        for k, seed in enumerate((0, 1)):
            embeddings, prompts = model(seed + 10 * (side == "g"), tested)
            image = embeddings.image[:, 0]
            for task, own, asked in (("zero_shot", label, prompts[:m]), ("zero_shot_concept", concept, prompts[m:])):
                classes = class_embeddings(asked, torch.tensor(own.prompts.prompt_class), len(own.names))
                ranks = zero_shot_ranks(image[torch.from_numpy(where)], classes, own.labels[where])
                for name, value in classification_metrics(ranks, own.labels[where], len(own.names)).items():
                    assert metrics[f"{task}_{name}"]["by_seed"][k] == value
            for task, key, own in (
                ("linear_probe", "probe", label),
                ("linear_probe_sublabel", "probe_sublabel", finer),
            ):
                train = tested.train & (own.labels >= 0)
                probe = linear_probe(
                    (image.numpy()[train], own.labels[train]),
                    tested.groups[train],
                    (image.numpy()[where], own.labels[where]),
                    seed=derive_seed(0, "probe"),
                )
                assert found[key]["c"][side][k] == probe.c
                for name, value in classification_metrics(probe.ranks, own.labels[where], len(own.names)).items():
                    assert metrics[f"{task}_{name}"]["by_seed"][k] == value
            test = only(embeddings, tested.test)
            groups = tested.groups[tested.test]
            alone = retrieval.measure({"x": [test]}, tested.same, groups, Statistics(0.9, 1, 0)).metrics["x"]
            alone |= hypersphere.Hypersphere().measure({"x": [test]}, tested.same, groups, 0.9)["x"]
            assert len(alone) == 14 + 3
            for name, value in alone.items():
                assert metrics[name]["by_seed"][k] == value["mean"]
    for metrics in found["metrics"].values():
        assert set(found["chance"]) == {name for name in metrics if not name.endswith("_loss")}
        for entry in metrics.values():
            assert entry["mean"] == pytest.approx(np.mean(entry["by_seed"]))
            assert entry["low"] <= entry["mean"] <= entry["high"]
    assert [found["chance"][f"{task}_acc1"] for task in ("zero_shot_concept", "linear_probe_sublabel")] == [1 / 12] * 2
    commonest = np.bincount(label.labels[tested.train & (label.labels >= 0)]).argmax()
    assert found["probe"]["commonest_class_acc1"] == (label.labels[where] == commonest).mean()


def test_the_second_view_and_the_other_pairs_tell_nothing():
    tested = pairs()
    utility, other = measured(tested), Utility(tested, EvaluateSection(), STATISTICS)
    idle = torch.from_numpy(~tested.test & ~(tested.train & (tested.classes["label"].labels >= 0)))
    for seed in (0, 1):
        for side in ("f", "g"):
            embeddings, prompts = model(seed + 10 * (side == "g"), tested)
            image, text = embeddings.image.clone(), embeddings.text.clone()
            image[idle], image[:, 1] = 7.0, -3.0
            text[~torch.from_numpy(tested.test)[embeddings.text_pair]] = 2.0
            other.add(side, seed, Embeddings(image, text, embeddings.text_pair), prompts, samples_seen=100 + seed)
    assert other.document(other.retrieval()) == utility.document(utility.retrieval())


def test_without_labels_and_concepts_there_is_retrieval_alone():
    none = np.full(N, -1)
    classes = {"label": Classes([], none), "concept": Classes([], none)}
    one = pairs()
    why = why_not(classes, one.groups, one.test, one.train, unlabeled="no external pair has a label")
    assert why == {
        "zero_shot": "no external pair has a label",
        "zero_shot_concept": "0 of 20 test pairs have the first caption of another pair, fewer than half",
        "linear_probe": "no external pair has a label",
    }
    utility = Utility(pairs(classes=classes, why=why), EvaluateSection(), STATISTICS)
    utility.add("f", 0, model(0, one)[0], None)
    found = utility.document(utility.retrieval())
    assert {name.split("_")[0] for name in found["metrics"]["f"]} == {
        "image", "text", "retrieval", "alignment"
    }  # fmt: skip
    assert set(found["chance"]) == {name for name in found["metrics"]["f"] if "loss" not in name}
    assert (found["classes"], found["probe"], found["probe_sublabel"], found["skipped"]) == ([], None, None, why)


def test_the_prompts_must_be_those_of_the_pairs():
    utility = Utility(pairs(), EvaluateSection(), STATISTICS)
    embeddings, prompts = model(0, utility.pairs)
    for wrong in (prompts[:-1], None):
        with pytest.raises(InputError) as error:
            utility.add("f", 0, embeddings, wrong)
        count = 0 if wrong is None else len(wrong)
        assert (error.value.what, error.value.got) == ("prompts", f"{count} embeddings")
        assert error.value.expected == f"those of the {len(prompts)} prompts"


FEW = "9 of 20 test pairs have the first caption of another pair, fewer than half"


@pytest.mark.parametrize(
    ("changes", "text", "expected"),
    [
        ({}, "", {}),
        ({}, "no text tower", dict.fromkeys(("zero_shot", "zero_shot_concept", "retrieval"), "no text tower")),
        ({"label": np.zeros(N, dtype=int)}, "", {"linear_probe": "30 pairs to train on have fewer than 2 classes"}),
        (
            {"label": np.where(np.arange(N) < 30, 2, 1)},
            "",
            {"linear_probe": "30 pairs to train on have fewer than 2 classes"},
        ),
        ({"concept": np.where(np.arange(N) < 49, np.arange(N) % 2, -1)}, "", {"zero_shot_concept": FEW}),
        ({"concept": np.where(np.arange(N) < 50, np.arange(N) % 2, -1)}, "", {}),
        (
            {"groups": np.zeros(N, dtype=int)},
            "",
            dict.fromkeys(PROBES, "the pairs to train on are one group, and choosing C needs a second one"),
        ),
        ({"train": np.ones(N, dtype=bool)}, "", dict.fromkeys(PROBES, "no labeled pair is left to test on")),
        (
            {"sublabel": np.arange(N)},
            "",
            {"linear_probe_sublabel": "30 pairs to train on have 30 classes, fewer than two pairs a class"},
        ),
    ],
)
def test_what_is_not_measured_says_why(changes, text, expected):
    kinds = {kind: labels for kind, labels in changes.items() if kind in ("label", "concept", "sublabel")}
    one = pairs(**{name: value for name, value in changes.items() if name not in kinds})
    classes = {kind: own._replace(labels=kinds.get(kind, own.labels)) for kind, own in one.classes.items()}
    assert why_not(classes, one.groups, one.test, one.train, unlabeled="no labels", text=text) == expected


def test_one_class_is_no_task():
    one = pairs()
    classes = {kind: own._replace(names=["a"]) for kind, own in one.classes.items()}
    found = why_not(classes, one.groups, one.test, one.train, unlabeled="no labels")
    assert found == dict.fromkeys(("zero_shot", "zero_shot_concept", "linear_probe"), "there is only one class")


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


@pytest.mark.slow
def test_our_measures_are_there_without_being_named():
    code = "import clipmem.measure.utility, clipmem.measure.base as base; print(*base.MEASURES)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "hypersphere" in done.stdout.split()
