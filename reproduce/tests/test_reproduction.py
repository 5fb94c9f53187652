"""Reproduction: which runs are needed and shared, how effects are made and judged, and what is refused."""

import json
from pathlib import Path

import numpy as np
import pytest
from made_up import findings as document
from tests.compared import build
from tests.hostile.prepared import bomb
from tests.screens import page_text, screen_text

from clipmem import InputError, dump_recipe, load_recipe
from clipmem.base.folder import RunFolder
from clipmem.base.manifest import recipe_hash
from clipmem.base.recipes import as_settings, differences, flatten
from clipmem.functional import paired_test
from clipmem.models.names import GRID, model_config
from clipmem.report.page import render
from clipmem.scoring.protocols import protocol_of
from clipmem.study.api import PUBLISHED_RECIPES, find_recipe
from clipmem_reproduce.curves import UNITMEM
from clipmem_reproduce.effects import ABOVE, BELOW, Results, optimum, widened
from clipmem_reproduce.finding import Context, mitigated
from clipmem_reproduce.findings import FINDINGS, captions, encoders, removal, text_noise
from clipmem_reproduce.findings.memorized import atypicality, rarity
from clipmem_reproduce.findings.roles import separation
from clipmem_reproduce.measured import Measured
from clipmem_reproduce.page import KIND, finding_figure, tally
from clipmem_reproduce.reproduction import Maker, base_recipe, findings_of, reproduce, unique
from clipmem_reproduce.scales import NOISE_LEVELS, REGIMES, SCALES
from clipmem_reproduce.spec import RunSpec

SCREENS = Path(__file__).with_name("screens")
PATH = ["data.path=/somewhere"]


def context(name, regime="redundant"):
    settings = PATH * (regime not in ("redundant", "unique", "small-vocabulary"))
    return Context(SCALES[regime, name], base_recipe(name, regime, settings=settings))


def names_of(where):
    return findings_of(where.scale)


def needed(where):
    runs = [(f"{name}: {run}", spec) for name in names_of(where) for run, spec in FINDINGS[name]().runs(where).items()]
    return unique(where.base, [(f"{name}{run.of_seed}", run) for name, spec in runs for run in where.replicates(spec)])


def test_all_findings_are_there_and_say_what_they_claim():
    assert len(FINDINGS) == 14
    for name in FINDINGS:
        finding = FINDINGS[name]
        assert finding.title
        assert finding.claim.endswith(".")
        assert finding.published or "Not published" in finding.limits


LONG = dict.fromkeys(("laptop", "planned", "repeated"), pytest.mark.slow)


@pytest.mark.parametrize(
    ("regime", "name"), [pytest.param(*key, marks=[LONG[key[1]]] if key[1] in LONG else []) for key in SCALES]
)
def test_every_run_has_a_recipe_and_is_made_once(regime, name):
    where = context(name, regime)
    runs = needed(where)
    keys = [spec.key(where.base) for spec in runs.values()]
    assert len(set(keys)) == len(keys)
    assert all(len(key) <= 92 for key in keys)
    recorded = [json.dumps(spec.recorded, sort_keys=True) for spec in runs.values()]
    assert len(set(recorded)) == len(recorded)
    seen, models = [], 0
    for spec in runs.values():  # parents come before those who read their scores or start from their models
        assert spec.parent is None or spec.parent.key(where.base) in seen
        seen.append(spec.key(where.base))
        recipe = spec.recipe(where.base)
        models += protocol_of(recipe).count
        assert len(recipe.train.seeds) in (where.scale.seeds, where.scale.fewer, 1)
        shipped = recipe.data.source.startswith("emoji")
        assert recipe.data.path == ("" if shipped else where.base.data.path)
        assert not where.scale.crossed or recipe.train.seeds in {(recipe.split.seed,), (0,)}  # 0: a warm start
    bases = [spec for spec in runs.values() if spec.key(where.base).startswith("base-")]
    seeds = [len(spec.recipe(where.base).train.seeds) for spec in bases]
    on_base = not where.scale.crossed and names_of(where) != ["removal"]  # that has a study of its own
    assert seeds == ([where.scale.seeds] if on_base else [])
    page = (Path(__file__).parents[2] / "experiments" / "reproduce" / "RESULTS.md").read_text(encoding="utf-8")
    rows = [line for line in page.splitlines() if line.startswith(f"| {name}, {regime} |")]
    assert len(rows) == (name != "tiny" or regime == "redundant")
    assert all(line.endswith(f"| {len(runs)} | {models:,} |") for line in rows)


