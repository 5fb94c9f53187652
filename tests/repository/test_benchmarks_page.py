"""benchmarks/RESULTS.md and experiments/curate/RESULTS.md show the stored results and nothing else."""

import json
import re
import sys
from pathlib import Path

import pytest
from scipy.stats import binomtest

from tests.scripts import load_script

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def page():
    sys.path.insert(0, str(ROOT / "benchmarks"))
    import page

    return page


def test_the_page_shows_the_stored_results(page):
    for file in (page.PAGE, page.CURATE):
        text = file.read_text(encoding="utf-8")
        assert page.page(text, page.stored()) == text


def test_the_page_shows_the_record_of_tuned_lemon():
    lemon = load_script(ROOT / "experiments" / "curate" / "lemon.py")
    results = json.loads(lemon.RECORD.read_text(encoding="utf-8"))
    text = (ROOT / "experiments" / "curate" / "RESULTS.md").read_text(encoding="utf-8")
    assert lemon.page(text) == text
    gains = {(one["data"], row["kind"]): row for one in results for row in one["kinds"]}
    assert all(row["over fixed"][0] > 0 for (_, kind), row in gains.items() if kind.startswith("vague"))
    at_random = {name: row["over fixed"] for (name, kind), row in gains.items() if kind == "swapped at random"}
    assert [name for name, (_, high) in at_random.items() if high < 0] == ["emoji-artists", "clip art"]
    assert [name for name, row in gains.items() if row["over tuned"][1] < 0] == [("clip art", [*lemon.suite.KINDS][2])]


def test_the_page_shows_the_record_of_models_that_did_not_train_on_the_pairs():
    foreign = load_script(ROOT / "experiments" / "curate" / "foreign.py")
    results, text = json.loads(foreign.RECORD.read_text(encoding="utf-8")), foreign.PAGE.read_text(encoding="utf-8")
    assert foreign.page(text) == text
    assert foreign.table(results) in text
    assert foreign.counts(results) in text
    gains = {(one["data"], one["model"]): one["kinds"][3] for one in results}
    helps = {data: row["auroc"][1] - row["auroc"][0] for (data, model), row in gains.items() if model != "drawings"}
    shown = ", ".join(f"{gain:.3f} ({data})" for data, gain in list(helps.items())[:2])
    assert f"by {shown} and {helps['clip art']:.3f} (clip art)" in text
    lows, highs = zip(*(row["over none"] for (_, model), row in gains.items() if model == "drawings"), strict=True)
    assert max(lows) < 0 < min(highs)
    swaps = "{:+.3f} to {:+.3f}".format(*results[-1]["kinds"][4]["over none"])
    assert f"(swapped captions of clip art: {swaps})" in text
    ends = f"{min(helps.values()):.3f} to {max(helps.values()):.3f}"
    assert f"raised the AUROC by {ends}" in (ROOT / "docs/how-it-works.md").read_text(encoding="utf-8")
    for one in results:
        assert all(low <= one["swapped"] <= high for _, low, high in one["expected"].values())


@pytest.fixture(scope="module")
def reading():
    return load_script(ROOT / "experiments" / "curate" / "reading.py")


def test_the_page_shows_what_readers_said(reading):
    stored, text = json.loads(reading.RECORD.read_text(encoding="utf-8")), reading.PAGE.read_text(encoding="utf-8")
    assert reading.page(text) == text
    assert reading.table(stored) in text
    titles, manual = stored["titles"], stored["manual"]
    flagged = [row for about in stored.values() for row in about["rows"] if {*row["ranks"]} == {"first"}]
    how = (ROOT / "docs/how-it-works.md").read_text(encoding="utf-8")
    assert f"{reading.flawed(flagged, 'vague', 'wrong')} of {len(flagged)} flagged pairs were vague or wrong" in how

    def wrong(about, name):
        return reading.flawed([row for row in about["rows"] if name in row["ranks"]], "wrong")

    first, others = wrong(titles, "unruled"), wrong(titles, "random")
    shown = f"{first} of the first 100 titles that no rule flags were wrong, and {others} of"
    assert shown in how
    assert wrong(manual, "unruled") <= wrong(manual, "random")
    for about in stored.values():
        for name in reading.LISTS:
            ranks = sorted(row["ranks"][name] for row in about["rows"] if name in row["ranks"])
            assert ranks == list(range(1, reading.COUNT + 1))


