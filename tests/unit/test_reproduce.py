"""Reproduction: which runs are needed and shared, how effects are made, and the exact text of what is refused."""

import json
import math

import numpy as np
import pytest
from clipmem.report.compare.run import read_compared
from clipmem.report.published import UNITMEM
from clipmem.report.reproduced.figure import finding_figure
from clipmem.report.reproduced.page import render, summary_sentence
from clipmem.study.reproduce.finding import ABOVE, FINDINGS, Context, Effect, Results, mitigated
from clipmem.study.reproduce.findings import ORDER, captions, encoders, removal, text_noise
from clipmem.study.reproduce.findings.distributions import separation
from clipmem.study.reproduce.findings.memorized import atypicality, rarity
from clipmem.study.reproduce.findings.text_noise import optimum
from clipmem.study.reproduce.making import Maker, unique
from clipmem.study.reproduce.run import reproduce
from clipmem.study.reproduce.scales import NOISE_LEVELS, SCALES, scale_of
from clipmem.study.reproduce.wanted import Wanted
from hypothesis import given
from hypothesis import strategies as st
from tests.compared import add_contents, build

from clipmem.base.errors import InputError
from clipmem.base.recipes import differences, dump_recipe, flatten, load_recipe
from clipmem.functional import Claim, paired_test
from clipmem.models.names import GRID, model_config
from clipmem.study.api import PUBLISHED_RECIPES, find_recipe


def context(name):
    return Context(SCALES[name], SCALES[name].base())


def needed(where, names=ORDER):
    pairs = [(f"{name}: {run}", wanted) for name in names for run, wanted in FINDINGS[name]().runs(where).items()]
    return unique(where.base, pairs)


def test_all_findings_are_there_and_say_what_they_claim():
    assert sorted(FINDINGS) == sorted(ORDER)
    for name in ORDER:
        finding = FINDINGS[name]
        assert finding.title
        assert finding.claim.endswith(".")
        assert finding.published or "Not published" in finding.limits


@pytest.mark.parametrize("name", ["tiny", "published"])
def test_every_run_has_a_recipe_and_is_made_once(name):
    where = context(name)
    runs = needed(where)
    keys = [wanted.key(where.base) for wanted in runs.values()]
    assert len(set(keys)) == len(keys)
    assert all(len(key) <= 92 for key in keys)
    seen = []
    for wanted in runs.values():  # parents come before those who read their scores
        assert wanted.parent is None or wanted.parent.key(where.base) in seen
        seen.append(wanted.key(where.base))
        recipe = wanted.recipe(where.base)
        assert recipe.train.seeds == where.base.train.seeds
        if "epochs" not in wanted.slug:
            assert recipe.train.epochs == where.base.train.epochs  # equal passes
    # what findings share is made once: five captions belong to three of them
    shared = [n for n in ORDER for w in FINDINGS[n]().runs(where).values() if w == captions.drawn(5)]
    assert set(shared) == {"encoders", "captions", "tradeoff"}
    [base] = [wanted for wanted in runs.values() if wanted.key(where.base).startswith("base-")]
    assert base.localize  # one finding needs its layers, so the shared run has them


def test_the_laptop_sweeps_are_what_was_asked_for():
    scale = SCALES["laptop"]
    assert scale.seeds >= 5
    assert scale.noise == NOISE_LEVELS == (0.0, 0.01, 0.05, 0.10, 0.15, 0.20, 0.25, 0.30)
    assert scale.planted == (0.0, 0.05, 0.2)
    runs = FINDINGS["text-noise"]().runs(context("laptop"))
    assert len([name for name in runs if not name.startswith("image")]) == 3 * 8
    assert len({wanted for name, wanted in runs.items() if not name.startswith("image")}) == 3 * 7 + 1  # 0 is the base


def test_a_key_does_not_hang_on_where_the_parent_lies(tmp_path):
    where = context("tiny")
    gone = removal.without(where, 0.2, 0.2, "clipmem")
    makers = [Maker(tmp_path / name, where.base) for name in ("a", "b")]
    assert makers[0].place(gone).name == makers[1].place(gone).name
    recipes = [gone.recipe(where.base, maker.place) for maker in makers]
    assert [key for key, _, _ in differences(*recipes)] == ["mitigate.remove.scores"]
    assert recipes[0].mitigate.remove.scores == makers[0].place(removal.parent(where, 0.2)).as_posix()
    assert gone.key(where.base) != removal.without(where, 0.0, 0.2, "clipmem").key(where.base)
    assert removal.without(where, 0.2, 0.2, "random").parent is None
    assert removal.without(where, 0.2, 0.0, "clipmem") == removal.parent(where, 0.2)


