"""Protocols: who trains on what, and scores against loops written from the equations."""

import math
import re
from collections import Counter

import numpy as np
import polars as pl
import pytest
import torch

from clipmem.base.errors import InputError, RunError
from clipmem.base.recipes import dump_recipe, load_recipe
from clipmem.functional import AlignmentParts
from clipmem.scoring.design import Design, combine
from clipmem.scoring.protocols import PROTOCOLS, protocol_of
from clipmem.scoring.protocols.subsample import balanced_draw
from clipmem.scoring.summary import Scored, halves, summarize, two_way_interval
from clipmem.study.plan import PlannedStudy
from clipmem.study.utility import evaluated
from clipmem.train.paired import TrainingSet, check_alike
from tests.tiny import epoch_batches, tiny_recipe

UIDS = [f"{k:032x}" for k in range(40)]
ROLES = ["shared"] * 16 + ["candidate"] * 8 + ["independent"] * 8 + ["external"] * 8


def splits():
    return pl.DataFrame(
        {
            "uid": UIDS,
            "role": ROLES,
            "group": UIDS,
            "planted": [16 <= k < 20 for k in range(40)],
            "captions_from": UIDS,
        }
    )


def random_parts(count, n=40, seed=0):
    rng = np.random.default_rng(seed)
    return [AlignmentParts(*(torch.from_numpy(rng.normal(size=n)) for _ in range(3))) for _ in range(count)]


def scores(protocol, table, parts, design=None):
    return combine(design or protocol.design(table), table, parts, weight=1.0, confidence=0.95)


def summary_of(protocol, table, made):
    return summarize(Scored(table, made), protocol.recipe.score, seed=0)


def test_all_protocols_are_registered():
    assert set(PROTOCOLS) == {"f-only", "four-way", "given", "halves", "leave-one-out", "subsample"}
    for name in PROTOCOLS:
        models = ["given.target=['a', 'b']", "given.reference=['c', 'd']"] if name == "given" else []
        recipe = tiny_recipe(f"protocol={name}", "leave_one_out.pairs=3", "subsample.models=5", *models)
        protocol = protocol_of(recipe)
        design = protocol.design(protocol.roles(splits()))
        models = design.models
        assert len(models) == protocol.count
        assert design.sign.shape == (len(models), 40)
        assert len({(model.side, model.seed) for model in models}) == len(models)
        for model in models:
            assert not set(model.uids) & set(UIDS[32:])  # nobody trains on the bank


SIDES = {
    "f-only": {"f": "f"},
    "four-way": {"f": "f", "g": "g"},
    "given": {"f": "f", "g": "g"},
    "halves": {"f": "f", "half-a": "g", "half-b": "g"},
    "leave-one-out": {"f": "f", "without": "g"},
    "subsample": {"r": "f"},
}


@pytest.mark.parametrize("name", SIDES)
def test_sides_and_complements_follow_from_the_design(name, tmp_path):
    models = ["given.target=['a', 'b']", "given.reference=['c', 'd']"] if name == "given" else []
    recipe = tiny_recipe(f"protocol={name}", "leave_one_out.pairs=3", "subsample.models=20", "halves.pairs=6", *models)
    protocol = protocol_of(recipe)
    design = protocol.design(protocol.roles(splits()))
    names = (re.sub("-[0-9a-f]{32}$", "", model.side) for model in design.models)
    assert dict(zip(names, design.sides, strict=True)) == SIDES[name]
    if name == "halves":
        assert design.couples.tolist() == [[1 + 2 * k, 2 + 2 * k] for k in range(6)]
    if name == "subsample":
        assert design.couples.tolist() == []
    # models of pairs are all evaluated; of other models eight of a side
    study = PlannedStudy(tmp_path, recipe)
    study.__dict__["design"] = design
    counts = Counter(study.side(model) for model in evaluated(study))
    assert counts == {"subsample": {"f": 8}, "halves": {"f": 1, "g": 8}, "leave-one-out": {"f": 2, "g": 6}}.get(
        name, Counter(design.sides)
    )


# ---- subsample


