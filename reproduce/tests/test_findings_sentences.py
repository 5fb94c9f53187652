"""Sentences of docs/findings.md and RESULTS.md beside the tables: their numbers are the stored measurements."""

import json
import re
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from scipy import stats
from tests.scripts import load_script

FOLDER = Path(__file__).parents[2] / "experiments" / "reproduce"


@pytest.fixture(scope="module")
def record():
    return load_script(FOLDER / "record.py")


def test_the_lead_of_the_text_encoder_is_not_that_of_its_table(record):
    [finding] = record.newest()["small-vocabulary"]["findings"]
    effects = {effect["measure"]: effect for effect in finding["effects"]}
    glance, results = (" ".join(page.read_text("utf-8").split()) for page in (record.GLANCE, record.PAGE))
    [lead] = [effect["estimate"] for effect in finding["effects"] if effect["primary"]]
    assert f"still ahead by {lead:.0%} of CLIPMem" in glance
    table = "token table frozen: relative change of CLIPMem"
    assert "changes CLIPMem by {estimate:.0%} [{low:.0%}, {high:+.0%}]".format(**effects[table]) in glance
    over_all = effects[f"{table} over all captions"]
    assert "over all captions by {estimate:.0%} [{low:.0%}, {high:.0%}]".format(**over_all) in glance
    shown = [
        "{:.0%} [{:.0f}, {:.0f}]".format(-effect["estimate"], -100 * effect["high"], -100 * effect["low"])
        for effect in (effects[table], effects[f"{table} over all captions"])
    ]
    assert f"removes {shown[0]} of CLIPMem on first captions and {shown[1]} over all of them" in results


def planned(regime, name, measure):
    """The values of a planned run by seed."""
    runs = pl.read_parquet(FOLDER / "planned" / regime / "runs.parquet").filter(measure=measure)
    seed = runs["name"].str.extract(f"^{re.escape(name)}, seed (\\d+)$").cast(pl.Int64)
    return dict(runs.with_columns(seed=seed).drop_nulls("seed").select("seed", "value").iter_rows())


def change(before, after):
    """The mean relative change over the seeds of both, and its 95% interval, which has the mean before as its unit."""
    seeds = sorted(before.keys() & after.keys())
    d = np.array([after[seed] - before[seed] for seed in seeds]) / np.mean([before[seed] for seed in seeds])
    half = stats.t.ppf(0.975, len(d) - 1) * d.std(ddof=1) / len(d) ** 0.5
    return d.mean(), d.mean() - half, d.mean() + half