def test_what_findings_share_is_made_once():
    where = context("laptop")
    shared = [n for n in FINDINGS for w in FINDINGS[n]().runs(where).values() if w == captions.several(5)]
    assert set(shared) == {"encoders", "captions", "tradeoff"}


def test_regimes_test_what_their_data_can():
    assert {regime for regime, _ in SCALES} == set(REGIMES)
    for regime, name in SCALES:
        assert set(SCALES[regime, name].without) < set(FINDINGS)
    assert len(names_of(context("laptop"))) == len(FINDINGS)
    icons = names_of(context("laptop", "long-tail"))
    assert not {"captions", "encoders"} & set(icons)  # each icon has one caption and one image
    assert "captions" not in " ".join(FINDINGS["tradeoff"]().runs(context("laptop", "long-tail")))


def test_the_laptop_sweeps_are_what_was_asked_for():
    where = context("laptop")
    assert where.scale.seeds >= 8
    assert where.base.split.shared + where.base.split.candidate >= 2500
    assert where.scale.noise == NOISE_LEVELS == (0.0, 0.01, 0.05, 0.10, 0.15, 0.20, 0.25, 0.30)
    assert set(where.scale.removed) == {0.0, 0.1, 0.2, 0.4}
    assert len(where.scale.removed[0.2]) == 5
    runs = FINDINGS["text-noise"]().runs(where)
    text = {name: spec for name, spec in runs.items() if not name.startswith("image")}
    assert len(text) == 3 * 8
    assert len(set(text.values())) == 3 * 7 + 1  # 0 is the base
    ways = [name for name in FINDINGS["tradeoff"]().runs(where) if name.endswith(f", {where.base.train.epochs} epochs")]
    assert len(ways) == 7  # none, and six mitigations


def test_a_key_does_not_hang_on_where_the_parent_lies(tmp_path):
    where = context("tiny")
    gone = removal.without(where, 0.2, 0.2, "clipmem")
    makers = [Maker(tmp_path / name, where.base) for name in ("a", "b")]
    assert makers[0].folder(gone).name == makers[1].folder(gone).name
    recipes = [gone.recipe(where.base, maker.folder) for maker in makers]
    assert [key for key, _, _ in differences(*recipes)] == ["mitigate.remove.scores"]
    assert recipes[0].mitigate.remove.scores == makers[0].folder(removal.parent(where, 0.2)).as_posix()
    assert gone.key(where.base) != removal.without(where, 0.2, 0.6, "clipmem").key(where.base)
    assert {removal.without(where, 0.2, 0.2, way).parent for way in ("random", "planted")} == {None}
    assert removal.without(where, 0.2, 0.0, "clipmem") == removal.parent(where, 0.2)


@pytest.mark.parametrize(("regime", "name"), list(SCALES))
def test_removal_keeps_the_roles_and_counts_candidates(regime, name):
    where = context(name, regime)
    for wrong, shares in where.scale.removed.items():
        recipe = removal.parent(where, wrong).recipe(where.base)
        assert (recipe.split.planted, recipe.split.planted_share) == (0, wrong)
        for share in shares:
            for way in removal.ways_of(wrong):
                own = removal.without(where, wrong, share, way).recipe(where.base)
                assert own.protocol == "f-only"  # utility is all that is compared
                assert own.mitigate.remove.count == round(share * recipe.split.candidate)
                train = removal.parent(where, wrong, share).recipe(where.base).train
                assert (own.mitigate.remove.role, own.split, own.train) == ("candidate", recipe.split, train)
        peak = removal.peak_of(where, wrong)
        assert wrong == 0 or peak == wrong
        own = removal.without(where, wrong, peak, "random", steps=True).recipe(where.base)
        trained = recipe.split.shared + recipe.split.candidate
        left = trained - own.mitigate.remove.count
        assert own.train.epochs * left == pytest.approx(recipe.train.epochs * trained, rel=0.05)


