"""experiments/mitigate/RESULTS.md shows the kept changes by mitigation, and how-to pages say no more than they show."""

import re
from pathlib import Path

import pytest
from tests.scripts import load_script

FOLDER = Path(__file__).parents[2] / "experiments" / "reproduce"


@pytest.fixture(scope="module")
def record():
    return load_script(FOLDER / "record.py")


def test_the_results_have_the_kept_table(record):
    page = record.CHOICE.read_text(encoding="utf-8")
    assert re.findall(r"<!-- finding: ([\w-]+) -->", page) == ["redundant"]
    assert f"<!-- finding: redundant -->\n{record.choices('redundant')}\n<!-- end -->" in page


def test_the_words_of_the_pages_follow_from_the_table(record):
    rows = {}
    for line in record.choices("redundant").splitlines()[2:]:
        name, *cells = [cell.strip() for cell in line.strip("|").split("|")]
        rows[name] = [[float(number) for number in re.findall(r"[-+]?\d+\.\d+", cell)] for cell in cells]
    (first,), (every,), _, (utility,) = rows["none"]
    both, captions = rows["several images, 5 captions"], rows["5 captions"]
    assert both[0][0] < -first / 2  # more than halve CLIPMem on the first caption
    assert -0.3 < both[1][0] / every < -0.2  # lower it over all captions by a quarter
    assert both[3][0] > utility  # more than double R@5 over all captions
    assert captions[1][0] > every / 2  # alone they raise CLIPMem over all captions by more than half
    assert captions[3][1] > 0
    for name in ("text masking", "image augmentation"):  # lower memorization at the same R@5
        assert rows[name][0][2] < 0
        assert rows[name][1][2] < 0
        assert rows[name][2][1] < 0 < rows[name][2][2]
    noise = rows["text noise, post-scaled"]
    assert all(low < 0 < high for _, low, high in (noise[0], noise[2], noise[3]))
    assert 0 < noise[1][1] < noise[1][2] < 0.01  # over all captions, CLIPMem rises slightly