@pytest.fixture
def subsample():
    return protocol_of(tiny_recipe("protocol=subsample", "subsample.models=7", "subsample.fraction=0.6"))


def test_every_pair_is_in_as_many_models_and_every_model_as_large(subsample):
    models = subsample.design(subsample.roles(splits())).models
    assert sorted(len(model.uids) for model in models) == [18] * 5 + [19] * 2  # 32 pairs, each 4 times
    assert len({model.uids for model in models}) == 7
    assert len({model.init_seed for model in models}) == 7
    assert [sum(uid in model.uids for model in models) for uid in UIDS[:32]] == [4] * 32
    # neither the order of the rows nor the names of the groups decide
    table = splits().sample(fraction=1, shuffle=True, seed=1).with_columns(group=pl.lit("g") + pl.col("uid").reverse())
    assert subsample.design(subsample.roles(table)).models == models
    other = protocol_of(load_recipe(dump_recipe(subsample.recipe), ["split.seed=1"]))
    assert other.design(subsample.roles(splits())).models != models


def test_near_duplicates_are_in_or_out_together(subsample):
    groups = [UIDS[k - k % 3] if k < 12 else UIDS[k] for k in range(40)]
    groups[38] = groups[39]  # external ones, for the placebo
    table = subsample.roles(splits().with_columns(group=pl.Series(groups)))
    design = subsample.design(table)
    models, member = design.models, design.sign > 0
    for name in set(groups):
        [of_group] = np.unique(member[:, [k for k in range(40) if groups[k] == name]], axis=1).T
        assert of_group.sum() == 4
    assert {len(model.uids) for model in models} == {18, 19}


def test_models_of_different_sizes_train_for_as_many_steps(subsample):
    models = subsample.design(subsample.roles(splits())).models
    # 18 and 19 pairs: two batches of at most 9 or three, if each model counted by itself
    assert {model.batch_count(9) for model in models} == {3}
    for model in models:
        batches = model.batches(9, epoch=1)
        assert len(batches) == 3
        assert sorted(np.concatenate(batches).tolist()) == list(range(len(model.uids)))
        assert {len(batch) for batch in batches} <= {6, 7}


@pytest.mark.parametrize(("models", "fraction", "times"), [(8, 0.05, 0), (8, 0.95, 8)])
def test_a_fraction_that_gives_all_models_or_none_is_refused(models, fraction, times):
    protocol = protocol_of(
        tiny_recipe("protocol=subsample", f"subsample.models={models}", f"subsample.fraction={fraction}")
    )
    with pytest.raises(InputError) as error:
        protocol.check_pairs(splits())
    assert error.value.what == "[subsample] fraction"
    assert error.value.got == f"{fraction} of 8 models, or {times} per pair"
    assert error.value.expected == "1 to 7 of 8 models per pair"


@pytest.mark.parametrize(("fraction", "times"), [(0.125, 1), (0.875, 7)])
def test_a_fraction_may_give_one_model_or_all_but_one(fraction, times):
    assert (
        protocol_of(tiny_recipe("protocol=subsample", "subsample.models=8", f"subsample.fraction={fraction}")).times
        == times
    )


def test_models_that_trained_on_other_pairs_are_refused(subsample):
    design = subsample.design(subsample.roles(splits()))
    models = design.models
    alike = {"settings_sha256": "s", "steps": 3, "init_sha256": "i"}
    records = {(one.side, one.seed): alike | {"uids_sha256": one.uids_sha256} for one in models}
    subsample.check(design, records)
    for other in (alike, alike | {"uids_sha256": models[1].uids_sha256}):  # a record of an earlier version has none
        with pytest.raises(RunError):
            subsample.check(design, records | {("r", 0): other})


SIZES = {
    "pairs": np.ones(60, dtype=np.int64),
    "groups": np.array([1] * 50 + [2] * 6 + [3, 4, 9]),
}


