"""One pair at a time in the browser, and exports of pairs: neighbors and back, marks that travel, one file."""

import io
import json
import shutil
import threading
from collections.abc import Generator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from huggingface_hub import SpaceCard
from PIL import Image

from clipmem.base.errors import InputError
from clipmem.base.marks import append_marks, marks_file
from clipmem.base.progress import Quiet
from clipmem.base.sections import DataSection
from clipmem.data.sources import open_source
from clipmem.report.explorer import export
from clipmem.report.explorer.server import Explorer
from clipmem.report.explorer.subject import open_subject
from clipmem.report.figures import light_colors
from tests.e2e.browser import AXE, Session, becomes, needs_browser
from tests.e2e.running import clip
from tests.e2e.test_view import HOSTILE, serve
from tests.e2e.test_view_app import cards, downloaded, hash_of, shows
from tests.e2e.test_view_live import serving
from tests.e2e.test_view_notebook import downloaded_in, key
from tests.tiny import write_parquet
from tests.view_folder import columns_of, write_view

pytestmark = needs_browser
PAIRS = 40
STRANGE = 'x",parent.x=1,"</script>'  # the name of a column, where names of files allow it


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    captions = ["a long caption " * 400, *(f"caption {row}" for row in range(1, 600))]
    return write_view(tmp_path_factory.mktemp("pairs"), 600, captions, images=600).as_uri()


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A table of scores, and its data, with hostile captions."""
    folder = tmp_path_factory.mktemp("scored")
    texts = [[HOSTILE[row % len(HOSTILE)][:200] + f" {row}"] for row in range(PAIRS)]
    data = write_parquet(folder / "data.parquet", PAIRS, captions=texts)
    uids = open_source(DataSection.model_validate({"path": str(data)})).pairs().select("uid")
    table = uids.with_row_index("clipmem").with_columns(pl.col("clipmem").cast(pl.Float64) / 10)
    strange = STRANGE.replace("/", "|")
    table.with_columns(pl.lit(0.5).alias(strange)).write_parquet(folder / "scores.parquet")
    return folder / "scores.parquet", data


def explorer_of(scored: tuple[Path, Path]) -> Explorer:
    return Explorer(open_subject(scored[0], str(scored[1])))


def manifest_of(address: str) -> Path:
    return Path(address.removeprefix("file://")).parent / "data" / "manifest.js"


def test_the_first_n_scrolls_to_the_neighbors(browser: Session, address: str) -> None:
    page = browser.open(f"{address}#pair=5")
    cards(page)
    page.keyboard.press("n")
    becomes(lambda: page.evaluate("document.activeElement.id"), "neighbors")
    panel = page.locator(".detail").bounding_box()
    becomes(lambda: page.locator("#neighbors h3").bounding_box()["y"] - panel["y"] < 120, True)
    page.wait_for_function("() => document.querySelectorAll('.neighbors ol').length === 4")
    page.wait_for_timeout(200)
    assert page.locator("#neighbors h3").bounding_box()["y"] - panel["y"] < 120


def test_back_returns_from_a_neighbor_to_its_place_in_the_list(browser: Session, address: str) -> None:
    page = browser.open(address)
    cards(page)
    page.keyboard.press("End")
    last = page.locator(".card.current")
    last.wait_for()
    start = hash_of(page)
    name = last.get_attribute("id")
    page.keyboard.press("n")
    lists = page.locator(".neighbors ol")
    for _ in range(2):
        lists.first.locator("button").first.wait_for()
        before = hash_of(page)
        lists.first.locator("button").nth(4).click()
        page.wait_for_function(
            "before => decodeURIComponent(location.hash.replaceAll('+', ' ')) !== before", arg=before
        )
    page.go_back()
    page.go_back()
    becomes(lambda: hash_of(page).split("&open")[0], start)
    page.locator(f"#{name}.current").wait_for()
    assert page.locator(f"#{name}").is_visible()
    page.go_forward()
    becomes(lambda: hash_of(page).split("&open")[0] != start, True)
    assert browser.errors == []


def test_neighbors_are_sent_to_the_gallery_and_back_returns(browser: Session, address: str) -> None:
    page = browser.open(f"{address}#pair=5&view=map")
    page.keyboard.press("n")
    page.get_by_role("button", name="Show them in the gallery").click()
    # the ten rows after it under f, and ten of every second row under g, with the pair itself
    expected = {5 + k for k in range(11)} | {5 + 2 * k for k in range(11)}
    shows(page, len(expected))
    page.keyboard.press("Escape")  # without the panel, all cards are to be seen
    becomes(lambda: set(cards(page)), expected)
    becomes(lambda: page.locator(".chip span").all_inner_texts(), ["nearest neighbors of one pair"])
    shared = hash_of(page)
    page.keyboard.press("x")
    becomes(lambda: page.locator(".chip").count(), 0)
    page.go_back()
    becomes(lambda: set(cards(page)), expected)
    assert hash_of(page) == shared
    page.keyboard.press("Home")
    page.keyboard.press("End")
    last = cards(page)[-1]
    page.keyboard.press("g")  # those of the pair that is current now
    becomes(lambda: set(cards(page)), {last + k for k in range(11)} | {last + 2 * k for k in range(11)})
    assert browser.errors == []


def test_neighbors_that_a_view_does_not_have_are_no_filter(browser: Session, tmp_path: Path) -> None:
    address = write_view(tmp_path, 12).as_uri()
    manifest = manifest_of(address)
    name, value = json.loads(f"[{manifest.read_text()[len('clipmemData(') :].rstrip()[:-2]}]")
    manifest.write_text(f"clipmemData({json.dumps(name)},{json.dumps(value | {'neighbors': False})})")
    page = browser.open(f"{address}#same=neighbors.3&pair=3")
    becomes(lambda: len(cards(page)), 12)
    page.keyboard.press("g")
    assert page.locator(".chip").count() == 0


def test_the_view_of_a_second_run_says_how_to_open_one(browser: Session, tmp_path: Path) -> None:
    address = write_view(tmp_path, 12).as_uri()
    manifest = manifest_of(address)
    name, value = json.loads(f"[{manifest.read_text()[len('clipmemData(') :].rstrip()[:-2]}]")
    manifest.write_text(f"clipmemData({json.dumps(name)},{json.dumps(value | {'compare': None})})")
    page = browser.open(address)
    cards(page)
    assert page.get_by_role("tab").count() == 3
    page.keyboard.press("4")
    page.get_by_text("clipmem view RUN --compare-with OTHER").wait_for()
    page.keyboard.press("1")
    cards(page)
    assert page.get_by_role("tab").count() == 3
    assert browser.errors == []


@pytest.mark.skipif(not AXE.is_file(), reason="no axe-core: npm ci in src/clipmem/report/explorer/app")
@pytest.mark.parametrize("width", [420, 1024, 1440])
def test_long_captions_scroll_by_keys(browser: Session, address: str, width: int) -> None:
    page = browser.open(f"{address}#pair=0&open=1", bypass_csp=True)
    page.set_viewport_size({"width": width, "height": 900})
    page.locator(".detail .facts").get_by_text("Source", exact=True).wait_for()
    page.add_script_tag(path=AXE)
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")["violations"]
    assert [one["id"] for one in found if one["impact"] in {"serious", "critical"}] == []
    captions = page.get_by_role("list", name="Captions")
    captions.focus()
    page.keyboard.press("End")
    becomes(lambda: captions.evaluate("one => one.scrollTop") > 100, True)


@pytest.mark.parametrize("name", ["shared", "page.html"])
def test_an_export_has_the_marks_of_the_run_and_runs_nothing_of_the_data(
    browser: Session, scored: tuple[Path, Path], tmp_path: Path, name: str
) -> None:
    file = marks_file(scored[0])
    file.unlink(missing_ok=True)
    explorer = explorer_of(scored)
    uids = explorer.columns.uids
    append_marks(file, [(uids[1], "wrong", "a </script> note"), (uids[2], "fine", None), (uids[3], "unsure", None)])
    append_marks(file, [(uids[3], None, None)])
    done = clip("view", scored[0], "--data", scored[1], "--export", tmp_path / name, "--rows", PAIRS - 1)
    assert done.returncode == 0, done.stderr
    opened = tmp_path / name if name.endswith(".html") else tmp_path / name / "index.html"
    assert f"Exported {PAIRS - 1} pairs: {opened}" in done.stdout
    page = browser.open(opened.as_uri())
    cards(page)
    page.wait_for_function("() => [...document.querySelectorAll('.card img')].some(one => one.naturalWidth > 0)")
    page.locator("[role=status]", has_text="2 marked").first.wait_for()
    assert page.locator("script:not([src]):not([type])").count() == (name == "page.html")
    assert page.evaluate("window.x") is None

    def kept() -> dict[str, tuple[str | None, str | None]]:
        lines = map(json.loads, downloaded(page, "marks, for the run folder").splitlines())
        return {one["uid"]: (one["mark"], one["note"]) for one in lines}

    assert kept() == {uids[1]: ("wrong", "a </script> note"), uids[2]: ("fine", None)}
    page.goto(f"{opened.as_uri()}#pair=0&open=1")
    page.reload()
    assert page.get_by_label("Reason of the mark").input_value() == "a </script> note"
    page.keyboard.press("m")
    becomes(lambda: kept()[uids[1]], ("memorized", None))
    page.keyboard.press("Backspace")
    page.reload()
    page.locator("[role=status]", has_text="1 marked").first.wait_for()
    assert kept() == {uids[1]: (None, None), uids[2]: ("fine", None)}
    assert browser.outside == browser.errors == []


@contextmanager
def static_host(folder: Path) -> Generator[str]:
    """Serve the files of a folder, as a static host does."""
    handler = partial(SimpleHTTPRequestHandler, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,)).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


def test_a_space_opens_in_the_frame_of_its_host(browser: Session, scored: tuple[Path, Path], tmp_path: Path) -> None:
    """Hugging Face shows a Space in a sandboxed frame of another origin; its card is read by their own library."""
    titled = shutil.copy(scored[0], tmp_path / 'a ": {strange} #title.parquet')
    out, host = tmp_path / "space", tmp_path / "host"
    done = clip("view", titled, "--data", scored[1], "--export", out, "--rows", PAIRS - 1, "--space")
    assert done.returncode == 0, done.stderr
    card = SpaceCard.load(out / "README.md")
    assert (card.data.sdk, card.data.title) == ("static", Path(titled).name)
    lfs = (out / ".gitattributes").read_text().split()[0]
    assert {file.name for file in out.rglob(lfs)} == {f"{row}.webp" for row in range(PAIRS - 1)}
    host.mkdir()
    sandbox = "allow-scripts allow-same-origin allow-downloads allow-forms allow-modals allow-popups"
    with static_host(out) as space, static_host(host) as other:
        frame = f'<iframe sandbox="{sandbox}" src="{space}/{card.data.app_file}" width="1400" height="800"></iframe>'
        (host / "index.html").write_text(frame)
        page = browser.open(other)
        inner = page.frame_locator("iframe")
        inner.locator(".card").first.wait_for()
        images = inner.locator(".card img")
        becomes(lambda: images.evaluate_all("all => all.some(one => one.naturalWidth > 0)"), True)
        key(inner, "w")
        inner.locator("[role=status]", has_text="1 marked").first.wait_for()
        [line] = downloaded_in(page, inner)
        assert line["mark"] == "wrong"
        page.reload()  # marks stay in the browser
        inner.locator("[role=status]", has_text="1 marked").first.wait_for()
    assert browser.outside == browser.errors == []


def test_one_file_of_too_many_pairs_or_bytes_names_the_rows_to_choose(
    scored: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    explorer, out = explorer_of(scored), tmp_path / "page.html"
    out.write_text("mine")
    with pytest.raises(InputError, match="an existing file, or a folder"):
        export.export_to(out, explorer, [0], Quiet())
    assert out.read_text() == "mine"
    out.unlink()
    size = export.export_to(tmp_path / "all.html", explorer, range(PAIRS), Quiet()).stat().st_size
    monkeypatch.setattr(export, "FILE_BYTES", size - 2000)
    with pytest.raises(InputError, match=r"--rows \d+, or export a folder") as error:
        export.export_to(out, explorer, range(PAIRS), Quiet())
    assert error.value.expected == "at most 0 MB in one file"
    monkeypatch.setattr(export, "MOST_IN_FILE", PAIRS - 1)
    with pytest.raises(InputError, match=f"--rows {PAIRS - 1}"):
        export.choose(explorer.columns, out, None, None, every=False)
    with pytest.raises(InputError, match=f"at most {PAIRS - 1} in one file"):
        export.export_to(out, explorer, export.choose(explorer.columns, out, None, None, every=True), Quiet())
    assert not out.exists()


class Recorder(Quiet):
    """Keeps what is reported."""

    def __init__(self) -> None:
        self.total, self.steps = 0, list[tuple[str, int]]()

    def begin(self, stage: str, total: int | None = None, unit: str = "") -> None:
        self.total = total or 0

    def advance(self, amount: int, note: str = "") -> None:
        self.steps.append((note, amount))


def test_progress_of_an_export_is_of_its_work(scored: tuple[Path, Path], tmp_path: Path) -> None:
    recorder = Recorder()
    export.export_to(tmp_path / "out", explorer_of(scored), range(PAIRS), recorder)
    assert sum(amount for _, amount in recorder.steps) == recorder.total == PAIRS
    assert [note for note, _ in recorder.steps] == ["details"] * PAIRS + ["images"] * PAIRS


def rgb(color: str) -> str:
    return f"rgb({', '.join(str(int(color[k : k + 2], 16)) for k in (1, 3, 5))})"


def test_roles_have_the_colors_of_the_report_and_the_map_shows_them_at_first(browser: Session, address: str) -> None:
    page = browser.open(f"{address}#view=map")
    light = light_colors()
    legend = page.get_by_role("list", name="Role").locator("li")
    legend.first.wait_for()
    names = legend.all_inner_texts()
    inks = legend.locator(".dot").evaluate_all("all => all.map(one => getComputedStyle(one).backgroundColor)")
    expected = {role: rgb(light[f"--{role}"]) for role in ("candidate", "independent", "shared", "external")}
    assert dict(zip(names, inks, strict=True)) == expected
    sides = page.evaluate(
        "['--f', '--g'].map(one => getComputedStyle(document.documentElement).getPropertyValue(one).trim())"
    )
    assert not {rgb(side) for side in sides} & set(inks)
    # opaque pixels by color: the shared pairs are as many as the others, and light
    page.wait_for_function("() => document.querySelector('.scatter canvas').width > 300")
    opaque = """() => {
        const canvas = document.querySelector('.scatter canvas'), counts = {}
        const data = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data
        for (let k = 0; k < data.length; k += 4) if (data[k + 3] > 150) {
            const near = [[184, 74, 0, 'candidate'], [0, 99, 160, 'independent'], [93, 102, 112, 'shared']]
                .find(([r, g, b]) => Math.abs(data[k] - r) + Math.abs(data[k + 1] - g) + Math.abs(data[k + 2] - b) < 30)
            if (near) counts[near[3]] = (counts[near[3]] ?? 0) + 1
        }
        return counts
    }"""
    page.wait_for_function(f"() => (({opaque})()).candidate > 300")
    counts = page.evaluate(opaque)
    assert counts["independent"] > 300
    assert counts.get("shared", 0) < 0.2 * counts["candidate"]
    page.get_by_label("Split histograms and map by").select_option("mark")
    page.get_by_role("list", name="Mark").get_by_text("unmarked").wait_for()


@pytest.mark.slow
def test_a_score_is_compared_with_the_noise_floor(browser: Session, address: str) -> None:
    page = browser.open(address)
    cards(page)
    roles, values = (columns_of(600)[name][1] for name in ("role", "clipmem"))
    external = int(np.flatnonzero((roles == 1) & (np.abs(values) > 0.04))[0])
    inside = int(np.flatnonzero((roles == 0) & (np.abs(values) < 0.039))[0])
    beyond = int(np.argmax(values))
    for row, text in (
        (external, "held out: chance alone"),
        (inside, "within the noise floor"),
        (beyond, f"{values[beyond] - 0.04:.3f} beyond the noise floor"),
    ):
        page.goto(f"{address}#pair={row}&open=1")
        page.reload()
        for place in (page.locator(f"#pair-{row} .beyond"), page.locator(".detail tbody td").first):
            place.get_by_text(text).or_(place.filter(has_text=text)).first.wait_for()
    assert "over seeds" in page.locator(".detail tbody td").first.inner_text()
    assert "expected score is 0" in page.locator(".beyond").first.get_attribute("title")
    page.goto(f"{address}#sort=-retrieval_score")
    page.reload()
    cards(page)
    assert page.locator(".beyond").count() == 0


def test_the_image_fills_the_panel_and_enter_enlarges_it(browser: Session, scored: tuple[Path, Path]) -> None:
    with serving(explorer_of(scored)) as server:
        page = browser.open(f"{server.address}#pair=3")
        cards(page)
        sizes = list[str]()
        page.on("request", lambda request: sizes.append(request.url) if "thumbs/3.webp" in request.url else None)
        page.keyboard.press("Enter")
        image = page.locator(".detail-top img")
        image.wait_for()
        becomes(lambda: image.evaluate("one => one.naturalWidth > 0"), True)
        assert image.bounding_box()["width"] > 0.9 * page.locator(".detail-top").bounding_box()["width"]
        assert any("size=1024" in url for url in sizes)
        for press in (lambda: page.keyboard.press("Enter"), image.click):
            press()
            large = page.get_by_role("dialog").locator("img")
            large.wait_for()
            assert large.bounding_box()["width"] > 600
            page.keyboard.press("Escape")
            becomes(page.get_by_role("dialog").count, 0)
        assert image.is_visible()  # Escape closed the image only
    assert browser.errors == []


def test_larger_images_are_checked_and_never_enlarged(scored: tuple[Path, Path]) -> None:
    thumbnails = explorer_of(scored).thumbnails
    small, large = (Image.open(io.BytesIO(thumbnails.get(0, size) or b"")) for size in (96, 1024))
    assert max(large.size) >= max(small.size)
    assert max(large.size) < 1024
    server, ask = serve(scored[0], data=str(scored[1]))
    with server:
        assert Image.open(io.BytesIO(ask("thumbs/0.webp?size=1024").content)).size == large.size
        assert ask("thumbs/0.webp?size=1025").status == 400
        server.shutdown()


def test_before_and_after_have_the_names_of_the_runs(browser: Session, scored: tuple[Path, Path]) -> None:
    table = pl.read_parquet(scored[0])
    other = scored[0].with_name("plain.parquet")
    table.with_columns(pl.col("clipmem").reverse()).write_parquet(other)
    with serving(Explorer(open_subject(scored[0], str(scored[1]), other))) as server:
        page = browser.open(f"{server.address}#view=compare&pair=0&open=1")
        labels = page.locator(".axis-label")
        becomes(labels.all_text_contents, ["CLIPMem in plain.parquet", "CLIPMem in scores.parquet"])
        for name in ("scores.parquet", "plain.parquet"):
            page.locator(".detail").get_by_role("columnheader", name=name, exact=True).wait_for()
        options = page.get_by_label("Sort").locator("option").all_inner_texts()
        assert options[:2] == ["CLIPMem", "change of CLIPMem"]
    assert browser.errors == []
