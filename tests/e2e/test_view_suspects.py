"""From suspects to cleaned data without a run: curate, look, mark, curate again; folders that moved or are hostile."""

import io
import json
import shlex
import shutil
import threading

import numpy as np
import polars as pl
import pytest
from PIL import Image

from clipmem.base.errors import InputError
from clipmem.base.hashing import file_sha256
from clipmem.base.marks import append_marks
from clipmem.base.sections import DataSection
from clipmem.data.decoding import shrink
from clipmem.data.sources import open_source
from clipmem.data.sources.emoji import emoji_table
from clipmem.report.explorer.columns import Columns
from clipmem.report.explorer.server import Explorer, Server
from clipmem.report.explorer.subject import open_subject
from clipmem.study import curating
from tests.e2e.browser import becomes, needs_browser, started
from tests.e2e.running import clip
from tests.e2e.test_view import serve
from tests.e2e.test_view_app import cards

N, WRONG = 150, 24


def uids_of(path):
    return set(open_source(DataSection(path=str(path))).pairs()["uid"])


def curated(folder, n, wrong):
    """Curate a folder of images with captions, some those of others and one a file name; returns what it printed."""
    table = emoji_table().unique("unicode", keep="first", maintain_order=True).head(n)
    captions = [own[0] for own in table["captions"]]
    rows = np.random.default_rng(0).permutation(n)[:wrong]
    given = list(captions)
    for row, other in zip(rows, np.roll(rows, 1), strict=True):
        given[row] = captions[other]
    given[int(rows[0])] = "IMG_0042.webp"  # a suspect by rule, whose score is low
    (folder / "my photos").mkdir()
    lines = [json.dumps({"file_name": f"{row}.webp", "text": text}) for row, text in enumerate(given)]
    (folder / "my photos" / "metadata.jsonl").write_text("\n".join(lines))
    for row, image in enumerate(table["image"]):
        (folder / "my photos" / f"{row}.webp").write_bytes(image["bytes"])
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        done = clip("curate", "my photos", "--out", "the suspects")
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The folder, with the suspects in it, and what curate printed."""
    folder = tmp_path_factory.mktemp("suspects")
    return folder, curated(folder, N, WRONG)


@pytest.fixture
def folder(made, tmp_path, monkeypatch):
    """A copy of it, the working directory."""
    copy = shutil.copytree(made[0], tmp_path / "copy")
    monkeypatch.chdir(copy)
    return copy


def document_of(folder):
    return json.loads((folder / "the suspects" / "curate.json").read_text())


def ranking_fails(*_, **__):
    raise AssertionError("ranked again")


def test_the_command_that_curate_prints_opens_the_list_in_its_order(made, folder):
    command = next(line for line in made[1].splitlines() if "clipmem view" in line).partition(": ")[2]
    assert shlex.split(command) == ["clipmem", "view", "the suspects"]
    table = pl.read_parquet("the suspects/suspects.parquet")
    assert not table["score"].is_sorted(descending=True)  # of suspects by rule
    assert table["is_suspect"].cast(pl.Int8).is_sorted(descending=True)
    server, ask = serve(folder / "the suspects")
    with server:
        manifest = ask("data/manifest.json").content
        assert manifest["sort"] == {"column": "suspect_rank", "descending": False}
        ranks = np.frombuffer(ask("data/columns/suspect_rank.bin").content, "<i4")
        np.testing.assert_array_equal(ranks, np.arange(1, table.height + 1))
        first = ask("pairs/0.json").content
        assert first["uid"] == table["uid"][0]
        shown = Image.open(io.BytesIO(ask("thumbs/0.webp?size=256").content)).convert("RGB")
        stored = open_source(DataSection(path="my photos"))
        reference = stored.pairs().filter(uid=table["uid"][0])["image"].item()
        expected = shrink(stored.read([reference])[0], 256)
        assert np.abs(np.asarray(shown, float) - np.asarray(expected.convert("RGB"), float)).mean() < 8  # WebP again
        server.shutdown()


@pytest.mark.slow
@needs_browser
def test_the_first_card_is_the_first_suspect_with_its_image(folder):
    table, captions = pl.read_parquet("the suspects/suspects.parquet"), {}
    for line in (folder / "my photos" / "metadata.jsonl").read_text().splitlines():
        one = json.loads(line)
        captions[one["file_name"]] = one["text"]
    pairs = open_source(DataSection(path="my photos")).pairs()
    with Server(Explorer(open_subject(folder / "the suspects"))) as server, started() as browser:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        page = browser.open(f"{server.address}#view=gallery")
        assert cards(page)[:8] == list(range(8))
        card = page.locator(".card").first
        becomes(card.locator(".caption").inner_text, pairs.filter(uid=table["uid"][0])["captions"].item()[0])
        card.locator("img").wait_for()
        page.wait_for_function("() => document.querySelector('.card img').naturalWidth > 0")
        page.select_option("#sort", "probability")  # read from its other end
        page.locator(".order button", has_text="high first").wait_for()
        page.select_option("#sort", "suspect_rank")
        page.locator(".order button", has_text="low first").wait_for()
        becomes(lambda: cards(page)[:8], list(range(8)))
        assert browser.errors == browser.outside == []
        server.shutdown()


@pytest.mark.slow
def test_marks_decide_the_cleaned_data_without_ranking_again(folder, monkeypatch):
    before = pl.read_parquet("the suspects/suspects.parquet")
    suspects = before["is_suspect"].sum()
    assert 0 < suspects < N
    fine, wrong = 0, N - 1
    server, ask = serve(folder / "the suspects")
    with server:
        marks = [{"row": fine, "mark": "fine"}, {"row": wrong, "mark": "wrong"}, {"row": 5, "mark": "unsure"}]
        assert ask("marks", method="POST", body=marks).status == 200
        server.shutdown()
    monkeypatch.setattr(curating, "rank", ranking_fails)
    done = clip("curate", "my photos", "--out", "the suspects", "--write", "clean")
    assert done.returncode == 0, done.stderr
    said = " ".join(done.stdout.split())
    assert "last ranking, which was used again" in said
    assert "1 marked wrong, 1 marked fine" in said
    document = document_of(folder)
    assert (document["reused"], document["marks"]["wrong"], document["marks"]["fine"]) == (True, 1, 1)
    assert (document["written"]["read"], document["written"]["removed"]) == (N, suspects)
    kept = uids_of("clean")
    assert before["uid"][wrong] not in kept
    assert before["uid"][fine] in kept
    assert kept == {*before.filter(~pl.col("is_suspect"))["uid"], before["uid"][fine]} - {before["uid"][wrong]}
    after = pl.read_parquet("the suspects/suspects.parquet")
    assert (after["uid"][0], after["uid"][-1]) == (before["uid"][wrong], before["uid"][fine])
    # the ranking is that before marks: without them the list is as it was
    cleared = [(uid, None, None) for uid in before["uid"][[fine, 5, wrong]]]
    append_marks(folder / "the suspects" / "suspects.marks.jsonl", cleared)
    assert clip("curate", "my photos", "--out", "the suspects").returncode == 0
    assert pl.read_parquet("the suspects/suspects.parquet").equals(before)
    assert document_of(folder)["marks"] is None


def _without(document, *names):
    return {name: value for name, value in document.items() if name not in names}


@pytest.mark.slow
@pytest.mark.parametrize(
    "change",
    [
        lambda document: {"made_with": document["made_with"]},
        lambda document: _without(document, "expected"),
        lambda document: document | {"expected": document["expected"] | {"pairs": ["x", 1, 2]}},
        lambda document: document | {"by_rule": None},
    ],
)
def test_a_document_that_somebody_wrote_is_made_again(folder, change):
    before = pl.read_parquet("the suspects/suspects.parquet")
    (folder / "the suspects" / "curate.json").write_text(json.dumps(change(document_of(folder))))
    done = clip("curate", "my photos", "--out", "the suspects")
    assert done.returncode == 0, done.stderr
    assert document_of(folder)["reused"] is False
    assert pl.read_parquet("the suspects/suspects.parquet").equals(before)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["probability", "neighbors", "caption"])
def test_a_table_that_somebody_wrote_is_made_again(folder, name):
    before, file = pl.read_parquet("the suspects/suspects.parquet"), folder / "the suspects" / "ranking.parquet"
    pl.read_parquet(file).with_columns(pl.lit(None, pl.Float64).alias(name)).write_parquet(file)
    document = document_of(folder)
    made_with = [document["made_with"][0], file_sha256(file)]
    (folder / "the suspects" / "curate.json").write_text(json.dumps(document | {"made_with": made_with}))
    done = clip("curate", "my photos", "--out", "the suspects")
    assert done.returncode == 0, done.stderr
    assert pl.read_parquet("the suspects/suspects.parquet").equals(before)


@pytest.mark.slow
def test_other_settings_or_data_rank_again_and_keep_the_marks(folder, monkeypatch):
    table = pl.read_parquet("the suspects/suspects.parquet")
    file = folder / "the suspects" / "suspects.marks.jsonl"
    append_marks(file, [*((uid, "wrong", None) for uid in table["uid"]), ("of no pair", "fine", None)])
    how = ("curate", "my photos", "--captions", 1, "--out", "the suspects")
    assert clip(*how, "--write", "clean").returncode == 2  # no pair stays
    with monkeypatch.context() as patch:  # but the ranking
        patch.setattr(curating, "rank", ranking_fails)
        assert clip(*how).returncode == 0
    assert document_of(folder)["marks"]["wrong"] == N
    append_marks(file, [(uid, None, None) for uid in table["uid"][1:]])
    (folder / "the suspects" / "ranking.parquet").write_bytes(b"damaged")
    given = file.read_bytes()
    done = clip(*how)
    assert done.returncode == 0, done.stderr
    assert (document_of(folder)["reused"], document_of(folder)["marks"]["wrong"]) == (False, 1)
    assert "1 mark is of pairs that are not in the list" in " ".join(done.stdout.split())
    lines = (folder / "my photos" / "metadata.jsonl").read_text().splitlines()
    (folder / "my photos" / "metadata.jsonl").write_text("\n".join(lines[:-1]))
    assert clip(*how).returncode == 0
    assert (document_of(folder)["reused"], document_of(folder)["pairs"]) == (False, N - 1)
    assert file.read_bytes() == given


def test_the_first_of_the_list_are_exported(folder):
    done = clip("view", "the suspects", "--export", "out", "--rows", 5)
    assert done.returncode == 0, done.stderr
    text = (folder / "out" / "data" / "details" / "0.js").read_text()
    details = json.loads(f"[{text[len('clipmemData(') :].rstrip()[:-1]}]")[1]
    assert [one["uid"] for one in details] == pl.read_parquet("the suspects/suspects.parquet")["uid"][:5].to_list()
    assert len(list((folder / "out" / "thumbs").iterdir())) == 5


def test_a_folder_that_moved_names_the_data_that_it_misses(folder, tmp_path, monkeypatch):
    elsewhere = shutil.copytree("the suspects", tmp_path / "elsewhere")
    assert Columns(open_subject(elsewhere)).manifest["thumbnails"]  # the working directory is the same
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError) as error:
        open_subject(elsewhere)
    assert "my photos" in error.value.got
    assert "--data" in error.value.hint
    done = clip("view", elsewhere, "--data", folder / "my photos", "--export", "out", "--rows", 3)
    assert done.returncode == 0, done.stderr
    shutil.rmtree(folder / "my photos")
    monkeypatch.chdir(folder)
    with pytest.raises(InputError, match="my photos"):
        open_subject(folder / "the suspects")
    # without a named document, the table alone
    assert not Columns(open_subject(folder / "the suspects" / "suspects.parquet")).manifest["thumbnails"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "section",
    [
        {"path": "/"},
        {"path": "/dev/null"},
        {"path": "/etc/passwd"},
        {"path": "../nowhere"},
        {"path": "nul\0"},
        {"path": "x" * 10_000},
        {"path": "a::b{0..9}"},
        {"path": 7},
        {"path": ".", "image_root": "/"},
        {"source": "csv", "path": "the suspects/suspects.parquet"},
        {"source": "hub", "path": "owner/name", "download": True},
        {"source": "nope"},
        {"unknown": "key"},
        ["path"],
        "emoji",
        7,
    ],
)
def test_hostile_documents_open_nothing(folder, section, monkeypatch):
    monkeypatch.setattr("clipmem.data.sources.huggingface._fetch", ranking_fails)
    (folder / "my photos" / "metadata.jsonl").unlink()
    file = folder / "the suspects" / "curate.json"
    file.write_text(json.dumps(document_of(folder) | {"section": section}))
    done = clip("view", "the suspects", "--export", "out")
    assert done.returncode == 2, done.stdout + done.stderr
    assert "data of" in done.stderr
    assert not (folder / "out").exists()


def test_the_list_of_embeddings_without_data_has_no_images(folder):
    file = folder / "the suspects" / "curate.json"
    file.write_text(json.dumps(document_of(folder) | {"section": None}))
    assert not Columns(open_subject(folder / "the suspects")).manifest["thumbnails"]


@pytest.mark.parametrize("text", ["", "{", "[]", "7", "[" * 100_000])
def test_damaged_documents_name_no_data_and_no_ranking(folder, text, monkeypatch):
    (folder / "the suspects" / "curate.json").write_text(text)
    done = clip("view", "the suspects", "--export", "out", "--rows", 3)
    assert (done.returncode, "Add --data" in done.stderr) == (0, True)
    monkeypatch.setattr(curating, "rank", ranking_fails)
    with pytest.raises(AssertionError, match="ranked again"):
        curating.curate_and_write("my photos", curating.Curating(out=folder / "the suspects"))


def test_only_pairs_that_the_sender_knows_are_shown(folder, tmp_path):
    """A received folder may name data of the receiver: a pair is shown only if the list has the hash of its content."""
    private = tmp_path / "private"
    private.mkdir()
    for row, color in enumerate(("red", "blue")):
        Image.new("RGB", (40, 40), color).save(private / f"{row}.png")
    captions = ["known to the sender", "a secret of the receiver"]
    lines = [json.dumps({"file_name": f"{row}.png", "text": text}) for row, text in enumerate(captions)]
    (private / "metadata.jsonl").write_text("\n".join(lines))
    pairs = open_source(DataSection(path=str(private))).pairs()
    known = next(uid for uid, texts in pairs.select("uid", "captions").iter_rows() if texts == captions[:1])
    sent = folder / "the suspects"
    table = pl.read_parquet(sent / "suspects.parquet").head(2).with_columns(uid=pl.Series([known, "0" * 32]))
    table.write_parquet(sent / "suspects.parquet")
    (sent / "curate.json").write_text(json.dumps(document_of(folder) | {"section": {"path": str(private)}}))
    done = clip("view", sent, "--export", "out")
    assert done.returncode == 0, done.stderr
    written = b"".join(file.read_bytes() for file in (folder / "out").rglob("*") if file.is_file())
    assert b"known to the sender" in written
    assert b"secret" not in written
    assert len(list((folder / "out" / "thumbs").iterdir())) == 1
