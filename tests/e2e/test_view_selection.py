"""Many pairs are selected and marked in one step, in a real browser."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from clipmem.report.explorer.server import Explorer
from clipmem.report.explorer.subject import open_subject
from tests.e2e.browser import Session, becomes, needs_browser
from tests.e2e.test_view_app import ROWS, cards, downloaded, shows
from tests.e2e.test_view_filters import address, chips, values
from tests.e2e.test_view_live import marks, serving
from tests.view_folder import write_view

pytestmark = [needs_browser, pytest.mark.usefixtures("nothing_leaves")]
__all__ = ["address", "values"]


def status(page: Any) -> str:
    return page.locator("[role=status]").first.inner_text()


def marks_of(page: Any) -> dict[int, str]:
    text = downloaded(page, "marks, for the run folder")
    return {int(entry["uid"], 16): entry["mark"] for entry in map(json.loads, text.splitlines()) if entry["mark"]}


def test_a_stretch_is_selected_marked_and_undone_by_keys(
    browser: Session, address: str, values: dict[str, np.ndarray]
) -> None:
    order = np.argsort(-values["clipmem"], kind="stable").tolist()
    page = browser.open(address + "#sort=clipmem&view=gallery")
    page.keyboard.press("r")  # high first
    becomes(lambda: cards(page)[0], order[0])
    page.keyboard.press("ArrowRight")
    page.keyboard.press("w")  # a mark before, which the undo gives back
    for _ in range(3):
        page.keyboard.press("Shift+ArrowRight")
    page.keyboard.press("Shift+ArrowLeft")
    becomes(lambda: "3 selected" in status(page), True)
    assert page.locator(".card.selected").count() == 3
    assert page.locator(".card[aria-selected=true]").count() == 3
    page.keyboard.press("m")
    becomes(lambda: "4 marked, 3 selected" in status(page), True)
    expected = {order[0]: "wrong"} | dict.fromkeys(order[1:4], "memorized")
    assert marks_of(page) == expected
    page.keyboard.press("z")
    becomes(lambda: marks_of(page), {order[0]: "wrong"})
    page.keyboard.press("Shift+ArrowLeft")
    page.keyboard.press("f")
    becomes(lambda: marks_of(page), {order[0]: "fine", order[1]: "fine"})
    page.keyboard.press("z")
    becomes(lambda: marks_of(page), {order[0]: "wrong"})
    page.keyboard.press("Shift+ArrowRight")
    page.keyboard.press("Escape")
    becomes(lambda: "selected" in status(page), False)
    page.keyboard.press("Shift+ArrowRight")
    becomes(lambda: "selected" in status(page), True)
    page.keyboard.press("ArrowRight")  # a step without Shift ends the selection: the mark is of one pair
    becomes(lambda: "selected" in status(page), False)
    page.keyboard.press("u")
    becomes(lambda: list(marks_of(page).values()).count("unsure"), 1)


def test_a_stretch_is_selected_by_mouse_and_ends_with_the_list(browser: Session, address: str) -> None:
    page = browser.open(address)
    places = cards(page)
    page.locator(f"#pair-{places[1]}").click()
    page.keyboard.press("Escape")  # the panel
    page.locator(f"#pair-{places[6]}").click(modifiers=["Shift"])
    becomes(lambda: "6 selected" in status(page), True)
    assert page.locator(".detail").count() == 0
    page.locator(f"#pair-{places[3]}").click(modifiers=["Shift"])
    becomes(lambda: "3 selected" in status(page), True)
    page.keyboard.press("x")
    shows(page, ROWS)
    becomes(lambda: "selected" in status(page), False)


def test_all_shown_are_marked_in_every_view(browser: Session, address: str, values: dict[str, np.ndarray]) -> None:
    found = np.flatnonzero((values["clipmem"] >= 0.3) & (values["role"] == 0)).tolist()
    assert 1 < len(found) < 100
    page = browser.open(address + "#view=map&is.role=candidate&in.clipmem=0.3..Infinity")
    shows(page, len(found))
    page.keyboard.press("a")
    becomes(lambda: f"{len(found)} selected" in status(page), True)
    page.keyboard.press("w")
    becomes(lambda: marks_of(page), dict.fromkeys(found, "wrong"))
    page.keyboard.press("Backspace")
    becomes(lambda: "marked" in status(page), False)
    page.keyboard.press("z")
    becomes(lambda: marks_of(page), dict.fromkeys(found, "wrong"))
    page.keyboard.press("/")
    page.keyboard.type("zzzq")
    shows(page, 0)
    page.keyboard.press("Escape")
    page.keyboard.press("a")
    page.keyboard.press("m")  # of nothing
    page.keyboard.press("x")
    becomes(lambda: marks_of(page), dict.fromkeys(found, "wrong"))


def test_too_many_marks_in_one_step_are_refused(browser: Session, tmp_path: Path) -> None:
    page = browser.open(write_view(tmp_path, 20_001).as_uri())
    cards(page)
    page.keyboard.press("a")
    becomes(lambda: "20,001 selected" in status(page), True)
    page.keyboard.press("w")
    page.get_by_role("alert").get_by_text("At most 20,000 pairs are marked in one step").wait_for()
    assert "marked" not in status(page)
    page.get_by_label("Lowest CLIPMem", exact=True).fill("-0.2")
    page.keyboard.press("Enter")
    page.get_by_role("alert").wait_for(state="detached")
    page.keyboard.press("Escape")  # leaves the field
    page.keyboard.press("a")
    becomes(lambda: "selected" in status(page), True)
    page.keyboard.press("w")
    becomes(lambda: "marked" in status(page), True)
    assert page.get_by_role("alert").count() == 0
    page.reload()
    becomes(lambda: "marked" in status(page), True)


def test_of_pairs_with_one_image_one_is_kept(browser: Session, address: str, values: dict[str, np.ndarray]) -> None:
    page = browser.open(address)
    page.keyboard.press("v")
    page.get_by_role("button", name="Same image").click()
    becomes(lambda: chips(page), ["same image as another pair"])
    becomes(lambda: cards(page)[:7], [0, 1, 2, 3, 4, 5, 6])  # groups of three stand together
    assert page.locator(".views summary").inner_text() == "Same image"
    assert page.locator("#sort").input_value() == "image_group"
    for key in ("ArrowRight", *["ArrowRight"] * 4, "o"):  # the second of the second group
        page.keyboard.press(key)
    becomes(lambda: marks_of(page), {3: "wrong", 5: "wrong"})
    page.keyboard.press("z")
    becomes(lambda: "marked" in status(page), False)
    page.goto(address + "#is.role=candidate&pair=4&in.image_group=0..1")
    shows(page, int((values["role"][:6] == 0).sum()))
    page.keyboard.press("o")  # only what is shown is marked
    expected = {row: "wrong" for row in (3, 5) if values["role"][row] == 0}
    becomes(lambda: marks_of(page) if expected else {}, expected)


@pytest.mark.slow
def test_marks_of_a_selection_reach_the_run_folder(browser: Session, finished: Any, tmp_path: Path) -> None:
    run = shutil.copytree(finished.path, tmp_path / "run")
    (run / "marks.jsonl").unlink(missing_ok=True)
    table = pl.read_parquet(run / "scores.parquet").with_columns(pl.col("role").cast(pl.String))
    candidates = table.filter(role="candidate")["uid"].to_list()
    with serving(Explorer(open_subject(run))) as server:
        page = browser.open(server.address)
        cards(page)
        page.keyboard.press("a")  # the candidates, with which a run opens
        page.keyboard.press("m")

        def saved() -> dict[str, str]:
            page.wait_for_timeout(20)  # requests pass through this process
            return marks(run) if (run / "marks.jsonl").exists() else {}

        becomes(saved, dict.fromkeys(candidates, "memorized"))
        page.keyboard.press("z")
        becomes(saved, {})
        assert len((run / "marks.jsonl").read_text(encoding="utf-8").splitlines()) == 2 * len(candidates)
        assert page.get_by_role("alert").count() == 0
