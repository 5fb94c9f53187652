"""Captions of any content come back as they were from every format that can carry them."""

import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from clipmem.base.hashing import pair_uid
from clipmem.base.sections import DataSection
from clipmem.data.sources import open_source
from clipmem.data.sources.records import MAX_CAPTION, caption_problem
from tests.tiny import encoded_image
from tests.unit.data.sources import formats

HOSTILE = [
    "<script>alert('x')</script> &amp; <img src=x onerror=y>",
    "\x1b[31mred\x1b[0m \x1b]0;title\x07",
    "\u202eright to left\u202c \u200f\u2066",
    "nothing\x00after",
    "=cmd|' /C calc'!A0",
    " ".join(f"word{k}" for k in range(10_000)),
    'quotes " and \'\' and ""',
    "commas, tabs\t, bars | and; semicolons",
    "é\u0301 \U0001f468\u200d\U0001f469\u200d\U0001f467 \ufeff",
    "None",
    "  spaces around  ",
]
LINES = [
    "two\nlines",
    "\r\nbreaks\r",
    "a\x85b\u2028c\u2029d",
]
# the formats that hold any text; the others hold what their own separators leave
ANY = ("imagefolder-jsonl", "imagefolder-parquet", "imagefolder-json", "jsonl", "coco", "karpathy", "webdataset",
       "parquet-struct", "parquet-paths", "saved")  # fmt: skip
LINE = ("imagefolder-csv", "csv", "tsv", "flickr-commas")
texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=60).filter(lambda text: text.strip())
lines = texts.filter(lambda text: not set(text) & set("\n\r") and text not in {"nan", "NaN"})


def round_trip(name, captions, folder):
    pairs = [("0.png", encoded_image(0), captions[:1]), ("1.png", encoded_image(1), list(dict.fromkeys(captions)))]
    path = formats.FORMATS[name][1](folder / "set", pairs)
    source = open_source(DataSection(source=formats.FORMATS[name][0], path=str(path)))
    table = source.pairs()
    assert source.problems == []
    assert set(table["uid"]) == {pair_uid(data, own) for _, data, own in pairs}
    assert set(map(tuple, table["captions"].to_list())) == {tuple(own) for _, _, own in pairs}


@pytest.mark.parametrize("name", ANY)
def test_hostile_captions(name, tmp_path):
    round_trip(name, HOSTILE + LINES, tmp_path)


@pytest.mark.parametrize("name", [*LINE, "imagefolder-txt"])
def test_hostile_captions_of_one_line(name, tmp_path):
    round_trip(name, HOSTILE, tmp_path)


@pytest.mark.parametrize("name", ["flickr-token", "flickr-bars"])
def test_hostile_captions_in_flickr_text(name, tmp_path):
    round_trip(name, HOSTILE[:5], tmp_path)


@pytest.mark.parametrize("name", ["imagefolder-jsonl", "webdataset", "parquet-struct", "saved", "coco"])
@settings(max_examples=20)
@given(captions=st.lists(texts, min_size=1, max_size=4))
@example(captions=["0\n"])  # a line break of its own, where a webdataset's text file may have one too
@example(captions=["0\r\n"])
@example(captions=["0\r"])
@example(captions=["\ufeff0"])
@example(captions=["0\x00"])
def test_any_captions(name, captions):
    with tempfile.TemporaryDirectory() as folder:
        round_trip(name, captions, Path(folder))


@pytest.mark.parametrize("name", ["csv", "tsv", "imagefolder-txt"])
@settings(max_examples=20)
@given(captions=st.lists(lines, min_size=1, max_size=4))
def test_any_captions_of_one_line(name, captions):
    with tempfile.TemporaryDirectory() as folder:
        round_trip(name, captions, Path(folder))


@pytest.mark.parametrize(
    ("caption", "reason"),
    [
        ("", "empty caption"),
        (" \t\n\u3000", "empty caption"),
        (None, "empty caption"),
        (float("nan"), "caption is NaN"),
        (3, "caption is not text"),
        (b"bytes", "caption is not text"),
        ({"a": 1}, "caption is not text"),
        ("x" * (MAX_CAPTION + 1), "caption of more than 100,000 characters"),
        ("\ud800", "caption is not valid Unicode (save the file as UTF-8)"),
        ("x" * MAX_CAPTION, ""),
    ],
)
def test_captions_that_cannot_be_used(caption, reason):
    assert caption_problem(caption) == reason


def test_a_nested_bomb_of_json_is_listed(tmp_path):
    (tmp_path / "0.png").write_bytes(encoded_image(0))
    bomb = '{"image": "0.png", "caption": ' + "[" * 100_000
    (tmp_path / "a.jsonl").write_text(json.dumps({"image": "0.png", "caption": "good"}) + "\n" + bomb)
    source = open_source(DataSection(path=str(tmp_path / "a.jsonl")))
    assert source.pairs()["captions"].to_list() == [["good"]]
    assert source.problems == [("a.jsonl", "line 2", "line that is not JSON")]
