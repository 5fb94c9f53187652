"""Déjà Vu on embeddings made by hand: what f memorized must show, and where nothing was memorized nothing may.

There are classes of images; a class has a direction and two objects of its own. Held-out images lie on their class's
direction. A memorized caption lies on its image's class, another caption nowhere in particular.
"""

import numpy as np
import torch

from clipmem.base.sections import DejavuSection
from clipmem.measure import dejavu
from clipmem.models.passes import Embeddings

CLASSES, D, K = 12, 24, 5
SIZES = {"shared": 60, "candidate": 120, "independent": 120, "external": 96}
ROLE = np.repeat(list(SIZES), list(SIZES.values()))
CLASS = np.arange(len(ROLE)) % CLASSES
OBJECTS = [[f"thing {c}", f"place {c}"] for c in CLASS]
GAPS = ("precision_gap", "recall_gap", "auc_gap")


def model(seed, saw):
    rng = np.random.default_rng(seed)
    directions = np.linalg.qr(np.random.default_rng(0).normal(size=(D, D)))[0][:CLASSES]
    image = directions[CLASS] + 0.05 * rng.normal(size=(len(ROLE), D))
    text = rng.normal(size=(len(ROLE), D))
    text[saw] = directions[CLASS[saw]] + 0.05 * rng.normal(size=(int(saw.sum()), D))
    return Embeddings(torch.from_numpy(image)[:, None].float(), torch.from_numpy(text).float(), torch.arange(len(ROLE)))


def measured(models):
    labeled = dejavu.Labeled(
        [f"{i:032x}" for i in range(len(ROLE))],
        ROLE,
        np.arange(len(ROLE)),
        OBJECTS,
        np.zeros(len(ROLE), dtype=bool),
        (ROLE == "candidate") - 1.0 * (ROLE == "independent"),
    )
    return dejavu.measure(
        [(lambda f=f: f, lambda g=g: g) for f, g in models],
        labeled,
        DejavuSection(neighbors=K),
        dejavu.Statistics(0.95, 500, 0),
    )


F_SAW, G_SAW = np.isin(ROLE, ("shared", "candidate")), np.isin(ROLE, ("shared", "independent"))


def test_what_f_memorized_is_found_and_mirrored():
    found = measured([(model(1, F_SAW), model(2, G_SAW)), (model(3, F_SAW), model(4, G_SAW))])[0]
    roles = found["two_model"]["roles"]
    for gap in GAPS:
        # a random caption meets its class among 5 of 96 images now and then: the gap is below 1
        assert roles["candidate"][gap]["low"] > 0.3
        assert roles["independent"][gap]["high"] < -0.3
        assert abs(roles["shared"][gap]["mean"]) < 0.1
    assert roles["candidate"]["recall"]["f"] == 1
    for top, floor in zip(roles["candidate"]["top"], found["floor"]["top"], strict=True):
        assert top["pairs"] == max(1, int(120 * top["fraction"]))
        assert top["recall"]["mean"] >= floor["recall"]["mean"] > 0  # the top of two models that saw nothing


def test_equal_models_have_no_gap_at_all():
    same = model(1, F_SAW)
    found = measured([(same, same)])[0]["two_model"]
    for entry in found["roles"].values():
        assert all(entry[gap] == {"mean": 0.0, "low": 0.0, "high": 0.0, "over": "pairs"} for gap in GAPS)
        assert all(top[kind]["mean"] == 0 for top in entry["top"] for kind in ("precision", "recall", "f_score"))
    assert found["extra_mean"] == 0
    assert found["clipmem"] == {"spearman": None, "low": None, "high": None}  # no order among equal values


def test_models_that_saw_nothing_have_no_gap_but_a_top():
    nothing = np.zeros(len(ROLE), dtype=bool)
    models = [(model(2 * seed, nothing), model(2 * seed + 1, nothing)) for seed in range(3)]
    found = measured(models)[0]
    for entry in found["two_model"]["roles"].values():
        assert all(entry[gap]["low"] <= 0 <= entry[gap]["high"] for gap in GAPS)
    top, floor = found["two_model"]["roles"]["candidate"]["top"][-1], found["floor"]["top"][-1]
    assert top["recall"]["low"] > 0  # chosen, not memorized: that is what the floor is for
    assert floor["recall"]["low"] <= top["recall"]["mean"] <= floor["recall"]["high"]