def test_readings_against_counts(reading):
    """Six pairs read of 14, four of them at random among the 12 that are not in the list: one of these is wrong."""
    labels = [
        ("wrong", "wrong"),
        ("vague", "wrong"),
        ("wrong", "wrong"),
        ("fits", "fits"),
        ("fits", "fits"),
        ("fits", "unsure"),
    ]
    ranks = [{"first": 1, "unruled": 1}, {"first": 2}, {"random": 1}, {"random": 2}, {"random": 3}, {"random": 4}]
    rows = [
        {"uid": f"{k}", "labels": pair, "ranks": rank} for k, (pair, rank) in enumerate(zip(labels, ranks, strict=True))
    ]
    rates = {"precision": 0.9, "low": 0.5, "high": 1.0}
    about = {"pairs": 14, "suspects": 2, "by_rule": 1, "expected": [3, 1, 9], "expectation": [rates], "rows": rows}
    said = reading.compared(("things", about))
    low, high = binomtest(1, 4).proportion_ci(method="exact")
    assert f"things: {1 + 12 / 4:.0f} [{1 + 12 * low:.0f}, {1 + 12 * high:.0f}] of 14" in said
    assert "Of its 1 suspects that no rule flags, 1.00 are vague or wrong; 0.90 [0.50, 1.00] were expected" in said
    # four of six are the same; by chance 2 x 3 + 1 x 0 + 3 x 2 of 36 labels are
    kappa = (4 / 6 - 12 / 36) / (1 - 12 / 36)
    assert f"agree on 0.67 of 6 pairs (kappa {kappa:.2f})" in said


def test_a_row_is_shown(page):
    row = {
        "suite": "data", "case": "batches", "against": "open_clip", "ratio": 2.345, "low": 2.0, "high": 3.0,
        "ours": 1234.5, "theirs": 526.4, "unit": "pairs/s", "rounds": 3,
    }  # fmt: skip
    machine = {
        "processor": "P", "cores": 2, "bf16": False, "gpu": None, "python": "3.11", "versions": {"torch": "2"},
        "load_before": 0.04,
    }  # fmt: skip
    marked = "x\n<!-- results: data -->\nold\n<!-- end -->\ny"
    shown = page.page(marked, {"data": {"rows": [row], "machine": machine}})
    assert "| batches | open_clip | **2.35** | 2.00 to 3.00 | 1,234 | 526.4 | pairs/s |" in shown
    assert "P, 2 cores, no bf16; Python 3.11, torch 2; load before 0.0." in shown
    assert "old" not in shown
    assert page.page(marked, {}) == marked


def test_a_detector_is_shown_by_regime_and_kind(page):
    row = {
        "regime": "r", "kind": "k", "detector": "lemon", "published": True, "auroc": 0.7, "precision": 0.25,
        "low": -0.01, "high": 0.0, "seconds": 1.0,
    }  # fmt: skip
    ours = row | {"detector": "clipmem, no model", "published": False, "auroc": 0.8, "low": 0.05}
    shown = page.detectors([ours, row]).splitlines()
    assert shown[0] == "r, k; models trained on the mismatched captions, too:"
    assert shown[4:] == [
        "| **clipmem, no model** | 0.800 | 0.250 | +0.050 to +0.000 | 1.0 |",
        "| lemon (published) | 0.700 | 0.250 | -0.010 to +0.000 | 1.0 |",
    ]


def test_no_published_detector_is_another_one_in_the_stored_results(page):
    """LEMoN once was plain similarity to 16 digits: what chose its settings chose to leave it out."""
    tables = {}
    for row in page.stored()["curate"]["rows"]:
        if row["published"]:
            tables.setdefault((row["regime"], row["kind"]), {})[row["detector"]] = row["auroc"]
    assert len(tables) == 15
    for areas in tables.values():
        assert len(set(areas.values())) == len(areas)
    assert all("lemon" in areas for (regime, _), areas in tables.items() if regime != "clip art")


@pytest.mark.parametrize(("suite", "name"), [("curate", "DETECTORS"), ("memory", "PLOT")])
def test_the_figures_are_those_of_the_stored_results(page, tmp_path, suite, name):
    draw = {"curate": page.bars, "memory": page.plot}[suite]
    kept = getattr(page, name)
    draw(page.stored()[suite]["rows"], tmp_path / kept.name)
    number = re.compile(r"-?\d+(?:\.\d+)?(?:e-?\d+)?")
    texts = [file.read_text(encoding="utf-8") for file in (tmp_path / kept.name, kept)]
    assert number.sub("", texts[0]) == number.sub("", texts[1])
    # another processor may round the last digit of a place otherwise
    places = [[float(value) for value in number.findall(text)] for text in texts]
    assert places[0] == pytest.approx(places[1], abs=0.02)


def test_the_plot_is_of_the_rows(page):
    def row(case, ours, theirs, unit):
        return {"case": case, "ours": ours, "theirs": theirs, "unit": unit}

    rows = [
        row("time a pair, 1,000 against 10,000 pairs (1 = linear)", 0.002, 0.005, "s"),
        row("time a pair, 10,000 against 100,000 pairs (1 = linear)", 0.001, 0.002, "s"),
        row("peak memory, 1,000 against 10,000 pairs (1 = flat)", 600.0, 500.0, "MiB"),
    ]
    found = page.points(rows)
    assert found == {"s": {1000: 0.005, 10000: 0.002, 100000: 0.001}, "MiB": {1000: 500.0, 10000: 600.0}}
