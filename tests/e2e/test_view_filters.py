"""What the explorer shows first and how it says so: chips of filters, in a real browser."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from clipmem.base.progress import Quiet
from clipmem.report.explorer.columns import Columns
from clipmem.report.explorer.export import export_to
from clipmem.report.explorer.server import Explorer
from clipmem.report.explorer.subject import open_subject
from tests.e2e.browser import AXE, Session, becomes, needs_browser
from tests.e2e.test_view_app import ROWS, cards, hash_of, shown, shows
from tests.view_folder import columns_of, write_view

pytestmark = [needs_browser, pytest.mark.usefixtures("nothing_leaves")]


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A view that opens with the candidates."""
    return write_view(tmp_path_factory.mktemp("view"), ROWS, picks={"role": ["candidate"]}).as_uri()


@pytest.fixture(scope="module")
def values() -> dict[str, np.ndarray]:
    return {name: values for name, (_, values) in columns_of(ROWS).items()}


def chips(page: Any) -> list[str]:
    return page.locator(".chip span").all_inner_texts()


def test_the_page_opens_with_the_candidates(browser: Session, address: str, values: dict[str, np.ndarray]) -> None:
    candidates = int((values["role"] == 0).sum())
    page = browser.open(address)
    shows(page, candidates)
    becomes(lambda: chips(page), ["Role: candidate"])
    becomes(lambda: hash_of(page), "#is.role=candidate")
    page.keyboard.press("x")
    shows(page, ROWS)
    assert chips(page) == []
    page.reload()  # the address says that all are shown
    cards(page)
    assert shown(page) == ROWS
    for other, count in (("#sort=-f_alignment", ROWS), ("#is.role=shared", (values["role"] == 3).sum())):
        page.goto("about:blank")
        page.goto(address + other)
        shows(page, count)


def test_a_chip_says_each_filter_and_removes_it(browser: Session, address: str, values: dict[str, np.ndarray]) -> None:
    start = (
        "#is.role=candidate&is.role=shared&in.clipmem=0.05..0.5&in.g_alignment=0.1..Infinity&q=red+-cat&same=image.3"
    )
    page = browser.open(address + start)
    expected = ["search: red -cat", "CLIPMem 0.05 to 0.5", "A(g) at least 0.1", "Role: candidate, shared"]
    becomes(lambda: chips(page), [*expected, "same image as one pair"])
    page.get_by_role("button", name="Remove filter same image as one pair").click()
    page.get_by_role("button", name="Remove filter search: red -cat").click()
    inside = (values["clipmem"] >= 0.05) & (values["clipmem"] <= 0.5) & np.isin(values["role"], [0, 3])
    shows(page, (inside & (values["g_alignment"] >= 0.1)).sum())
    assert page.get_by_label("Search captions").input_value() == ""
    page.get_by_role("button", name="Remove filter CLIPMem 0.05 to 0.5").press("Enter")  # the focus goes on
    becomes(lambda: page.evaluate("document.activeElement.ariaLabel"), "Remove filter A(g) at least 0.1")
    page.keyboard.press("Space")
    becomes(lambda: chips(page), ["Role: candidate, shared"])
    page.keyboard.press("Enter")
    shows(page, ROWS)
    becomes(lambda: page.evaluate("document.activeElement.className"), "gallery")


def test_filters_of_wrong_names_are_no_chips(browser: Session, address: str) -> None:
    page = browser.open(f"{address}#in.clipmem=x..y&in.none=1..2&is.none=a&q=%20&same=caption.x&lasso=a+b+1+2")
    shows(page, ROWS)
    assert chips(page) == []


@pytest.mark.slow
def test_a_run_opens_with_its_candidates_live_and_exported(browser: Session, finished: Any, tmp_path: Path) -> None:
    explorer = Explorer(open_subject(finished.path))
    roles = pl.read_parquet(finished.path / "scores.parquet")["role"].cast(pl.String).to_list()
    assert json.loads(explorer.get("data/manifest.json", {})[0])["picks"] == {"role": ["candidate"]}
    page = browser.open(export_to(tmp_path / "all", explorer, range(len(roles)), Quiet()).as_uri())
    page.locator("[role=status]", has_text=f"{roles.count('candidate')} of {len(roles)} shown").wait_for()
    becomes(lambda: chips(page), ["role: candidate"])
    others = [row for row, role in enumerate(roles) if role == "shared"]
    page.goto(export_to(tmp_path / "others", explorer, others, Quiet()).as_uri())  # no candidate is among them
    page.locator("[role=status]", has_text=f"{len(others)} of {len(others)} shown").wait_for()


def test_a_table_opens_with_all_pairs(tmp_path: Path) -> None:
    table = pl.DataFrame({"uid": ["a", "b"], "clipmem": [0.0, 1.0], "role": ["candidate", "shared"]})
    table.write_parquet(tmp_path / "scores.parquet")
    assert Explorer(open_subject(tmp_path / "scores.parquet")).columns.manifest["picks"] == {}


