"""What a notebook's cell shows, which of its messages are marks, and what is refused; the page is in tests/e2e."""

import subprocess
import sys

import numpy as np
import polars as pl
import pytest

import clipmem
from clipmem.base.errors import InputError
from clipmem.base.marks import Entry, append_marks
from clipmem.report.explorer import widget
from clipmem.report.explorer.widget import NotebookView

GOOD = {"row": 2, "mark": "wrong", "note": None, "caption": "a red car"}


def table(folder, n):
    """A table of `n` scores, some of them missing, in random order."""
    scores = np.random.default_rng(0).permutation(n).astype(float)
    frame = pl.DataFrame({"uid": [f"{k:032x}" for k in range(n)], "clipmem": scores})
    frame = frame.with_columns(clipmem=pl.when(pl.col("clipmem") >= n // 20).then("clipmem"))
    frame.write_parquet(folder / "scores.parquet")
    return folder / "scores.parquet", frame


@pytest.fixture
def view(tmp_path):
    shown = NotebookView(table(tmp_path, 50)[0])
    shown._rows = [4, 9, 30]  # the pairs of a page
    return shown


def test_marks_are_those_of_the_rows_in_the_page(view):
    assert view.marks.is_empty()
    assert view._answer({"from": 0.5, "marks": []}) == {"to": 0.5, "error": "", "marked": []}
    assert not view.marks_file.exists()
    answer = view._answer({"from": 0.7, "marks": [{"row": 0, "mark": "fine", "note": "ok", "caption": None}, GOOD]})
    assert (answer["to"], answer["error"]) == (0.7, "")
    assert [(one["row"], one["mark"], one["note"], one["caption"]) for one in answer["marked"]] == [
        (0, "fine", "ok", None),
        (2, "wrong", None, "a red car"),
    ]
    assert view.marks.select("uid", "mark", "note", "caption").rows() == [
        (f"{4:032x}", "fine", "ok", None),
        (f"{30:032x}", "wrong", None, "a red car"),
    ]
    view._answer({"marks": [{"row": 0, "mark": None, "note": None, "caption": None}]})
    append_marks(view.marks_file, [Entry(f"{30:032x}", "unsure"), Entry(f"{5:032x}", "wrong")])  # elsewhere
    assert dict(view.marks.select("uid", "mark").iter_rows()) == {f"{30:032x}": "unsure", f"{5:032x}": "wrong"}
    assert [(one["row"], one["mark"]) for one in view._answer({"marks": []})["marked"]] == [(2, "unsure")]


@pytest.mark.parametrize(
    ("message", "error"),
    [
        (None, "a list"),
        ([GOOD], "a list"),
        ({"marks": "wrong"}, "a list"),
        ({"marks": [None]}, "a row from 0 to 2"),
        ({"marks": [{**GOOD, "row": 3}]}, "a row from 0 to 2"),
        ({"marks": [{**GOOD, "row": -1}]}, "a row from 0 to 2"),
        ({"marks": [{**GOOD, "row": 1.0}]}, "a row from 0 to 2"),
        ({"marks": [{**GOOD, "row": True}]}, "a row from 0 to 2"),
        ({"marks": [GOOD, {**GOOD, "row": 50}]}, "a row from 0 to 2"),
        ({"marks": [GOOD, {"row": 0, "mark": "great"}]}, "wrong, memorized, fine, unsure"),
        ({"marks": [{**GOOD, "mark": ["wrong"]}]}, "row, mark, note and caption"),
        ({"marks": [{**GOOD, "caption": " "}]}, "1 to 10,000 characters"),
        ({"marks": [{**GOOD, "mark": "fine"}]}, "for a pair marked wrong"),
    ],
)
def test_messages_of_another_shape_add_no_mark(view, message, error):
    answer = view._answer(message)
    assert error in answer["error"]
    assert answer["marked"] is None
    assert not view.marks_file.exists()


def test_a_broken_file_of_marks_is_told_and_left_as_it_is(view):
    view.marks_file.write_text('{"uid": 3}\n')
    assert "line 1" in view._answer({"marks": [GOOD]})["error"]
    assert view.marks_file.read_text() == '{"uid": 3}\n'


def test_the_first_pairs_are_those_of_the_highest_score(tmp_path):
    path, frame = table(tmp_path, 2300)
    view, best = NotebookView(str(path)), frame.with_row_index("row").sort("clipmem", descending=True, nulls_last=True)
    assert view._first(25_000_000) == sorted(best["row"][:2000])
    few = view._first(widget._APP + 10 * widget._DETAILS)
    assert few == sorted(best["row"][:10])
    assert len(view._first(0)) == 1
    assert "2,300 pairs" in repr(view)
    assert "The first 10 of 2,300 pairs." in view._html(widget._APP + 10 * widget._DETAILS)


def test_what_is_neither_a_run_nor_a_list_is_refused(tmp_path):
    (tmp_path / "photos").mkdir()
    for subject, got in {tmp_path / "photos": "a folder of something else", tmp_path / "none": "no"}.items():
        with pytest.raises(InputError) as error:
            clipmem.view(subject)
        assert got in str(error.value)
    for subject in (pl.DataFrame({"uid": ["a"]}), None, 3):
        with pytest.raises(InputError) as error:
            NotebookView(subject)
        assert "clipmem.curate(DATA, out=FOLDER)" in error.value.hint


def test_without_anywidget_a_cell_shows_the_page_and_no_widget(view, monkeypatch):
    monkeypatch.setattr(widget, "find_spec", lambda _: None)
    assert view.widget is None
    assert view._repr_mimebundle_() == {}
    html = view._repr_html_()
    assert html.count("<iframe") == html.count('sandbox="allow-scripts allow-downloads"') == 1
    assert 'pip install ".[notebook]"' in html
    assert "</iframe>" in html.split('srcdoc="')[1].split('"')[1]  # the page is one attribute


def test_with_anywidget_a_cell_shows_the_widget_and_no_second_page(view):
    pytest.importorskip("anywidget", reason="the extra `notebook` is not installed: pip install '.[notebook]'")
    assert view._repr_html_() is None
    bundle = view._repr_mimebundle_(include=None, exclude=None)[0]
    assert set(bundle) == {"text/plain", "application/vnd.jupyter.widget-view+json"}
    state = view.widget.get_state()
    assert state["html"].count("<iframe") == 1
    assert "pip install" not in state["html"]
    assert "export default" in state["_esm"]


def test_looking_imports_neither_torch_nor_anywidget():
    code = "import clipmem, sys; clipmem.view; print({'torch', 'anywidget', 'ipywidgets'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
