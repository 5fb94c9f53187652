"""The report and the comparison in a real browser: first screen, contents, folds, print, widths, axe."""

from typing import Any

import pytest

from clipmem.report.page import write_page
from clipmem.report.run import read_run
from tests import screens
from tests.e2e.browser import AXE, Session, needs_browser

pytestmark = needs_browser
WIDTHS = (420, 1024, 1440)


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("report")
    built = screens.RUNS["utility-dejavu"](folder / "study")
    return write_page(folder / "index.html", "study", read_run(built.folder, built.images)).as_uri()


def opened(browser: Session, address: str, width: int = 1440, **settings: Any) -> Any:
    page = browser.open(address, **settings)
    page.set_viewport_size({"width": width, "height": 900})
    return page


def test_the_first_screen_has_finding_figure_steps_and_pairs(browser: Session, address: str) -> None:
    page = opened(browser, address)
    assert "mean" in page.inner_text("h1")
    for part in ("h1", "#finding svg.wide", ".next", "#finding .card .image"):
        box = page.locator(part).first.bounding_box()
        assert box
        assert box["y"] + box["height"] <= 900, part
    assert page.locator("#finding .card").count() == 5
    assert page.evaluate("document.documentElement.scrollHeight") <= 7000


@pytest.mark.parametrize("width", WIDTHS)
def test_contents_stay_and_lead_to_their_section(browser: Session, address: str, width: int) -> None:
    page = opened(browser, address, width)
    page.locator("nav a[href='#reproduce']").click()
    contents, heading = page.locator("nav").bounding_box(), page.locator("#reproduce h2").bounding_box()
    assert 0 <= contents["y"] < 60
    assert 0 < heading["y"] < 900
    # on a small window the contents are above the heading, on a wide one beside it
    if width <= 1000:
        assert contents["y"] + contents["height"] <= heading["y"]
    else:
        assert contents["x"] + contents["width"] <= heading["x"]


@pytest.mark.parametrize("width", WIDTHS)
def test_no_width_scrolls_sideways_even_when_all_is_open(browser: Session, address: str, width: int) -> None:
    page = opened(browser, address, width)
    page.eval_on_selector_all("details", "all => all.forEach(each => { each.open = true; })")
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_a_fold_opens_by_key_and_all_are_printed(browser: Session, address: str) -> None:
    page = opened(browser, address)
    table = page.get_by_text("Mann-Whitney U")
    assert not table.is_visible()
    page.locator("#roles summary").focus()
    page.keyboard.press("Enter")
    assert table.is_visible()
    page.keyboard.press("Enter")
    page.emulate_media(media="print")
    heights = page.eval_on_selector_all("details", "all => all.map(each => each.getBoundingClientRect().height)")
    assert len(heights) > 3
    assert min(heights) > 60
    assert not page.locator("nav").is_visible()


needs_axe = pytest.mark.skipif(not AXE.is_file(), reason="no axe-core: npm ci in src/clipmem/report/explorer/app")


@pytest.mark.slow
@needs_axe
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(browser: Session, address: str, scheme: str) -> None:
    page = opened(browser, address, color_scheme=scheme, bypass_csp=True)
    page.eval_on_selector_all("details", "all => all.forEach(each => { each.open = true; })")
    page.add_script_tag(content=AXE.read_text(encoding="utf-8"))
    violations = page.evaluate("axe.run().then(found => found.violations.map(each => [each.id, each.nodes[0].html]))")
    assert violations == []


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("compared")
    return write_page(folder / "index.html", "comparison", screens.compared(folder)).as_uri()


def test_a_comparison_is_titled_by_its_verdict_and_names_the_runs_in_figures(browser: Session, compared: str) -> None:
    page = opened(browser, compared)
    title = page.inner_text("h1").replace("\N{MINUS SIGN}", "-").replace("\N{NO-BREAK SPACE}", " ")
    assert title == "1 of 3 runs memorizes less than plain: noisy -0.068 [-0.088, -0.048]"
    assert page.inner_text("main").count("no interval") == 0
    assert page.inner_text(".lede").count("no interval") == 1


@pytest.mark.parametrize("width", WIDTHS)
def test_a_comparison_fits_every_width(browser: Session, compared: str, width: int) -> None:
    assert opened(browser, compared, width).evaluate("document.documentElement.scrollWidth") <= width


@needs_axe
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_in_a_comparison(browser: Session, compared: str, scheme: str) -> None:
    page = opened(browser, compared, color_scheme=scheme, bypass_csp=True)
    page.add_script_tag(content=AXE.read_text(encoding="utf-8"))
    assert page.evaluate("axe.run().then(found => found.violations.map(each => each.id))") == []
