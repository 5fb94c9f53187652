"""Planned reproductions: replicates that are a seed and a split each, what is negligible, what deviates from a plan."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.compared import build

from clipmem.data.sources import open_source
from clipmem.data.sources.emoji import emoji_table
from clipmem.functional import Claim, verdict
from clipmem_reproduce.effects import ABOVE, BELOW, Effect, Results
from clipmem_reproduce.finding import Context, judge
from clipmem_reproduce.findings import FINDINGS, captions, encoders, one_pass, planted, removal, roles, text_noise
from clipmem_reproduce.measured import Measured
from clipmem_reproduce.plan import PLANS, deviations, plan_changes, plan_hash
from clipmem_reproduce.reproduction import base_recipe, find_scale, findings_of
from clipmem_reproduce.scales import SCALES
from clipmem_reproduce.spec import RunSpec

PLAN = Path(__file__).parents[1] / "PLAN.md"
ROLES = ("shared", "candidate", "independent", "external")
PLANNED = [regime for regime, name in SCALES if name == "planned"]


def context(regime: str = "redundant", scale: str = "planned", seeds: int | None = None) -> Context:
    return Context(find_scale(scale, regime), base_recipe(scale, regime, seeds))


def test_a_replicate_is_a_seed_and_a_split_and_its_parent_too():
    where = context(seeds=3)
    runs = where.replicates(RunSpec())
    recipes = [run.recipe(where.base) for run in runs]
    assert [(one.train.seeds, one.split.seed) for one in recipes] == [((100,), 100), ((101,), 101), ((102,), 102)]
    assert len({run.key(where.base) for run in runs}) == 3
    assert [run.of_seed for run in runs] == [", seed 100", ", seed 101", ", seed 102"]
    of_scores = removal.without(where, 0.2, 0.2, "clipmem").seeded([7, 8])
    for run, seed in zip(where.replicates(of_scores), (7, 8), strict=True):
        assert run.parent is not None
        parent = run.parent.recipe(where.base)
        assert (parent.split.seed, parent.train.seeds) == (seed, (seed,))
    [frozen] = where.replicates(encoders.frozen(where, "image").seeded([7]))  # its warm start has a split of its own
    assert frozen.parent is not None
    start = frozen.parent.recipe(where.base)
    assert (start.train.seeds, start.split.seed) == ((0,), 7)
    plain = context(scale="tiny")
    assert plain.replicates(RunSpec()) == [RunSpec()]
    assert RunSpec().of_seed == ""


def test_measurements_of_replicates_follow_each_other(tmp_path):
    where = context(seeds=3)
    folders = {
        run: build(tmp_path / f"run-{k}", seeds=(100 + k,), noise=k, planted=2 + k, utility=0.1 * k)
        for k, run in enumerate(where.replicates(RunSpec()))
    }
    results = Results(lambda spec: Measured(folders[spec]), 0.95, replicates=where.replicates)
    single = [Measured(folder) for folder in folders.values()]
    expected = [run.half_difference(run.uids("candidate"), run.uids("independent"))[0] for run in single]
    assert results.values(RunSpec()) == expected
    assert results.values(RunSpec(), "linear_probe_acc1") == [run.utility["linear_probe_acc1"][0] for run in single]
    assert results.values(RunSpec(), "nothing") == []
    assert results.by_seed(RunSpec(), roles.separation) == [roles.separation(run)[0] for run in single]
    assert results.again(2).values(RunSpec()) == results.divided(2).values(RunSpec()) == expected
    effect = results.effect("m", expected, None, ABOVE)
    assert (effect.seeds, effect.estimate) == (3, pytest.approx(np.mean(expected)))


def test_pairs_of_a_split_are_compared_with_those_of_the_same_split(tmp_path):
    where = context(seeds=2)
    swapped = planted.swapped(where)
    folders = {
        run: build(
            tmp_path / f"{name}-{k}", seeds=(100 + k,), noise=10 * k + change, planted=2 + k, effect=0.5 + change
        )
        for change, (name, spec) in enumerate({"base": RunSpec(), "swapped": swapped}.items())
        for k, run in enumerate(where.replicates(spec))
    }
    results = Results(lambda spec: Measured(folders[spec]), 0.95, replicates=where.replicates)
    means = planted.by_caption(where, results)
    pairs = [[Measured(folders[run]) for run in where.replicates(spec)] for spec in (RunSpec(), swapped)]
    for name, uids_of in {
        "pairs with swapped captions": lambda run: run.planted,
        "other candidates": lambda run: run.uids("candidate") - run.planted,
    }.items():
        before, after = means[name]
        for k, (base, run) in enumerate(zip(*pairs, strict=True)):
            assert (before[k], after[k]) == (base.memorization(uids_of(run))[0], run.memorization(uids_of(run))[0])


@given(st.floats(-1, 1), st.floats(0, 1), st.floats(0.001, 1), st.sampled_from([ABOVE, BELOW, Claim("zero", 0.1)]))
def test_negligible_is_all_within_the_declared_size(low, width, size, claim):
    high = low + width
    effect = Effect("m", (low + high) / 2, low, high, claim, 5, 0.95, negligible=size)
    within = all(abs(end) < size for end in (low, high)) and claim.side != "zero"
    assert effect.holds == ("negligible" if within else verdict(low, high, claim))
    assert Effect("m", 0.0, None, None, claim, 5, 0.95, negligible=size).holds == "inconclusive"


def test_a_finding_declares_what_is_negligible_for_its_primary_effect_alone(monkeypatch):
    finding, where = FINDINGS["one-pass"](), context()
    monkeypatch.setattr(Results, "values", lambda *_: [0.001, -0.001, 0.0005])
    first = {"claim": ABOVE, "primary": True}
    monkeypatch.setattr(
        one_pass, "beyond_shared", lambda results, run: results.effect("m", results.values(run), None, **first)
    )
    results = Results(lambda spec: None, 0.95)
    assert judge(finding, where, results)["holds"] == "inconclusive"
    monkeypatch.setattr(type(finding), "negligible", 0.5)
    judged = judge(finding, where, results)
    assert judged["holds"] == "negligible"
    assert [effect["negligible"] for effect in judged["effects"]] == [0.5] + [0.0] * (len(judged["effects"]) - 1)
    assert judge(finding, context(scale="tiny"), results)["holds"] == "inconclusive"  # it was not planned


def test_noise_starts_after_a_third_where_the_plan_decides():
    for regime in PLANNED:
        where = context(regime)
        runs = text_noise.TextNoise().runs(where)
        recipes = {name: run.recipe(where.base) for name, run in runs.items()}
        decides = recipes["post, from a third 0.15"]
        assert (decides.mitigate.text_noise.std, decides.mitigate.text_noise.start) == (0.15, 0.33)
        assert len(decides.train.seeds) == where.scale.seeds
        early = recipes["post, from the first step 0.15"]
        assert (early.mitigate.text_noise.start, len(early.train.seeds)) == (0.0, where.scale.fewer)
        assert {recipe.train.epochs for recipe in recipes.values()} <= {
            where.scale.noise_epochs,
            where.scale.noise_longest,
        }
        places = {recipe.mitigate.text_noise.place for recipe in recipes.values() if recipe.mitigate.text_noise.std}
        assert places == {"pre", "post", "post-scaled"}


def test_a_warm_start_has_no_emoji_and_no_caption_of_the_study():
    for regime in PLANNED:
        where = context(regime)
        [run, *_] = where.replicates(encoders.frozen(where, "text.embeddings"))
        assert run.parent is not None
        sources = [open_source(spec.recipe(where.base).data) for spec in (run, run.parent)]
        study, start = (source.pairs() for source in sources)
        emoji = dict(emoji_table().select("id", "unicode").iter_rows())
        drawn, read = ({emoji[key] for key in pairs["key"]} for pairs in (study, start))
        assert not drawn & read
        captions = [{text.casefold() for texts in pairs["captions"] for text in texts} for pairs in (study, start)]
        assert not captions[0] & captions[1]
        needed = [sum(getattr(spec.recipe(where.base).split, role) for role in ROLES) for spec in (run, run.parent)]
        assert [study.height > needed[0], start.height > needed[1]] == [True, True]
        if regime == "unique":
            assert len(drawn) == study.height  # a pair per emoji
        assert all(source.ledger.read == pairs.height for source, pairs in zip(sources, (study, start), strict=True))


def test_both_leads_of_the_text_tower_must_hold(tmp_path, monkeypatch):
    where = context(seeds=3)
    levels = {"1 image, 1 caption": 0.5, "warm start": 0.5, "image tower frozen": 0.4, "text tower frozen": 0.1}
    runs = encoders.Encoders().runs(where)
    folders = {
        replicate: build(tmp_path / f"{name}-{k}", seeds=(100 + k,), noise=k, effect=levels.get(name, 0.2))
        for name, spec in runs.items()
        for k, replicate in enumerate(where.replicates(spec))
    }
    shares = {"text": [0.3], "image": [0.25]}
    monkeypatch.setattr(Measured, "tower_shares", lambda _: shares)
    results = Results(lambda spec: Measured(folders[spec]), 0.95, replicates=where.replicates)
    effects = encoders.Encoders().effects(where, results)
    base, warm, no_image, no_text = (runs[name] for name in levels)
    measured = [Measured(folders[replicate]) for replicate in where.replicates(base)]
    candidates = np.mean([run.memorization(run.uids("candidate")) for run in measured])
    alone = np.subtract(results.values(no_image), results.values(no_text)) / np.mean(results.values(warm))
    assert effects[0].primary
    assert not any(effect.primary for effect in effects[1:])
    assert effects[0].estimate == pytest.approx(min(alone.mean(), 0.05 / candidates))
    shares["image"] = [0.4]  # the swap disagrees with freezing
    assert encoders.Encoders().effects(where, results)[0].estimate == pytest.approx(-0.1 / candidates)
    [memorization] = encoders.Encoders().panels(where, results)  # utility was not measured
    assert memorization.ticks == ["nothing", "image tower", "text tower", "token table"]
    assert memorization.series[0].mean == [np.mean(results.values(spec)) for spec in list(runs.values())[1:]]


def test_captions_are_judged_over_all_of_them(tmp_path):
    where = context(seeds=2)
    base, most = RunSpec(), captions.several(5)
    folders: dict[RunSpec, Path] = {}
    for name, spec, wordings in (("base", base, 0.4), ("most", most, 0.3)):
        for k, run in enumerate(where.replicates(spec)):
            settings = {"seeds": (100 + k,), "noise": k, "wordings": wordings + 0.01 * k, "effect": 0.5}
            folders[run] = build(tmp_path / f"{name}-{k}", **settings)
    results = Results(lambda spec: Measured(folders[spec]), 0.95, replicates=where.replicates)
    where = Context(replace(where.scale, captions=(1, 5)), where.base)
    [primary] = [effect for effect in captions.Captions().effects(where, results) if effect.primary]
    assert primary.measure == "5 captions: relative change of CLIPMem over all captions"
    before, after = (np.array(results.values(spec, "clipmem_wordings")) for spec in (base, most))
    assert primary.estimate == pytest.approx((after - before).mean() / before.mean())
    runs = captions.Captions().runs(context())
    seeds = [len(runs[f"{count} captions"].recipe(context().base).train.seeds) for count in (1, 2, 3, 4, 5)]
    assert seeds == [12, 6, 6, 6, 12]


def test_the_plan_names_what_is_planned_and_what_is_not():
    text = PLAN.read_text(encoding="utf-8")
    rules = text[text.index("Rules for all findings") : text.index("## Noise")]
    section = text[text.index("Noise on text embeddings (") : text.index("## Number of captions")]
    assert plan_hash("text-noise") == hashlib.sha256((rules + section).encode()).hexdigest()
    assert plan_hash("removal") == ""
    for regime in PLANNED:
        scale = SCALES[regime, "planned"]
        assert scale.first >= 100  # earlier runs have the seeds 0 to 31
        assert all(f"(`{name}`)" in text for name in findings_of(scale))
        assert not any(f"(`{name}`)" in text for name in scale.pending)
        assert {*findings_of(scale), *scale.pending, *scale.without} == set(FINDINGS)
    sizes = {name: FINDINGS[name].negligible for name in findings_of(SCALES["redundant", "planned"])}
    assert sizes == {
        "captions": 0.02, "encoders": 0.1, "text-noise": 0.02,
        "roles": 0.0, "memorized": 0.05, "redundancy": 0.05, "tradeoff": 0.05, "data-size": 0.1,
        "model-size": 0.01, "one-pass": 0.0,
    }  # fmt: skip


def test_what_the_user_sets_is_a_deviation():
    scale = SCALES["redundant", "planned"]
    assert deviations(scale, None, ()) == deviations(scale, scale.seeds, ()) == []
    assert deviations(scale, 3, ["train.epochs=2"]) == ["3 seeds instead of 12", "set by the user: train.epochs=2"]


def test_a_plan_that_changes_after_its_first_run_is_a_deviation(tmp_path, monkeypatch):
    assert plan_changes(tmp_path, ["text-noise"]) == []
    stored = json.loads((tmp_path / PLANS).read_text(encoding="utf-8"))
    assert stored == {"text-noise": plan_hash("text-noise")}
    (tmp_path / PLANS).write_text(json.dumps({"text-noise": "another"}), encoding="utf-8")
    assert plan_changes(tmp_path, ["captions", "text-noise"]) == [
        "the plan of text-noise was changed after its first run"
    ]
    stored = json.loads((tmp_path / PLANS).read_text(encoding="utf-8"))
    assert stored == {"captions": plan_hash("captions"), "text-noise": "another"}  # the first one is kept
