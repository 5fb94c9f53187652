"""Planned reproductions: replicates that are a seed and a split each, what is negligible, what is run."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import open_clip
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.compared import build

from clipmem.data.sources import open_source
from clipmem.data.sources.emoji import emoji_table
from clipmem.functional import Claim, auroc, verdict
from clipmem_reproduce.effects import ABOVE, BELOW, OF_CANDIDATES, Effect, Results
from clipmem_reproduce.finding import Context, judge
from clipmem_reproduce.findings import FINDINGS, captions, encoders, one_pass, planted, removal, roles, text_noise
from clipmem_reproduce.measured import Measured
from clipmem_reproduce.page import finding_figure
from clipmem_reproduce.reproduction import base_recipe, find_scale, findings_of
from clipmem_reproduce.scales import SCALES
from clipmem_reproduce.sources import for_start
from clipmem_reproduce.spec import RunSpec

PLAN = Path(__file__).parents[1] / "PLAN.md"
ROLES = ("shared", "candidate", "independent", "external")
PLANNED = [regime for regime, name in SCALES if name == "planned"]
ERRORS = ("titles", "alt-texts")  # that people made


def context(regime: str = "redundant", scale: str = "planned", seeds: int | None = None) -> Context:
    settings = ["data.path=/somewhere"] * (regime not in ("redundant", "unique"))
    return Context(find_scale(scale, regime), base_recipe(scale, regime, seeds, settings))


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
    for regime in [name for name in PLANNED if "text-noise" not in context(name).scale.without]:
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


@pytest.mark.slow
def test_a_warm_start_has_no_emoji_and_no_caption_of_the_study():
    for regime in ("redundant", "unique"):
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


def test_training_captions_use_few_rows_of_the_token_table():
    """A pair trains with its first caption. Rows that no caption looks up have no effect, whatever their number."""
    tokens = open_clip.get_tokenizer("ViT-B-32")
    table = emoji_table().filter([not for_start(concept) for concept in emoji_table()["concept"]])
    used = set(tokens([captions[0] for captions in table["captions"]]).unique().tolist())
    assert len(used) == 1343
    assert "at most 1,343" in encoders.Encoders.limits


def test_photographs_start_from_a_model_of_emoji():
    where = context("photographs")
    [run, *_] = where.replicates(encoders.frozen(where, ""))
    assert run.parent is not None
    study, start = (spec.recipe(where.base).data for spec in (run, run.parent))
    assert (study.source, study.path, study.group_column) == ("parquet", "/somewhere", "group")
    assert (start.source, start.path, start.group_column) == ("emoji-start", "", "")
    assert open_source(start).pairs().height > 2800
    assert set(findings_of(where.scale)) == {"captions", "encoders", "text-noise"}


@pytest.mark.slow
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
    monkeypatch.setattr(Measured, "tower_shares", shares)
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


def test_a_share_of_the_seeds_may_be_more_than_all():
    where = context(seeds=12)
    seeds = {share: where.with_seeds(RunSpec(), share).recipe(where.base).train.seeds for share in (2, 1, 1 / 3, 0.01)}
    assert seeds == {2: tuple(range(100, 124)), 1: tuple(range(100, 112)), 1 / 3: (100, 101, 102, 103), 0.01: (100,)}
    assert where.with_seeds(RunSpec(), 1) == RunSpec()  # the base study as it is


@pytest.mark.slow
def test_planned_removals_are_what_the_plan_says():
    text = PLAN.read_text(encoding="utf-8")
    section = text[text.index("(`removal`)") : text.index("## Photographs")]
    seeds = {}
    for regime in ("redundant", "unique"):
        where = context(regime)
        for name, runs in removal.designs(where).items():
            recipes = {way: run.recipe(where.base) for way, run in runs.items()}
            seeds[regime, name] = [len(recipe.train.seeds) for recipe in recipes.values()]
            for way, recipe in recipes.items():
                split, remove = recipe.split, recipe.mitigate.remove
                assert split.candidate == split.independent
                if way:
                    assert (recipe.protocol, remove.by, remove.role) == ("f-only", way, "candidate")
                if way and "trial" not in name:
                    assert remove.count == split.candidate * 0.2
                    assert (split.planted_share, len(split.planted_roles)) == (0.2, 3)
                if name.endswith(" epochs"):
                    assert recipe.train.epochs == int(name.split()[0])
                    assert f"{split.shared} S, {split.candidate:,} C" in section
        for run in removal.Removal().runs(where).values():
            for replicate in where.replicates(run):
                before = replicate.parent
                if before is not None:  # scores are those of the same seed and split
                    recipe = before.recipe(where.base)
                    assert (recipe.train.seeds, recipe.split.seed) == (
                        (recipe.split.seed,),
                        replicate.study["split.seed"],
                    )
                    assert recipe.protocol == "four-way"
                    assert recipe.split == replicate.recipe(where.base).split
    assert seeds["redundant", "main design"] == [24, 12, 6, 24, 6]
    assert seeds["unique", "main design"] == [12, 12, 6, 12, 6]
    assert seeds["redundant", "equal steps"] == [6]
    assert {tuple(set(of)) for (_, name), of in seeds.items() if "trial" in name} == {(4,)}
    assert {tuple(set(of)) for (_, name), of in seeds.items() if name.endswith(" epochs")} == {(3,)}


@pytest.mark.parametrize("regime", ERRORS)
def test_errors_that_people_made_are_removed_by_shares_and_none_is_swapped(regime):
    where = context(regime)
    text = PLAN.read_text(encoding="utf-8")
    section = text[text.index(f"a regime (`{regime}`)") :]
    assert findings_of(where.scale) == ["removal"]
    runs = removal.designs(where)
    counts = {name: len(of["clipmem"].recipe(where.base).train.seeds) for name, of in runs.items()}
    shares = {
        "main design": 0.1,
        "2% of the candidates": 0.02,
        "5% of the candidates": 0.05,
        "20% of the candidates": 0.2,
        "40% of the candidates": 0.4,
    }
    assert counts == {"main design": 24} | dict.fromkeys([*list(shares)[1:], "equal steps"], 6)
    for name, share in shares.items():
        for way, run in runs[name].items():
            recipe = run.recipe(where.base)
            split, remove = recipe.split, recipe.mitigate.remove
            assert split.planted_share == split.planted == 0
            assert remove.count == (round(share * split.candidate) if way else 0)
            assert f"{split.shared} S, {split.candidate:,} C, {split.independent:,} I, {split.external} E" in section
            assert f"{recipe.train.epochs} epochs" in section
    assert set(runs["main design"]) == {"", "random", "g-alignment", "clipmem", "similarity"}
    assert len(runs["main design"]["random"].recipe(where.base).train.seeds) == 12


@pytest.mark.slow
def test_an_inverted_u_over_the_removed_share_is_seen(tmp_path):
    """Utility that rises by 10 % at the share that decides, and falls by 20 % at the largest."""
    where = context("alt-texts", seeds=4)
    changes = {"main design": 0.1, "40% of the candidates": -0.2}

    def utility(name, way, seed):
        return (0.1 + 0.001 * (seed % 3)) * (1 + changes.get(name, 0.0) * (way == "clipmem"))

    results = of_removals(tmp_path, where, utility)
    document = judge(removal.Removal(), where, results)
    effects = {effect["measure"]: effect for effect in document["effects"]}
    primary = document["effects"][0]
    assert (document["holds"], primary["estimate"]) == ("yes", pytest.approx(0.1, rel=0.01))
    assert "0% swapped captions, 10% removed" in primary["measure"]
    last = effects["40% of the candidates, removed by CLIPMem minus none: relative change of R@5"]
    assert (last["estimate"], last["holds"], last["seeds"]) == (pytest.approx(-0.2), "no", 2)
    assert not any("swapped captions by" in measure for measure in effects)
    [bars, by_share, *published] = document["panels"]
    assert "the oracle" not in bars["ticks"]
    random, memorized = by_share["series"]
    assert memorized["x"] == random["x"] == [0.02, 0.05, 0.1, 0.2, 0.4]
    assert memorized["mean"] == pytest.approx([0, 0, 0.1, 0, -0.2])
    assert random["mean"] == pytest.approx([0] * 5)
    assert all(panel["published"] for panel in published)


def test_the_trial_is_repeated_and_its_factors_are_crossed():
    where = context()
    trial, runs = where.scale.removal_trial, removal.designs(where)
    recipe = runs["trial"]["clipmem"].recipe(where.base)
    split = recipe.split
    assert (split.shared, split.candidate, split.independent, split.external) == (1500, 2500, 2500, 900)
    assert (split.planted_share * split.candidate, split.planted_roles) == (800, ("candidate",))
    assert (recipe.mitigate.remove.count, recipe.train.epochs, recipe.data.emoji_artists.artists) == (700, 15, ())
    cells = list(removal.factorial(trial))
    assert len(cells) == 8
    high = np.array([[factor in factors for factor in trial] for factors in cells]) * 2 - 1
    assert (high.T @ high == 8 * np.eye(4)).all()  # balanced, and each factor is free of the others
    nothing = runs[removal.cell(trial, ())]
    main = runs["main design"]
    for way in ("", "clipmem"):
        first = [run.key(where.base) for run in where.replicates(main[way])]
        assert [run.key(where.base) for run in where.replicates(nothing[way])] == first[:4]
    assert removal.factorial({}) == {}


def of_removals(tmp_path, where, utility, align=None):
    """Results of planned removals: `utility` of a design, way and seed; `align` sets A of f and g of a design."""
    folders: dict[RunSpec, Path] = {}
    metric = where.scale.utility
    for name, runs in removal.designs(where).items():
        for way, run in runs.items():
            for replicate in where.replicates(run):
                [seed] = replicate.study["train.seeds"]
                if replicate in folders:
                    continue
                path = build(tmp_path / f"{len(folders)}", seeds=(seed,), noise=seed, planted=4, metrics=None)
                value = {"by_seed": [utility(name, way, seed)]}
                metrics = {metric: value, "retrieval_recall@5": value}
                document = {"format": 1, "seeds": {"f": [seed]}, "metrics": {"f": metrics}, "chance": {}}
                (path / "evaluate").mkdir()
                (path / "evaluate" / "utility.json").write_text(json.dumps(document), encoding="utf-8")
                if align:
                    table = pl.read_parquet(path / "seed_scores.parquet").with_columns(**align(name))
                    table.write_parquet(path / "seed_scores.parquet")
                folders[replicate] = path
    return Results(lambda spec: Measured(folders[spec]), 0.95, replicates=where.replicates)


GAINS = {"": 0.0, "random": -0.1, "g-alignment": 0.15, "planted": 0.3, "clipmem": 0.1, "similarity": 0.05}


@pytest.mark.slow
def test_removal_is_judged_against_nothing_removed_and_chance(tmp_path):
    """The relative changes are those that the made-up utilities have, whatever the seeds do to every run."""
    where = context(seeds=4)
    where = Context(replace(where.scale, removal_trial={}, removal_lengths=()), where.base)
    gains = dict(GAINS)

    def utility(name, way, seed):
        return 0.1 + 0.1 * gains[way] + 0.001 * (seed % 3) + 0.0001 * len(way) * (seed % 2)

    results = of_removals(tmp_path / "a", where, utility)
    finding = removal.Removal()
    effects = {effect.measure: effect for effect in finding.effects(where, results)}
    primary = next(iter(effects.values()))
    main = removal.designs(where)["main design"]
    ways = ("", "clipmem", "random")
    plain, best, chance = (np.array(results.values(main[way], where.scale.utility)) for way in ways)
    assert (len(plain), len(best), len(chance)) == (8, 8, 4)
    assert primary.estimate == pytest.approx((best - plain).mean() / plain.mean())
    assert primary.estimate == pytest.approx(0.1, rel=0.05)
    assert (primary.primary, primary.holds, primary.seeds) == (True, "yes", 8)
    gains["random"] = 0.3  # chance gains more
    results = of_removals(tmp_path / "b", where, utility)
    primary, *further = finding.effects(where, results)
    assert not any(effect.primary for effect in further)
    assert primary.estimate == pytest.approx((0.1 - 0.3) / 1.01, rel=0.05)
    judged = judge(finding, where, results)
    assert (judged["holds"], judged["effects"][0]["negligible"]) == ("no", 0.05)
    assert len({effect.measure for effect in (primary, *further)}) == len(further) + 1


@pytest.mark.slow
def test_the_factor_that_decides_is_named(tmp_path):
    """Gains by CLIPMem that come from the role alone, and half as much from the size."""
    where = context(seeds=6)
    where = Context(replace(where.scale, removal_lengths=()), where.base)
    trial = where.scale.removal_trial

    def utility(name, way, seed):
        factors = trial if name == "trial" else name.partition(": ")[2].split(" + ")
        raised = 0.2 * ("role" in factors) + 0.1 * ("size" in factors) if way == "clipmem" else 0.0
        return (0.1 + 0.001 * (seed % 7)) * (1 + raised)

    results = of_removals(tmp_path, where, utility)
    pairs = removal.main_effects(where, results)
    means = {factor: np.mean(high) - np.mean(low) for factor, (high, low) in pairs.items()}
    assert means == pytest.approx({"share": 0, "role": 0.2, "length": 0, "size": 0.1}, abs=1e-9)
    effects = {effect.measure: effect for effect in removal.Removal().effects(where, results)}
    role = effects["trial, role: gain by CLIPMem as in the trial minus as in the main design"]
    assert (role.estimate, role.seeds) == (pytest.approx(0.2), 2)
    assert removal.main_effects(context("unique"), results) == {}


@pytest.mark.slow
def test_clipmem_ranks_as_low_alignment_under_g_where_alignment_under_f_saturates(tmp_path):
    """At 5 epochs f's noise makes up CLIPMem, at 130 A(f) is the same for all pairs: both scores agree."""
    where = context("unique", seeds=8)

    def align(name):
        flat = {"130 epochs": 0.0, "45 epochs": 0.5}.get(name, 4.0)
        return {"f": 0.9 + flat * (pl.col("uid").str.slice(1).cast(pl.Int64) * 5 % 8) / 8}

    results = of_removals(tmp_path, where, lambda *of: 0.1 + 0.001 * of[2] % 0.01, align)
    runs = removal.designs(where)
    first, last = (results.each(runs[f"{epochs} epochs"][""]) for epochs in (5, 130))
    assert [removal.rank_correlation(run) for run in last] == [[1.0]] * 2
    assert [removal.spread(run) for run in last] == [[0.0]] * 2
    for run in first:
        [seed] = run.seeds
        table = run.run.seed_scores.filter(pl.col("uid").str.starts_with("c")).sort("uid")
        f, g = (table[side].to_numpy() for side in "fg")
        ranks = [np.argsort(np.argsort(values)) for values in (f - g, -g)]
        assert removal.rank_correlation(run)[0] == pytest.approx(np.corrcoef(*ranks)[0, 1])
        assert removal.spread(run)[0] == pytest.approx(f.std() / g.std())
        swapped = np.arange(8) < 4
        for by, scores in (("clipmem", f - g), ("g-alignment", -g), ("f-alignment", -f)):
            assert planted.above_chance(run, by) == [auroc(scores, swapped).mean - 0.5]
            assert list(run.scores(seed, by).values())[:8] == pytest.approx(scores)
    finding = removal.Removal()
    effects = {effect.measure: effect for effect in finding.effects(where, results)}
    change = effects["rank correlation of CLIPMem and -A(g): 130 epochs minus 5 epochs"]
    mean = np.mean([removal.rank_correlation(run) for run in first])
    assert (change.estimate, change.seeds) == (pytest.approx(1 - mean), 2)
    fall = effects["standard deviation of A(f) over that of A(g): 130 epochs minus 5 epochs"]
    assert fall.estimate == pytest.approx(-np.mean([removal.spread(run) for run in first]))
    area = "130 epochs: AUROC of swapped captions by {}, minus 0.5"
    assert effects[area.format("CLIPMem")].estimate == effects[area.format("low A(g)")].estimate
    document = judge(finding, where, results)
    titles = [panel["title"] for panel in document["panels"]]
    by_length = [f"{name} by length" for name in ("swapped captions", "gain", "ranks")]
    assert titles[:4] == ["removal", *by_length]  # unique has no trial
    [ranks] = document["panels"][3]["series"]
    assert (ranks["x"], ranks["mean"][-1]) == ([5.0, 16.0, 45.0, 130.0], 1.0)
    assert finding_figure(document).svg("finding", "narrow").startswith("<svg")
    with pytest.raises(KeyError):
        first[0].scores(first[0].seeds[0], "similarity")


