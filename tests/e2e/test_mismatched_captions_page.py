"""docs/mismatched-captions.md: its commands and its Python, run in order as they stand, print what the page shows."""

import re
import shlex
from pathlib import Path

import pytest

from tests.e2e.running import clip

PAGE = (Path(__file__).parents[2] / "docs" / "mismatched-captions.md").read_text(encoding="utf-8")
TUTORIAL = PAGE.partition("\n## On your own data")[0]
NUMBER = re.compile(r"\.?\d[\d,.]*\d|\d")


def words(text):
    """The words of a text, in which lines may break elsewhere, with # for each number."""
    return " ".join(NUMBER.sub("#", text).split())


def numbers(text):
    return [float(one.replace(",", "")) for one in NUMBER.findall(text)]


def shown_in(text, printed):
    """Whether a text of the page was printed: with the same words, and numbers that differ by a tenth at most."""
    expected, found = words(text), words(printed)
    assert expected in found
    skipped = found.partition(expected)[0].count("#")
    values = numbers(text)
    assert numbers(printed)[skipped : skipped + len(values)] == pytest.approx(values, rel=0.1)


@pytest.mark.slow
def test_the_tutorial_prints_what_it_shows(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    printed, ran = "", {"sh": 0, "python": 0, "text": 0}
    for language, text in re.findall(r"^```(\w+)\n(.*?)^```", TUTORIAL, flags=re.MULTILINE | re.DOTALL):
        ran[language] += 1
        if language == "python":
            exec(compile(text, "docs/mismatched-captions.md", "exec"), {})
            printed = capsys.readouterr().out
            [line] = [one for one in re.findall(r"It prints `([^`]+)`", TUTORIAL) if words(one) in words(printed)]
            shown_in(line, printed)
        elif language == "text":
            shown_in(text, printed)
        elif not text.startswith("clipmem view"):  # test_view_suspects.py
            done = clip(*shlex.split(text, comments=True)[1:])
            assert done.returncode == 0, done.stderr
            printed = done.stdout
    assert ran == {"sh": 4, "python": 2, "text": 2}
    assert "was used again" in " ".join(clip("curate", "photos", "--out", "suspects").stdout.split())
    [line] = re.findall(r"It prints `(\d+ of \d+ removed[^`]+)`", TUTORIAL)
    assert numbers(line)[0] / 430 == pytest.approx(0.5, abs=0.05)  # "about half"


def test_the_interval_that_the_page_shows_contains_the_number_of_swapped_captions():
    [(low, high)] = re.findall(r"interval (\d+) to (\d+)", TUTORIAL)
    [swapped] = re.findall(r"(\d+) of them with swapped", TUTORIAL)
    assert int(low) <= int(swapped) <= int(high)
