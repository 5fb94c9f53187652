"""The loop in a browser: a folder without a run, its suspects one by one, decisions by keys, and the cleaned data."""

import json
import re
import shutil
import threading
from contextlib import contextmanager

import polars as pl
import pytest

from clipmem.base.errors import InputError
from clipmem.base.marks import Entry, append_marks, read_marks
from clipmem.base.progress import Quiet
from clipmem.base.sections import DataSection
from clipmem.cli.view import open_explorer
from clipmem.curation.suspects import review
from clipmem.data.sources import open_source
from clipmem.report.explorer.server import Server
from clipmem.report.explorer.subject import open_subject
from clipmem.study import curating
from tests.e2e.browser import AXE, becomes, needs_browser, started
from tests.e2e.running import clip
from tests.e2e.test_view_suspects import curated, ranking_fails

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("review")
    curated(folder, 600, 90)  # AUROC .91, sd .01 between processors and seeds: the list is long on every machine
    return folder


@pytest.fixture
def folder(made, tmp_path, monkeypatch):
    """A copy of the data and their suspects, the working directory."""
    copy = shutil.copytree(made, tmp_path / "copy")
    monkeypatch.chdir(copy)
    return copy


@contextmanager
def opened(path, **settings):
    """Serve a folder with its review, as the command does; yields the page and the browser."""
    with Server(open_explorer(open_subject(path))) as server, started() as browser:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield browser.open(server.address, **settings), browser
        assert browser.errors == browser.outside == []
        server.shutdown()


def captions_of(path):
    """The hash of the image file and the first caption of each pair of data in a folder."""
    pairs = open_source(DataSection(path=str(path))).pairs()
    return [(uid[:16], texts[0]) for uid, texts in pairs.select("uid", "captions").sort("uid").iter_rows()]


def uids_and_captions(path):
    """The first caption of each pair by its uid."""
    return {
        uid: texts[0]
        for uid, texts in open_source(DataSection(path=str(path))).pairs().select("uid", "captions").iter_rows()
    }


def saved(page, file):
    """The marks in a file; the page's requests go on only while the browser is asked something."""
    page.title()
    return {uid: (mark.mark, mark.caption) for uid, mark in read_marks(file).items()}


def status(page):
    return page.locator(".status [role=status]").inner_text()


@needs_browser
def test_a_folder_is_cleaned_by_twenty_decisions(folder, monkeypatch):
    table = pl.read_parquet("the suspects/suspects.parquet")
    suspects = table.filter("is_suspect")
    before, files = uids_and_captions("my photos"), sorted((folder / "my photos").iterdir())
    contents = [file.read_bytes() for file in files]
    keys = 0
    with opened(folder / "the suspects") as (page, _):
        page.locator(".review img").first.wait_for()
        decided = {}
        for number in range(20):
            uid = suspects["uid"][number]
            becomes(page.locator(".about .said").inner_text, before[uid])
            assert page.locator(".why").inner_text().startswith("Why: ")
            suggested = suspects["suggested_caption"][number]
            key = "a" if number % 4 == 1 and suggested else "f" if number % 4 == 2 else "w"
            page.keyboard.press(key)
            decided[uid] = {"a": suggested, "f": before[uid], "w": None}[key]
            keys += 1
        becomes(lambda: status(page).startswith(f"20 of {len(suspects)} suspects reviewed"), True)
        becomes(lambda: "are expected to be wrong" in status(page), True, 60)
        page.locator(".lengths summary").click()
        curve = review(folder / "the suspects")["curve"]
        assert [each["length"] for each in curve] == [10, 20, 50, 100, 200, 500]
        names = ("precision", "low", "high", "recall")
        expected = [[each["length"], *(round(100 * each[name]) for name in names)] for each in curve]
        cells = page.locator(".lengths tbody tr").all_inner_texts  # the order follows the marks
        becomes(lambda: [[int(text) for text in re.findall(r"\d+", row)] for row in cells()], expected)
        monkeypatch.setattr(curating, "rank", ranking_fails)
        page.keyboard.press("e")
        page.keyboard.press("Enter")
        keys += 2
        becomes(lambda: page.locator(".cleaned [role=status]").inner_text().startswith("Wrote "), True, 120)
        said = page.locator(".cleaned [role=status]").inner_text()
    assert keys <= 30
    corrected_or_kept = sum(caption is not None for caption in decided.values())
    removed = len(suspects) - corrected_or_kept
    assert f"{table.height} pairs read" in said
    assert f"{removed} removed" in said
    after = captions_of("my-photos-cleaned")
    rest = {uid: before[uid] for uid in table.filter(~pl.col("is_suspect"))["uid"]}
    rest |= {uid: caption for uid, caption in decided.items() if caption is not None}
    assert sorted(after) == sorted((uid[:16], caption) for uid, caption in rest.items())
    assert [file.read_bytes() for file in files] == contents  # the data as they came are unchanged
    written = {file.name: file.read_bytes() for file in (folder / "my-photos-cleaned").rglob("*.webp")}
    assert len(written) == len(after)
    assert set(written.values()) <= set(contents)


