"""The explorer's page on the server of `clipmem view`: marks in the run folder, the same results as in an export."""

import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import clipmem
from clipmem.base.progress import Quiet
from clipmem.report.explorer.export import export_to
from clipmem.report.explorer.server import Explorer, Server
from clipmem.report.explorer.subject import open_subject
from tests.e2e.browser import Session, needs_browser
from tests.e2e.test_view_app import cards, downloaded

pytestmark = needs_browser
# the addresses of views: order, ranges, values, words, a lasso, pairs with the same image
ADDRESSES = (
    "",
    "sort=clipmem",
    "sort=-f_alignment&in.clipmem=-0.05..Infinity",
    "is.role=candidate&is.role=shared&q=a+-the",
    "lasso=g_alignment+f_alignment+-1+-1+2+-1+2+2",
    "same=image.3",
    "same=neighbors.3",
)


@pytest.fixture(scope="module")
def run(finished: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of a study, to be marked."""
    return shutil.copytree(finished.path, tmp_path_factory.mktemp("viewed") / "run")


@contextmanager
def serving(explorer: Explorer, port: int = 0) -> Generator[Server]:
    """Serve in a thread."""
    with Server(explorer, port) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def explorer(run: Path) -> Explorer:
    (run / "marks.jsonl").unlink(missing_ok=True)
    return Explorer(open_subject(run, None, run))


def marks(run: Path) -> dict[str, str]:
    """The last mark of each pair in the run folder."""
    lines = (run / "marks.jsonl").read_text(encoding="utf-8").splitlines()
    last = {one["uid"]: one["mark"] for one in map(json.loads, lines)}
    return {uid: mark for uid, mark in last.items() if mark}


def settled(page: Any) -> tuple[str, list[int]]:
    page.wait_for_function("() => /^[\\d,]+$/.test(document.querySelector('[role=status] b').textContent)")
    none = page.locator(".empty").count()
    return page.locator("[role=status]").first.inner_text(), [] if none else cards(page)


@pytest.mark.slow
def test_live_and_exported_results_are_identical(browser: Session, explorer: Explorer, tmp_path: Path) -> None:
    exported = export_to(tmp_path / "out", explorer, list(range(len(explorer.columns))), Quiet()).as_uri()
    with serving(explorer) as server:
        page, other = browser.open(server.address), browser.more(exported)
        for address in ADDRESSES:
            for one, start in ((page, server.address), (other, exported)):
                one.goto(f"{start}#{address}")
                one.reload()
            assert settled(page) == settled(other)
            if not page.locator(".empty").count():
                for label in ("uids, one a line", "CSV with captions"):
                    assert downloaded(page, label) == downloaded(other, label)
        for one, start in ((page, server.address), (other, exported)):
            one.goto(f"{start}#pair=5&open=1")
            one.reload()
            one.locator(".detail dd.mono").last.wait_for()
            one.wait_for_function("() => document.querySelectorAll('.neighbors ol').length === 4")
        texts = [one.locator(".detail").inner_text() for one in (page, other)]
        assert texts[0] == texts[1]
    assert browser.outside == browser.errors == []


@pytest.mark.slow
def test_marks_reach_the_run_folder_and_other_windows(browser: Session, explorer: Explorer, run: Path) -> None:
    with serving(explorer) as server:
        page = browser.open(server.address)
        other = browser.more(server.address)
        order = [explorer.columns.uids[row] for row in cards(page)]
        page.bring_to_front()
        for key in ("ArrowRight", "w", "m", "f", "u", "w", "z"):
            page.keyboard.press(key)
        expected = dict(zip(order, ["wrong", "memorized", "fine", "unsure"], strict=False))
        page.wait_for_function("() => document.querySelector('[role=status]').textContent.includes('4 marked')")
        other.bring_to_front()
        other.wait_for_function("() => document.querySelector('[role=status]').textContent.includes('4 marked')")
        assert marks(run) == expected
        other.goto(f"{server.address}#pair={cards(page)[0]}&open=1")
        other.get_by_label("Reason of the mark").fill("a folder, not a flag")
        other.keyboard.press("Enter")
        other.wait_for_timeout(300)
        assert (
            json.loads((run / "marks.jsonl").read_text(encoding="utf-8").splitlines()[-1])["note"]
            == "a folder, not a flag"
        )
        other.reload()
        other.wait_for_function("() => document.querySelector('.marking input')?.value === 'a folder, not a flag'")
        page.keyboard.press("e")
        with page.expect_download() as download:
            page.get_by_role("button", name="Parquet").nth(1).click()
        table = pl.read_parquet(download.value.path())
        assert dict(table.select("uid", "mark").iter_rows()) == expected
    assert browser.errors == []


@pytest.mark.slow
def test_marks_wait_for_a_server_that_does_not_answer(browser: Session, explorer: Explorer, run: Path) -> None:
    with serving(explorer) as server:
        page = browser.open(server.address)
        page.route("**/marks", lambda route: route.abort())
        first = cards(page)[0]
        page.keyboard.press("ArrowRight")
        page.keyboard.press("m")
        for _ in range(2):
            page.get_by_role("alert").get_by_text("1 mark not saved yet").wait_for()
            page.locator(f"#pair-{first} .mark").wait_for()
            page.reload()  # the browser keeps the mark
        assert not (run / "marks.jsonl").exists()
        page.unroute("**/marks")
        page.get_by_role("alert").wait_for(state="detached")
        page.locator(f"#pair-{first} .mark").wait_for()
        assert marks(run) == {explorer.columns.uids[first]: "memorized"}


@pytest.mark.slow
def test_a_saved_note_is_shown_again_and_a_hidden_pair_is_not_marked(
    browser: Session, explorer: Explorer, run: Path
) -> None:
    with serving(explorer) as server:
        page = browser.open(server.address)
        first, second = cards(page)[:2]
        page.goto(f"{server.address}#pair={first}&open=1")
        page.reload()
        page.wait_for_selector(f"#pair-{first}.current")
        page.locator(".detail .facts").get_by_text("Source", exact=True).wait_for()
        page.keyboard.press("w")
        page.keyboard.press("ArrowLeft")
        page.get_by_label("Reason of the mark").fill("two dogs")
        page.keyboard.press("Enter")
        page.keyboard.press("ArrowRight")
        page.wait_for_selector(f"#pair-{second}.current")
        page.keyboard.press("ArrowLeft")
        page.wait_for_function("() => document.querySelector('.marking input')?.value === 'two dogs'")
        page.keyboard.press("Escape")
        page.keyboard.press("/")
        page.keyboard.type("zzzq")
        page.locator(".empty").wait_for()
        page.keyboard.press("Escape")
        page.keyboard.press("u")
        page.wait_for_timeout(300)
        assert marks(run) == {explorer.columns.uids[first]: "wrong"}
    assert browser.errors == []


@pytest.mark.slow
def test_an_old_answer_takes_no_mark_back(browser: Session, explorer: Explorer) -> None:
    with serving(explorer) as server:
        page = browser.open(server.address)
        cards(page)
        late: list[Any] = []
        page.route("**/marks.json", lambda route: late.append(route))
        page.wait_for_timeout(3500)  # longer than between two polls
        page.keyboard.press("ArrowRight")
        with page.expect_response("**/marks"):
            page.keyboard.press("m")
        assert late
        late[0].fulfill(status=200, content_type="application/json", body="{}")  # asked before the mark
        page.wait_for_timeout(300)
        assert "1 marked" in page.locator("[role=status]").first.inner_text()
        page.unroute("**/marks.json")


def test_why_marks_are_refused_is_said(browser: Session, explorer: Explorer, run: Path) -> None:
    with serving(explorer) as server:
        page = browser.open(server.address)
        cards(page)
        (run / "marks.jsonl").write_text('{"uid": "a", "mark": "new kind"}\n')
        page.keyboard.press("ArrowRight")
        page.keyboard.press("m")
        page.get_by_role("alert").get_by_text("Update clipmem, or fix the line.").wait_for()
        assert len((run / "marks.jsonl").read_text().splitlines()) == 1


def test_what_cannot_be_loaded_is_said_and_tried_again(browser: Session, explorer: Explorer) -> None:
    with serving(explorer) as server:
        page = browser.open(server.address)
        _, second = cards(page)[:2]
        page.route("**/pairs/*.json", lambda route: route.abort())
        page.keyboard.press("Enter")
        page.get_by_role("alert").get_by_text("Not loaded").wait_for()
        page.unroute("**/pairs/*.json")
        page.keyboard.press("j")
        page.wait_for_selector(f"#pair-{second}.current")
        page.keyboard.press("k")
        page.locator(".detail .facts").get_by_text("Source", exact=True).wait_for()
        page.get_by_role("alert").wait_for(state="detached")


def test_before_and_after_of_a_run(browser: Session, explorer: Explorer) -> None:
    with serving(explorer) as server:
        page = browser.open(f"{server.address}#view=compare")
        page.locator(".pairs h3").first.wait_for()
        assert page.locator(".pairs").all_inner_texts() == [
            "Rose most\n\nnone",
            "Fell most\n\nnone",
        ]  # the run and itself
        assert clipmem.__version__ == page.evaluate("fetch('data/manifest.json').then(one => one.json())")["clipmem"]


@pytest.mark.slow
def test_the_benchmark_measures_every_demand(run: Path, tmp_path: Path) -> None:
    script, file = Path(__file__).parents[2] / "benchmarks" / "view.py", tmp_path / "view.json"
    command = [sys.executable, script, "--pairs", "3000", "--rounds", "1", "--run", run, "--json", file]
    subprocess.run(command, check=True, capture_output=True, text=True)
    rows = json.loads(file.read_text(encoding="utf-8"))["rows"]
    assert {row["unit"] for row in rows if row["demand"]} == {"s", "ms", "MB"}
    assert sum(bool(row["demand"]) for row in rows) == 15  # as many as there are demands but for a warm start
    assert all(row["median"] > 0 for row in rows)