def test_what_the_page_says_beside_the_stored_effects_is_what_was_measured(record):
    """Five captions scored on what each model trained on, and what freezing and noise do to retrieval."""
    text = " ".join(record.GLANCE.read_text(encoding="utf-8").split())
    recall, memorized, risen = "retrieval_wordings_recall@5", list[str](), list[str]()
    ones = {"unique": "planted: base", "redundant": "roles: base", "photographs": "encoders: 1 image, 1 caption"}
    for regime, one in ones.items():
        five = [planned(regime, "captions: 5 captions", measure) for measure in ("clipmem_wordings", recall)]
        memorized.append(f"{-change(planned(regime, one, 'clipmem'), five[0])[0]:.0%}")
        risen.append(f"{change(planned(regime, one, recall), five[1])[0]:.0%}")
    assert "five captions lower CLIPMem by {}, {} and {}.".format(*memorized) in text
    assert "Retrieval rises by {}, {} and {}, but".format(*risen) in text
    first = [
        -change(*(planned(regime, name, "retrieval_recall@5") for name in (ones[regime], "captions: 5 captions")))[0]
        for regime in ("unique", "redundant")
    ]
    assert "first caption alone it falls by {:.0%} and {:.0%}".format(*first) in text
    of = {regime: {one["finding"]: one["effects"] for one in record.newest()[regime]["findings"]} for regime in ones}
    measure = "token table frozen: relative change of CLIPMem over all captions"
    tables = [
        next(effect["estimate"] for effect in by_finding["encoders"] if effect["measure"] == measure)
        for by_finding in of.values()
    ]
    assert "freezing the table lowers CLIPMem by {:.0%}, {:.0%} and {:.0%}.".format(*(-x for x in tables)) in text
    lost: dict[str, list[str]] = {"text tower": [], "image tower": []}
    for tower, shares in lost.items():
        for of in ("unique", "redundant", "photographs"):
            before, after = (planned(of, f"encoders: {name}", recall) for name in ("warm start", f"{tower} frozen"))
            shares.append(f"{-change(before, after)[0]:.0%}")
    shown = "lowers retrieval by {}, {} and {} (the image encoder: by {}, {} and {})"
    assert shown.format(*lost["text tower"], *lost["image tower"]) in text
    [encoders] = [one for one in record.newest()["redundant"]["findings"] if one["finding"] == "encoders"]
    effects = {effect["measure"]: effect["estimate"] for effect in encoders["effects"]}
    for measure, said in {
        "token table frozen: relative change of CLIPMem": "7%, {:.0%} and",
        "text tower frozen: relative change of CLIPMem": "69%, {:.0%} and",
    }.items():
        assert said.format(abs(effects[measure])) in text
    leads: dict[str, list[float]] = {"trained alone": [], "swapped": []}
    for of in ("unique", "redundant", "photographs", "small-vocabulary"):
        [one] = [one for one in record.newest()[of]["findings"] if one["finding"] == "encoders"]
        smaller, *both = (effect["estimate"] for effect in one["effects"][:3])
        assert smaller == pytest.approx(min(both))
        for how, lead in zip(leads, both, strict=True):
            leads[how].append(lead)
    alone, swapped = leads.values()
    shown = "by {:.0%} of CLIPMem in unique data, {:.0%} in redundant data and {:.0%} in photographs; by swapping, by"
    assert (shown + " {:.0%}, {:.0%} and {:.0%}.").format(*alone[:3], *swapped[:3]) in text
    assert f"ahead by {alone[3]:.0%} of CLIPMem (by swapping, {swapped[3]:.0%})" in text
    noisy = change(*(planned("unique", f"text-noise: post, from a third {std}", recall) for std in ("0.0", "0.15")))
    assert "Retrieval improves by {:.0%} [{:.0%}, {:.0%}]".format(*noisy) in text
    [noise] = [one for one in record.newest()["unique"]["findings"] if one["finding"] == "text-noise"]
    assert f"the interval ends at {noise['effects'][0]['low']:.2%}" in text
    [all_captions] = [
        one["estimate"]
        for one in noise["effects"]
        if one["measure"] == "post, from a third 0.15: relative change of CLIPMem over all captions"
    ]
    assert f"about 1%, and by {all_captions:.0%} over all captions" in text
    [none, clipmem] = [
        planned("redundant", f"removal: trial, {removed}", "retrieval_recall@5")
        for removed in ("nothing removed", "removed by CLIPMem")
    ]
    assert f"it gains {100 * np.mean([clipmem[seed] - none[seed] for seed in clipmem]):.1f} points" in text


def test_effects_that_decide_nothing_are_those_of_the_tables(record):
    text, newest = " ".join(record.GLANCE.read_text(encoding="utf-8").split()), record.newest()

    def shown(regime, name, measure, form):
        [finding] = [one for one in newest[regime]["findings"] if one["finding"] == name]
        [effect] = [one for one in finding.get("first", finding)["effects"] if one["measure"] == measure]
        return form.format(*(effect[key] for key in ("estimate", "low", "high")))

    probe = "5 captions: change of linear probe"
    probes = (
        shown(one, "captions", probe, "{:+.3f} [{:+.3f}, {:+.3f}]") for one in ("unique", "redundant", "photographs")
    )
    assert "changes by {}, {} and {}.".format(*probes) in text
    slope = "equal steps: slope of log CLIPMem over the log of the number of pairs"
    of_unique, of_redundant = (
        shown(one, "data-size", slope, "{:.2f} [{:.2f}, {:.2f}]") for one in ("unique", "redundant")
    )
    assert f"(slope {of_unique}; redundant {of_redundant})" in text
    assert f"by {1 - 2 ** float(shown('unique', 'data-size', slope, '{}')):.0%} per doubling" in text
    ranks = "rank correlation of CLIPMem and -A(g): 130 epochs minus 5 epochs"
    assert f"the rank correlation rises by {shown('unique', 'removal', ranks, '{:.2f} [{:.2f}, {:.2f}]')}" in text
    for form, classes in (
        ("({:.3f} [{:+.3f}, {:+.3f}])", "supervised"),
        ("({:.3f} [{:+.3f}, {:+.3f}])", "supervised, 9 classes"),
    ):
        assert shown("unique", "layers", f"UnitMem in layer 4 of 4: {classes} minus CLIP", form) in text
    places = (
        shown("unique", "text-noise", f"{place}, from a third 0.15: relative change of CLIPMem", "{:+.1%}")
        for place in ("pre", "post-scaled")
    )
    assert "change CLIPMem by {} and {} in unique data".format(*places) in text
    later, recall = "post, from a third 0.15: relative change of CLIPMem", "retrieval_wordings_recall@5"
    form = "by {:+.1%} [{:+.1%}, {:+.1%}]"
    first, over_all = (
        shown("redundant", "text-noise", measure, form) for measure in (later, f"{later} over all captions")
    )
    assert f"CLIPMem changes {first}, and {over_all} over all captions" in text
    early, none = (
        planned("redundant", f"text-noise: post, from {name}", recall)
        for name in ("the first step 0.15", "a third 0.0")
    )
    memorized = shown("redundant", "text-noise", "post, from the first step 0.15: relative change of CLIPMem", "{}")
    assert f"lowers CLIPMem by {-float(memorized):.0%} there, and retrieval by {-change(none, early)[0]:.0%}" in text
    swaps = pl.read_parquet(FOLDER / "long-tail" / "runs.parquet").filter(
        name="planted: swapped", measure="clipmem planted"
    )
    assert f"swapped captions have a mean of {swaps['value'].mean():.2f}, and" in text
    audit = json.loads((FOLDER.parent / "audit" / "redundancy.json").read_text(encoding="utf-8"))
    alone, together = (np.mean(audit[arm]["risk"], axis=0) for arm in ("each pair by itself", "all drawings together"))
    assert f"finds {alone[0]:.0%} of the pairs without another drawing of the thing, and {alone[2]:.0%} of" in text
    assert f"in or out together, it finds {together[0]:.0%} and {together[2]:.0%}, beyond" in text