@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize(("models", "times"), [(8, 4), (16, 11), (5, 1), (5, 4)])
def test_the_balanced_draw_is_random_in_all_else(sizes, models, times):
    groups, draws = len(sizes), 400
    drawn = np.stack([balanced_draw(sizes, models, times, np.random.default_rng(seed)) for seed in range(draws)])
    assert (drawn.sum(axis=1) == times).all()
    totals = drawn @ sizes
    spread = totals.max(axis=1) - totals.min(axis=1)
    assert spread.max() <= sizes.max() // 4 + 1  # of pairs: one
    assert (spread <= 1).mean() > 0.99
    # each group is in each model equally often: 4.5 standard errors
    share = times / models
    error = np.sqrt(share * (1 - share) / draws)
    assert np.abs(drawn.mean(axis=0) - share).max() < 4.5 * error
    # couples of groups are in the same models as often as if each had been drawn by itself, and vary as much
    single = sizes == 1
    member = drawn[:, :, single].astype(np.float64)
    together = np.einsum("dri,drj->dij", member, member)[:, *np.triu_indices(int(single.sum()), 1)]
    variance = times * share * (1 - share) * (models - times) / (models - 1)
    # within what drawing without replacement, and making room for large groups, does
    assert abs(together.mean() - times * share) < 1.5 * times * (1 - share) / groups
    assert together.var() == pytest.approx(variance, rel=0.06)
    # nobody's company is fixed: the mean over draws of every couple, 5 standard errors
    assert np.abs(together.mean(axis=0) - together.mean()).max() < 5 * np.sqrt(variance / draws)


def test_subsample_scores_are_in_minus_out(subsample):
    table = subsample.roles(splits())
    models, parts = subsample.design(table).models, random_parts(7)
    made = scores(subsample, table, parts)
    assert made.scores["clipmem"].null_count() == 0
    for row, uid in enumerate(UIDS[:32]):
        values = [float(one.positive[row] - one.image_bank[row] - one.text_bank[row]) for one in parts]
        inside = [value for value, model in zip(values, models, strict=True) if uid in model.uids]
        outside = [value for value, model in zip(values, models, strict=True) if uid not in model.uids]
        got = made.scores.row(row, named=True)
        assert got["clipmem"] == pytest.approx(sum(inside) / len(inside) - sum(outside) / len(outside), abs=1e-12)
        positive = [float(one.positive[row]) for one, m in zip(parts, models, strict=True) if uid in m.uids]
        assert got["f_positive"] == pytest.approx(sum(positive) / len(positive), abs=1e-12)
        assert got["low"] < got["clipmem"] < got["high"]
    seeds = made.seed_scores.filter(pl.col("uid") == UIDS[3])
    assert seeds["f"].is_not_null().to_list() == [UIDS[3] in model.uids for model in models]
    assert (seeds["f"].is_null() != seeds["g"].is_null()).all()


def test_the_placebo_of_the_external_pairs_has_nothing_to_do_with_training(subsample):
    table = subsample.roles(splits())
    member = subsample.design(table).sign > 0
    assert member[:, 32:].sum(axis=0).tolist() == [4] * 8
    assert set(member[:, 32:].sum(axis=1).tolist()) == {4, 5}
    np.testing.assert_array_equal(member, subsample.design(table).sign > 0)


def test_tables_read_back_as_matrices(subsample):
    table = subsample.roles(splits())
    design, parts = subsample.design(table), random_parts(7)
    found = Scored(table, scores(subsample, table, parts))
    assert not found.paired
    np.testing.assert_array_equal(found.seen, design.sign > 0)
    expected = np.stack([(one.positive - one.image_bank - one.text_bank).numpy() for one in parts])
    np.testing.assert_allclose(found.values, expected, atol=1e-12)


def test_subsample_summary_finds_what_is_planted(subsample):
    table = subsample.roles(splits())
    models = subsample.design(table).models
    parts = []
    for k, model in enumerate(models):
        rng = np.random.default_rng(k)
        seen = np.array([uid in model.uids for uid in UIDS])
        planted = table["planted"].to_numpy()
        positive = seen * (0.5 + 0.3 * planted + np.linspace(0, 0.2, 40)) + 0.02 * rng.normal(size=40)
        nothing = torch.zeros(40, dtype=torch.float64)
        parts.append(AlignmentParts(torch.from_numpy(positive), nothing, nothing.clone()))
    found = summary_of(subsample, table, scores(subsample, table, parts))
    assert found.planted.auroc == 1.0
    candidate, external = found.roles["candidate"], found.roles["external"]
    assert candidate.low < candidate.mean < candidate.high
    assert candidate.low > 0.4
    assert external.low < 0 < external.high
    assert found.stability.spearman > 0.2
    assert found.tests[0].superiority == 1.0