def test_presets_that_the_columns_allow(browser: Session, address: str, values: dict[str, np.ndarray]) -> None:
    page = browser.open(address)
    menu = page.locator(".views summary")
    becomes(menu.inner_text, "Most memorized")  # as the page opens
    candidates = np.flatnonzero(values["role"] == 0)
    for name, column, sign in (
        ("Least memorized", "clipmem", 1),
        ("Fell most", "clipmem_change", 1),
        ("Rose most", "clipmem_change", -1),
        ("Most memorized", "clipmem", -1),
    ):
        page.keyboard.press("v")
        page.get_by_role("button", name=name).press("Enter")
        order = candidates[np.argsort(sign * values[column][candidates], kind="stable")]
        becomes(lambda order=order: cards(page)[:8], order[:8].tolist())
        assert menu.inner_text() == name
        assert page.locator(".views[open]").count() == 0
    page.go_back()  # each is an address of its own
    becomes(menu.inner_text, "Rose most")
    page.keyboard.press("r")
    becomes(menu.inner_text, "Fell most")
    page.keyboard.press("/")
    page.keyboard.type("red")
    becomes(menu.inner_text, "Views")


def test_suspects_are_a_preset_in_the_order_of_curate(browser: Session, tmp_path: Path) -> None:
    uids = [f"{k:032x}" for k in range(40)]
    columns = {"is_suspect": [k in {3, 7, 30} for k in range(40)], "score": [float(k) for k in range(40)]}
    pl.DataFrame({"uid": uids, "clipmem": [1.0 - k for k in range(40)], **columns}).write_parquet(
        tmp_path / "s.parquet"
    )
    explorer = Explorer(open_subject(tmp_path / "s.parquet"))
    page = browser.open(export_to(tmp_path / "out", explorer, range(40), Quiet()).as_uri())
    page.keyboard.press("v")
    page.get_by_role("button", name="Suspects (3)").click()
    becomes(lambda: cards(page), [30, 7, 3])
    assert chips(page) == ["suspect: yes"]
    assert page.get_by_role("button", name="Rose most").count() == 0  # no second run


@pytest.mark.slow
def test_views_are_saved_opened_replaced_and_forgotten(browser: Session, address: str) -> None:
    page = browser.open(address + "#q=red&sort=-f_alignment&pair=7")
    page.locator(".card").first.wait_for()
    red = shown(page)

    def save(name: str) -> None:
        page.keyboard.press("v")
        page.get_by_label("Name of this view").fill(name)
        page.keyboard.press("Enter")

    save("red <b>\u202e")
    becomes(page.locator(".views summary").inner_text, "red <b>\\u202e")
    page.keyboard.press("Escape")
    becomes(lambda: page.evaluate("document.activeElement.id"), "views")
    page.keyboard.press("x")
    shows(page, ROWS)
    page.keyboard.press("1")
    other = browser.more(address)  # another window has it too
    other.keyboard.press("v")
    other.get_by_role("button", name="red <b>").first.click()
    shows(other, red)
    becomes(lambda: hash_of(other), "#q=red&sort=-f_alignment")
    save("red <b>\u202e")  # the same name: of all pairs now
    page.get_by_role("button", name="Forget red").wait_for()
    assert page.locator("ul[aria-label='Saved views'] li").count() == 1
    save("  ")
    page.get_by_role("alert").get_by_text("Give the view a name.").wait_for()
    page.get_by_role("button", name="Forget red").click()
    becomes(page.locator("ul[aria-label='Saved views'] li").count, 0)
    page.reload()
    page.keyboard.press("v")
    assert page.locator("ul[aria-label='Saved views'] li").count() == 0


@pytest.mark.parametrize(
    "stored", ["", "{", "null", "7", '{"name": "a"}', '["a", null, {"name": 1, "address": "q=a"}, {"name": "b"}]']
)
def test_damaged_saved_views_are_none(browser: Session, address: str, stored: str) -> None:
    page = browser.open(address)
    cards(page)
    page.evaluate("text => localStorage.setItem('clipmem-views-synthetic-600', text)", stored)
    page.keyboard.press("v")
    page.get_by_label("Name of this view").fill("mine")
    assert page.locator("ul[aria-label='Saved views'] li").count() == 0
    page.keyboard.press("Enter")
    becomes(page.locator("ul[aria-label='Saved views'] li").count, 1)


def test_a_browser_that_stores_nothing_says_so(browser: Session, address: str) -> None:
    page = browser.open(address)
    cards(page)
    page.evaluate(
        "() => { Storage.prototype.setItem = () => { throw new DOMException('full', 'QuotaExceededError') } }"
    )
    page.keyboard.press("v")
    page.get_by_label("Name of this view").fill("mine")
    page.keyboard.press("Enter")
    page.get_by_role("alert").get_by_text("This browser stores nothing").wait_for()
    page.locator("ul[aria-label='Saved views'] li").wait_for()  # for now


