"""The section on utility: what is on the page and in the terminal, and that it is there only where it was measured."""

import io
import json

import pytest
from clipmem.report.utility import chance_sentence, section, sentences
from rich.console import Console
from tests.report.outline import outline

from clipmem.report.page import write_report
from clipmem.report.terminal import print_summary, print_utility


def value(mean, low=None, high=None):
    return {"mean": mean, "low": low, "high": high}


SIDE = {
    "zero_shot_acc1": value(0.458, 0.388, 0.522),
    "zero_shot_mean_per_class_recall": value(0.408, 0.353, 0.461),
    "linear_probe_acc1": value(0.588, 0.503, 0.668),
    "linear_probe_mean_per_class_recall": value(0.517, 0.449, 0.587),
    "image_retrieval_recall@5": value(0.188, 0.133, 0.245),
    "text_retrieval_recall@5": value(0.188, 0.02, 0.237),
}
FOUND = {
    "seeds": {"f": [0, 1], "g": [0, 1]},
    "presentations": {"f": [160, 160], "g": [160, 160]},
    "n": {
        "test": 200, "labelled": 190, "captions": 200, "probe_train": 1300, "probe_test": 190, "classes": 9,
        "classes_in_test": 8,
    },
    "chance": {
        "zero_shot_acc1": 1 / 9, "zero_shot_mean_per_class_recall": 1 / 9, "linear_probe_acc1": 1 / 9,
        "linear_probe_mean_per_class_recall": 1 / 9,
        "image_retrieval_recall@5": 0.025, "text_retrieval_recall@5": 0.025,
    },
    "skipped": {},
    "labels": "label",
    "probe_pairs": "shared pairs",
    "templates": ["{}", "a <b>{}</b>"],
    "commonest_class_acc1": 0.135,
    "metrics": {"f": SIDE, "g": {**SIDE, "zero_shot_acc1": value(0.42)}},
}  # fmt: skip
NOTHING = {
    **FOUND,
    "n": {**FOUND["n"], "labelled": 0},
    "skipped": dict.fromkeys(("zero_shot", "linear_probe"), "no external pair has a \x1b[31mlabel"),
    "metrics": {side: {name: entry for name, entry in SIDE.items() if "retrieval" in name} for side in "fg"},
}


def with_utility(build, found):
    built = build(seeds=(0, 1), planted=8)
    path = built.folder / "summary.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "utility": found}), encoding="utf-8")
    return built


def printed(built, width=100):
    console = Console(width=width, record=True, file=io.StringIO())
    print_summary(built.folder, console)
    return console.export_text()


def test_the_page_shows_it(build):
    built = with_utility(build, FOUND)
    page = outline(write_report(built.folder, built.images))
    words = page.words().replace("\N{NO-BREAK SPACE}", " ")
    for text in (
        "zero-shot accuracy45.8 [38.8, 52.2]42.0 no interval11.1",
        "linear probe recall by class51.7 [44.9, 58.7]51.7 [44.9, 58.7]11.1",
        "190 of 200 pairs have one of 9 classes (label).",
        "a class is the mean of its names in “{}”, “a <b>{}</b>”.",
        "trained on 1,300 pairs (shared pairs); always naming the class that is commonest among them would be right "
        "13.5 % of the time.",
        "With 200 pairs intervals are wide",
        "Not clearly above chance: caption found, first 5 (f); caption found, first 5 (g).",
    ):
        assert text in words, text
    ids = [attrs.get("id") for tag, attrs in page.tags if tag == "section"]
    assert ids.index("utility") == ids.index("retrieval") - 1
    assert ("a", "#utility") in [(tag, attrs.get("href")) for tag, attrs in page.tags]


def test_the_same_bytes_twice(build):
    built = with_utility(build, FOUND)
    first = write_report(built.folder, built.images).read_bytes()
    assert write_report(built.folder, built.images).read_bytes() == first


def test_the_terminal_shows_it(build):
    text = printed(with_utility(build, FOUND))
    assert "Utility on 200 external pairs, in per cent, 95 % intervals" in text
    lines = {line.strip()[:40].split("  ")[0]: line.split() for line in text.splitlines()}
    assert lines["zero-shot accuracy"][2:] == ["45.8", "[38.8,", "52.2]", "42.0", "no", "interval", "11.1"]
    assert max(len(line) for line in text.splitlines() if not line.startswith("Report:")) <= 100
    printed(with_utility(build, FOUND), width=60)


def test_what_was_not_measured_is_said(build):
    built = with_utility(build, NOTHING)
    text = " ".join(printed(built).split())
    assert "Zero-shot classification was not measured: no external pair has a ␛[31mlabel." in text
    assert "The linear probe was not measured" in text
    assert "linear probe accuracy" not in text
    page = outline(write_report(built.folder, built.images)).words()
    assert "Zero-shot classification was not measured" in page
    assert "commonest" not in page


def test_without_it_there_is_no_section(two_seeds):
    assert section(two_seeds.summary) == {"utility": None}
    page = outline(write_report(two_seeds.folder, two_seeds.images))
    assert "utility" not in [attrs.get("id") for tag, attrs in page.tags if tag == "section"]
    assert "Utility" not in printed(two_seeds)


@pytest.mark.parametrize("names", [("models/a", "models/b\x1b[0m"), ("transformers:" + "x" * 80,)])
def test_any_names_of_models_can_be_columns(tmp_path, names):
    document = {
        **FOUND, "confidence": 0.95, "probe": {"commonest_class_acc1": 0.2}, "metrics": dict.fromkeys(names, SIDE),
    }  # fmt: skip
    console = Console(width=100, record=True, file=io.StringIO())
    print_utility(document, tmp_path / "u.json", console)
    text = console.export_text()
    assert "\x1b" not in text
    assert "Utility on 200 pairs" in text
    assert f"Written: {tmp_path / 'u.json'}" in text
    assert "right 20.0 % of the time" in " ".join(text.split())


def test_many_templates_are_not_all_shown():
    said = sentences({**FOUND, "templates": [f"{k} {{}}" for k in range(80)]})
    assert "“0 {}”, “1 {}”, “2 {}”, “3 {}” and 76 more." in said[0]


def test_all_above_chance_is_no_sentence(two_seeds):
    good = {name: value(0.5, 0.4, 0.6) for name in SIDE}
    assert chance_sentence({**two_seeds.summary, "utility": {**FOUND, "metrics": {"f": good, "g": good}}}) == ""
