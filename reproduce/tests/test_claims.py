"""Planned findings on kinds of flaws, equal data, nested sizes, random redundancy and roles: data, and known truth."""

from collections import Counter
from dataclasses import replace
from itertools import pairwise

import numpy as np
import polars as pl
import pytest
from made_up import effect, findings
from tests.compared import add_contents, build
from tests.screens import page_text, screen_text
from tests.tiny import whole

from clipmem.base.errors import InputError
from clipmem.base.folder import RunFolder
from clipmem.data.sources import open_source
from clipmem.data.sources.emoji import emoji_table
from clipmem_reproduce.effects import ABOVE, Results
from clipmem_reproduce.finding import Context, holds, judge
from clipmem_reproduce.findings import FINDINGS, data_size, layers, memorized, one_pass, redundancy, roles, tradeoff
from clipmem_reproduce.measured import Measured
from clipmem_reproduce.page import KIND, tally
from clipmem_reproduce.reproduction import base_recipe, find_scale
from clipmem_reproduce.scales import SCALES
from clipmem_reproduce.sources import UNIQUE_VAGUE, vague_captions
from clipmem_reproduce.spec import RunSpec

PLANNED = [regime for (regime, name), scale in SCALES.items() if name == "planned" and "data-size" not in scale.without]
EMOJI = dict(emoji_table().select("id", "unicode").iter_rows())


def context(regime="redundant", seeds=2):
    return Context(find_scale("planned", regime), base_recipe("planned", regime, seeds))


def pairs_of(where, spec, seed=1000):
    return open_source(spec.replicate(seed).recipe(where.base).data).pairs()


def by_role(pairs):
    groups = pairs.group_by("role").agg("key").iter_rows()
    return {role: set(keys) for role, keys in groups}


def made(where, runs, tmp_path, **how):
    """Results of folders in which the replicates of each run have the settings that `how` gives by name."""
    folders = {
        replicate: build(tmp_path / f"{k}-{n}", seeds=(100 + n,), noise=100 * k + n, **how.get(name, {}))
        for k, (name, spec) in enumerate(runs.items())
        for n, replicate in enumerate(where.replicates(spec))
    }
    return Results(lambda spec: Measured(folders[spec]), 0.95, replicates=where.replicates)


@pytest.mark.slow
@pytest.mark.parametrize("regime", PLANNED)
def test_no_two_pairs_share_a_unique_vague_caption(regime):
    where = context(regime)
    pairs = pairs_of(where, memorized.flawed(where))
    kind = pairs["key"].str.extract(r" \((.*)\)$").fill_null("")
    share = where.scale.flaws["data.emoji_vague.share"]
    for name in (UNIQUE_VAGUE, "vague", "distorted"):
        assert (kind == name).mean() == pytest.approx(share, abs=0.012)
    captions = pairs.filter(kind == UNIQUE_VAGUE)["captions"]
    assert set(captions.list.len()) == {1}
    assert captions.list.first().n_unique() == len(captions)
    assert pairs.filter(kind == "vague")["captions"].list.first().n_unique() <= 9  # names of groups
    plain = pairs_of(where, RunSpec({**where.scale.flaws, "data.emoji_vague.share": 0.0}))
    before = dict(plain.select("image", "captions").iter_rows())
    ordinary = pairs.filter(kind == "").select("image", "captions").iter_rows()
    assert all(before[image] == texts for image, texts in ordinary)


def test_a_vague_caption_depends_on_the_drawing_alone_and_names_nothing():
    captions = vague_captions()
    assert set(captions) == set(EMOJI)
    assert len(set(captions.values())) == len(captions)
    words = {word for caption in captions.values() for word in caption.split()}
    assert not words & {"face", "flag", "person", "food", "animal", "hand", "heart", "red", "blue"}


