"""Déjà Vu of a study against loops written from its equations: gaps, and tops of bootstrap draws."""

import sys

import numpy as np
import pytest
import torch
from tests.reference import loops_dejavu as loops

from clipmem.base.random import generator
from clipmem.base.sections import DejavuSection
from clipmem.functional import dejavu, dejavu_intervals
from clipmem.measure import dejavu as stage
from clipmem.models.passes import Embeddings

ROLES = ["candidate"] * 11 + ["external"] * 9 + ["independent"] * 5 + ["shared"] * 4


def study(seed, views=2):
    """Pairs with 1 to 3 captions each, in shuffled roles, and their embeddings under one model."""
    rng = np.random.default_rng(seed)
    n = len(ROLES)
    counts = np.array([1 + i % 3 for i in range(n)])
    pair = np.repeat(np.arange(n), counts)
    image = torch.from_numpy(rng.normal(size=(n, views, 6))).float()
    return Embeddings(image, torch.from_numpy(rng.normal(size=(len(pair), 6))).float(), torch.from_numpy(pair))


def labels(seed):
    rng = np.random.default_rng(seed)
    names = [f"object {i}" for i in range(8)]
    objects = [[name for name in names if rng.random() < 0.3] for _ in ROLES]
    objects[3] = []  # a candidate that does not count
    role = np.array(ROLES)[np.random.default_rng(99).permutation(len(ROLES))]
    planted = (role == "candidate") & (np.cumsum(role == "candidate") <= 3)
    return stage.Labeled(
        [f"{i:032x}" for i in range(len(ROLES))],
        role,
        np.arange(len(ROLES)) // 2,
        objects,
        planted,
        rng.normal(size=len(ROLES)),
    )


def in_lists(model, where):
    captions = [model.text[model.text_pair == row].double().tolist() for row in np.flatnonzero(where)]
    return captions, model.image[torch.from_numpy(where)].double().tolist()


@pytest.mark.parametrize("k", [1, 4, 9])
def test_the_stage_equals_its_loops(k):
    labeled, models = labels(1), [(study(2), study(3)), (study(4), study(5))]
    settings = DejavuSection(neighbors=k, fractions=(0.1, 0.5))
    document, rows = stage.measure(
        [(lambda f=f: f, lambda g=g: g) for f, g in models],
        labeled,
        settings,
        stage.Statistics(0.9, 200, 7),
    )
    public = labeled.role == "external"
    public_objects = [set(own) for own, is_public in zip(labeled.objects, public, strict=True) if is_public]
    for name in (*stage.MEASURED, stage.NOT_MISMATCHED):
        where = labeled.where(name)
        true = [set(labeled.objects[row]) for row in np.flatnonzero(where)]
        gaps = []
        for f, g in models:
            sides = [(in_lists(model, where)[0], in_lists(model, public)[1]) for model in (f, g)]
            gaps.append(loops.dejavu_study(*sides, true, public_objects, k))
        entry = document["two_model"]["roles"][name]
        ours = [entry[gap]["mean"] for gap in ("precision_gap", "recall_gap", "auc_gap")]
        assert ours == pytest.approx(np.mean(gaps, axis=0).tolist(), abs=1e-12)
        assert entry["n"] + entry["without_objects"] == where.sum()
    assert rows["uid"].to_list() == sorted(np.array(labeled.uids)[~public])
    by_uid = dict(rows.select("uid", "extra").iter_rows())
    for uid, own in zip(labeled.uids, labeled.objects, strict=True):
        assert uid not in by_uid or (by_uid[uid] is None) == (not own)


def random_result(seed, n=23):
    rng = np.random.default_rng(seed)
    true, f, g = (torch.from_numpy(rng.random((n, 7)) < p) for p in (0.5, 0.5, 0.4))
    true[5] = False
    true[6, 0] = True
    return dejavu(true, f, g, fractions=(0.05, 0.3, 1.0))


@pytest.mark.parametrize("groups", [np.arange(23), np.arange(23) // 4])
def test_tops_of_the_bootstrap_are_ranked_again(groups):
    found = [random_result(1), random_result(1)._replace(extra=-random_result(1).extra), random_result(1)]
    found[2] = found[2]._replace(precision=found[2].precision[::-1], recall=found[2].recall * 0.5)
    draws, kept = 60, found[0].kept
    codes = np.unique(groups[kept], return_inverse=True)[1]
    count = codes.max() + 1
    picks = generator(4, "bootstrap", "groups").integers(count, size=(draws, count))
    sure = dejavu_intervals(found, groups, seed=4, draws=draws, confidence=0.8)
    for index, fraction in enumerate((0.05, 0.3, 1.0)):
        drawn = []
        for groups_drawn in picks.tolist():
            of_seeds = []
            for one in found:
                copies = []
                for row in sorted(range(len(kept)), key=(-one.extra).__getitem__):
                    rates = (*one.precision[:, row].tolist(), *one.recall[:, row].tolist())
                    copies += [rates] * groups_drawn.count(codes[row])
                of_seeds.append(loops.top_gaps(copies, fraction))
            drawn.append(np.mean(of_seeds, axis=0))
        low, high = np.quantile(drawn, [0.1, 0.9], axis=0)
        for kind, name in enumerate(("precision", "recall", "f_score")):
            entry = getattr(sure.top[index], name)
            assert (entry.low, entry.high) == pytest.approx((low[kind], high[kind]), abs=1e-12)
            assert entry.mean == pytest.approx(np.mean([getattr(one.top[index], name) for one in found]))


def test_tops_do_not_depend_on_how_many_draws_are_held(monkeypatch):
    found = [random_result(3, n=400)]
    before = dejavu_intervals(found, np.arange(400), seed=1, draws=300).top
    monkeypatch.setattr(sys.modules["clipmem.stats.dejavu"], "_CELLS", 4000)  # a few draws at a time
    assert dejavu_intervals(found, np.arange(400), seed=1, draws=300).top == before


def test_the_top_is_what_f_gets_right_beyond_g_not_what_it_gets_right():
    true = torch.ones(3, 4, dtype=torch.bool)
    f = torch.tensor([[1, 0, 0, 0], [1, 1, 1, 0], [1, 1, 0, 0]], dtype=torch.bool)
    g = torch.tensor([[0, 0, 0, 0], [1, 1, 1, 1], [1, 1, 0, 0]], dtype=torch.bool)
    found = dejavu(true, f, g, fractions=(0.3, 0.7))
    assert found.extra.tolist() == [1, -1, 0]
    assert [gap.recall for gap in found.top] == [0.25, 0.125]  # the first pair alone, then with the third


@pytest.mark.parametrize("missing", [0, 4])
def test_a_pair_without_objects_has_a_group_all_the_same(missing):
    true = torch.ones(5, 2, dtype=torch.bool)
    true[missing] = False
    one = dejavu(true, true, ~true)
    assert dejavu_intervals([one], np.arange(5), seed=0, draws=20).recall_gap.mean == 1.0
