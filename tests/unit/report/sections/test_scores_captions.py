"""Several wordings: their scores and their retrieval, and the captions that a number was taken on."""

import json

import pytest

from clipmem.report.page import write_report
from tests.unit.report.documents import WORDINGS
from tests.unit.report.outline import outline, report_text


def shown(built, entries):
    """The words of the page and of the terminal."""
    path = built.folder / "summary.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **entries}), encoding="utf-8")
    page = outline(write_report(built.folder, built.images))
    return [
        " ".join(text.replace("\N{NO-BREAK SPACE}", " ").split()) for text in (page.words(), report_text(built.folder))
    ]


def test_both_are_shown(build):
    page, terminal = shown(build(seeds=(0, 1), planted=8), WORDINGS)
    for text in (page, terminal):
        assert "training drew from the first 3" in text
        assert "the first 5 captions" in text
        assert "+0.712 [+0.600, +0.800], compared with" in text
        assert "+0.654 [+0.600, +0.700], compared with" in text
        assert "27.2 [20.0, 35.0]" in text
        assert "3.1" in text.split("27.2 [20.0, 35.0]")[2].split()[0]  # of g; then chance
    assert page.count("+0.712") == 2  # roles and distributions


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        ({}, None),
        ({"captions": {"scored": 1, "trained": 1}}, None),
        ({"captions": {"scored": 3, "trained": 3}}, "Scores are taken on the first 3 captions of each pair."),
        ({"captions": {"scored": 1, "trained": 4}}, "of each pair; training drew from the first 4."),
    ],
)
def test_what_a_score_was_taken_on_is_said_where_there_are_several(build, entries, expected):
    for text in shown(build(seeds=(0, 1), planted=8), entries):
        assert "compared with +" not in text
        assert (expected or "Scores are taken on") in text if expected else "Scores are taken on" not in text


def test_without_twins_there_is_no_half_difference(build):
    without = {**WORDINGS["wordings"], "half_difference": None}
    page, terminal = shown(build(seeds=(0, 1), planted=0), {**WORDINGS, "wordings": without, "half_difference": None})
    for text in (page, terminal):
        assert "+0.712" in text
        assert "+0.654" not in text