KEYS = {
    "c02": "vague",
    "c03": "vague",
    "c04": UNIQUE_VAGUE,
    "c05": UNIQUE_VAGUE,
    "c06": "distorted",
    "c07": "distorted",
}


def flawed_run(path, seed, gains):
    """A run of 12 candidates and as many g-only pairs, two of each kind in each role; CLIPMem of a kind is its gain."""
    build(path, seeds=(seed,), noise=seed)
    add_contents(path, seed)
    folder = RunFolder(path)
    kinds = ["swapped", "swapped", "vague", "vague", UNIQUE_VAGUE, UNIQUE_VAGUE, "ordinary", "ordinary"]
    kind = {f"{role}{k:02d}": name for role in "ci" for k, name in enumerate(kinds)}
    pairs = folder.read("pairs").with_columns(
        key=pl.col("uid").map_elements(lambda uid: f"{uid} ({kind.get(uid, 'ordinary')})", return_dtype=pl.String)
    )
    folder.write("pairs", pairs)
    splits = folder.read("splits")
    swapped = [uid for uid, name in kind.items() if name == "swapped"]
    folder.write("splits", splits.with_columns(planted=pl.col("uid").is_in(swapped)))
    noise = np.random.default_rng(seed).normal(0, 0.01, splits.height)
    rows = [
        {
            "uid": uid,
            "seed": seed,
            "f": value + {"c": 1, "i": -1}.get(uid[0], 0) * gains[kind.get(uid, "ordinary")],
            "g": 0.0,
        }
        for uid, value in zip(splits["uid"], noise, strict=True)
    ]
    folder.write("seed_scores", whole("seed_scores", pl.DataFrame(rows)))
    return Measured(path)


def test_each_kind_of_flaw_has_a_verdict(tmp_path):
    where = context(seeds=4)
    gains = {"ordinary": 0.4, "swapped": 0.6, "vague": 0.2, UNIQUE_VAGUE: 0.405}
    runs = {
        run: flawed_run(tmp_path / f"{k}", 100 + k, gains)
        for k, run in enumerate(where.replicates(memorized.flawed(where)))
    }
    results = Results(runs.__getitem__, 0.95, 14, where.replicates)
    judged = judge(FINDINGS["memorized"](), where, results)
    primary = [effect for effect in judged["effects"] if effect["primary"]]
    assert primary == judged["effects"][: len(primary)]
    expected = {"swapped captions": 0.2, "vague captions": -0.2, "unique vague captions": 0.005}
    assert [effect["measure"] for effect in primary] == [
        f"CLIPMem of {kind} minus that of ordinary pairs" for kind in expected
    ]
    assert [effect["estimate"] for effect in primary] == pytest.approx(list(expected.values()), abs=0.02)
    assert [effect["holds"] for effect in primary] == ["yes", "no", "negligible"]
    assert [effect["confidence"] for effect in primary] == pytest.approx([1 - 0.05 / 14 / 4] * 3)
    assert judged["holds"] == "mixed"
    assert tally({"findings": [judged]}) == [("mixed", ["Which pairs are memorized"])]


def test_several_claims_have_a_common_verdict_or_are_mixed():
    results = Results(lambda spec: None, 0.95)
    above, below = (
        results.effect("m", [sign, 1.01 * sign, 0.99 * sign], None, ABOVE, primary=True) for sign in (1.0, -1.0)
    )
    assert [holds(effects) for effects in ([above], [above, above], [above, below], [])] == [
        "yes", "yes", "mixed", "inconclusive",
    ]  # fmt: skip
    assert holds([above, replace(below, primary=False)]) == "yes"


