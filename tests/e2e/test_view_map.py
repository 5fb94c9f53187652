"""Words that name the dense regions of the explorer's map."""

from pathlib import Path

import numpy as np

from tests.e2e.browser import Session, needs_browser
from tests.view_folder import write_view

pytestmark = needs_browser
CENTERS = {"apple": (-6.0, 4.0), "boat": (6.0, 4.0), "tree": (0.0, -5.0)}
WIDTH_OF = "() => document.querySelector('.scatter canvas').width > 300"


def map_of(folder: Path, captions: list[str]) -> str:
    """Write a view in which pair k lies around center k mod 3."""
    rng = np.random.default_rng(0)
    points = np.array(list(CENTERS.values()))[np.arange(len(captions)) % 3] + rng.normal(0, 0.5, (len(captions), 2))
    return write_view(folder, len(captions), captions, numbers={"pca_x": points[:, 0], "pca_y": points[:, 1]}).as_uri()


def test_a_region_has_the_word_that_its_captions_have_more_often(browser: Session, tmp_path: Path) -> None:
    words = list(CENTERS)
    # "photo" is everywhere, "rare" in few captions of one region, and a twentieth of the captions has another's word
    captions = [
        f"a photo of {'a rare ' * (k % 30 == 0)}{words[(k + (k % 20 == 0)) % 3]} number {k % 7}" for k in range(600)
    ]
    page = browser.open(f"{map_of(tmp_path, captions)}#view=map&map=1")
    page.wait_for_function(WIDTH_OF)
    page.locator(".region").nth(2).wait_for()
    boxes = {label.text_content(): label.bounding_box() for label in page.locator(".region").all()}
    assert sorted(boxes) == sorted(words)
    places = {word: (box["x"] + box["width"] / 2, box["y"]) for word, box in boxes.items() if box}
    assert places["apple"][0] < places["tree"][0] < places["boat"][0]
    assert abs(places["apple"][1] - places["boat"][1]) < 20 < places["tree"][1] - places["apple"][1]
    label = page.locator(".scatter").get_attribute("aria-label") or ""
    assert sorted(label.split("Named regions: ")[1].rstrip(".").split(", ")) == sorted(words)
    page.evaluate("location.hash = location.hash.replace('map=1', 'map=0')")  # alignments have no regions
    page.locator(".region").first.wait_for(state="detached")


def test_regions_whose_captions_are_like_all_have_no_name(browser: Session, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    captions = [f"a drawing of {rng.choice(['one', 'two', 'many'])} things" for _ in range(300)]
    page = browser.open(f"{map_of(tmp_path, captions)}#view=map&map=1")
    page.wait_for_function(WIDTH_OF)
    page.wait_for_function("() => performance.getEntriesByName('clipmem regions').length > 0")
    assert page.locator(".region").count() == 0
