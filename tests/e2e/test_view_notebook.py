"""The explorer in a notebook's cell, with the real anywidget and Chromium: marks reach Python and the file of marks.

A page stands for the notebook: it loads widget.js as anywidget does, with a model whose messages go to the widget.
"""

import importlib.util
import json
import shutil
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import clipmem
from clipmem.base.marks import append_marks, read_marks
from clipmem.report.explorer import widget
from clipmem.report.explorer.widget import NotebookView
from tests.e2e.browser import Session, becomes, needs_browser
from tests.e2e.test_view_suspects import curated

pytestmark = [needs_browser, pytest.mark.usefixtures("nothing_leaves")]
anywidget = pytest.mark.skipif(
    importlib.util.find_spec("anywidget") is None,
    reason="the extra `notebook` is not installed: pip install '.[notebook]'",
)
CELLS = """async ([script, html, cells]) => {
  const { default: widget } = await import(URL.createObjectURL(new Blob([script], { type: "text/javascript" })));
  const handlers = new Set();
  window.answer = (message) => handlers.forEach((handler) => handler(message));
  const model = {
    get: (name) => ({ html })[name],
    on: (name, handler) => name === "msg:custom" && handlers.add(handler),
    off: (name, handler) => handlers.delete(handler),
    send: async (message) => { const answer = await window.toPython(message); if (answer) window.answer(answer); },
  };
  window.renew = (id) => {
    window[id]?.();
    document.getElementById(id)?.remove();
    const el = document.body.appendChild(Object.assign(document.createElement("div"), { id }));
    window[id] = widget.render({ model, el });
  };
  cells.forEach(window.renew);
}"""

OTHER = """mark => {
  const other = document.body.appendChild(document.createElement("iframe"));
  other.srcdoc = `<script>parent.postMessage(${JSON.stringify(mark)}, "*")</${"script>"}`;
}"""


@pytest.fixture
def run(finished: Any, tmp_path: Path) -> Path:
    """A copy of a study, to be marked."""
    return shutil.copytree(finished.path, tmp_path / "run")


def notebook(browser: Session, view: NotebookView, folder: Path, *cells: str, busy: list[Any] | None = None) -> Any:
    """Show a view in cells of a page; with `busy`, its messages are kept there and not answered."""
    answers = list[Any]()
    view.widget.send = answers.append

    def to_python(message: Any) -> Any:
        if busy is not None and message["marks"]:
            return busy.append(message)
        view.widget._handle_custom_msg(message, [])
        return answers.pop()

    (folder / "notebook.html").write_text("<!doctype html><html lang=en><title>notebook</title><body>")
    page = browser.open((folder / "notebook.html").as_uri())
    page.expose_function("toPython", to_python)
    page.evaluate(CELLS, [view.widget._esm, view.widget.html, cells])
    return page


def frame(page: Any, cell: str) -> Any:
    inner = page.frame_locator(f"#{cell} iframe")
    inner.locator(".card").first.wait_for()
    return inner


def status(inner: Any) -> str:
    return inner.locator("[role=status]").first.inner_text()


def shown_uid(view: NotebookView, inner: Any, place: int = 0) -> str:
    """The uid of a card, by its number in the page."""
    number = int(inner.locator(".card").nth(place).get_attribute("id").removeprefix("pair-"))
    return view._explorer.columns.uids[view._rows[number]]


def marks(page: Any, view: NotebookView) -> dict[str, str]:
    """The marks by uid, once the browser has sent its messages."""
    page.wait_for_timeout(20)
    return dict(view.marks.select("uid", "mark").iter_rows())


def key(inner: Any, *names: str, place: int = 0) -> None:
    inner.locator(".card").nth(place).click()
    for name in names:
        inner.locator("body").press(name)


@anywidget
def test_marks_come_back_as_a_table_and_are_appended_to_the_run(browser: Session, run: Path, tmp_path: Path) -> None:
    append_marks(run / "marks.jsonl", [("0" * 32, "fine", None)])  # of a pair that is not here
    view = clipmem.load_run(run).view()
    page = notebook(browser, view, tmp_path, "first", "second")
    assert page.locator("#first p").inner_text() == "120 pairs."
    first, second = frame(page, "first"), frame(page, "second")
    uids = [shown_uid(view, first, place) for place in range(2)]
    assert "20 of 120 shown" in status(first)  # candidates
    key(first, "w")
    becomes(lambda: marks(page, view), {"0" * 32: "fine", uids[0]: "wrong"})
    becomes(lambda: "1 marked" in status(second), True)  # the other cell shows it
    key(second, "f")
    key(second, "m", place=1)
    becomes(lambda: marks(page, view), {"0" * 32: "fine", uids[0]: "fine", uids[1]: "memorized"})
    assert view.marks.columns == ["uid", "mark", "time", "note", "caption"]
    assert {uid: mark.mark for uid, mark in read_marks(run / "marks.jsonl").items()} == marks(page, view)
    assert view.marks_file == run / "marks.jsonl"
    becomes(lambda: "2 marked" in status(first), True)
    page.evaluate("renew('first')")  # the notebook draws the cell again
    first = frame(page, "first")
    becomes(lambda: "2 marked" in status(first), True)
    key(first, "Backspace", place=1)
    becomes(lambda: uids[1] in marks(page, view), False)