def test_the_page_and_the_screen_show_each_claim():
    document = {**findings(), "crossed": True}
    one = document["findings"][0]
    second = {**effect("no", primary=True), "measure": "another claim"}
    one.update(holds="mixed", effects=[one["effects"][0], second, *one["effects"][1:]])
    page, screen = page_text(KIND, document), screen_text(KIND, document)
    words = " ".join(page.split())
    assert "This claim holds here. another claim:" in words
    assert "This claim does not hold here." in words
    assert "The finding" not in words.partition("Number of captions: mixed")[2].partition("Model size")[0]
    assert "or by one for each of its claims, which share its error rate" in words
    assert screen.count("another claim") == screen.count("5 captions: relative change of") == 1
    assert "1 is mixed (Number of captions)" in " ".join(screen.split())


@pytest.mark.slow
def test_sizes_have_the_same_candidates_and_nested_shared_pairs():
    for regime in PLANNED:
        where = context(regime)
        runs = data_size.DataSize().curves(where)["equal epochs"]
        tables = [by_role(pairs_of(where, run)) for run in runs]
        for small, large in pairwise(tables):
            assert all(small[role] == large[role] for role in ("candidate", "independent", "external"))
            assert small["shared"] < large["shared"]
        for run, table, size in zip(runs, tables, where.scale.sizes, strict=True):
            split = run.recipe(where.base).split
            assert {role: len(keys) for role, keys in table.items()} == {
                role: getattr(split, role) for role in ("shared", "candidate", "independent", "external")
            }
            assert split.shared + split.candidate == size
        assert by_role(pairs_of(where, runs[0], 1001)) != tables[0]


@pytest.mark.slow
def test_the_slope_over_data_size_is_that_of_the_powers_made_up(tmp_path):
    where = context(seeds=4)
    where = Context(replace(where.scale, fewer=4), where.base)
    levels = dict(zip(where.scale.sizes, (0.6, 0.3, 0.15), strict=True))
    runs = data_size.DataSize().runs(where)
    how = {name: {"effect": levels[int(name.split()[0])]} for name in runs}
    results = made(where, runs, tmp_path, **how)
    effects = data_size.DataSize().effects(where, results)
    assert [effect.primary for effect in effects] == [True] + [False] * (len(effects) - 1)
    x = np.log(where.scale.sizes)
    assert effects[0].estimate == pytest.approx(np.polyfit(x, np.log(list(levels.values())), 1)[0], abs=0.1)
    assert effects[0].holds == "yes"
    negative = made(where, runs, tmp_path / "negative", **{name: {"effect": -0.5} for name in runs})
    assert data_size.DataSize().effects(where, negative) == []


@pytest.mark.slow
def test_further_drawings_are_seen_by_the_same_models_as_variants_and_as_pairs():
    where = context()
    none, variants, pairs = (pairs_of(where, run) for run in tradeoff.planned(where).values())
    assert by_role(none) == by_role(variants)
    assert none["variants"].list.len().sum() == 0
    further = pairs.filter(~pl.col("key").is_in(none["key"].implode()))
    assert {role: keys - set(further["key"]) for role, keys in by_role(pairs).items()} == by_role(none)
    seen = {role: {EMOJI[key] for key in keys} for role, keys in by_role(none).items()}
    shown = {key for keys in variants.filter(pl.col("role") != "external")["variants"] for key in keys}
    assert shown == set(further["key"])
    of_f = {key for keys in variants.filter(pl.col("role").is_in(["shared", "candidate"]))["variants"] for key in keys}
    of_g = {
        key for keys in variants.filter(pl.col("role").is_in(["shared", "independent"]))["variants"] for key in keys
    }
    for key, role in further.select("key", "role").iter_rows():
        assert EMOJI[key] in seen[role]
        assert {"shared": (True, True), "candidate": (True, False), "independent": (False, True)}[role] == (
            key in of_f,
            key in of_g,
        )
    sizes = Counter(pairs["role"])
    split = tradeoff.planned(where)[tradeoff.PAIRS].recipe(where.base).split
    assert sizes == {role: getattr(split, role) for role in sizes}
    several = tradeoff.planned(where)[tradeoff.SEVERAL].recipe(where.base).mitigate.image_variants
    assert several.probability == pytest.approx(further.filter(pl.col("role") != "independent").height / 1410, abs=1e-3)
    epochs = [
        [run.recipe(where.base).train.epochs for run in runs] for runs in tradeoff.Tradeoff()._curves(where).values()
    ]
    assert np.allclose(np.multiply(epochs[2], 1410), np.multiply(epochs[0], 600), rtol=0.1)