def test_removal_keeps_the_roles_and_counts_candidates():
    for name in ("tiny", "laptop", "published"):
        where = context(name)
        for planted in where.scale.planted:
            recipe = removal.parent(where, planted).recipe(where.base)
            assert recipe.split.planted == round(planted * recipe.split.candidate)
            for share in where.scale.removed[1:]:
                wanted = removal.without(where, planted, share, "similarity")
                own = wanted.recipe(where.base)
                assert own.mitigate.remove.count == round(share * recipe.split.candidate)
                assert own.split == recipe.split


@pytest.mark.parametrize("name", PUBLISHED_RECIPES)
def test_published_recipes_are_complete(name):
    recipe = find_recipe(name, ["data.path=/somewhere"])
    sizes = (recipe.split.shared, recipe.split.candidate, recipe.split.independent, recipe.split.external)
    assert sizes == (65_000, 5_000, 5_000, 5_000)
    assert recipe.model.name == ("ViT-B-32" if name.endswith("32") else "ViT-B-16")
    assert recipe.data.source == ("coco" if name.startswith("coco") else "webdataset")
    train = recipe.train
    assert (train.lr, train.beta1, train.beta2, train.eps, train.weight_decay) == (5e-4, 0.9, 0.98, 1e-6, 0.2)
    assert (train.batch_size, train.epochs, train.crop_scale) == (128, 100, (0.9, 1.0))
    assert model_config(recipe.model.name)["vision_cfg"]["image_size"] == 224
    assert load_recipe(dump_recipe(recipe)) == recipe
    # open_clip's 10,000 steps of warm-up, of 100 epochs over 70,000 pairs
    assert train.warmup * 100 * math.ceil(70_000 / 128) == pytest.approx(10_000, rel=0.02)


def test_the_grid_differs_from_the_tiny_model_in_widths_only():
    tiny = model_config("clipmem-tiny")
    assert len(GRID) == 8
    for name in GRID:
        config = model_config(name)
        image, text = (int(part[1:]) for part in name.split("-")[1:])
        assert (config["vision_cfg"]["width"], config["text_cfg"]["width"]) == (image, text)
        config["vision_cfg"]["width"], config["text_cfg"]["width"] = 128, 128
        config["text_cfg"]["heads"] = 2
        assert config == tiny


def test_published_numbers_are_those_of_the_paper():
    assert captions.PUBLISHED["CLIPMem, normalised"] == (0.4380, 0.4350, 0.4280, 0.4240, 0.4220)
    memory = dict(zip(NOISE_LEVELS, text_noise.PUBLISHED["CLIPMem, normalised"], strict=True))
    assert min(memory, key=memory.get) == text_noise.BEST
    probe = dict(zip(NOISE_LEVELS, text_noise.PUBLISHED["linear probe, ImageNet"], strict=True))
    assert max(probe, key=probe.get) == text_noise.BEST
    assert encoders.PUBLISHED["5 images, 5 captions"] == (0.417, 0.6479)
    for curves in removal.PUBLISHED.values():
        assert {len(values) for values in curves.values()} == {len(removal.PUBLISHED_N)}
        assert len({values[0] for values in curves.values()}) == 1  # nothing is removed there
    assert UNITMEM["clip"][-1] == 0.411


# ---- arithmetic


def test_rarity_of_words_is_what_it_says():
    texts = ["red heart", "Red dog", "red", "a cat", ""]

    def slow(text):
        words = set(text.lower().split())
        shares = [sum(word in other.lower().split() for other in texts) / len(texts) for word in words]
        return sum(-math.log(share) for share in shares) / len(shares) if shares else 0.0

    np.testing.assert_allclose(rarity(texts), [slow(text) for text in texts], atol=1e-12)


def test_atypicality_is_the_mean_distance_to_the_nearest():
    pixels = np.random.default_rng(3).random((23, 7))
    slow = [
        np.mean(sorted(math.dist(row, other) for k, other in enumerate(pixels) if k != i)[:4])
        for i, row in enumerate(pixels)
    ]
    np.testing.assert_allclose(atypicality(pixels, near=4), slow, atol=1e-7)


