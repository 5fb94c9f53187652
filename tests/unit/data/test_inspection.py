"""Where data stand between long-tailed and redundant: loops, what changes nothing, shipped data, speed."""

import re
import time
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clipmem.base.sections import DataSection
from clipmem.data.inspection import regime_of
from clipmem.data.sources import open_data, open_source
from clipmem.report.templating import VERBATIM
from clipmem.report.terminal import screen_lines
from clipmem.study.data_commands import Inspecting, inspect
from tests.reference.loops import near_captions

WORDS = [f"w{k}" for k in range(40)] + ["the", "A", "Ünder", "7", "gate-way"]
captions = st.lists(st.lists(st.sampled_from(WORDS), min_size=0, max_size=6).map(" ".join), min_size=1, max_size=40)


@settings(max_examples=60, derandomize=True)
@given(captions)
def test_against_the_loops(texts):
    found = regime_of(pl.Series(texts), [])
    lowered = [text.lower() for text in texts]
    others = [lowered.count(text) - 1 for text in lowered]
    counts, nearest = near_captions(texts)
    assert found["same_caption"] == pytest.approx(np.mean([k > 0 for k in others]))
    assert found["equal_captions"] == np.median(others)
    assert found["near_caption"] == pytest.approx(np.mean([k > 0 for k in counts]))
    assert found["near_captions"] == np.median(counts)
    assert found["nearest_caption"] == pytest.approx(np.median(nearest))
    own = [set(text.replace("-", " ").split()) for text in lowered]
    every = sorted(set().union(*own))
    once = {word for word in every if sum(word in one for one in own) == 1}
    assert found["words"]["distinct"] == len(every)
    assert found["words"]["once"] == pytest.approx(len(once) / max(len(every), 1))
    assert found["words"]["rare_pairs"] == pytest.approx(np.mean([bool(one & once) for one in own]))
    assert found["near_duplicates"] == max(found["same_caption"], found["near_caption"])
    assert found["near_image"] is None


@settings(max_examples=40, derandomize=True)
@given(captions, st.randoms(use_true_random=False))
def test_order_case_and_outer_spaces_change_nothing(texts, random):
    plain = regime_of(pl.Series(texts), [])
    other = [f" {text.upper()} " for text in texts]
    random.shuffle(other)
    found = regime_of(pl.Series(other), [])
    assert found.pop("words") == plain.pop("words")
    assert found.pop("verdict") == plain.pop("verdict")
    assert found == pytest.approx(plain)


def test_pairs_whose_images_are_near_have_twins():
    distinct = pl.Series([f"thing {k}" for k in range(9)])
    for groups, share, verdict in ((9, 0.0, "long-tailed"), (7, 4 / 9, "mixed"), (5, 8 / 9, "redundant")):
        # k pairs of images in the first rows, the others alone
        names = [str(k // 2) if k < 2 * (9 - groups) else f"alone {k}" for k in range(9)]
        found = regime_of(distinct, names)
        assert (found["near_image"], found["images"], found["verdict"]) == (pytest.approx(share), 9, verdict)


@pytest.mark.slow
@pytest.mark.parametrize(("source", "verdict"), [("emoji", "long-tailed"), ("emoji-artists", "redundant")])
def test_the_shipped_data(source, verdict):
    pairs = open_source(DataSection(source=source)).pairs()
    found = regime_of(pairs["captions"].list.first(), [])
    assert found["verdict"] == verdict
    assert found["pairs"] == pairs.height
    if source == "emoji":
        assert (found["same_caption"], found["equal_captions"]) == (0, 0)
        assert found["words"]["rare_pairs"] > 0.5
    else:
        assert found["same_caption"] > 0.99
        assert found["equal_captions"] >= 3
        assert found["words"]["rare_pairs"] < 0.01


@pytest.mark.slow
@pytest.mark.parametrize("source", ["emoji", "emoji-artists"])
def test_the_page_shows_what_the_command_prints(source):
    page = (Path(__file__).parents[3] / "docs" / "own-data.md").read_text(encoding="utf-8")
    [shown] = re.findall(rf"^\$ clipmem inspect {source}\n(.*?)(?=^\$ |^```)", page, flags=re.DOTALL | re.MULTILINE)
    lines = [
        line.lstrip(VERBATIM)
        for line in screen_lines("inspected", inspect(source, lambda: open_data(source), Inspecting()), 80)
    ]
    first = next(k for k, line in enumerate(lines) if line.startswith("regime"))
    printed = " ".join(" ".join(lines[first:]).split())
    table, reading = (" ".join(part.split()) for part in shown.split("...\n"))
    assert table in printed
    assert reading in printed


@pytest.mark.slow
def test_a_hundred_thousand_pairs_take_seconds():
    rng = np.random.default_rng(0)
    words, weight = np.array([f"word{k}" for k in range(30_000)]), 1 / np.arange(1, 30_001)
    texts = [" ".join(own) for own in words[rng.choice(30_000, size=(100_000, 10), p=weight / weight.sum())]]
    started = time.process_time()
    found = regime_of(pl.Series(texts), [])
    assert time.process_time() - started < 15  # 2 to 4 s alone
    assert (found["pairs"], found["searched"], found["verdict"]) == (100_000, 2000, "long-tailed")
