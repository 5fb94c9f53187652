"""What people do in the explorer, by the shortest way, with the steps that it takes: keys, clicks, and typed texts.

The task of a folder without a run (20 decisions and the cleaned data, 22 keys) is in test_view_review.
"""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clipmem.base.marks import read_marks
from clipmem.report.explorer.server import Explorer
from clipmem.report.explorer.subject import open_subject
from tests.e2e.browser import Session, becomes, needs_browser
from tests.e2e.running import clip
from tests.e2e.test_view_app import cards, hash_of
from tests.e2e.test_view_live import serving
from tests.view_folder import columns_of, write_view

pytestmark = needs_browser
ROWS, CANDIDATE, EXTERNAL = 600, 0, 1


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    captions = [f"a dog number {row}" if row % 50 == 0 else f"a cat number {row}" for row in range(ROWS)]
    others = [f"the manila dog {row}" if row % 100 == 1 else f"other {row}" for row in range(ROWS)]
    folder = tmp_path_factory.mktemp("tasks")
    return write_view(folder, ROWS, captions, images=40, picks={"role": ["candidate"]}, others=others).as_uri()


@pytest.fixture(scope="module")
def values() -> dict[str, np.ndarray]:
    return {name: values for name, (_, values) in columns_of(ROWS).items()}


class Person:
    """Presses, clicks and types on a page, and counts it."""

    def __init__(self, page: Any) -> None:
        self.page, self.steps = page, 0
        cards(page)

    def press(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)
            self.steps += 1

    def type(self, text: str) -> None:
        self.page.keyboard.type(text)
        self.steps += 1

    def click(self, locator: Any) -> None:
        locator.click()
        self.steps += 1


def ordered(values: dict[str, np.ndarray], shown: np.ndarray) -> list[int]:
    order = np.argsort(-values["clipmem"], kind="stable")
    return order[shown[order]].tolist()


@pytest.mark.slow
def test_the_ten_most_memorized_by_keys(browser: Session, address: str, values: dict[str, np.ndarray]) -> None:
    person = Person(browser.open(address))
    candidates = ordered(values, values["role"] == CANDIDATE)
    person.press("Enter")
    for number in range(10):
        becomes(lambda number=number: f"pair={candidates[number]}&" in f"{hash_of(person.page)}&", True)
        person.page.locator(".detail .captions").wait_for()
        if number < 9:
            person.press("ArrowRight")
    assert person.steps == 10


@pytest.mark.slow
def test_twenty_marks_reload_and_feed_back(browser: Session, finished: Any, tmp_path: Path) -> None:
    run = shutil.copytree(finished.path, tmp_path / "run")
    with serving(Explorer(open_subject(run, None, run))) as server:
        person = Person(browser.open(server.address))
        person.press("Home", *("wfmwu" * 4))
        file = run / "marks.jsonl"
        becomes(lambda: (person.page.title(), file.exists() and len(read_marks(file)))[1], 20)
        person.page.reload()
        person.page.locator("[role=status]", has_text="20 marked").first.wait_for()
    assert person.steps == 21
    given = [mark.mark for mark in read_marks(file).values()]  # what curate and removal by marks read
    assert {name: given.count(name) for name in set(given)} == {"wrong": 8, "fine": 4, "memorized": 4, "unsure": 4}


def test_a_word_in_all_captions(browser: Session, address: str, values: dict[str, np.ndarray]) -> None:
    person = Person(browser.open(address))
    person.press("/")
    person.type("dog -w")
    has_dog = np.array([row % 50 == 0 or row % 100 == 1 for row in range(ROWS)])
    expected = ordered(values, has_dog & (values["role"] == CANDIDATE))
    becomes(lambda: cards(person.page), expected)
    assert person.steps == 2


def test_neighbors_and_back(browser: Session, address: str) -> None:
    person = Person(browser.open(address))
    person.press("End", "n")
    start = hash_of(person.page).split("&open")[0]
    person.click(person.page.locator(".neighbors ol").first.locator("button").nth(3))
    becomes(lambda: hash_of(person.page).split("&open")[0] != start, True)
    person.page.go_back()
    person.steps += 1
    becomes(lambda: hash_of(person.page).split("&open")[0], start)
    assert person.steps == 4


def test_a_role_and_a_typed_range(browser: Session, address: str, values: dict[str, np.ndarray]) -> None:
    person = Person(browser.open(address))
    person.click(person.page.get_by_role("checkbox", name="candidate"))
    person.click(person.page.get_by_role("checkbox", name="external"))
    person.click(person.page.get_by_label("Lowest CLIPMem", exact=True))
    person.type("0.05")
    person.press("Enter")
    expected = ordered(values, (values["role"] == EXTERNAL) & (values["clipmem"] >= 0.05))
    becomes(lambda: cards(person.page) == expected[: len(cards(person.page))], True)
    person.page.locator("[role=status] b", has_text=str(len(expected))).first.wait_for()
    assert person.steps == 5


def test_a_range_on_the_histogram(browser: Session, address: str, values: dict[str, np.ndarray]) -> None:
    person = Person(browser.open(address))
    box = person.page.locator("section[aria-label='CLIPMem'] .plot").bounding_box()
    assert box
    person.page.mouse.move(box["x"] + 0.5 * box["width"], box["y"] + 20)
    person.page.mouse.down()
    person.page.mouse.move(box["x"] + box["width"] + 9, box["y"] + 20, steps=4)
    person.page.mouse.up()
    person.steps += 1
    scores = values["clipmem"]
    middle = scores.min() + (scores.max() - scores.min()) / 2
    expected = ordered(values, (values["role"] == CANDIDATE) & (scores >= middle))
    becomes(lambda: cards(person.page) == expected[: len(cards(person.page))], True)
    assert person.steps == 1


def test_before_and_after_with_the_names_of_the_runs(
    browser: Session, address: str, values: dict[str, np.ndarray]
) -> None:
    person = Person(browser.open(address))
    person.press("4")
    labels = person.page.locator(".axis-label")
    becomes(
        lambda: sorted(label.text_content() for label in labels.all()), ["CLIPMem in other", "CLIPMem in synthetic"]
    )
    change = np.where(values["role"] == CANDIDATE, values["clipmem_change"], -np.inf)
    person.click(person.page.locator(".pairs").first.locator("button").first)
    becomes(lambda: f"pair={int(np.argmax(change))}" in hash_of(person.page), True)
    assert person.steps == 2


@pytest.mark.slow
def test_an_export_with_the_marks_is_opened_from_disk(browser: Session, finished: Any, tmp_path: Path) -> None:
    run = shutil.copytree(finished.path, tmp_path / "run")
    with serving(Explorer(open_subject(run, None, run))) as server:
        person = Person(browser.open(server.address))
        person.press("Home", "w", "f")
        becomes(lambda: (person.page.title(), (run / "marks.jsonl").exists())[1], True)
        becomes(lambda: (person.page.title(), len(read_marks(run / "marks.jsonl")))[1], 2)
    done = clip("view", run, "--export", tmp_path / "page.html")
    person.steps += 1
    assert done.returncode == 0, done.stderr
    page = browser.open((tmp_path / "page.html").as_uri())
    page.locator("[role=status]", has_text="2 marked").first.wait_for()
    assert person.steps == 4
    assert browser.outside == browser.errors == []