def test_the_optimum_and_its_interval():
    levels = (0.0, 0.1, 0.2)
    steady = np.array([[2.0, 2.1, 2.2], [1.0, 1.1, 1.2], [3.0, 3.1, 3.2]])
    assert optimum(levels, steady, 0.95) == (0.1, 0.1, 0.1)
    assert optimum(levels, steady[:, :1], 0.95) == (0.1, None, None)
    torn = np.array([[0.0, 5.0, 0.0, 5.0], [2.6, 2.6, 2.6, 2.6], [5.0, 0.0, 5.0, 0.0]])
    best, low, high = optimum(levels, torn, 0.95)
    assert (low, high) == (0.0, 0.2)
    assert best in levels
    assert optimum(levels, torn, 0.95, seed=0) == optimum(levels, torn, 0.95, seed=0)


@given(st.lists(st.floats(-1, 1), min_size=2, max_size=6), st.integers(0, 100))
def test_an_effect_is_a_paired_test(values, seed):
    base = np.random.default_rng(seed).normal(size=len(values))
    found = Results(lambda wanted: None, 0.9).effect("m", values, base.tolist(), Claim("above"), "above 0")
    expected = paired_test(np.array(values), base, 0.9)
    assert (found.estimate, found.seeds) == (expected.difference, len(values))
    if expected.low is not None:
        assert (found.low, found.high) == (expected.low, expected.high)


def results_of(folders):
    return Results(lambda wanted: read_compared(folders[wanted]), 0.95)


def test_a_mitigation_is_measured_relative_to_its_base(tmp_path):
    base, noisy = Wanted(), Wanted(("mitigate.text_noise.std=0.15",))
    folders = {
        base: build(tmp_path / "base"),
        noisy: build(tmp_path / "noisy", *noisy.settings, effect=0.3, noise=7, utility=0.2),
    }
    found = mitigated(results_of(folders), base, noisy, "noise", size=0.037)
    runs = [read_compared(folders[wanted]) for wanted in (base, noisy)]
    before, after = (np.array(run.memorization(run.uids("candidate"))) for run in runs)
    change = (after - before) / before.mean()
    half = 4.302652729911275 * change.std(ddof=1) / math.sqrt(3)
    assert found[0].measure == "noise: relative change of CLIPMem"
    np.testing.assert_allclose(
        [found[0].estimate, found[0].low, found[0].high], change.mean() + np.array([0, -half, half]), atol=1e-12
    )
    assert found[0].holds == "yes"
    by_name = {one.measure: one for one in found[1:]}
    assert by_name["noise: change of linear probe"].holds == "yes"
    assert by_name["noise: change of linear probe"].counts
    assert not by_name["noise: change of zero-shot"].counts


def test_separation_counts_couples(tmp_path):
    run = read_compared(build(tmp_path / "run", effect=0.03))
    table = run.seed_scores
    for seed, found in zip(run.seeds, separation(run), strict=True):
        own = {row["uid"]: row["f"] - row["g"] for row in table.iter_rows(named=True) if row["seed"] == seed}
        couples = [
            (own[a] > own[b]) + 0.5 * (own[a] == own[b]) for a in run.uids("candidate") for b in run.uids("external")
        ]
        assert found == pytest.approx(sum(couples) / len(couples))


def effect(holds, part="", counts=True):
    return Effect("m", 0.1, 0.0, 0.2, holds, "above 0", 3, counts, part)


