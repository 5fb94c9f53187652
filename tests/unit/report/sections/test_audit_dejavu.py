"""The section on Déjà Vu: what is on the page and in the terminal, and that it is there only where it was measured."""

import copy
import json

import pytest

from clipmem.report.page import write_report
from tests.unit.report.documents import DEJAVU, dejavu_entry
from tests.unit.report.outline import outline, report_text


def with_dejavu(build, found):
    built = build(seeds=(0, 1), planted=8)
    path = built.folder / "summary.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "dejavu": found}), encoding="utf-8")
    return built


def test_the_page_shows_it(build):
    built = with_dejavu(build, DEJAVU)
    page = outline(write_report(built.folder, built.images))
    words = page.words()
    for text in ("+0.250 [+0.200, +0.300]", "0.222 [0.100, 0.300]", "+0.333 [+0.200, +0.400]"):
        assert text in words.replace("\N{NO-BREAK SPACE}", " "), text
    ids = [attrs.get("id") for tag, attrs in page.tags if tag == "section"]
    assert "dejavu" in ids
    assert ("a", "#dejavu") in [(tag, attrs.get("href")) for tag, attrs in page.tags]
    titles = [attrs for tag, attrs in page.tags if tag == "svg"]
    assert len(titles) > 0


def test_the_same_bytes_twice(build):
    built = with_dejavu(build, DEJAVU)
    first = write_report(built.folder, built.images).read_bytes()
    assert write_report(built.folder, built.images).read_bytes() == first


@pytest.mark.parametrize("key", ["two_model", "skipped"])
def test_terminal(build, key):
    found = DEJAVU if key == "two_model" else {"format": 1, "skipped": "not \x1b[31m here"}
    built = with_dejavu(build, found)
    text = " ".join(report_text(built.folder, 90).split())
    wanted = "k = 10)" if key == "two_model" else "not ␛[31m here."
    assert wanted in text


def test_gaps_are_clear_only_where_their_interval_is_above_zero(build):
    def words_of(found):
        built = with_dejavu(build, found)
        words = outline(write_report(built.folder, built.images)).words()
        return words[words.index("Déjà Vu: objects") :].replace("\N{NO-BREAK SPACE}", " ")

    assert "judged by the population precision gap and the population recall gap." in words_of(DEJAVU)
    found = copy.deepcopy(DEJAVU)
    found["two_model"]["roles"] = {
        "candidate": dejavu_entry(0.01),
        "candidate, not mismatched": dejavu_entry(-0.02, 52),
    }
    words = words_of(found)
    assert "No gap is clearly above 0. Without the mismatched pairs the AUC gap is -0.010" in words
    assert "% is 1 pair: an interval over so few pairs is uninformative" in words
    assert words.count("needs two seeds") == 2


def test_without_it_there_is_no_section(two_seeds):
    page = outline(write_report(two_seeds.folder, two_seeds.images))
    assert "dejavu" not in [attrs.get("id") for tag, attrs in page.tags if tag == "section"]
