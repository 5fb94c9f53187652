"""`~ words` in the explorer: live with the run's own text tower, exported with stored vectors, and what is refused."""

import base64
import http.client
import json
import re
import shutil
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import polars as pl
import pytest
import torch

from clipmem.base.errors import InputError
from clipmem.base.progress import Quiet
from clipmem.cli.view import open_explorer
from clipmem.report.explorer.export import export_to
from clipmem.report.explorer.server import Explorer
from clipmem.report.explorer.subject import open_subject
from clipmem.study.plan import PlannedStudy
from tests.e2e.browser import AXE, Session, becomes, needs_browser
from tests.e2e.test_view_app import cards, hash_of
from tests.e2e.test_view_live import serving
from tests.view_folder import write_view

QUERY = "flag of the face"  # words of the captions
ALL = "view=gallery&q=~+"


@pytest.fixture(scope="module")
def explorer(finished: Any) -> Explorer:
    return open_explorer(open_subject(finished.path))


@pytest.fixture(scope="module")
def exported(explorer: Explorer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first 60 pairs, in one file."""
    return export_to(tmp_path_factory.mktemp("meaning") / "page.html", explorer, range(60), Quiet())


@torch.inference_mode()
def reference(path: Path, text: str) -> dict[str, float]:
    """The mean cosine of each pair's image views with a text under f of seed 0, one at a time, by uid."""
    study, arrays = PlannedStudy(path), np.load(path / "embeddings/f/seed-0/image.npy")
    encoder = study.load(study.model("f", 0))
    encoder.module.eval()
    vector = encoder.encode_text(encoder.tokenize([text]))[0].double().numpy()
    vector = vector / np.linalg.norm(vector)
    return {
        uid: float(np.mean([view.astype(float) @ vector / np.linalg.norm(view.astype(float)) for view in views]))
        for uid, views in zip(study.pair_uids, arrays, strict=True)
    }


def ask(explorer: Explorer, text: str) -> tuple[int, Any]:
    """Ask the server; returns the status, and similarities or the error."""
    with serving(explorer) as server:
        connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=120)
        connection.request("GET", f"/{explorer.token}/meaning?q={quote(text)}")
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
    if answer.status == 200:
        return answer.status, np.frombuffer(content, "<f4")
    return answer.status, json.loads(content)["error"]


def first_cards(page: Any, order: list[int]) -> None:
    becomes(lambda: (seen := cards(page)) == order[: len(seen)], True, seconds=60)


def vectors_of(piece: list[str]) -> np.ndarray:
    codes, scales = map(base64.b64decode, piece)
    factors = np.frombuffer(scales, "<f4")[:, None]
    return np.frombuffer(codes, np.int8).reshape(len(factors), -1) * factors


def stored_order(page: Path, words: list[str]) -> list[int]:
    """The rows of an export by similarity to the mean of some words, by a second reader of its vectors."""
    piece = re.search(r'<script type="application/json" id="words">(.*?)</script>', page.read_text("utf-8"), re.DOTALL)
    assert piece
    stored = json.loads(piece[1])
    vectors, images = vectors_of(stored["vectors"]), vectors_of(stored["images"])
    return np.argsort(-images @ sum(vectors[stored["words"].index(word)] for word in words), kind="stable").tolist()


def test_the_server_answers_as_a_loop_over_the_model(explorer: Explorer, finished: Any) -> None:
    for text in (QUERY, "漢字 & <b>", "x" * 500):
        status, values = ask(explorer, text)
        expected = reference(finished.path, text)
        assert status == 200
        np.testing.assert_allclose(values, [expected[uid] for uid in explorer.columns.uids], atol=1e-5)
    for text in ("", "   ", "x" * 501):
        status, error = ask(explorer, text)
        assert status == 400
        assert "expected 1 to 500" in error


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["none", "damaged", "image-only"])
def test_a_run_without_its_text_tower_says_how_to_get_it(finished: Any, tmp_path: Path, damage: str) -> None:
    run = shutil.copytree(finished.path, tmp_path / "run")
    weights, recipe = run / "models/f/seed-0/open_clip_model.safetensors", run / "recipe.toml"
    if damage == "none":
        shutil.rmtree(run / "models")
    elif damage == "damaged":
        weights.write_bytes(b"no weights")
    else:
        text = recipe.read_text().replace('objective = "clip"', 'objective = "simclr"')
        text = text.replace('alignment = "clip"', 'alignment = "sslmem-image"').replace("\nviews = 0", "\nviews = 6")
        recipe.write_text(text)
    opened = open_explorer(open_subject(run))
    status, error = ask(opened, "a flag")
    assert status == 400
    assert re.search("run the study again|Run the study again|train.objective = 'clip'", error)
    page = export_to(tmp_path / "out", opened, range(5), Quiet())
    manifest = (page.parent / "data/manifest.js").read_text()
    assert '"words":0' in manifest
    assert json.dumps(error, ensure_ascii=False)[1:-1] in manifest
    assert not (page.parent / "data/words.js").exists()


def test_pairs_without_embeddings_name_the_way_to_them(finished: Any, tmp_path: Path) -> None:
    pl.read_parquet(finished.path / "scores.parquet").write_parquet(tmp_path / "scores.parquet")
    status, error = ask(open_explorer(open_subject(tmp_path / "scores.parquet")), "a flag")
    assert status == 400
    assert error.startswith("search by meaning: got no image embeddings of these pairs")
    assert "clipmem run" in error
    with pytest.raises(InputError, match="with their model"):
        Explorer(open_subject(finished.path)).meaning.similarities("a flag")