@anywidget
def test_suspects_are_reviewed_in_a_cell_and_curate_reads_the_marks(
    browser: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    curated(tmp_path, 150, 24)
    monkeypatch.chdir(tmp_path)
    suspects = clipmem.curate("my photos", out="the suspects").filter("is_label_issue")
    view = clipmem.view("the suspects")
    page = notebook(browser, view, tmp_path, "cell")
    inner = page.frame_locator("#cell iframe")
    inner.get_by_role("tab", name="Review", selected=True).wait_for()
    inner.locator(".about .said").click()
    inner.locator("body").press("f")
    becomes(lambda: marks(page, view), {suspects["uid"][0]: "fine"})
    inner.locator("body").press("e")
    inner.get_by_text("Your marks are saved. Run clipmem curate").wait_for()
    table = clipmem.curate("my photos", out="the suspects")
    assert {*suspects["uid"]} - {*table.filter("is_label_issue")["uid"]} == {suspects["uid"][0]}


@anywidget
def test_marks_wait_until_python_answers(browser: Session, run: Path, tmp_path: Path) -> None:
    view, busy = clipmem.view(run), list[Any]()
    page = notebook(browser, view, tmp_path, "cell", busy=busy)
    inner = frame(page, "cell")
    key(inner, "w", "f")
    alert = inner.get_by_role("alert")
    becomes(
        lambda: alert.count() and alert.inner_text(),
        "2 marks not saved yet, but kept in this page: Python is busy, or has stopped.",
    )
    assert view.marks.is_empty()
    answers, message = list[Any](), busy.pop()
    view.widget.send = answers.append
    view.widget._handle_custom_msg(message, [])
    assert view.marks["mark"].to_list() == ["wrong"]
    page.evaluate("message => answer(message)", answers[0])
    becomes(lambda: page.wait_for_timeout(20) or len(busy), 1)  # the second mark follows
    view.widget._handle_custom_msg(busy.pop(), [])
    page.evaluate("message => answer(message)", answers[1])
    becomes(alert.count, 0)
    assert sorted(view.marks["mark"]) == ["fine", "wrong"]


@anywidget
def test_why_marks_are_not_saved_is_shown(browser: Session, run: Path, tmp_path: Path) -> None:
    view = clipmem.view(run)
    page = notebook(browser, view, tmp_path, "cell")
    inner = frame(page, "cell")
    view.marks_file.write_text("[]\n")  # somebody else's file
    key(inner, "w")
    alert = inner.get_by_role("alert")
    alert.wait_for()
    assert "1 mark not saved yet, but kept in this page: " in alert.inner_text()
    assert "marks.jsonl, line 1" in alert.inner_text()


@anywidget
def test_the_page_cannot_reach_the_notebook_and_only_the_page_can_mark(
    browser: Session, run: Path, tmp_path: Path
) -> None:
    view = clipmem.view(run)
    page = notebook(browser, view, tmp_path, "cell")
    frame(page, "cell")
    inner = page.frames[1]
    reach = "(() => { try { return parent.document.title } catch (error) { return error.name } })()"
    assert inner.evaluate(reach) == "SecurityError"
    assert inner.evaluate("origin") == "null"
    assert set(page.locator("iframe").get_attribute("sandbox").split()) == {"allow-scripts", "allow-downloads"}
    mark = {"from": 1, "marks": [{"row": 0, "mark": "wrong", "note": None, "caption": None}]}
    page.evaluate("mark => postMessage(mark, '*')", mark)  # of the notebook itself, or another widget in it
    page.evaluate(OTHER, mark)
    inner.evaluate("parent.postMessage('no marks', '*'); parent.postMessage({marks: 'none'}, '*')")
    page.wait_for_timeout(300)
    assert view.marks.is_empty()
    inner.evaluate("mark => parent.postMessage(mark, '*')", mark)
    becomes(lambda: [*marks(page, view).values()], ["wrong"])


def test_without_anywidget_the_page_keeps_its_marks_and_says_how_to_save_them(
    browser: Session, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(widget, "find_spec", lambda _: None)
    view = clipmem.view(str(run))
    assert view._repr_mimebundle_(include=None, exclude=None) == {}
    (tmp_path / "cell.html").write_text(
        f"<!doctype html><html lang=en><title>cell</title><main id=cell><h1>Cell</h1>{view._repr_html_()}</main>"
    )
    page = browser.open((tmp_path / "cell.html").as_uri())
    text = page.locator("#cell p").inner_text()
    assert "Marks stay in this page." in text
    assert 'pip install ".[notebook]"' in text
    inner = frame(page, "cell")
    uid = shown_uid(view, inner)
    key(inner, "w")
    alert = inner.get_by_role("alert")
    alert.wait_for()
    assert alert.inner_text() == "1 mark not saved yet, but kept in this page: export them (e) before you close it."
    lines = downloaded_in(page, inner)
    assert [(line["uid"], line["mark"]) for line in lines] == [(uid, "wrong")]
    assert view.marks.is_empty()


def test_where_not_all_pairs_fit_the_candidates_come_first(run: Path) -> None:
    view = clipmem.view(run)
    scores = pl.read_parquet(run / "scores.parquet").with_row_index("row")
    best = scores.filter(role="candidate").sort("clipmem", descending=True)["row"]
    few = view._first(330_000)
    assert 1 < len(few) < len(best)
    assert few == sorted(best[: len(few)])
    assert {*best} < {*view._first(500_000)}


def downloaded_in(page: Any, inner: Any) -> list[dict[str, Any]]:
    """The marks that the page in a frame exports."""
    inner.locator("body").press("e")
    with page.expect_download() as download:
        inner.get_by_role("button", name="marks, for the run folder").click()
    return [json.loads(line) for line in Path(download.value.path()).read_text(encoding="utf-8").splitlines()]
