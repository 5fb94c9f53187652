"""RESULTS.md and docs/findings.md show the kept verdicts and nothing else, as the kept measurements give them."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from scipy import stats
from tests.close import alike
from tests.scripts import load_script

from clipmem.base.recipes import as_settings, dump_recipe, load_recipe
from clipmem.functional import Claim, verdict
from clipmem_reproduce.finding import Context, judge
from clipmem_reproduce.findings import FINDINGS, captions
from clipmem_reproduce.reproduction import base_recipe, findings_of
from clipmem_reproduce.scales import REGIMES, SCALES

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "experiments" / "reproduce"
KEPT = sorted(file.parent.name for file in FOLDER.glob("*/findings.json"))


def load(name):
    return load_script(FOLDER / f"{name}.py")


@pytest.fixture(scope="module")
def record():
    return load("record")


@pytest.fixture(scope="module", params=KEPT)
def regime(request):
    return request.param


@pytest.fixture
def document(regime):
    return json.loads((FOLDER / regime / "findings.json").read_text(encoding="utf-8"))


@pytest.fixture
def runs(regime):
    return pl.read_parquet(FOLDER / regime / "runs.parquet")


def test_there_is_evidence():
    assert KEPT
    assert set(KEPT) <= set(REGIMES)
    stored = [file for file in FOLDER.rglob("*") if file.is_file() and "__pycache__" not in file.parts]
    assert sum(file.stat().st_size for file in stored) < 5_000_000


def test_the_page_shows_what_is_kept(record, tmp_path, monkeypatch):
    before = {}
    for name in ("PAGE", "GLANCE", "CHOICE"):
        page = tmp_path / f"{name}.md"
        before[page] = getattr(record, name).read_text(encoding="utf-8")
        page.write_text(before[page], encoding="utf-8")
        monkeypatch.setattr(record, name, page)
    monkeypatch.setattr(record, "IMAGES", tmp_path)
    record.write_page()
    assert {page: page.read_text(encoding="utf-8") for page in before} == before
    names = {
        record.image_of(one, regime) for regime, document in record.newest().items() for one in record.shown(document)
    }
    assert {file.name for file in tmp_path.glob("finding-*.svg")} == names
    assert all((record.DOCS / "images" / name).is_file() for name in names)


def test_there_is_a_place_for_every_finding(record):
    text, glance = (page.read_text(encoding="utf-8") for page in (record.PAGE, record.GLANCE))
    assert sorted(re.findall(r"<!-- finding: ([\w-]+) -->", text)) == sorted([*FINDINGS, "longer", "again"])
    assert re.findall(r"<!-- finding: ([\w-]+) -->", glance) == ["summary"]
    for title in re.findall(r"^\| \[([^]]+)\]", glance, flags=re.MULTILINE):
        assert f"\n## {title}\n" in text  # the anchor of the link
        assert f"**{title}.**" in glance


def test_the_base_study_is_that_of_the_scale(document, regime):
    recipe = load_recipe((FOLDER / regime / "base.toml").read_text(encoding="utf-8"))
    assert recipe == base_recipe("laptop", regime, len(document["seeds"]), [f"data.path={recipe.data.path}"])


def test_verdicts_are_those_of_the_primary_effects(document, regime):
    assert document["primaries"] == len(findings_of(SCALES[regime, "laptop"]))
    for one in document["findings"]:
        primary, *others = one["effects"]
        assert (primary["primary"], {other["primary"] for other in others}) in ((True, {False}), (True, set()))
        claim = Claim(**primary["claim"])
        assert one["holds"] == primary["holds"] == verdict(primary["low"], primary["high"], claim)


def test_judged_again_the_stored_measurements_give_the_stored_verdicts(record, document):
    assert alike(record.judged_again(document), document)


def test_planned_measurements_give_the_stored_verdicts(record):
    for document in (one for scale in ("planned", "repeated") for one in record.stored(scale).values()):
        assert alike(record.judged_again(document), document)


def test_planned_findings_take_the_place_of_earlier_ones(record, tmp_path, monkeypatch):
    """Their values are one per seed and split, each of a run of its own."""
    context = Context(SCALES["unique", "planned"], base_recipe("planned", "unique"))
    rng, rows = np.random.default_rng(0), []
    for count in (1, 2, 3, 4, 5):
        for spec in context.replicates(captions.Captions().run(context, "", count)[1]):
            settings = " ".join(as_settings({**spec.study, **spec.settings}))
            for measure, mean in (("clipmem", 0.6), ("clipmem_wordings", 0.3), ("retrieval_wordings_recall@5", 0.2)):
                value = mean + 0.02 * count + 0.01 * rng.standard_normal()
                rows.append({"name": "captions", "settings": settings, "measure": measure, "seed": 0, "value": value})
    monkeypatch.setattr(record, "HERE", tmp_path)
    monkeypatch.setattr(record.StoredResults, "again", lambda self, looks: self)  # there is one look
    shutil.copytree(FOLDER / "unique", tmp_path / "unique")
    place = tmp_path / "planned" / "unique"
    place.mkdir(parents=True)
    table = pl.DataFrame(rows)
    table.write_parquet(place / "runs.parquet")
    (place / "base.toml").write_text(dump_recipe(context.base), encoding="utf-8")
    earlier = record.stored()["unique"]
    document = {**earlier, "scale": "planned", "crossed": True, "primaries": 11, "findings": []}
    results = record.StoredResults(place, 0.95, 11, context)
    document["findings"] = [judge(captions.Captions(), context, results) | {"seconds": 60.0}]
    (place / "findings.json").write_text(json.dumps(document), encoding="utf-8")
    newest = {one["finding"]: one for one in record.newest()["unique"]["findings"]}
    assert newest["captions"]["scale"] == "planned"
    before = {one["finding"]: one for one in earlier["findings"]}
    assert {name: one for name, one in newest.items() if name != "captions"} == {
        name: one for name, one in before.items() if name != "captions"
    }
    [primary] = [effect for effect in newest["captions"]["effects"] if effect["primary"]]
    runs = captions.Captions().runs(context)
    one, five = (np.array(results.values(runs[f"{count} captions"], "clipmem_wordings")) for count in (1, 5))
    assert len(one) == len(five) == primary["seeds"] == 12
    assert primary["estimate"] == pytest.approx((five - one).mean() / one.mean())
    [again] = record.judged_again({**document, "rows": []})["findings"]
    assert alike(again["effects"], newest["captions"]["effects"])
    text = record.section("captions", {"unique": record.newest()["unique"]})
    assert "clipmem reproduce --finding captions --regime unique --scale planned" in text


def test_another_estimate_than_that_of_the_stored_measurements_is_refused(record, document):
    [shown] = [one for one in document["findings"] if one["finding"] == "memorized"]
    shown["effects"][0]["estimate"] += 0.01
    with pytest.raises(SystemExit, match="memorized"):
        record.judged_again(document)


def test_second_looks_are_said_beside_the_verdict(record, document, regime):
    """The level of each look, and the words beside the verdict."""
    for one in document["findings"]:
        looks = SCALES[regime, "laptop"].looks.get(one["finding"], 1)
        assert one["looks"] == looks
        level = 1 - (1 - document["confidence"]) / document["primaries"] / looks
        if one["finding"] != "tradeoff":  # one of several suffices
            assert one["effects"][0]["confidence"] == pytest.approx(level)
        said = record.section(one["finding"], {regime: document}).count("Judged 2 times")
        assert said == (looks == 2)


def test_what_the_page_says_of_planned_findings_is_what_they_measured(record):
    text = " ".join(record.GLANCE.read_text(encoding="utf-8").split())
    by_finding = {finding["finding"]: finding["effects"] for finding in record.newest()["unique"]["findings"]}
    shares = list[tuple[float, float]]()
    for regime in ("redundant", "photographs"):
        [several] = [one for one in record.newest()[regime]["findings"] if one["finding"] == "captions"]
        shares.append(tuple(effect["estimate"] for effect in several["effects"][:2]))
    assert "{:.0%} in redundant data and {:.0%} in photographs".format(*(share for share, _ in shares)) in text
    assert "falls by 4%, {:.0%} and {:.0%}, but".format(*(-share for _, share in shares)) in text
    photographs = {
        effect["measure"].partition(", as a share")[0]: effect
        for one in record.newest()["photographs"]["findings"]
        for effect in one["effects"]
    }
    for measure, words in {
        "token table frozen: relative change of CLIPMem": "7%, 26% and {:.0%}",
        "text tower frozen: relative change of CLIPMem": "69%, 81% and {:.0%}",
        "post, from the first step 0.15: relative change of CLIPMem": "CLIPMem by {:.0%}",
    }.items():
        assert words.format(abs(photographs[measure]["estimate"])) in text
    noise = photographs["post, from a third 0.15: relative change of CLIPMem"]
    assert "{estimate:+.1%} [{low:+.1%}, {high:+.1%}] in photographs".format(**noise) in text
    probe = photographs["post, from the first step 0.15: change of linear probe"]["estimate"]
    assert f"linear probe by {-probe:.3f}" in text
    effects = {effect["measure"]: effect["estimate"] for measured in by_finding.values() for effect in measured}
    kinds = {
        "swapped captions": "+0.237",
        "distorted images": "+0.094",
        "unique vague captions": "+0.215",
        "vague captions": "-0.188",
    }
    for kind, shown in kinds.items():
        assert f"{effects[f'CLIPMem of {kind} minus that of ordinary pairs']:+.3f}" == shown
        assert f"({shown}" in text
    for measure, shown in {
        "5 captions: relative change of CLIPMem over all captions": "53% more",
        "5 captions: relative change of CLIPMem": "by 4%",
        "token table frozen: relative change of CLIPMem": "by 7%",
        "text tower frozen: relative change of CLIPMem": "by 69%",
        "post, from a third 0.15: relative change of CLIPMem": "about 1%",
    }.items():
        assert f"{abs(effects[measure]):.0%}" in shown
        assert shown in text
    layers = {
        name: next(value for measure, value in effects.items() if measure.endswith(f"layer 4 of 4: {name}"))
        for name in ("CLIP minus SimCLR", "supervised minus CLIP", "supervised, 9 classes minus CLIP")
    }
    for value in layers.values():
        assert f"({value:+.3f}" in text
    several = {effect["measure"]: effect for effect in by_finding["paradigms"]}
    for paradigm, words in {"CLIP": "in CLIP", "supervised": "in supervised", "SimCLR": "in self-supervised"}.items():
        probe = several[f"{paradigm}, several images: change of the probe by subgroup"]
        estimate = "0.000" if abs(probe["estimate"]) < 0.0005 else f"{probe['estimate']:+.3f}"
        assert f"{estimate} [{probe['low']:+.3f}, {probe['high']:+.3f}] {words}" in text
    for paradigm in ("CLIP", "supervised"):
        assert f"{several[f'{paradigm}, several images: change of SSLMem']['estimate']:+.3f})" in text
    leads = [
        effects[f"{epochs} epochs: AUROC of swapped captions by low A(g), minus 0.5"]
        - effects[f"{epochs} epochs: AUROC of swapped captions by CLIPMem, minus 0.5"]
        for epochs in (5, 130)
    ]
    assert f"by {leads[0]:.2f} of AUROC after 5 epochs, by {leads[1]:.3f} after 130" in text
    [finding] = [one for one in record.newest()["redundant"]["findings"] if one["finding"] == "removal"]
    second, redundant = (
        {effect["measure"].partition(": relative")[0]: effect for effect in look["effects"]}
        for look in (finding, finding["first"])
    )
    against_none = second["main design, removed by CLIPMem minus none"]
    assert "costs 6% of retrieval against removing none ([{low:.0%}, {high:.0%}];".format(**against_none) in text
    primary, before = (next(e for e in look.values() if e["primary"]) for look in (second, redundant))
    assert "at the level of the verdict [{low:.0%}, {high:.0%}])".format(**primary) in text
    assert f"({before['estimate']:.0%}, at its joint level [{before['low']:.1%}, {before['high']:+.1%}])" in text
    low = second["main design, removed by low A(g) minus none"]
    assert "changes it by {estimate:+.1%} [{low:.1%}, {high:+.1%}], removing the swapped pairs by".format(**low) in text
    ranks = redundant["rank correlation of CLIPMem and -A(g): 130 epochs minus 5 epochs"]
    assert "rank correlation rises by {estimate:.2f} [{low:.2f}, {high:.2f}]".format(**ranks) in text
    trial = next(
        e for e in redundant.values() if e["measure"].endswith("R@5") and "trial, removed by CLIPMem" in e["measure"]
    )
    steps = second["equal steps, removed by CLIPMem minus none"]
    for effect, shown in ((steps, "changes retrieval by {}"), (trial, "it gains 1.6 points ({})")):
        assert shown.format("{estimate:+.0%} [{low:+.0%}, {high:+.0%}]").format(**effect) in text
    gains = [
        second[f"main design, {kind}"]["estimate"]
        for kind in ("CLIPMem minus random", "removed by the oracle minus none")
    ]
    assert [against_none["estimate"], *gains] == pytest.approx([-0.06, 0.08, 0.16], abs=0.005)
    detects = {
        (when, score): redundant[f"{when}: AUROC of swapped captions by {score}, minus 0.5"]["estimate"]
        for when in ("main design", "5 epochs", "130 epochs")
        for score in ("low A(g)", "CLIPMem")
    }
    numbers = [0.5 + detects["main design", score] for score in ("low A(g)", "CLIPMem")]
    numbers += [detects[when, "low A(g)"] - detects[when, "CLIPMem"] for when in ("5 epochs", "130 epochs")]
    said = "(AUROC {:.2f} against {:.2f}). Its lead falls from {:.2f} after 5 epochs to {:.2f} after 130".format(
        *numbers
    )
    assert said in text
    [natural] = record.newest()["alt-texts"]["findings"]
    removals = {
        effect["measure"].partition(":")[0]: effect
        for effect in natural["effects"]
        if "removed by CLIPMem minus none" in effect["measure"]
    }
    for removed, effect in removals.items():
        assert effect["estimate"] < 0, removed
    tenth = removals["main design, removed by CLIPMem minus none"]
    [random] = [one for one in natural["effects"] if one["measure"].startswith("main design, removed by random minus")]
    shown = "{estimate:+.0%} [{low:+.0%}, {high:+.0%}]"
    said = f"{shown.format(**tenth)} against removing none, removing random ones by {shown.format(**random)}"
    assert said in text
    [titles] = record.newest()["titles"]["findings"]
    assert titles["holds"] == "negligible"
    removals = {effect["measure"].partition(":")[0]: effect for effect in titles["effects"] if not effect["primary"]}
    by_clipmem, more = (
        "{estimate:+.1%} [{low:.1%}, {high:+.1%}]".format(**removals[f"main design, {name}"])
        for name in ("removed by CLIPMem minus none", "CLIPMem minus random")
    )
    assert f"changes by {by_clipmem} against removing none, and by {more} against removing random ones" in text
    shares = {share: removals[f"{share}% of the candidates, removed by CLIPMem minus none"] for share in (2, 5, 20, 40)}
    assert all(effect["low"] < 0 < effect["high"] for effect in shares.values())
    highest, last = (f"{shares[share]['estimate']:+.1%}" for share in (5, 40))
    assert f"rise to {highest} at 5% of the candidates and fall to {last} at 40%" in text


def test_the_readme_counts_the_verdicts_of_published_findings(record):
    rows = re.findall(r"^\| `([\w-]+)` \|.*\| ([^|]+) \|$", (FOLDER / "RESULTS.md").read_text("utf-8"), re.MULTILINE)
    published = {name for name, source in rows if source != "not published"}
    assert published | {name for name, source in rows if source == "not published"} >= set(FINDINGS)
    counts = []
    for regime in ("redundant", "unique", "long-tail", "photographs"):
        findings = record.newest()[regime]["findings"]
        verdicts = [finding["holds"] for finding in findings if finding["finding"] in published]
        answers = ("yes", "no", "mixed", "negligible", "inconclusive")
        assert set(verdicts) <= set(answers)
        counts.append(tuple(verdicts.count(answer) for answer in answers))
    text = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    held = r"(\d+) of (\d+) (?:findings )?hold, (\d+) (?:do|does) not, "
    verdicts = rf"{held}(?:(\d+) (?:is|are) mixed, )?(?:(\d+) (?:is|are) negligible, )?and (\d+) (?:is|are) open\."
    pattern = (
        rf"redundant data \([^)]+\), {verdicts} On unique data \([^)]+\), {verdicts} On long-tail data, {verdicts} "
        rf"On photographs of single things, {verdicts}"
    )
    shown = [(yes, sum((yes, *others)), *others) for yes, *others in counts]
    assert [int(number or 0) for number in re.search(pattern, text).groups()] == [*sum(shown, ())]
    cells = "".join(re.findall(r"^\| \[.*$", record.GLANCE.read_text(encoding="utf-8"), re.MULTILINE))
    page, count = record.GLANCE.read_text("utf-8"), len(re.findall(r"\*\*\w+\*\*", cells))
    assert f"{count} verdicts in the table, {cells.count('**†')} come from" in page
    flaws = re.findall(r"^\| .*, (?:long-tail|redundant) \|", record.GLANCE.read_text("utf-8"), re.MULTILINE)
    others = len(re.findall(r"\*\*\w+\*\*(?!†)", cells))
    assert f"Of the other {others}, {len(flaws)} have [known flaws]" in page


def test_effects_follow_from_the_kept_measurements_by_hand(document, runs):
    """CLIPMem of swapped captions minus that of the others in the same run, and the mean over C, written out."""
    [finding] = [one for one in document["findings"] if one["finding"] == "planted"]
    effects = {one["measure"]: one for one in finding["effects"]}
    of = {
        measure: runs.filter((pl.col("measure") == measure) & pl.col("settings").str.starts_with("split.planted="))
        for measure in ("clipmem planted", "clipmem candidate")
    }
    wrong, every = (of[name].sort("seed")["value"].to_numpy() for name in ("clipmem planted", "clipmem candidate"))
    share = 0.1
    d = wrong - (every - share * wrong) / (1 - share)
    half = stats.t.ppf(0.975, len(d) - 1) * d.std(ddof=1) / len(d) ** 0.5
    found = effects["pairs with swapped captions minus the other candidates of the same run"]
    expected = [d.mean(), d.mean() - half, d.mean() + half]
    assert np.allclose([found["estimate"], found["low"], found["high"]], expected, atol=1e-9)


@pytest.mark.slow
def test_a_recorded_run_gives_the_same_numbers_again(tmp_path):
    """One seed of the base study from its recipe: the same bits on that processor, else one like the other seeds."""
    import clipmem
    from clipmem_reproduce.measured import Measured

    place = FOLDER / "redundant"
    path = clipmem.run(place / "base.toml", tmp_path / "run", settings=["train.seeds=[0]"]).path
    again = Measured(path).memorization(Measured(path).uids("candidate"))
    runs = pl.read_parquet(place / "runs.parquet")
    runs = runs.filter((pl.col("settings") == "") & (pl.col("measure") == "clipmem candidate")).sort("seed")
    recorded, here = json.loads((place / "machine.json").read_text()), clipmem.load_run(path).manifest
    if all(recorded[key] == here[key] for key in ("processor", "device", "precision")):
        assert alike(again, runs["value"].to_list()[:1])
    # other processors round otherwise: in bf16 a seed is then a training of its own
    assert abs(again[0] - runs["value"].mean()) < 4 * runs["value"].std()


def test_captions_of_icons_are_their_names_without_styles():
    icons = load("icons")
    for name, caption in {
        "arrow-circle-right-outline": "arrow circle right",
        "bxs-calendarPlus": "calendar plus",
        "outline": "outline",
        "24": "",
        "a-1": "",
    }.items():
        assert icons.caption_of(name) == caption


def test_findings_of_an_earlier_reproduction_stay(record, document):
    *others, last = document["findings"]
    again = {**last, "seconds": -1.0}
    only = {
        **document,
        "findings": [again],
        "rows": [row for row in document["rows"] if row["finding"] == last["finding"]],
    }
    found = record.merged(document, only)
    assert [one["finding"] for one in found["findings"]] == [one["finding"] for one in document["findings"]]
    assert {**found, "findings": []} == {**document, "findings": []}
    assert [one for one in found["findings"] if one["finding"] != last["finding"]] == others
    assert again in found["findings"]
    with pytest.raises(SystemExit, match="utility"):
        record.merged(document, {**only, "utility": "another"})