def test_one_of_several_ways_is_enough():
    finding = FINDINGS["text-noise"]()
    assert finding.holds([effect("yes", "pre"), effect("no", "post"), effect("no", "post-scaled")]) == "yes"
    assert finding.holds([effect("no", "pre"), effect("no", "post"), effect("no", "post-scaled")]) == "no"
    assert finding.holds([effect("no", "pre"), effect("inconclusive", "post")]) == "inconclusive"
    assert finding.holds([effect("yes"), effect("no", counts=False)]) == "yes"
    assert finding.holds([effect("yes"), effect("inconclusive")]) == "inconclusive"
    assert finding.holds([]) == "inconclusive"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Results of the tiny scale from folders that are written when they are asked for."""
    root, known = tmp_path_factory.mktemp("made"), {}
    base = context("tiny").base

    def opened(wanted):
        key = wanted.key(base)
        if key not in known:
            split = wanted.recipe(base).split
            settings = [one for one in wanted.settings if not one.startswith(("split.", "train.epochs"))]
            settings += ["mitigate.remove.scores=parent"] if wanted.parent else []
            path = build(root / key, *settings, noise=len(known), planted=2 if split.planted else 0)
            add_contents(path, len(known))
            known[key] = read_compared(path)
        return known[key]

    return Results(opened, 0.95)


@pytest.mark.parametrize("name", ORDER)
def test_every_finding_turns_runs_into_effects_and_a_figure(made, name):
    where, finding = context("tiny"), FINDINGS[name]()
    effects = finding.effects(where, made)
    assert any(one.counts for one in effects) or name == "tradeoff"
    for one in effects:
        assert one.low is None or one.low <= one.estimate <= one.high or one.measure.endswith("least CLIPMem")
        assert one.holds in {"yes", "no", "inconclusive"}
        assert one.seeds == 3
    assert len({one.measure for one in effects}) == len(effects)
    assert finding.holds(effects) in {"yes", "no", "inconclusive"}
    panels = [panel.as_dict() for panel in finding.panels(where, made)]
    assert any(line["x"] for panel in panels for line in panel["series"])
    told = {"finding": name, "title": finding.title, "claim": finding.claim, "holds": "yes", "panels": panels}
    assert finding_figure(told, "narrow").startswith("<svg")
    assert [panel["published"] for panel in panels] == sorted(panel["published"] for panel in panels)


def test_a_tradeoff_counts_where_memorization_is_lower(made):
    effects = FINDINGS["tradeoff"]().effects(context("tiny"), made)
    memory = {one.measure.partition(":")[0]: one for one in effects if "CLIPMem" in one.measure}
    assert len(memory) == 4
    for one in effects:
        name, _, what = one.measure.partition(": ")
        assert one.counts == (what == "change of linear probe" and memory[name].holds == "yes")


def test_exchanged_captions_are_compared_with_the_same_pairs(made):
    where = context("tiny")
    effects = {one.measure: one for one in FINDINGS["planted"]().effects(where, made)}
    run, base = made[Wanted(("split.planted=6",))], made[Wanted()]
    wrong = {"c00", "c01"}
    assert run.planted == wrong
    shift = np.subtract(run.memorization(wrong), base.memorization(wrong)).mean()
    assert effects["exchanged pairs: CLIPMem less that with their own captions"].estimate == pytest.approx(shift)


# ---- what is refused


def refused(*arguments, **settings):
    with pytest.raises(InputError) as error:
        reproduce(*arguments, **settings)
    return str(error.value)


def test_unknown_names_are_refused_with_a_near_one(tmp_path):
    assert refused(tmp_path / "out", figures=["planed"]) == (
        "--figure planed: got no such finding. Did you mean 'planted'?"
    )
    assert refused(tmp_path / "out", scale="large") == (
        "--scale: got 'large', expected tiny or laptop or published. Start with tiny."
    )
    assert not (tmp_path / "out").exists()


def test_a_folder_of_something_else_is_refused(tmp_path):
    (tmp_path / "a.txt").write_text("a")
    assert refused(tmp_path) == (
        f"--out {tmp_path}: got a folder that holds other files, expected a new folder, or one that an earlier "
        "reproduction made. Choose another --out DIR."
    )
    out = tmp_path / "out"
    out.mkdir()
    (out / "reproduce.json").write_text(json.dumps({"scale": "laptop", "recipe_sha256": "f" * 64}))
    text = refused(out, scale="tiny")
    assert text.startswith(
        f"folder {out} holds another reproduction: got scale 'laptop', base recipe ffffffffffffffff there; scale "
        "'tiny', base recipe "
    )
    assert text.endswith(" now. Choose another --out DIR.")


def test_the_users_settings_reach_every_run():
    base = scale_of("published").base(2, ["data.path=/data/coco"])
    assert (base.train.seeds, base.data.path) == ((0, 1), "/data/coco")
    assert captions.drawn(5).recipe(base).data.path == "/data/coco"


def test_finished_runs_are_only_read(tmp_path):
    where = context("tiny")
    maker = Maker(tmp_path, where.base)
    assert not maker.is_made(Wanted())
    build(maker.place(Wanted()))
    assert maker.is_made(Wanted())
    assert not maker.is_made(Wanted(localize=True))
    assert maker.seconds(Wanted()) == 15.0  # of the stages; single models are part of one
    assert maker.estimate([Wanted()]).runs == 0
    assert maker.open(Wanted()) is maker.open(Wanted())


# ---- page


def document(holds="yes"):
    line = {"name": "a $x$", "x": [1.0, 2.0], "mean": [0.5, -0.25], "low": [0.25, None], "high": [0.75, None]}
    panel = {
        "title": "here",
        "xlabel": "captions",
        "ylabel": "CLIPMem",
        "series": [line],
        "published": False,
        "joined": True,
        "optimum": "lowest",
        "ticks": [],
    }
    there = {**panel, "title": "published", "published": True, "series": [{**line, "low": [], "high": []}]}
    one = {
        "finding": "captions",
        "title": "Number of captions",
        "claim": "Less is memorized.",
        "published": "",
        "limits": "Few seeds & <few> pairs.",
        "holds": holds,
        "seconds": 61.0,
        "effects": [{**effect("yes").__dict__}, {**effect("no", counts=False).__dict__}],
        "panels": [panel, there],
    }
    return {
        "scale": "tiny",
        "clipmem": "0",
        "confidence": 0.95,
        "seeds": [0, 1],
        "recipe_sha256": "a" * 64,
        "runs": {"base": "base-0"},
        "findings": [one, {**one, "finding": "model-size", "title": "Model size", "panels": [], "effects": []}],
    }


def test_the_page_says_what_the_document_says():
    page = render(document())
    assert page.count("<svg") == 2  # wide and narrow of the one that has panels
    assert "Holds here: yes" in page
    assert "Few seeds &amp; &lt;few&gt; pairs." in page
    assert "(beside)" in page
    assert "clipmem reproduce --scale tiny --figure captions" in page
    assert "Nothing measured at this scale." in page
    assert "<script" not in page
    assert render(document()) == page
    assert "Holds: yes." in finding_figure(document()["findings"][0], "wide")


def test_the_summary_counts_findings():
    assert summary_sentence(document("inconclusive")) == (
        "Of 2 findings, at scale tiny over 2 seeds: 2 are not decided (Number of captions, Model size)."
    )


def test_flattened_recipes_of_a_scale_differ_where_they_should():
    tiny, laptop = (flatten(SCALES[name].base()) for name in ("tiny", "laptop"))
    assert tiny["localize.crop"] == laptop["localize.crop"] == "own"
    assert tiny["split.planted"] == laptop["split.planted"] == 0


def test_coarse_values_that_coincide_over_seeds_are_no_certainty():
    effect = Results(lambda _: None, 0.95).effect("m", [0.25, 0.25], None, ABOVE, "above 0")
    assert (effect.estimate, effect.low, effect.high, effect.holds) == (0.25, None, None, "inconclusive")


def test_an_interval_over_seeds_is_widened_by_that_over_pairs():
    results = Results(lambda _: None, 0.95)
    effect = results.effect("m", [0.2, 0.3, 0.4], None, ABOVE, "above 0")
    assert effect.holds == "yes"
    wide = results.widened(effect, -0.1, 0.35, ABOVE)
    assert (wide.low, wide.high, wide.holds) == (-0.1, effect.high, "inconclusive")
    within = results.widened(effect, 0.25, 0.35, ABOVE)
    assert within == effect
    assert results.widened(effect, None, None, ABOVE).holds == "inconclusive"


def test_settings_that_change_nothing_name_the_base_study():
    base = scale_of("laptop").base()
    same = Wanted((f"split.shared={base.split.shared}", f"model.name={base.model.name}"))
    assert same.key(base) == Wanted().key(base)
    assert Wanted(("split.shared=60",)).key(base).startswith("shared-60-")


def test_a_ring_marks_the_optimum_of_each_curve():
    one = document()["findings"][0]
    ringed = finding_figure(one, "wide").count("<use ")
    curves = sum(len(panel["series"]) for panel in one["panels"])
    for panel in one["panels"]:
        panel["optimum"] = ""
    assert finding_figure(one, "wide").count("<use ") == ringed - curves


def test_a_published_curve_of_its_own_has_a_style_of_its_own():
    one = document()["findings"][0]
    same = finding_figure(one, "wide").count("var(--soft)")
    [there] = [panel for panel in one["panels"] if panel["published"]]
    there["series"] = [{**line, "name": "COCO"} for line in there["series"]]
    assert finding_figure(one, "wide").count("var(--soft)") > same
