"""The section on utility: what is on the page and in the terminal, and that it is there only where it was measured."""

import io
import json

import pytest
from rich.console import Console

from clipmem.base.summary import Utility
from clipmem.report.page import write_report
from clipmem.report.sections.utility import measured
from clipmem.report.terminal import print_run, print_screen
from tests.unit.report.documents import NO_UTILITY, UTILITY, UTILITY_SIDE, value
from tests.unit.report.outline import outline

COLUMNS = {"f": "f", "g": "g"}


def with_utility(build, found):
    built = build(seeds=(0, 1), planted=8)
    path = built.folder / "summary.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "utility": found}), encoding="utf-8")
    return built


def printed(built, width=100):
    console = Console(width=width, record=True, file=io.StringIO())
    print_run("report", built.folder, console)
    return console.export_text()


def test_the_page_shows_it(build):
    built = with_utility(build, UTILITY)
    page = outline(write_report(built.folder, built.images))
    words = page.words().replace("\N{NO-BREAK SPACE}", " ")
    assert "zero-shot accuracy45.8 [38.8, 52.2]42.0 no interval11.1" in words
    assert "linear probe recall by class51.7 [44.9, 58.7]51.7 [44.9, 58.7]11.1" in words
    ids = [attrs.get("id") for tag, attrs in page.tags if tag == "section"]
    assert ids.index("utility") == ids.index("retrieval") - 1
    assert ("a", "#utility") in [(tag, attrs.get("href")) for tag, attrs in page.tags]


def test_the_same_bytes_twice(build):
    built = with_utility(build, UTILITY)
    first = write_report(built.folder, built.images).read_bytes()
    assert write_report(built.folder, built.images).read_bytes() == first


def test_the_terminal_shows_it(build):
    text = printed(with_utility(build, UTILITY))
    lines = {line.strip()[:40].split("  ")[0]: line.split() for line in text.splitlines()}
    assert lines["zero-shot accuracy"][2:] == ["45.8", "[38.8,", "52.2]", "42.0", "no", "interval", "11.1"]
    assert max(len(line) for line in text.splitlines() if not line.startswith("Report:")) <= 100
    printed(with_utility(build, UTILITY), width=60)


def test_what_was_not_measured_has_a_reason_and_no_row(build):
    built = with_utility(build, NO_UTILITY)
    text = " ".join(printed(built).split())
    assert "no external pair has a ␛[31mlabel." in text
    assert "linear probe accuracy" not in text
    assert [key for key, _ in measured(Utility.model_validate(NO_UTILITY), COLUMNS)["rows"]] == [
        "image_retrieval_recall@5",
        "text_retrieval_recall@5",
    ]


def test_without_it_there_is_no_section(two_seeds):
    page = outline(write_report(two_seeds.folder, two_seeds.images))
    assert "utility" not in [attrs.get("id") for tag, attrs in page.tags if tag == "section"]
    assert "Utility" not in printed(two_seeds)


@pytest.mark.parametrize("names", [("models/a", "models/b\x1b[0m"), ("transformers:" + "x" * 80,)])
def test_any_names_of_models_can_be_columns(tmp_path, names):
    document = {**UTILITY, "confidence": 0.95, "probe": {"commonest_class_acc1": 0.2}}
    document["metrics"] = dict.fromkeys(names, UTILITY_SIDE)
    console = Console(width=100, record=True, file=io.StringIO())
    print_screen("evaluated", document, console, f"Written: {tmp_path / 'u.json'}")
    text = console.export_text()
    assert "\x1b" not in text
    assert "Utility on 200 pairs" in text
    assert f"Written: {tmp_path / 'u.json'}" in text


@pytest.mark.parametrize(("changes", "heads"), [({}, ["f", "g"]), ({"protocol": "given"}, ["target", "reference"])])
def test_the_models_of_a_run_have_the_names_of_its_protocol(changes, heads):
    console = Console(width=100, record=True, file=io.StringIO())
    print_screen("evaluated", {**UTILITY, "confidence": 0.95, "probe": {}, **changes}, console)
    row = next(line for line in console.export_text().splitlines() if line.strip().startswith("measure"))
    assert row.split() == ["measure", *heads, "chance"]


def test_many_templates_are_not_all_shown():
    found = measured(Utility.model_validate({**UTILITY, "templates": [f"{k} {{}}" for k in range(80)]}), COLUMNS)
    assert (found["templates"], found["more_templates"]) == (["0 {}", "1 {}", "2 {}", "3 {}"], 76)


def test_what_is_not_above_chance_is_named():
    low = ["caption found, first 5"]
    assert measured(Utility.model_validate(UTILITY), COLUMNS)["not_above"] == [("f", low), ("g", low)]
    good = {name: value(0.5, 0.4, 0.6) for name in UTILITY_SIDE}
    assert measured(Utility.model_validate({**UTILITY, "metrics": {"f": good, "g": good}}), COLUMNS)["not_above"] == []
