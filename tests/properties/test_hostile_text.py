"""Whatever a caption, a key or a reason holds: files read back what was written, and terminals show text."""

import csv
import io
import re
import tempfile
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from rich.console import Console
from tests.unit.report.documents import inspection

from clipmem.base.tables import write_table
from clipmem.data.skipped import Problem, left_out_sentence, skipped_table, summarize
from clipmem.data.user_tables import csv_cell, datacomp_array, write_ids
from clipmem.report.terminal import print_screen

ANY = st.one_of(
    st.text(st.characters(exclude_categories=())),  # lone surrogates and controls too
    st.text("=+-@\t\r\n \x00\x1b\u202e[]'\",;|<>&"),
)
WHOLE = st.one_of(st.text(), st.text("=+-@\t\r\n \x00\x1b\u202e[]'\",;|<>&"))
ACTIVE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")


@pytest.mark.slow
@given(ANY)
@example("\x1b[2J\x1b[31m[bold]x[/bold]")
@example("word " * 10_000)
def test_an_inspection_shows_text_and_fits_100_columns(text):
    stream = io.StringIO()
    console = Console(file=stream, width=200, force_terminal=False, color_system=None)
    print_screen("inspected", inspection(text), console)
    shown = stream.getvalue()
    shown.encode("utf-8")
    assert not ACTIVE.search(shown)
    lengths = [console.render_lines(line, pad=False) for line in shown.splitlines() if line]
    assert all(sum(segment.cell_length for segment in row) <= 100 for rows in lengths for row in rows)


@given(ANY, ANY, ANY)
def test_skipped_records_can_hold_any_text(source, key, reason):
    table = skipped_table([Problem(source, key, reason)])
    assert table.height == 1
    with tempfile.TemporaryDirectory() as folder:
        write_table(Path(folder) / "table.parquet", "skipped", table)
        back = pl.read_parquet(Path(folder) / "table.parquet")
    assert back.equals(table)
    assert left_out_sentence(summarize(back, 3)).startswith("1 problem, 3 pairs used: 1 ")


@given(WHOLE)
@example("=cmd()|' /C calc'!A0")
@example(" \t=1+1")
@example("\uff1d1+1")
def test_no_cell_of_a_csv_is_a_formula(text):
    cell = csv_cell(text)
    assert not cell.lstrip().startswith(("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20"))
    assert not cell.startswith(("\t", "\r", "\n"))
    assert "\x00" not in cell
    assert "\x1b" not in cell
    if text.isprintable() and not text.lstrip().startswith(
        ("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20")
    ):
        assert cell == text


@given(st.lists(WHOLE, min_size=1, max_size=5))
def test_a_list_as_csv_has_one_record_a_pair(tmp_path_factory, captions):
    path = tmp_path_factory.getbasetemp() / "hostile.csv"
    table = pl.DataFrame(
        {"uid": [f"{k:032x}" for k in range(len(captions))], "captions": [[text] for text in captions]}
    )
    write_ids(path, table)
    rows = list(csv.reader(io.StringIO(path.read_bytes().decode(), newline="")))
    assert [row[0] for row in rows] == ["uid", *table["uid"]]
    assert [row[1] for row in rows[1:]] == [csv_cell(text) for text in captions]


@given(st.lists(st.integers(0, 2**128 - 1), unique=True))
def test_the_array_of_uids_is_sorted_as_the_uids_are(numbers):
    uids = [f"{number:032x}" for number in numbers]
    stored = datacomp_array(uids)
    assert [f"{high:016x}{low:016x}" for high, low in stored.tolist()] == sorted(uids)
    assert np.array_equal(np.sort(stored), stored)