@needs_browser
def test_a_caption_is_typed_taken_back_and_shown_to_others(folder):
    file = folder / "the suspects" / "suspects.marks.jsonl"
    first, second = pl.read_parquet("the suspects/suspects.parquet")["uid"][:2]
    with opened(folder / "the suspects", bypass_csp=True) as (page, browser):
        page.locator(".review .marking").wait_for()
        page.keyboard.press("t")
        page.keyboard.type("a wolf from memory")  # letters that are keys elsewhere
        page.keyboard.press("Enter")
        typed = {first: ("wrong", "a wolf from memory")}
        becomes(lambda: saved(page, file), typed)
        page.keyboard.press("f")
        becomes(lambda: saved(page, file), typed | {second: ("fine", None)})
        page.keyboard.press("z")
        becomes(lambda: saved(page, file), typed)
        page.keyboard.press("z")
        becomes(lambda: saved(page, file), {})
        becomes(lambda: status(page).startswith("0 of "), True)
        page.keyboard.press("t")
        page.keyboard.press("Escape")
        page.locator(".review .marking").wait_for()
        assert saved(page, file) == {}
        other = browser.more(page.url)
        other.locator(".review .marking").wait_for()
        other.keyboard.press("w")
        page.locator(".chip", has_text="1 mark changed in another window").wait_for()
        becomes(lambda: status(page).startswith("1 of "), True)
        if AXE.is_file():
            page.add_script_tag(path=str(AXE))
            for scheme in ("light", "dark"):
                page.emulate_media(color_scheme=scheme)
                assert page.evaluate("axe.run().then(result => result.violations.map(each => each.id))") == []
        for width in (1024, 420):
            page.set_viewport_size({"width": width, "height": 800})
            becomes(lambda: page.evaluate("document.documentElement.scrollWidth <= innerWidth"), True)


@needs_browser
def test_data_that_changed_since_are_not_written(folder):
    with opened(folder / "the suspects") as (page, _):
        page.locator(".review .marking").wait_for()
        page.keyboard.press("w")
        lines = (folder / "my photos" / "metadata.jsonl").read_text().splitlines()
        (folder / "my photos" / "metadata.jsonl").write_text("\n".join(lines[:-1]))
        page.keyboard.press("e")
        page.keyboard.press("Enter")
        said = page.locator(".cleaned [role=status]")
        becomes(lambda: said.inner_text().startswith("Not written: "), True, 120)
        assert "Run clipmem curate again" in said.inner_text()
        assert not (folder / "my-photos-cleaned").exists()
        (folder / "my photos" / "metadata.jsonl").write_text("\n".join(lines))
        (folder / "my-photos-cleaned").mkdir()
        (folder / "my-photos-cleaned" / "mine.txt").write_text("of the user")
        page.keyboard.press("Enter")
        becomes(lambda: "my-photos-cleaned" in said.inner_text(), True, 120)
    assert [file.name for file in (folder / "my-photos-cleaned").iterdir()] == ["mine.txt"]


def test_only_what_people_decided_is_applied(folder):
    suspects, before = (
        pl.read_parquet("the suspects/suspects.parquet").filter("is_suspect"),
        uids_and_captions("my photos"),
    )
    gone, corrected = suspects["uid"][:2]
    entries = [Entry(gone, "wrong"), Entry(corrected, "wrong", None, "a new caption"), Entry("of no pair", "wrong")]
    append_marks(folder / "the suspects" / "suspects.marks.jsonl", entries)
    state = review(folder / "the suspects")
    assert state["suspects"][:2] == sorted([gone, corrected])  # marked wrong: first, both alike
    assert {*suspects["uid"]} <= {*state["suspects"]}
    assert 2 <= state["expected"]["low"] <= state["expected"]["number"] <= state["expected"]["high"] <= len(suspects)
    written = curating.write_reviewed(folder / "the suspects", folder / "clean", Quiet(), correct=False, reviewed=True)
    assert (written["removed"], written["corrected"]) == (1, 1)
    expected = before | {corrected: "a new caption"}
    del expected[gone]
    expected = sorted((uid[:16], caption) for uid, caption in expected.items())
    assert sorted(captions_of("clean")) == expected
    # the command does the same
    command = json.loads((folder / "the suspects" / "curate.json").read_text())["command"]
    done = clip(*command[1:], "--write", "again", "--reviewed-only")
    assert done.returncode == 0, done.stderr
    assert sorted(captions_of("again")) == expected
    assert "--reviewed-only" in clip(*command[1:], "--reviewed-only").stderr


@pytest.mark.parametrize("name", ["curate.json", "ranking.parquet"])
def test_a_folder_without_a_ranking_is_refused(folder, name):
    (folder / "the suspects" / name).write_bytes(b"damaged")
    with pytest.raises(InputError) as error:
        review(folder / "the suspects")
    assert error.value.got == "no ranking"


def test_curate_opens_the_review(folder, monkeypatch):
    """--view serves what `clipmem view` does, after the list is printed."""
    served = []
    monkeypatch.setattr("clipmem.cli.view._serve", lambda explorer, *_, **__: served.append(explorer))
    shutil.rmtree("the suspects")
    assert clip("curate", "my photos", "--out", "the suspects", "--view").returncode == 0
    assert served[0].columns.manifest["review"]["folder"] == "my-photos-cleaned"
    assert served[0].columns.manifest["sort"] == {"column": "suspect_rank", "descending": False}