def test_frozen_towers_start_from_a_model_that_saw_other_drawings():
    where = context("laptop")
    start, image, text = (encoders.frozen(where, tower) for tower in ("", "image", "text"))
    assert start.parent == image.parent == text.parent
    warm = start.parent.recipe(where.base)
    assert not set(warm.data.emoji_artists.artists) & set(where.base.data.emoji_artists.artists)
    own = image.recipe(where.base, lambda spec: Path("/runs") / spec.key(where.base))
    assert own.train.freeze == ("image",)
    assert own.model.pretrained == f"/runs/{start.parent.key(where.base)}/models/f/seed-0"
    assert own.split == where.base.split


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
    assert train.warmup * 100 * -(-70_000 // 128) == pytest.approx(10_000, rel=0.02)


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
    assert captions.PUBLISHED["CLIPMem, normalized"] == (0.4380, 0.4350, 0.4280, 0.4240, 0.4220)
    memory = dict(zip(NOISE_LEVELS, text_noise.PUBLISHED["CLIPMem, normalized"], strict=True))
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
        return sum(-np.log(share) for share in shares) / len(shares) if shares else 0.0

    np.testing.assert_allclose(rarity(texts), [slow(text) for text in texts], atol=1e-12)


def test_atypicality_is_the_mean_distance_to_the_nearest():
    pixels = np.random.default_rng(3).random((23, 7))
    slow = [
        np.mean(sorted(np.linalg.norm(row - other) for k, other in enumerate(pixels) if k != i)[:4])
        for i, row in enumerate(pixels)
    ]
    np.testing.assert_allclose(atypicality(pixels, near=4), slow, atol=1e-7)


def interval(values):
    """Mean and t interval of differences over five seeds, from the definition."""
    mean = sum(values) / len(values)
    sd = np.sqrt(sum((x - mean) ** 2 for x in values) / (len(values) - 1))
    half = 2.7764451051977987 * sd / np.sqrt(len(values))
    return mean, mean - half, mean + half


def test_a_maximum_inside_is_an_optimum_only_above_both_ends():
    results, rng = Results(lambda spec: None, 0.95), np.random.default_rng(1)
    low, peak, high = (level + rng.normal(0, 0.01, 5) for level in (0.3, 0.5, 0.4))

    def tested(*values, claim=ABOVE, at=1):
        return optimum(results, "m", [own.tolist() for own in values], claim, at=at)

    [found] = tested(low, peak, high)
    both = [interval((peak - end).tolist()) for end in (low, high)]
    np.testing.assert_allclose([found.estimate, found.low], np.min(both, axis=0)[:2])
    ends = [paired_test(peak, end, 0.975).high for end in (low, high)]  # either may refute, so the level is divided
    assert found.high == pytest.approx(min(ends))
    assert found.holds == "yes"
    # the middle lies above one end only
    [rising] = tested(low, high, peak)
    assert rising.holds == "no"
    [noisy] = tested(low, peak, peak - 0.001 + rng.normal(0, 0.05, 5))
    assert noisy.holds == "inconclusive"
    assert tested(-low, -peak, -high, claim=BELOW)[0].holds == "yes"
    assert tested(low, high, at=None) == []  # nothing is inside
    assert tested(low[:1], peak[:1], high[:1], at=None) == []  # one seed chooses no level


def test_choosing_the_best_level_favors_nobody():
    """Noise alone: without crossing, the best of ten inner levels would lie above both ends far too often."""
    results, rng, found = Results(lambda spec: None, 0.95), np.random.default_rng(2), []
    for _ in range(200):
        [one] = optimum(results, "m", rng.normal(0, 1, (12, 5)).tolist(), ABOVE)
        found.append(one.holds)
    assert found.count("yes") <= 10


def results_of(folders):
    return Results(lambda spec: Measured(folders[spec]), 0.95)


def test_a_mitigation_is_measured_relative_to_its_base(tmp_path):
    base, noisy = RunSpec(), RunSpec({"mitigate.text_noise.std": 0.15})
    folders = {
        base: build(tmp_path / "base"),
        noisy: build(tmp_path / "noisy", *as_settings(noisy.settings), effect=0.3, noise=7, utility=0.2),
    }
    found = mitigated(results_of(folders), base, noisy, "noise", size=0.037)
    runs = [Measured(folders[spec]) for spec in (base, noisy)]
    before, after = (
        np.subtract(run.memorization(run.uids("candidate")), run.memorization(run.uids("independent"))) / 2
        for run in runs
    )
    change = (after - before) / before.mean()
    half = 4.302652729911275 * change.std(ddof=1) / np.sqrt(3)
    assert found[0].measure == "noise: relative change of CLIPMem"
    np.testing.assert_allclose(
        [found[0].estimate, found[0].low, found[0].high], change.mean() + np.array([0, -half, half]), atol=1e-12
    )
    assert found[0].holds == "yes"
    by_name = {one.measure: one for one in found[1:]}
    assert by_name["noise: change of linear probe"].holds == "yes"
    primary = mitigated(results_of(folders), base, noisy, "noise", primary="clipmem")
    assert [one.primary for one in primary] == [True, False, False]


def test_a_mitigation_is_measured_over_all_wordings_too(tmp_path):
    base, noisy = RunSpec(), RunSpec({"mitigate.captions.count": 5})
    folders = {
        base: build(tmp_path / "base", wordings=0.4),
        noisy: build(tmp_path / "noisy", *as_settings(noisy.settings), effect=0.3, noise=7, wordings=0.5),
    }
    first, wordings, *rest = mitigated(results_of(folders), base, noisy, "captions", primary="clipmem")
    assert (first.holds, wordings.holds) == ("yes", "no")
    assert wordings.measure == "captions: relative change of CLIPMem over all captions"
    assert [first.primary, wordings.primary, *(one.primary for one in rest)] == [True, False, False, False]
    runs = [Measured(folders[spec]) for spec in (base, noisy)]
    means = [run.half_difference(run.uids("candidate"), run.uids("independent"), "clipmem_wordings") for run in runs]
    assert wordings.estimate == pytest.approx(np.mean(means[1]) / np.mean(means[0]) - 1)


def test_separation_counts_couples(tmp_path):
    run = Measured(build(tmp_path / "run", effect=0.03))
    table = run.run.seed_scores
    for seed, found in zip(run.seeds, separation(run), strict=True):
        own = {row["uid"]: row["f"] - row["g"] for row in table.iter_rows(named=True) if row["seed"] == seed}
        couples = [
            (own[a] > own[b]) + 0.5 * (own[a] == own[b]) for a in run.uids("candidate") for b in run.uids("external")
        ]
        assert found == pytest.approx(sum(couples) / len(couples))


# ---- what is refused


def refused(*arguments, **settings):
    with pytest.raises(InputError) as error:
        reproduce(*arguments, **settings)
    return error.value


def test_unknown_names_are_refused_with_a_near_one(tmp_path):
    error = refused(tmp_path / "out", findings=["planed"])
    assert (error.what, error.got) == ("--finding, with --regime redundant", "'planed'")
    assert "planted" in error.hint
    error = refused(tmp_path / "out", scale="large")
    expected = ("--scale, with --regime redundant", "'large'", "tiny, laptop, planned, repeated")
    assert (error.what, error.got, error.expected) == expected
    error = refused(tmp_path / "out", regime="rare")
    assert (error.what, error.expected) == ("--regime", ", ".join(REGIMES))
    error = refused(tmp_path / "out", regime="long-tail", findings=["captions"])
    assert (error.what, error.got) == ("--finding, with --regime long-tail", "'captions'")
    assert not (tmp_path / "out").exists()


def test_a_folder_of_something_else_is_refused(tmp_path):
    (tmp_path / "a.txt").write_text("a")
    assert refused(tmp_path).got == "a folder with other files"
    out = tmp_path / "out"
    out.mkdir()
    known = {"regime": "unique", "scale": "tiny", "recipe_sha256": "f" * 64}
    (out / "reproduce.json").write_text(json.dumps(known))
    error = refused(out, scale="tiny")
    assert error.what == f"folder {out}"
    assert error.got.startswith(f"regime = 'unique' there, 'redundant' now; recipe_sha256 = {'f' * 8}… there")
    (out / "reproduce.json").write_bytes(bomb("reproduce.json"))
    assert refused(out, scale="tiny").what == f"{out / 'reproduce.json'}"


def test_data_are_checked_before_a_folder_is_claimed(tmp_path):
    error = refused(tmp_path / "out", regime="coco", scale="published", settings=[f"data.path={tmp_path}"])
    got = f"{str(tmp_path)!r}, which is not of this format or does not exist"
    assert (error.what, error.got, error.expected) == ("[data] path", got, "a JSON file of COCO captions")
    assert not (tmp_path / "out").exists()


def test_findings_that_are_judged_outlive_a_stop(tmp_path):
    where = context("tiny")
    maker = Maker(tmp_path, where.base)
    claim = {"regime": "redundant", "scale": "tiny", "recipe_sha256": recipe_hash(where.base)}
    (tmp_path / "reproduce.json").write_text(json.dumps(claim))
    for spec in FINDINGS["planted"]().runs(where).values():
        build(maker.folder(spec))
    probe = RunFolder(build(tmp_path / "probe"))
    for stage in ("decode", "plan", "score", "embed"):
        probe.finish(stage, [], 1.0)

    def stop(line):
        if "one-pass" in line:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        reproduce(tmp_path, findings=["planted", "one-pass"], log=stop)
    found = json.loads((tmp_path / "findings.json").read_text())
    assert [one["finding"] for one in found["findings"]] == ["planted"]
    assert {row["finding"] for row in found["rows"]} == {"planted"}
    assert (tmp_path / "index.html").is_file()


def test_the_users_settings_reach_every_run():
    base = base_recipe("published", "coco", 2, ["data.path=/data/coco"])
    assert (base.train.seeds, base.data.path) == ((0, 1), "/data/coco")
    assert captions.several(5).recipe(base).data.path == "/data/coco"


def test_finished_runs_are_only_read(tmp_path):
    where = context("tiny")
    maker = Maker(tmp_path, where.base)
    assert not maker.is_made(RunSpec())
    build(maker.folder(RunSpec()))
    assert maker.is_made(RunSpec())
    assert not maker.is_made(RunSpec(localize=True))
    assert maker.seconds(RunSpec()) == 15.0  # of the stages; single models are part of one
    assert maker.estimate([RunSpec()]) == "all 1 runs are finished"
    assert maker.open(RunSpec()) is maker.open(RunSpec())


# ---- page


def test_the_page_shows_what_the_document_says():
    page = render(KIND, document())
    assert page.count("<svg") == 2  # wide and narrow of the one that has panels
    assert "Few seeds &amp; &lt;few&gt; pairs." in page
    assert "clipmem reproduce --finding captions --regime redundant --scale tiny" in page
    assert "<script" not in page
    assert render(KIND, document()) == page


@pytest.mark.parametrize("name", ["findings", "findings-terminal"])
def test_the_page_and_the_screen_read_as_they_are_kept(name):
    made = page_text(KIND, document()) if name == "findings" else screen_text(KIND, document("inconclusive"))
    assert made == (SCREENS / f"{name}.txt").read_text(encoding="utf-8")


def test_the_tally_counts_findings():
    assert tally(document("inconclusive")) == [("inconclusive", ["Number of captions", "Model size"])]
    assert tally(document("no")) == [("no", ["Number of captions"]), ("inconclusive", ["Model size"])]


def test_flattened_recipes_of_a_scale_differ_where_they_should():
    tiny, laptop = (flatten(base_recipe(name, "redundant")) for name in ("tiny", "laptop"))
    assert tiny["localize.crop"] == laptop["localize.crop"] == "own"
    assert tiny["split.planted"] == laptop["split.planted"] == 0


def test_coarse_values_that_coincide_over_seeds_are_no_certainty():
    effect = Results(lambda _: None, 0.95).effect("m", [0.25, 0.25], None, ABOVE)
    assert (effect.estimate, effect.low, effect.high, effect.holds) == (0.25, None, None, "inconclusive")


def test_an_interval_over_seeds_is_widened_by_that_over_pairs():
    effect = Results(lambda _: None, 0.95).effect("m", [0.2, 0.3, 0.4], None, ABOVE)
    assert effect.holds == "yes"
    wide = widened(effect, -0.1, 0.35)
    assert (wide.low, wide.high, wide.holds) == (-0.1, effect.high, "inconclusive")
    assert widened(effect, 0.25, 0.35) == effect
    assert widened(effect, None, None).holds == "inconclusive"


def test_settings_that_change_nothing_name_the_base_study():
    base = base_recipe("laptop", "redundant")
    same = RunSpec({"split.shared": base.split.shared, "model.name": base.model.name})
    assert same.key(base) == RunSpec().key(base)
    assert RunSpec({"split.shared": 60}).key(base).startswith("shared-60-")


def test_a_ring_marks_the_optimum_of_each_curve():
    one = document()["findings"][0]
    ringed = finding_figure(one).svg("finding", "wide").count("<use ")
    curves = sum(len(panel["series"]) for panel in one["panels"])
    for panel in one["panels"]:
        panel["optimum"] = ""
    assert finding_figure(one).svg("finding", "wide").count("<use ") == ringed - curves


def test_a_published_curve_of_its_own_has_a_style_of_its_own():
    one = document()["findings"][0]
    same = finding_figure(one).svg("finding", "wide").count("var(--soft)")
    [there] = [panel for panel in one["panels"] if panel["published"]]
    there["series"] = [{**line, "name": "COCO"} for line in there["series"]]
    assert finding_figure(one).svg("finding", "wide").count("var(--soft)") > same
