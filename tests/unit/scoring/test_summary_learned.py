"""The base model's scores: `a_base` and `learned` against loops, and that nothing else sees the base model."""

import numpy as np
import polars as pl
import pytest
import torch

from clipmem.functional import crossed_mean
from clipmem.models.passes import Embeddings
from clipmem.scoring.aligning import parts_of
from clipmem.scoring.design import Design, combine
from clipmem.scoring.protocols.four_way import paired_design
from clipmem.scoring.summary import Scored, learned, roles
from clipmem.train.paired import TrainingSet
from tests.reference import loops

ROLES = ["shared"] * 3 + ["candidate"] * 8 + ["independent"] * 3 + ["external"] * 4
N, D, WEIGHT = len(ROLES), 4, 0.5
COUNTS = [k % 3 + 1 for k in range(N)]
OWNER = np.repeat(np.arange(N), COUNTS)
SPLITS = pl.DataFrame(
    {
        "uid": [f"{k:032x}" for k in range(N)],
        "role": ROLES,
        "group": [f"group {k // 2}" for k in range(N)],
        "planted": [False] * N,
        "captions_from": [f"{k:032x}" for k in range(N)],
    }
)
EXTERNAL = (SPLITS["role"] == "external").to_numpy()
BANK = np.flatnonzero(EXTERNAL).tolist()


def embeddings(seed):
    rng = np.random.default_rng(seed)
    image, text = rng.normal(0.3, 1, (N, 2, D)), rng.normal(0.3, 1, (len(OWNER), D))
    return Embeddings(torch.from_numpy(image), torch.from_numpy(text), torch.from_numpy(OWNER))


def by_loops(one):
    """A of every pair under one model, in plain loops over views, captions and the bank's other pairs."""
    views, text = one.image.tolist(), one.text.tolist()
    captions = [[text[row] for row in range(len(OWNER)) if OWNER[row] == k] for k in range(N)]
    bank = [[of[j] for j in BANK] for of in (views, captions)]
    member = {pair: place for place, pair in enumerate(BANK)}
    return [loops.alignment(views[i], captions[i], *bank, member=member.get(i, -1), weight=WEIGHT) for i in range(N)]


def four_way(seeds=2):
    return paired_design([TrainingSet(side, seed, (), 0) for seed in range(seeds) for side in "fg"], N)


def subsample():
    seen = np.array([[(pair * 7 + model * 3) % 5 < 3 for pair in range(N)] for model in range(5)])
    return Design([TrainingSet("r", k, (), 0) for k in range(5)], np.where(seen, 1, -1).astype(np.int8))


def leave_one_out():
    """f of two seeds and retrained models without candidates 3 and 4; only these and external pairs are scored."""
    models = [TrainingSet(side, seed, (), 0) for side in ("f", "without-3", "without-4") for seed in (0, 1)]
    sign = np.zeros((6, N), dtype=np.int8)
    for pair in (3, 4, *BANK):
        sign[:2, pair] = 1
        first = 2 if pair in (3, *BANK[:2]) else 4
        sign[first : first + 2, pair] = -1
    return Design(models, sign)


DESIGNS = {"four-way": four_way, "subsample": subsample, "leave-one-out": leave_one_out}
BASE = embeddings(99)


def made(design, *, base=True):
    every = [embeddings(k) for k in range(len(design.models))] + [BASE] * base
    parts = [parts_of(one, EXTERNAL) for one in every]
    return combine(design, SPLITS, parts, weight=WEIGHT, confidence=0.9)


@pytest.mark.parametrize("name", DESIGNS)
def test_learned_is_that_of_the_loops(name):
    design = DESIGNS[name]()
    table = made(design).scores
    assert table.height == {"four-way": N, "subsample": N, "leave-one-out": 6}[name]
    aligned, base = [by_loops(embeddings(k)) for k in range(len(design.models))], by_loops(BASE)
    for row in table.iter_rows(named=True):
        pair = int(row["uid"], 16)
        unseen = [aligned[k][pair] for k in range(len(design.models)) if design.sign[k, pair] == -1]
        seen = [aligned[k][pair] for k in range(len(design.models)) if design.sign[k, pair] == 1]
        assert row["a_base"] == pytest.approx(base[pair], abs=1e-10)
        assert row["learned"] == pytest.approx(sum(unseen) / len(unseen) - base[pair], abs=1e-10)
        assert row["clipmem"] == pytest.approx(sum(seen) / len(seen) - sum(unseen) / len(unseen), abs=1e-10)


@pytest.mark.parametrize("name", DESIGNS)
def test_the_base_model_changes_no_bit_of_the_other_scores(name):
    with_base, without = made(DESIGNS[name]()), made(DESIGNS[name](), base=False)
    assert with_base.scores.drop("a_base", "learned").equals(without.scores.drop("a_base", "learned"))
    assert with_base.seed_scores.equals(without.seed_scores)
    for column in ("a_base", "learned"):
        assert without.scores[column].dtype == pl.Float64
        assert without.scores[column].null_count() == without.scores.height
        assert with_base.scores[column].null_count() == 0


def summarized(design, *, base=True):
    tables = made(design, base=base)
    scored = Scored(SPLITS, tables)
    means = roles(scored, seed=0, draws=200, confidence=0.9)
    return tables, scored, means, learned(scored, tables.scores["a_base"], means, confidence=0.9)


@pytest.mark.parametrize(("name", "over"), [("four-way", "pairs and seeds"), ("subsample", "pairs")])
def test_the_summary_has_means_with_intervals_of_each_role(name, over):
    design = four_way(3) if name == "four-way" else subsample()
    tables, scored, means, found = summarized(design)
    assert list(found.roles) == ["shared", "candidate", "independent", "external"]
    for role, entry in found.roles.items():
        own = tables.scores.filter(role=role)
        assert entry.n == own.height == ROLES.count(role)
        for column in ("a_base", "learned", "clipmem"):
            assert getattr(entry, column).mean == pytest.approx(own[column].mean(), abs=1e-12)
            assert getattr(entry, column).low < getattr(entry, column).mean < getattr(entry, column).high
        assert entry.clipmem.document() == means[role].model_dump(include={"mean", "low", "high", "over"})
        assert entry.a_base.over == "pairs"  # one model
        assert entry.learned.over == over
    ranks = tables.scores.filter(role="candidate").select(pl.corr("learned", "clipmem", method="spearman"))
    assert found.spearman.spearman == pytest.approx(ranks.item())
    if scored.paired:  # a seed at a time, with the base model the same in each
        where = scored.of("candidate")
        expected = crossed_mean(
            (scored.g - tables.scores["a_base"].to_numpy())[:, where], scored.group[where], confidence=0.9
        )
        assert found.roles["candidate"].learned.document() == expected._asdict()


def test_from_scratch_there_is_no_entry():
    assert summarized(four_way(), base=False)[-1] is None
