"""The section on Déjà Vu: what is on the page and in the terminal, and that it is there only where it was measured."""

import copy
import io
import json

import pytest
from clipmem.report.dejavu import section, sentences
from rich.console import Console
from tests.report.outline import outline

from clipmem.report.page import write_report
from clipmem.report.terminal import print_summary


def gap(mean, low, high):
    return {"mean": mean, "low": low, "high": high}


def entry(mean, n=60):
    some = gap(mean, mean - 0.05, mean + 0.05)
    top = {"precision": some, "recall": gap(0.5, 0.4, 0.6), "f_score": some}
    return {
        "n": n,
        "without_objects": 0,
        "precision": {"f": 0.1, "reference": 0.1},
        "recall": {"f": 0.412, "reference": 0.371},
        "precision_gap": some,
        "recall_gap": some,
        "auc_gap": gap(mean / 2, None, None),
        "top": [{"fraction": 0.001, "pairs": 1, **top}, {"fraction": 0.1, "pairs": 12, **top}],
    }


ROLES = {"candidate": entry(0.25), "independent": entry(-0.2, 20), "shared": entry(0.0, 24)}
FOUND = {
    "format": 1,
    "neighbours": 10,
    "top": 0,
    "ranking": "gap",
    "seeds": [[0, 0]],
    "public": 20,
    "objects": {"names": 30, "candidate_mean": 4.0, "in_public": 0.7},
    "two_model": {
        "roles": ROLES,
        "extra_mean": 0.3,
        "clipmem": {"spearman": 0.222, "low": 0.1, "high": 0.3},
        "planted": {"n": 8, "auroc": 0.756, "low": 0.6, "high": 0.85},
    },
    "floor": {"top": [{"fraction": 0.001, "pairs": 1, "recall": gap(0.333, 0.2, 0.4), "f_score": gap(0.1, 0.0, 0.2)}]},
    "one_model": {
        "roles": ROLES,
        "extra_mean": 0.3,
        "clipmem": None,
        "planted": None,
        "without_neighbour": 3,
        "reference": {"name": "<b>TF-IDF</b>"},
    },
}


def with_dejavu(build, found):
    built = build(seeds=(0, 1), planted=8)
    path = built.folder / "summary.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "dejavu": found}), encoding="utf-8")
    return built


def test_the_page_shows_it(build):
    built = with_dejavu(build, FOUND)
    page = outline(write_report(built.folder, built.images))
    words = page.words()
    for text in (
        "population precision gap +0.250 [+0.200, +0.300]",
        "f tells more objects than g by the population precision gap and the population recall gap.",
        "extra objects with CLIPMem: 0.222 [0.100, 0.300]",
        "70 % of the candidates' objects",
        "With 60 candidates 0.1 % is one pair: an interval over so few says little.",
        "+0.333 [+0.200, +0.400]",
        "needs two seeds",
        "3 captions have no public caption near them",
        "<b>TF-IDF</b>",
    ):
        assert text in words.replace("\N{NO-BREAK SPACE}", " "), text
    ids = [attrs.get("id") for tag, attrs in page.tags if tag == "section"]
    assert "dejavu" in ids
    assert ("a", "#dejavu") in [(tag, attrs.get("href")) for tag, attrs in page.tags]
    titles = [attrs for tag, attrs in page.tags if tag == "svg"]
    assert len(titles) > 0


def test_the_same_bytes_twice(build):
    built = with_dejavu(build, FOUND)
    first = write_report(built.folder, built.images).read_bytes()
    assert write_report(built.folder, built.images).read_bytes() == first


@pytest.mark.parametrize("key", ["two_model", "skipped"])
def test_terminal(build, key):
    found = FOUND if key == "two_model" else {"format": 1, "skipped": "not \x1b[31m here"}
    built = with_dejavu(build, found)
    console = Console(width=90, record=True, file=io.StringIO())
    print_summary(built.folder, console)
    text = " ".join(console.export_text().split())
    wanted = "(20 public pictures, k = 10)" if key == "two_model" else "was not measured: not ␛[31m here."
    assert wanted in text


def test_no_gap_above_zero_is_said_so():
    found = copy.deepcopy(FOUND)
    found["two_model"]["roles"] = {"candidate": entry(0.01), "candidate, not planted": entry(-0.02, 52)}
    said = sentences({"dejavu": found})
    assert "No gap lies clearly above 0." in said
    assert "Without the planted pairs the AUC gap is -0.010 no interval." in said


def test_without_it_there_is_no_section(two_seeds):
    assert section(two_seeds.summary) == {"dejavu": None}
    page = outline(write_report(two_seeds.folder, two_seeds.images))
    assert "dejavu" not in [attrs.get("id") for tag, attrs in page.tags if tag == "section"]