def test_both_ends_of_a_range_are_typed(browser: Session, address: str, values: dict[str, np.ndarray]) -> None:
    page = browser.open(address + "#view=gallery")
    low, high = page.get_by_label("Lowest CLIPMem", exact=True), page.get_by_label("Highest CLIPMem", exact=True)
    low.fill("0.05")
    page.keyboard.press("Tab")  # nothing applies before Enter
    page.keyboard.type("0.3")
    assert shown(page) == ROWS
    page.keyboard.press("Enter")
    inside = (values["clipmem"] >= 0.05) & (values["clipmem"] <= 0.3)
    shows(page, inside.sum())
    becomes(lambda: (chips(page), hash_of(page)), (["CLIPMem 0.05 to 0.3"], "#in.clipmem=0.05..0.3"))
    low.fill("")
    page.keyboard.press("Enter")
    becomes(lambda: chips(page), ["CLIPMem at most 0.3"])
    high.fill("9")
    page.keyboard.press("Escape")  # as it was
    assert high.input_value() == "0.3"
    page.locator("body").press("x")
    shows(page, ROWS)
    assert high.input_value() == ""
    exact = float(np.sort(values["g_alignment"])[100])  # a bound as it is in the file: the pair itself is inside
    page.get_by_label("Highest A(g)", exact=True).fill(f"\N{MINUS SIGN}{-exact}" if exact < 0 else repr(exact))
    page.keyboard.press("Enter")
    shows(page, 101)


@pytest.mark.parametrize("text", ["abc", "0,5", "1e999", "0x10", "--1", "Infinity", "NaN", "<b>", "1 2"])
def test_what_is_no_number_is_refused_and_told(browser: Session, address: str, text: str) -> None:
    page = browser.open(address + "#in.clipmem=0..0.1")
    cards(page)
    before = shown(page)
    field = page.get_by_label("Lowest CLIPMem", exact=True)
    field.fill(text)
    page.keyboard.press("Enter")
    page.get_by_role("alert").get_by_text(f"“{text}” is not a number such as 0.5").wait_for()
    assert field.get_attribute("aria-invalid") == "true"
    assert (shown(page), hash_of(page)) == (before, "#in.clipmem=0..0.1")
    field.fill("0.2")
    page.keyboard.press("Enter")
    page.get_by_role("alert").get_by_text("The lowest, 0.2, is above the highest, 0.1").wait_for()
    field.fill("0.05")
    page.keyboard.press("Enter")
    page.get_by_role("alert").wait_for(state="detached")
    becomes(lambda: chips(page), ["CLIPMem 0.05 to 0.1"])


def test_histograms_have_ends_counts_and_a_log_scale(
    browser: Session, address: str, values: dict[str, np.ndarray]
) -> None:
    page = browser.open(address)
    facet = page.locator("section[aria-label='CLIPMem']")
    plot = facet.locator(".plot")
    shows(page, (values["role"] == 0).sum())
    box = plot.bounding_box()
    assert box["height"] >= 72
    low, high = float(values["clipmem"].min()), float(values["clipmem"].max())
    signed = [f"{end:+.3f}".replace("-", "\N{MINUS SIGN}") for end in (low, high)]
    assert facet.locator(".ends span").all_inner_texts() == signed
    bins = np.clip(((values["clipmem"] - low) * (48 / (high - low))).astype(int), 0, 47)
    candidate = values["role"] == 0
    tallest = int(np.bincount(bins).argmax())
    becomes(plot.locator(".most").inner_text, str(np.bincount(bins).max()))
    page.mouse.move(box["x"] + box["width"] * (tallest + 0.5) / 48, box["y"] + 30)
    inside = f"{(bins[candidate] == tallest).sum()} of {(bins == tallest).sum()} pairs"
    becomes(lambda: inside in plot.locator(".pointed").inner_text(), True)
    page.mouse.move(0, 0)
    becomes(plot.locator(".pointed").inner_text, "")
    assert inside in plot.locator("svg").get_attribute("aria-label")
    slider = facet.get_by_role("slider", name="CLIPMem: lowest shown")
    slider.focus()
    first = f"{(bins[candidate] == 0).sum()}"
    becomes(lambda: f": {first}" in plot.locator(".pointed").inner_text(), True)
    page.keyboard.press("PageUp")
    sixth = f": {(bins[candidate] == 6).sum()}"
    becomes(lambda: sixth in plot.locator(".pointed").inner_text(), True)
    becomes(lambda: sixth in slider.get_attribute("aria-valuetext"), True)
    before = plot.locator("path").first.get_attribute("d")
    page.get_by_label("Log scale of counts").check()
    becomes(lambda: plot.locator("path").first.get_attribute("d") != before, True)
    becomes(lambda: "counts=log" in hash_of(page), True)


