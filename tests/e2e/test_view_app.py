"""The explorer's page in a real browser: every interaction, by keys too, on an export opened as a file."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.e2e.browser import AXE, Session, becomes, needs_browser
from tests.unit.report.test_page_browser import CAPTIONS
from tests.view_folder import captions_of, columns_of, write_view

pytestmark = [needs_browser, pytest.mark.usefixtures("nothing_leaves")]
ROWS = 600
VIEWS = ("gallery", "map", "scores", "compare")


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_view(tmp_path_factory.mktemp("view"), ROWS, images=40).as_uri()


@pytest.fixture(scope="module")
def values() -> dict[str, np.ndarray]:
    return {name: values for name, (_, values) in columns_of(ROWS).items()}


def shown(page: Any) -> int:
    """The number of pairs that the page says it shows."""
    found = re.search(r"([\d,]+) of ([\d,]+) shown", page.locator("[role=status]").first.inner_text())
    assert found
    assert found[2] == f"{ROWS:,}"
    return int(found[1].replace(",", ""))


def cards(page: Any) -> list[int]:
    page.locator(".card").first.wait_for()
    return [
        int(name.removeprefix("pair-")) for name in page.locator(".card").evaluate_all("all => all.map(one => one.id)")
    ]


def shows(page: Any, count: int) -> None:
    page.wait_for_function(
        "count => document.querySelector('[role=status] b').textContent === count", arg=f"{count:,}", timeout=5000
    )


def hash_of(page: Any) -> str:
    return page.evaluate("decodeURIComponent(location.hash.replaceAll('+', ' '))")


def downloaded(page: Any, label: str, place: int = 0) -> str:
    """Export by the dialog and return the text of the file."""
    page.keyboard.press("e")
    with page.expect_download() as download:
        page.get_by_role("button", name=label).nth(place).click()
    page.keyboard.press("Escape")
    return Path(download.value.path()).read_text(encoding="utf-8")


def uid(row: int) -> str:
    return f"{row:032x}"


def test_sorts_with_errors_and_reverses(browser: Session, address: str, values: dict[str, np.ndarray]) -> None:
    page = browser.open(address)
    expected = np.argsort(-values["clipmem"], kind="stable")
    assert cards(page) == expected[: len(cards(page))].tolist()
    assert shown(page) == ROWS
    card = page.locator(".card").first.inner_text()
    assert f"+{values['clipmem'][expected[0]]:.3f}" in card
    assert f"± {values['stderr'][expected[0]]:.3f}" in card
    assert "noise floor ± 0.040" in page.inner_text(".status")
    page.keyboard.press("r")
    page.wait_for_selector(f"#pair-{expected[-1]}")
    becomes(lambda: cards(page) == expected[::-1][: len(cards(page))].tolist(), True)
    page.keyboard.press("s")
    page.keyboard.type("Words")  # chooses in the list that has the focus
    page.keyboard.press("Escape")
    highest = np.nanargmax(values["words_score"])  # another column begins with its highest
    page.wait_for_selector(f"#pair-{highest}")
    becomes(lambda: cards(page)[0], highest)


def test_brushes_histograms_and_counts_under_the_other_filters(
    browser: Session, address: str, values: dict[str, np.ndarray]
) -> None:
    page = browser.open(address)
    box = page.locator("section[aria-label='CLIPMem'] .plot").bounding_box()
    page.mouse.move(box["x"] + 0.5 * box["width"], box["y"] + 20)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] + 9, box["y"] + 20, steps=4)
    page.mouse.up()
    low = values["clipmem"].min() + (values["clipmem"].max() - values["clipmem"].min()) / 2
    inside = values["clipmem"] >= low
    shows(page, inside.sum())
    candidate = page.get_by_role("checkbox", name="candidate")
    becomes(lambda: str((inside & (values["role"] == 0)).sum()) in candidate.inner_text(), True)
    candidate.click()
    shows(page, (inside & (values["role"] == 0)).sum())
    shared = page.get_by_role("checkbox", name="shared").locator(".count")
    becomes(shared.inner_text, str((inside & (values["role"] == 3)).sum()))
    becomes(lambda: f"in.clipmem={low:.5f}"[:14] in hash_of(page), True)
    page.get_by_label("Split histograms and map by").select_option("role")
    becomes(page.locator("section[aria-label='A(g)'] path").count, 6)
    page.keyboard.press("Escape")
    page.locator("body").press("x")
    shows(page, ROWS)


def test_brushes_by_keys(browser: Session, address: str, values: dict[str, np.ndarray]) -> None:
    page = browser.open(address)
    page.get_by_role("slider", name="A(g): lowest shown").focus()
    page.keyboard.press("PageUp")
    page.keyboard.press("ArrowRight")
    low, high = values["g_alignment"].min(), values["g_alignment"].max()
    shows(page, (values["g_alignment"] >= low + 7 * (float(high) - float(low)) / 48).sum())
    page.keyboard.press("Delete")
    shows(page, ROWS)
    page.keyboard.press("h")
    becomes(lambda: page.evaluate("document.activeElement.getAttribute('role')"), "slider")
    page.get_by_role("checkbox", name="candidate").focus()
    page.keyboard.press("Space")
    shows(page, (values["role"] == 0).sum())


@pytest.mark.slow
def test_marks_fifty_pairs_by_keys_alone(browser: Session, address: str, values: dict[str, np.ndarray]) -> None:
    page = browser.open(address)
    order = np.argsort(-values["clipmem"], kind="stable").tolist()
    cards(page)
    page.keyboard.press("ArrowRight")
    for key in "wmfuw" * 10:
        page.keyboard.press(key)
    expected = dict(zip(order, ["wrong", "memorized", "fine", "unsure", "wrong"] * 10, strict=False))
    page.keyboard.press("z")  # the last one again, as another
    page.keyboard.press("f")
    expected[order[49]] = "fine"
    page.keyboard.press("w")  # one more, and cleared
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Backspace")
    becomes(lambda: f"pair={order[50]}" in hash_of(page), True)

    def kept() -> dict[int, str]:
        lines = [json.loads(line) for line in downloaded(page, "marks, for the run folder").splitlines()]
        return {int(one["uid"], 16): one["mark"] for one in lines if one["mark"]}

    assert kept() == expected
    page.reload()
    cards(page)
    assert kept() == expected
    assert downloaded(page, "uids, one a line", 1).split() == [uid(row) for row in sorted(expected)]
    page.get_by_role("checkbox", name="memorized").click()
    shows(page, 10)
    page.keyboard.press("Home")
    for _ in range(10):  # each leaves the filtered pairs, and the next one is marked
        page.keyboard.press("f")
    shows(page, 0)


def test_detail_of_a_pair(browser: Session, address: str, values: dict[str, np.ndarray]) -> None:
    page = browser.open(f"{address}#pair=7")
    cards(page)
    page.keyboard.press("Enter")
    panel = page.locator(".detail")
    panel.get_by_text("not trained", exact=True).wait_for()
    panel.get_by_text(uid(7)).first.wait_for()  # it is read by itself
    text = panel.inner_text()
    f, g = values["f_alignment"][7], values["g_alignment"][7]
    for one in (f"{f:+.3f}", f"{f + 0.02:+.3f}", f"{g - 0.01:+.3f}", f"{f - g + 0.03:+.3f}"):
        assert one.replace("-", "\N{MINUS SIGN}") in text
    for one in (
        "trained",
        "noise floor",
        "0.040",
        "image bank",
        "rank 8",
        "have another caption",
        uid(7),
        "Drawn for a test",
        "pair-7.webp",
    ):
        assert one in text
    page.keyboard.press("j")
    page.wait_for_function("() => !location.hash.includes('pair=7&')")
    page.keyboard.press("Escape")
    becomes(panel.count, 0)


def test_neighbors_side_by_side(browser: Session, address: str) -> None:
    page = browser.open(f"{address}#pair=5")
    cards(page)
    page.keyboard.press("n")
    page.wait_for_function("() => document.activeElement.id === 'neighbors'")
    page.wait_for_function("() => document.querySelectorAll('.neighbors ol').length === 4")
    lists = page.locator(".neighbors ol")
    captions = captions_of(ROWS, np.random.default_rng(1))
    for number, text in ((0, "0.95"), (0, captions[6]), (1, captions[25])):
        lists.nth(number).filter(has_text=text).wait_for()
    becomes(page.locator(".neighbors .only").count, 20)  # half of each list
    lists.nth(3).locator("button").first.click()
    page.wait_for_function("() => location.hash.includes('pair=7')")


def test_all_pairs_with_this_caption_or_image(browser: Session, address: str) -> None:
    captions = captions_of(ROWS, np.random.default_rng(1))
    row = next(row for row in range(ROWS) if captions.count(captions[row]) > 2)
    page = browser.open(f"{address}#pair={row}&open=1")
    page.get_by_text(f"{captions.count(captions[row])} pairs have this caption").wait_for()
    page.keyboard.press("c")
    shows(page, captions.count(captions[row]))
    becomes(lambda: sorted(cards(page)), [k for k in range(ROWS) if captions[k] == captions[row]])
    page.keyboard.press("i")
    shows(page, 3)
    becomes(lambda: sorted(cards(page)), [row // 3 * 3 + k for k in range(3)])
    page.go_back()
    shows(page, captions.count(captions[row]))


def test_two_scores_and_their_disagreements(browser: Session, address: str, values: dict[str, np.ndarray]) -> None:
    page = browser.open(f"{address}#view=scores&axes=clipmem+retrieval_score")
    page.locator(".pairs li").first.wait_for()
    ranks = [np.argsort(np.argsort(values[name])) for name in ("clipmem", "retrieval_score")]
    titles = page.locator(".pairs h3").all_inner_texts()
    assert titles == ["High CLIPMem, low Retrieval", "Low CLIPMem, high Retrieval"]
    page.locator(".pairs").nth(0).locator("button").first.click()
    becomes(lambda: "pair=" in hash_of(page), True)
    row = int(re.findall(r"pair=(\d+)", hash_of(page))[0])
    assert (ranks[0] - ranks[1])[row] == (ranks[0] - ranks[1]).max()
    correlation = np.corrcoef(ranks[0], ranks[1])[0, 1]
    page.locator(".plot-bar", has_text=f"{abs(correlation):.3f}").wait_for()


def test_before_and_after(browser: Session, address: str, values: dict[str, np.ndarray]) -> None:
    page = browser.open(address)
    page.keyboard.press("4")
    lists = page.locator(".pairs")
    lists.nth(1).locator("li").first.wait_for()
    row = int(np.argmin(values["clipmem_change"]))
    text = lists.nth(1).locator("li").first.inner_text()
    for name in ("clipmem_other", "clipmem", "clipmem_change"):
        assert f"{values[name][row]:+.3f}".replace("-", "\N{MINUS SIGN}") in text
    lists.nth(1).locator("button").first.click()
    becomes(lambda: f"pair={row}" in hash_of(page), True)
    page.locator(".detail").get_by_role("columnheader", name="synthetic").wait_for()


def test_searches_with_exclusion_and_keeps_all_in_the_address(browser: Session, address: str) -> None:
    captions = captions_of(ROWS, np.random.default_rng(1))
    page = browser.open(address)
    cards(page)
    page.keyboard.press("/")
    page.keyboard.type("RED -cat")
    count = sum("red" in one and "cat" not in one for one in captions)
    shows(page, count)
    page.keyboard.press("Escape")
    page.keyboard.press("r")
    page.get_by_role("checkbox", name="external").click()
    page.wait_for_function("() => location.hash.includes('external')")
    state = page.evaluate("location.hash")
    again = browser.more(address + state)
    again.locator(".card").first.wait_for()
    assert cards(again) == cards(page)
    assert shown(again) == shown(page) < count
    assert again.get_by_label("Search captions").input_value() == "RED -cat"
    for wrong in (
        "#sort=none",
        "#view=none&pair=999999",
        "#in.clipmem=x..y&is.role=none",
        "#lasso=a+b+1+2",
        "#same=caption.x",
    ):
        page.goto(address + wrong)
        page.locator("[role=status]").first.wait_for()


def inside(values: dict[str, np.ndarray], corners: list[float]) -> np.ndarray:
    from matplotlib.path import Path as Outline

    outline = Outline(np.array(corners).reshape(-1, 2))
    return outline.contains_points(np.column_stack([values["g_alignment"], values["f_alignment"]]))


def test_lasso_to_gallery_to_uids(browser: Session, address: str, values: dict[str, np.ndarray]) -> None:
    page = browser.open(f"{address}#view=map")
    box = page.locator(".scatter canvas").bounding_box()
    page.wait_for_function("() => document.querySelector('.scatter canvas').width > 300")
    middle = (box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.move(*middle)
    page.mouse.down()
    for dx, dy in ((-200, 0), (-200, 150), (0, 150)):
        page.mouse.move(middle[0] + dx, middle[1] + dy, steps=3)
    page.mouse.up()
    page.get_by_role("button", name="in the gallery").wait_for()
    corners = [float(one) for one in re.findall(r"lasso=g_alignment f_alignment ([^&]*)", hash_of(page))[0].split()]
    found = inside(values, corners)
    assert 0 < found.sum() < ROWS
    shows(page, found.sum())
    page.get_by_role("button", name="in the gallery").click()
    order = np.argsort(-values["clipmem"], kind="stable")
    chosen = [row for row in order.tolist() if found[row]]
    becomes(lambda: cards(page) == chosen[: len(cards(page))], True)
    assert downloaded(page, "uids, one a line").split() == [uid(row) for row in chosen]
    lines = downloaded(page, "CSV with captions").splitlines()
    assert len(lines) == len(chosen) + 1
    assert lines[1].startswith(f'"{uid(chosen[0])}","')


def test_lasso_by_keys(browser: Session, address: str, values: dict[str, np.ndarray]) -> None:
    page = browser.open(f"{address}#view=map")
    page.locator(".scatter").focus()
    for keys in (["Shift+ArrowLeft"] * 3, ["Shift+ArrowDown"] * 5, ["Shift+ArrowRight"] * 5, []):
        page.keyboard.press("Space")
        for key in keys:
            page.keyboard.press(key)
    page.keyboard.press("Enter")
    page.wait_for_function("() => location.hash.includes('lasso')")
    corners = [float(one) for one in re.findall(r"lasso=g_alignment f_alignment ([^&]*)", hash_of(page))[0].split()]
    assert len(corners) == 8
    found = inside(values, corners)
    assert found.any()
    shows(page, found.sum())
    page.keyboard.press("Escape")
    shows(page, ROWS)


def test_moves_through_all_pairs_by_keys(browser: Session, address: str, values: dict[str, np.ndarray]) -> None:
    order = np.argsort(-values["clipmem"], kind="stable").tolist()
    page = browser.open(address)
    across = page.evaluate(
        "new Set([...document.querySelectorAll('.card')].map(one => one.getBoundingClientRect().left)).size"
    )
    cards(page)
    steps = [
        ("ArrowDown", 0),
        ("ArrowDown", across),
        ("ArrowRight", across + 1),
        ("ArrowUp", 1),
        ("k", 0),
        ("End", ROWS - 1),
    ]
    for key, place in steps:
        page.keyboard.press(key)
        page.wait_for_selector(f"#pair-{order[place]}.current")
    assert len(cards(page)) < 100  # only what is in sight exists
    assert page.locator(f"#pair-{order[-1]}").is_visible()
    page.locator("[role=status]", has_text=f"pair {ROWS} of {ROWS}").first.wait_for()


def test_help_names_every_key(browser: Session, address: str) -> None:
    page = browser.open(address)
    cards(page)
    page.keyboard.press("?")
    text = page.locator("dialog").inner_text()
    for one in (
        "mismatched caption",
        "memorized",
        "fine",
        "unsure",
        "Backspace",
        "undo",
        "search",
        "sort",
        "reverse",
        "neighbors",
        "lasso",
        "export",
    ):
        assert one in text
    page.keyboard.press("Escape")
    becomes(page.locator("dialog").count, 0)


def test_a_dialog_is_open_as_soon_as_it_is_drawn(browser: Session, address: str) -> None:
    """An Escape between the two would close nothing, and the help would stay."""
    page = browser.open(address)
    cards(page)
    page.evaluate("""() => new MutationObserver(() => {
        const dialog = document.querySelector("dialog")
        if (dialog) window.seen ??= dialog.open
    }).observe(document.body, {childList: true, subtree: true})""")
    page.keyboard.press("?")
    becomes(lambda: page.evaluate("window.seen"), True)


def test_a_dialog_that_the_browser_closes_opens_again(browser: Session, address: str) -> None:
    page = browser.open(address)
    cards(page)
    for _ in range(2):
        page.keyboard.press("?")
        page.wait_for_selector("dialog[open]")
        page.evaluate("document.querySelector('dialog').close()")
        becomes(page.locator("dialog").count, 0)


HOSTILE = [*CAPTIONS, '=HYPERLINK("http://beacon.example/formula")', "x" * 2**20, "@SUM(1)", "a\x1fb <b>two</b>"]


@pytest.mark.slow
def test_hostile_captions_do_nothing(browser: Session, tmp_path: Path) -> None:
    texts = [HOSTILE[row % len(HOSTILE)].replace("\0", "") for row in range(66)]
    page = browser.open(write_view(tmp_path, 66, captions=texts).as_uri())
    page.locator(".card").first.wait_for()
    scripts = page.locator("script").count()
    for view in VIEWS:
        page.goto(f"{tmp_path.as_uri()}/index.html#view={view}&pair=0&open=1")
        page.reload()
        page.locator(".detail h3").first.wait_for()
        for _ in range(len(HOSTILE) if view == "gallery" else 2):
            page.keyboard.press("j")
            page.wait_for_timeout(20)
    page.goto(f"{tmp_path.as_uri()}/index.html")
    page.reload()
    page.set_viewport_size({"width": 1900, "height": 5000})
    page.wait_for_function("() => document.querySelectorAll('.card').length === 66")
    page.locator("#app", has_text="<script>document").wait_for()
    text = page.locator("#app").inner_text()
    assert not set("\u202e\u2066\u200f\x1b\x9b") & set(text)
    assert page.evaluate("document.documentElement.dataset.owned") is None
    assert page.locator("iframe, #app style, #app link, #app meta, #app svg svg[onload], .card b").count() == 0
    assert page.locator("script").count() == scripts
    csv = downloaded(page, "CSV with captions")
    assert not re.search(r'(^|,)"[=+\-@\t\r]', csv, re.MULTILINE)
    assert "'=HYPERLINK" in csv


@pytest.mark.slow
@pytest.mark.skipif(not AXE.is_file(), reason="no axe-core: npm ci in src/clipmem/report/explorer/app")
@pytest.mark.parametrize(
    ("scheme", "rules"), [("light", "{resultTypes: ['violations']}"), ("dark", "{runOnly: ['color-contrast']}")]
)
def test_accessible(browser: Session, address: str, scheme: str, rules: str) -> None:
    page = browser.open(address, color_scheme=scheme, bypass_csp=True)
    cards(page)
    page.keyboard.press("ArrowRight")
    page.keyboard.press("w")
    page.add_script_tag(path=AXE)
    for place in ("1", "2", "3", "4", "?", "e"):
        page.keyboard.press(place)
        if place == "1":
            page.keyboard.press("Enter")
            page.locator(".detail h3").first.wait_for()
        found = page.evaluate(f"axe.run(document, {rules})")
        assert found["passes"]
        serious = [one for one in found["violations"] if one["impact"] in {"serious", "critical"}]
        assert [(one["id"], one["nodes"][0]["html"], one["nodes"][0]["failureSummary"]) for one in serious] == []
        if place in {"?", "e"}:
            page.keyboard.press("Escape")


def test_a_newer_format_is_refused(browser: Session, tmp_path: Path) -> None:
    page = write_view(tmp_path, 6)
    manifest = tmp_path / "data" / "manifest.js"
    manifest.write_text(manifest.read_text(encoding="utf-8").replace('"format": 1', '"format": 2'), encoding="utf-8")
    opened = browser.open(page.as_uri())
    assert "format 2" in opened.get_by_role("alert").inner_text()
    manifest.unlink()
    opened.reload()
    assert "data/manifest.js" in opened.get_by_role("alert").inner_text()