WARM, NO_IMAGE, NO_TEXT = (RunSpec({"train.freeze": frozen}) for frozen in ([], ["image"], ["text"]))


class ThreeRuns(Results):
    """CLIPMem of three runs, and of the base study, with the shares of its towers."""

    def values(self, spec, metric="clipmem", among=None):
        if metric in OF_CANDIDATES:
            return self.by_seed(spec, OF_CANDIDATES[metric])
        return {(): [0.5, 0.7], ("image",): [0.4, 0.6], ("text",): [0.1, 0.2]}[tuple(spec.settings["train.freeze"])]

    def by_seed(self, spec, measure):
        shares = {"text": [0.5, 0.6], "image": [0.2, 0.1]}
        return measure(SimpleNamespace(tower_shares=shares, memorization=lambda _: [0.6, 1.0], uids=lambda _: set()))


def test_both_leads_of_the_text_tower_are_shown_and_the_smaller_one_decides():
    effects = encoders.towers_compared(ThreeRuns(lambda spec: None, 0.95), WARM, NO_IMAGE, NO_TEXT)
    first, alone, swapped = (effect.estimate for effect in effects)
    assert alone == pytest.approx(((0.4 - 0.1) + (0.6 - 0.2)) / 2 / 0.6)
    assert swapped == pytest.approx(((0.5 - 0.2) + (0.6 - 0.1)) / 2 / 0.8)
    assert first == min(alone, swapped)
    assert [effect.primary for effect in effects] == [True, False, False]
    assert [effect.measure.rpartition(": ")[2] for effect in effects[1:]] == ["trained alone", "swapped"]