def test_more_images_are_more_data(record):
    """What both pages say of the trade-off: the ends of its curves over all captions, and its primary effects."""
    [finding] = [one for one in record.newest()["redundant"]["findings"] if one["finding"] == "tradeoff"]
    equal, more = (effect for effect in finding["effects"] if effect["primary"])
    ends = {one["name"]: (one["x"][-1], one["mean"][-1]) for one in finding["panels"][1]["series"]}
    (before, low), (after, high), (apart, other) = (
        ends[arm] for arm in ("none", "several images", "the same drawings as pairs")
    )
    glance, results = (" ".join(page.read_text("utf-8").split()) for page in (record.GLANCE, record.PAGE))
    assert f"lowers memorization by {1 - after / before:.0%} and raises retrieval by {high / low - 1:.0%}" in glance
    assert more["estimate"] == pytest.approx(1 - after / before, abs=0.005)
    shown = f"(CLIPMem {1 - apart / after:.0%} lower, retrieval {other / high - 1:.0%} higher with pairs of their own)"
    assert shown in glance
    assert f"(the smaller of both: {equal['low']:+.0%} to {equal['high']:+.0%})" in glance
    assert f"from {before:.3f} to {after:.3f}, and raise recall@5 from {low:.1%} to {high:.1%}" in results
    assert f"they give {apart:.3f} and {other:.1%}" in results
    rises = [
        effect["estimate"] for effect in finding["effects"] if "150 epochs minus that after 60" in effect["measure"]
    ]
    assert f"by {min(rises):.1%} or more from 60 to 150 epochs".replace("%", " points") in results


def test_more_pairs_are_more_of_the_same_things(record):
    [finding] = [one for one in record.newest()["redundant"]["findings"] if one["finding"] == "data-size"]
    effects = {one["measure"]: one for one in finding["effects"]}
    slope = effects["equal epochs: slope of log CLIPMem over the log of the number of pairs"]["estimate"]
    glance, results = (" ".join(page.read_text("utf-8").split()) for page in (record.GLANCE, record.PAGE))
    assert f"when the pairs double, CLIPMem falls by {1 - 2**slope:.0%}" in glance
    means = finding["panels"][0]["series"][0]["mean"]
    assert "from {:.3f} with 600 pairs over {:.3f} with 1,250 to {:.3f} with 2,500".format(*means) in results
    assert f"by {1 - 2**slope:.0%} when the pairs double (slope {slope:.3f})" in results
    recall = finding["panels"][2]["series"][0]["mean"]
    assert f"({recall[0]:.1%} to {recall[-1]:.1%})" in results
    steps = effects["equal steps: slope of log CLIPMem over the log of the number of pairs"]
    assert "{estimate:.2f} [{low:.2f}, {high:.2f}]".format(**steps) in results


def test_what_the_results_say_of_model_size_is_what_was_measured(record):
    page = " ".join((record.GLANCE.parents[1] / "experiments/reproduce/RESULTS.md").read_text(encoding="utf-8").split())
    [finding] = [one for one in record.newest()["redundant"]["findings"] if one["finding"] == "model-size"]
    primary, *parts = finding["effects"]
    assert primary["low"] < 0.01 < primary["high"]
    assert [f"{part['estimate']:.2f}" for part in parts if part["measure"].endswith("CLIPMem")] == ["0.02", "0.02"]
    assert all(part["low"] > 0 for part in parts)
    assert "0.02 of CLIPMem each" in page