@pytest.mark.slow
def test_equal_data_and_more_images_are_two_claims(tmp_path):
    where = context(seeds=4)
    runs = tradeoff.Tradeoff().runs(where)
    metric = where.scale.utility
    levels = {"none": (0.6, 0.3), tradeoff.SEVERAL: (0.3, 0.6), tradeoff.PAIRS: (0.3, 0.6)}
    how = {}
    for name in runs:
        arm, epochs = name.rsplit(", ", 1)
        memory, utility = levels[arm]
        longest = 0.1 * (epochs == "60 epochs")
        how[name] = {
            "effect": memory, "metrics": {metric: utility + longest}, "validation": {metric: [utility + longest]},
        }  # fmt: skip
    results = made(where, runs, tmp_path, **how)
    judged = judge(FINDINGS["tradeoff"](), where, results)
    equal, more, *others = judged["effects"]
    assert [effect["primary"] for effect in (equal, more)] == [True, True]
    assert not any(effect["primary"] for effect in others)
    assert equal["measure"].startswith("at equal data, each at its best length")
    assert more["holds"] == "yes"
    assert equal["holds"] != "yes"
    assert more["estimate"] == pytest.approx(0.3 / 1.415, abs=0.03)  # folders add a hundredth of the seed to utility
    assert judged["holds"] == "mixed"
    after = [effect for effect in others if "after 150 epochs minus that after 60" in effect["measure"]]
    assert len(after) == 3
    assert all(effect["estimate"] == pytest.approx(-0.1, abs=0.03) for effect in after)


@pytest.mark.slow
def test_a_seed_draws_the_number_of_other_drawings():
    where = context()
    pairs = pairs_of(where, redundancy.counted(where))
    roles_of = by_role(pairs)
    shared = Counter(EMOJI[key] for key in roles_of["shared"])
    for role in ("candidate", "independent"):
        emoji = [EMOJI[key] for key in roles_of[role]]
        assert len(set(emoji)) == len(emoji) == 570
        assert Counter(shared[name] for name in emoji) == {0: 190, 1: 190, 3: 190}
    scored = {EMOJI[key] for role in ("candidate", "independent") for key in roles_of[role]}
    assert set(shared) <= scored
    assert not scored & {EMOJI[key] for key in roles_of["external"]}
    assert len(roles_of["shared"]) == redundancy.counted(where).recipe(where.base).split.shared
    assert by_role(pairs_of(where, redundancy.counted(where), 1001)) != roles_of


@pytest.mark.parametrize(
    ("source", "settings", "named"),
    [
        ("emoji-randomized", {"emoji_randomized.candidate": 700, "emoji_randomized.others": [0, 3]}, "candidate"),
        ("emoji-randomized", {"emoji_randomized.external": 5000}, "external"),
        ("emoji-nested", {"emoji_nested.artists": ["twemoji"], "emoji_nested.shared": 5000}, "shared"),
        ("emoji-nested", {"emoji_nested.more": "pairs", "emoji_nested.more_shared": 1}, "more_shared"),
    ],
)
def test_more_pairs_than_there_are_drawings_are_refused(source, settings, named):
    changes = {"data.source": source, **{f"data.{key}": value for key, value in settings.items()}}
    recipe = RunSpec({"data.emoji_artists.artists": [], **changes}).recipe(context().base)
    with pytest.raises(InputError) as error:
        open_source(recipe.data).pairs()
    assert named in error.value.what