def test_all_captions_are_searched_and_matches_highlighted(browser: Session, tmp_path: Path) -> None:
    texts = ["a red dog", "dogs and a <b>Dog</b>", "cat", "a doghouse"] * 2
    others = ["Manila", "none", "the DOG of a manila envelope", "dog-like (dog)"] * 2
    page = browser.open(write_view(tmp_path, 8, captions=texts, others=others).as_uri())
    cards(page)
    page.keyboard.press("/")
    page.keyboard.type("manila")
    page.locator("[role=status]", has_text="4 of 8 shown").wait_for()
    first = page.locator(".card", has_text="the DOG of").first
    assert first.locator(".caption").inner_text() == "other captionthe DOG of a manila envelope"
    assert first.locator("mark").all_inner_texts() == ["manila"]
    field = page.get_by_label("Search captions")
    assert "whole words" in field.get_attribute("title")
    field.fill("dog -w")
    page.locator("[role=status]", has_text="8 of 8 shown").wait_for()
    page.locator("mark").first.wait_for()
    becomes(lambda: chips(page), ["search: dog -w"])
    card = page.locator(".card", has_text="dogs and").first
    becomes(card.locator("mark").all_inner_texts, ["Dog"])
    becomes(page.locator(".card", has_text="dog-like").first.locator("mark").all_inner_texts, ["dog", "dog"])
    field.fill("dog -w -like")
    page.locator("[role=status]", has_text="6 of 8 shown").wait_for()  # "like" is a word of dog-like
    field.fill("do")
    becomes(page.locator(".card mark").count, 10)
    field.fill("do -w")
    page.locator(".empty").wait_for()
    field.fill(".* ( [ \\ ^$")
    page.locator(".empty").wait_for()
    field.fill("")
    page.locator(".card", has_text="a red dog").first.click()
    page.locator(".detail .captions").wait_for()
    field.fill("red -w")
    becomes(page.locator(".detail mark").all_inner_texts, ["red"])


def test_all_captions_of_a_run_are_in_the_searched_column(finished: Any) -> None:
    columns = Columns(open_subject(finished.path))
    texts = (columns.folder / "all_captions.strings.bin").read_text(encoding="utf-8").split("\0")
    rows = np.flatnonzero(columns.values("planted") == 1).tolist()[:2] + list(range(5))
    for row in rows:
        expected = [caption["text"] for caption in columns.details(row)["captions"]]  # type: ignore[index]
        assert len(expected) > 1
        assert texts[columns.values("all_captions")[row]].split("\x1f") == expected


@pytest.mark.slow
@pytest.mark.skipif(not AXE.is_file(), reason="no axe-core: npm ci in src/clipmem/report/explorer/app")
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [420, 1024, 1440])
def test_filters_views_and_selections_are_accessible(browser: Session, address: str, scheme: str, width: int) -> None:
    page = browser.open(address + "#q=red&is.role=candidate&in.clipmem=0.05..0.3", color_scheme=scheme, bypass_csp=True)
    page.set_viewport_size({"width": width, "height": 900})
    page.locator(".card mark").first.wait_for()
    page.keyboard.press("a")
    page.locator(".card.selected").first.wait_for()
    page.get_by_label("Lowest CLIPMem", exact=True).fill("x")
    page.keyboard.press("Enter")
    page.keyboard.press("Escape")
    page.keyboard.press("v")
    page.get_by_label("Name of this view").fill("red ones")
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Forget red ones").wait_for()
    page.add_script_tag(path=AXE)
    serious = "found.violations.filter(one => ['serious', 'critical'].includes(one.impact))"
    nodes = "all => all.map(one => [one.id, one.nodes[0].html, one.nodes[0].failureSummary])"
    assert page.evaluate(f"axe.run(document).then(found => ({nodes})({serious}))") == []
    wide = page.evaluate("document.documentElement.scrollWidth")
    assert wide <= width
    box = page.locator(".menu").bounding_box()
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= width


def test_a_range_beyond_the_data_shows_nothing_and_keeps_its_ends_in_sight(browser: Session, address: str) -> None:
    page = browser.open(address)
    cards(page)
    page.get_by_label("Lowest CLIPMem", exact=True).fill("100")
    page.keyboard.press("Enter")
    shows(page, 0)
    slider = page.get_by_role("slider", name="CLIPMem: lowest shown", exact=True)
    assert "pairs" in slider.get_attribute("aria-valuetext")  # of the last bar
    box, plot = slider.bounding_box(), page.locator("section[aria-label='CLIPMem'] .plot").bounding_box()
    assert plot["x"] <= box["x"] <= plot["x"] + plot["width"]