@pytest.mark.slow
@needs_browser
def test_a_query_orders_what_the_filters_leave(browser: Session, explorer: Explorer, finished: Any) -> None:
    expected = reference(finished.path, QUERY)
    values = np.array([expected[uid] for uid in explorer.columns.uids], np.float32)
    roles = explorer.subject.scores["role"].to_numpy()
    order = np.argsort(-values, kind="stable")
    with serving(explorer) as server:
        page = browser.open(server.address)
        before = cards(page)
        page.keyboard.press("/")
        page.keyboard.type("~")
        becomes(lambda: "type what the images show" in page.locator("[role=status]").first.inner_text(), True)
        assert cards(page) == before
        page.keyboard.type(f" {QUERY}")
        first_cards(page, order[roles[order] == "candidate"].tolist())  # the filter of the first view stays
        assert f"most similar to “{QUERY}” first" in page.locator("[role=status]").first.inner_text()
        assert page.locator(".chip").first.inner_text().startswith(f"by meaning: {QUERY}")
        best = cards(page)[0]
        similarity = f"{values[best]:.2f}".replace("-", "\u2212")
        assert f"similarity to the query {similarity}" in page.locator(".card").first.inner_text()
        assert page.locator("mark").count() == 0  # its words are not searched for in captions
        assert hash_of(page).count(f"q=~ {QUERY}") == 1
        page.keyboard.press("Escape")
        page.keyboard.press("r")  # the order by similarity has one direction
        page.keyboard.press("ArrowRight")
        page.keyboard.press("Enter")
        row = page.get_by_role("row", name="Similarity to the query")
        assert row.inner_text().endswith(similarity)
        page.goto(f"{server.address}#{ALL}{QUERY}")
        page.reload()
        first_cards(page, order.tolist())
        page.get_by_role("button", name=f"Remove filter by meaning: {QUERY}").click()
        first_cards(page, np.argsort(-explorer.columns.values("clipmem"), kind="stable").tolist())
        page.goto(f"{server.address}#{ALL}{QUERY}")
        first_cards(page, order.tolist())
        page.locator("#sort").select_option("f_alignment")
        becomes(lambda: page.locator(".chip", has_text="by meaning").count(), 0)
        first_cards(page, np.argsort(-explorer.columns.values("f_alignment"), kind="stable").tolist())
        assert "q=" not in hash_of(page)
    assert browser.outside == browser.errors == []


@needs_browser
def test_an_export_opened_from_disk_orders_by_the_vectors_of_words(browser: Session, exported: Path) -> None:
    page = browser.open(f"{exported.as_uri()}#{ALL}{QUERY}")
    first_cards(page, stored_order(exported, QUERY.split()))
    page.locator("#search").fill("~ Zebra, FLAG? quagga")
    first_cards(page, stored_order(exported, ["flag"]))
    alert = page.get_by_role("alert")
    assert alert.inner_text() == "Not among the words of this page: zebra, quagga."
    page.locator("#search").fill("~ zebra constructor <b>")
    becomes(alert.inner_text, "No word of the query is among the words of this page.")
    assert page.locator("[role=status] b").first.inner_text() == "60"  # in the order from before
    page.locator("#search").fill("~" + "flag " * 200)
    becomes(lambda: "at most 500 characters" in alert.inner_text(), True)
    page.locator("#search").fill("flag")
    becomes(page.locator(".warn").count, 0)
    page.locator("mark").first.wait_for()
    assert browser.outside == browser.errors == []


@needs_browser
def test_a_folder_and_one_file_have_the_same_order(browser: Session, explorer: Explorer, tmp_path: Path) -> None:
    pages = [export_to(tmp_path / name, explorer, range(30), Quiet()) for name in ("out", "page.html")]
    orders = []
    for path in pages:
        page = browser.open(f"{path.as_uri()}#{ALL}flag+face")
        page.locator(".card", has_text="similarity to the query").first.wait_for()
        orders.append(cards(page))
    assert orders[0] == orders[1] == stored_order(pages[1], ["flag", "face"])[: len(orders[0])]


@needs_browser
def test_an_export_without_vectors_says_so(browser: Session, tmp_path: Path) -> None:
    page = browser.open(f"{write_view(tmp_path, 9).as_uri()}#q=~+red+car")
    page.get_by_role("alert").wait_for()
    assert page.get_by_role("alert").inner_text() == "This page has no vectors of words."
    assert len(cards(page)) == 9


@pytest.mark.slow
@needs_browser
def test_the_page_says_why_a_server_has_no_answer(browser: Session, finished: Any, tmp_path: Path) -> None:
    run = shutil.copytree(finished.path, tmp_path / "run")
    shutil.rmtree(run / "models")
    with serving(open_explorer(open_subject(run))) as server:
        page = browser.open(f"{server.address}#q=~+red+car")
        page.get_by_role("alert").wait_for()
        assert "Run the study again." in page.get_by_role("alert").inner_text()
        assert cards(page)  # in the order from before
    assert browser.errors == []


@needs_browser
@pytest.mark.skipif(not AXE.is_file(), reason="no axe-core: npm ci in src/clipmem/report/explorer/app")
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [420, 1024, 1440])
def test_accessible(browser: Session, exported: Path, scheme: str, width: int) -> None:
    page = browser.open(f"{exported.as_uri()}#{ALL}flag+zebra", color_scheme=scheme, bypass_csp=True)
    page.set_viewport_size({"width": width, "height": 900})
    page.locator(".card", has_text="similarity to the query").first.wait_for()
    page.add_script_tag(path=AXE)
    serious = "found.violations.filter(one => ['serious', 'critical'].includes(one.impact))"
    assert page.evaluate(f"axe.run(document).then(found => {serious}.map(one => [one.id, one.nodes[0].html]))") == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