def test_the_data_draw_roles_by_the_seed_of_a_replicate():
    where = context()
    [first, second] = where.replicates(redundancy.counted(where))
    assert [run.study["data.emoji_randomized.seed"] for run in (first, second)] == [100, 101]
    assert "data.emoji_randomized.seed" not in where.replicates(RunSpec())[0].study


def test_every_role_decides(tmp_path, monkeypatch):
    where = context(seeds=4)
    runs = roles.Roles().runs(where)
    results = made(where, runs, tmp_path, base={"effect": 0.6})
    primary, *others = roles.Roles().effects(where, results)
    assert primary.primary
    assert not any(effect.primary for effect in others)
    means = {
        "candidate": [0.5, 0.51, 0.49],
        "independent": [-0.5, -0.52, -0.48],
        "shared": [0.0, -0.01, 0.005],
        "external": [0.01, 0.0, 0.02],
    }
    assert roles.all_roles(results, means).holds == "yes"
    for role, value in (("shared", 0.2), ("external", -0.2), ("independent", -0.2), ("candidate", 0.2)):
        shifted = {**means, role: [value + noise for noise in (-0.001, 0.0, 0.001)]}
        assert roles.all_roles(results, shifted).holds == "no"
    monkeypatch.setattr(one_pass, "by_role", lambda results, run: {role: np.array(v) + 5 for role, v in means.items()})
    assert one_pass.beyond_shared(results, RunSpec()).holds == "yes"  # a shift of all pairs does not matter
    far = {**means, "external": [0.8, 0.81, 0.79]}
    monkeypatch.setattr(one_pass, "by_role", lambda results, run: far)
    assert one_pass.beyond_shared(results, RunSpec()).holds == "no"


@pytest.mark.slow
def test_memorization_must_fall_in_other_paradigms(tmp_path):
    where = context("unique", seeds=4)
    runs = FINDINGS["paradigms"]().runs(where)

    def judged(folder, falls):
        how = {
            name: {
                "effect": 0.5 - (falls if "several" in name else 0.0),
                "metrics": {"linear_probe_acc1": 0.5 + 0.2 * (name == "CLIP, several images")},
            }
            for name in runs
        }
        return FINDINGS["paradigms"]().effects(where, made(where, runs, tmp_path / folder, **how))

    falls, stays = judged("falls", 0.3), judged("stays", -0.3)
    assert (falls[0].primary, falls[0].holds, stays[0].holds) == (True, "yes", "no")
    assert falls[0].estimate == pytest.approx(0.2, abs=0.05)
    assert all("relative" not in effect.measure for effect in falls)


def test_layers_of_all_objectives_have_the_same_pairs_and_other_classes():
    where = context("unique")
    runs = layers.Layers().runs(where)
    pairs = {name: pairs_of(where, spec) for name, spec in runs.items() if name != "simclr"}
    assert len({tuple(table["uid"]) for table in pairs.values()}) == 1
    classes = {name: table["label"].n_unique() for name, table in pairs.items()}
    assert classes.pop("supervised, a class per emoji") > 1800
    assert classes == {"clip": 9, "supervised": 98, "supervised, 9 classes": 9}


def test_planned_model_sizes_vary_one_tower_with_all_seeds():
    where = context(seeds=3)
    runs = FINDINGS["model-size"]().runs(where)
    assert not [name for name in runs if name.startswith("both")]
    assert all(len(run.recipe(where.base).train.seeds) == 3 for run in runs.values())


def test_small_effects_have_more_seeds():
    where = Context(find_scale("planned", "unique"), base_recipe("planned", "unique"))
    [run, *_] = FINDINGS["paradigms"]().runs(where).values()
    assert run.recipe(where.base).train.seeds == tuple(range(100, 116))
    where = context("unique", seeds=3)
    [run, *_] = FINDINGS["paradigms"]().runs(where).values()
    assert run.recipe(where.base).train.seeds == (100, 101, 102, 103)  # a third more than the user's