def test_the_interval_of_a_mean_covers_models_and_pairs():
    rng = np.random.default_rng(0)
    hits = 0
    for trial in range(60):
        member = balanced_draw(np.ones(30, dtype=np.int64), 12, 6, rng)
        by_model, by_pair = rng.normal(scale=0.1, size=(12, 1)), rng.normal(scale=0.2, size=30)
        values = member * (0.5 + by_pair) + by_model + rng.normal(scale=0.1, size=(12, 30))
        made = two_way_interval(values, member, np.arange(30), seed=trial, draws=200, confidence=0.95)
        hits += made.low <= 0.5 <= made.high
    assert hits >= 51  # 60 * 0.95 = 57; P(< 51) is about 0.5 %


def test_a_pair_in_all_models_is_a_bug_and_not_a_missing_score(subsample):
    table = subsample.roles(splits())
    models = [TrainingSet("r", k, tuple(UIDS[:1]), 0) for k in range(7)]
    with pytest.raises(RunError):
        scores(subsample, table, random_parts(7), Design(models, np.ones((7, 40), dtype=np.int8)))


def test_an_unused_model_without_twins_is_refused(subsample):
    table = subsample.roles(splits())
    models = [TrainingSet("r", k, tuple(UIDS[:1]), 0) for k in range(7)]
    sign = np.where(np.arange(7)[:, None] % 2 == np.arange(40) % 2, 1, -1).astype(np.int8)
    assert len(scores(subsample, table, random_parts(7), Design(models, sign)).scores) == 40
    sign[6, 3] = 0
    with pytest.raises(InputError) as error:
        scores(subsample, table, random_parts(7), Design(models, sign))
    assert (error.value.what, error.value.got) == ("design", "0 (not used) for unpaired models")


def test_halves_need_ten_pairs_that_both_score():
    member = np.array([[True] * 20, [False] * 20])
    assert halves(np.zeros((2, 20)), member, np.ones(20, dtype=bool), seed=0, confidence=0.95) is None
    # six models: a pair that one model has can be in one half only; the rest are in one model of either half
    for scored in (9, 10):
        member = np.zeros((6, 20), dtype=bool)
        member[:, :scored] = np.arange(6)[:, None] < 4
        member[0] = True
        values = np.random.default_rng(0).normal(size=(6, 20))
        found = halves(values, member, np.ones(20, dtype=bool), seed=0, confidence=0.95)
        assert (found is None) == (scored < 10)
    assert found.unscored == 10


# ---- leave-one-out


def leave_one_out(*settings):
    return protocol_of(tiny_recipe("protocol=leave-one-out", "leave_one_out.pairs=4", *settings))


def test_the_pairs_left_out_are_candidates_a_third_planted():
    chosen = leave_one_out().left_out(splits())
    assert len(chosen) == len(set(chosen)) == 4
    assert set(chosen) <= set(UIDS[16:24])
    assert len(set(chosen) & set(UIDS[16:20])) == 1
    listed = leave_one_out(f"leave_one_out.uids=['{UIDS[17]}', '{UIDS[22]}']")
    assert listed.left_out(splits()) == [UIDS[17], UIDS[22]]
    assert listed.count == 2 * 3
    with pytest.raises(InputError) as error:
        leave_one_out(f"leave_one_out.uids=['{UIDS[0]}']").left_out(splits())
    assert str(error.value) == (
        f"[leave_one_out] uids: got {UIDS[0]}, expected uids of candidates. See splits.parquet."
    )
    all_but_one = leave_one_out("leave_one_out.pairs=7").left_out(splits())
    assert len(all_but_one) == len(set(all_but_one)) == 7  # four are not planted, and a third of 7 is 2
    with pytest.raises(InputError, match="got 9 of 8 candidates, expected at most 8"):
        leave_one_out("leave_one_out.pairs=9").left_out(splits())


def test_the_others_are_shown_as_if_the_pair_were_there():
    models = leave_one_out().design(splits()).models
    whole, without = models[0], next(model for model in models if model.left_out and model.seed == models[0].seed)
    assert without.uids == whole.uids
    assert without.init_seed == whole.init_seed
    slot = whole.uids.index(without.left_out)
    for epoch in range(3):
        full, less = whole.batches(5, epoch), without.batches(5, epoch)
        assert [batch.tolist() for batch in full] == [
            batch.tolist() for batch in epoch_batches(24, 5, seed=whole.seed, epoch=epoch)
        ]
        assert [[k for k in batch.tolist() if k != slot] for batch in full] == [batch.tolist() for batch in less]


def test_leave_one_out_scores_are_differences():
    protocol = leave_one_out()
    models = protocol.design(splits()).models
    parts = random_parts(len(models))
    made = scores(protocol, splits(), parts)
    values = {
        (model.side, model.seed): one.positive - one.image_bank - one.text_bank
        for model, one in zip(models, parts, strict=True)
    }
    left = {model.left_out: model.side for model in models if model.left_out}
    assert made.scores["uid"].to_list() == sorted([*left, *UIDS[32:]])
    used = {}
    for row in made.scores.iter_rows(named=True):
        at = UIDS.index(row["uid"])
        # an external pair is scored against one of the retrained models, as a pair left out is
        sides = [left[row["uid"]]] if row["uid"] in left else list(left.values())
        differences = [
            sum(float(values["f", seed][at]) - float(values[side, seed][at]) for seed in (0, 1)) / 2 for side in sides
        ]
        near = [side for side, one in zip(sides, differences, strict=True) if abs(row["clipmem"] - one) < 1e-12]
        assert len(near) == 1
        used[row["uid"]] = near[0]
        assert math.isfinite(row["stderr"])
    # which one depends on the pair, and on no other
    assert len({used[uid] for uid in UIDS[32:]}) > 1
    fewer = splits().filter(pl.col("role").ne("external") | pl.col("uid").is_in(UIDS[34:]))
    kept = [k for k in range(40) if k not in (32, 33)]
    again = scores(protocol, fewer, [AlignmentParts(*(part[kept] for part in one)) for one in parts])
    same = made.scores.filter(pl.col("uid").is_in(again.scores["uid"].to_list()))
    assert same["clipmem"].to_list() == again.scores["clipmem"].to_list()
    whole = (pl.col("f_positive") - pl.col("f_image_bank") - pl.col("f_text_bank")) - (
        pl.col("g_positive") - pl.col("g_image_bank") - pl.col("g_text_bank")
    )
    assert made.scores.select((whole - pl.col("clipmem")).abs().max()).item() < 1e-12
    found = summary_of(protocol, splits(), made)
    assert found.roles["candidate"].n == 4
    assert found.planted.n == 1


# ---- both


def test_models_that_are_not_alike_are_refused():
    record = {"settings_sha256": "s", "steps": 3, "init_sha256": "i"}
    check_alike({("f", 0): record, ("r", 1): {**record, "init_sha256": "j"}})
    with pytest.raises(RunError) as error:
        check_alike({("f", 0): record, ("g", 0): {**record, "init_sha256": "j"}})
    assert str(error.value).startswith("model g of seed 0 differs from the others: init_sha256 is j, i elsewhere.")


def test_a_training_set_without_a_pair_left_out_is_whole():
    plan = TrainingSet("f", 3, tuple(UIDS[:10]), 4)
    assert np.sort(np.concatenate(plan.batches(4, 0))).tolist() == list(range(10))


def test_a_pair_needs_models_of_both_signs():
    assert Design([], np.array([[1, 1, -1], [0, -1, 0]], dtype=np.int8)).scored.tolist() == [False, True, False]
