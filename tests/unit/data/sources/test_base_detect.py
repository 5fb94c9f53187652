"""Detection: what is told, and the exact text when nothing fits."""

import gzip
import json

import polars as pl
import pytest

from clipmem.base.errors import InputError
from clipmem.base.sections import DataSection
from clipmem.data.sources import detect, open_source
from clipmem.data.sources.emoji import EmojiSource
from tests.tiny import encoded_image
from tests.unit.data.sources import formats
from tests.unit.data.sources.formats import coco, csv_file, some_pairs, write_csv

FORMATS = (
    "expected an image folder, CSV, JSON lines, COCO or Karpathy JSON, Flickr's text, tars, Parquet, or a folder "
    "saved by datasets. "
)
COLUMNS = "expected an image column (such as image or filepath) and a caption column (such as caption or title). "
SET = "Set data.image_column and data.caption_column, or data.source; see docs/data.md for all formats."
UNPACK = "Decompress it first, for example with gunzip."


def message(path, **settings):
    with pytest.raises(InputError) as error:
        detect(str(path), DataSection(**settings))
    return str(error.value)


@pytest.mark.parametrize(
    ("name", "content", "text"),
    [
        ("a.txt", b"", f"an empty file, {FORMATS}{SET}"),
        ("a.png", encoded_image(0), f"one image, {FORMATS}{SET}"),
        ("a.tar.gz", gzip.compress(b"x" * 600, mtime=0), f"a compressed file, {FORMATS}{UNPACK}"),
        (
            "a.json",
            b'{"images": [], "annotations": []}',
            f"JSON with the keys ['images', 'annotations'], {FORMATS}{SET}",
        ),
        ("b.json", b"[1, 2]", f"a JSON list, {FORMATS}{SET}"),
        ("c.json", b"[" * 100_000, f"text that begins '{'[' * 60}', {FORMATS}{SET}"),
        ("a.csv", b"url,caption\nhttp://x/a.jpg,b\n", f"a table with the columns ['url', 'caption'], {COLUMNS}{SET}"),
        ("a.bin", bytes(range(256)) * 4, f"a file of an unknown kind, {FORMATS}{SET}"),
    ],
)
def test_files_that_are_no_data_set(tmp_path, name, content, text):
    path = tmp_path / name
    path.write_bytes(content)
    assert message(path) == f"[data] path: got {str(path)!r}, {text}"


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl", "parquet"])
def test_misspelled_columns_are_shown_with_the_nearest_names(tmp_path, suffix):
    path = tmp_path / f"captions.{suffix}"
    table = pl.DataFrame({"imge": ["0.png", "1.png"], "captoin": ["a", "b"]})
    writers = {"csv": table.write_csv, "jsonl": table.write_ndjson, "parquet": table.write_parquet}
    writers.get(suffix, lambda file: table.write_csv(file, separator="\t"))(path)
    (tmp_path / "0.png").write_bytes(encoded_image(0))
    for named in (path, tmp_path):
        with pytest.raises(InputError) as error:
            detect(str(named))
        assert f"{str(path)!r}, " in error.value.got
        assert "with the columns ['imge', 'captoin']" in error.value.got
        assert error.value.expected.startswith("an image column")
        assert error.value.hint.startswith("Did you mean 'image' for 'imge' and 'caption' for 'captoin'?")


def test_an_empty_table_in_a_folder_is_named(tmp_path):
    (tmp_path / "0.png").write_bytes(encoded_image(0))
    (tmp_path / "captions.csv").touch()
    with pytest.raises(InputError) as error:
        detect(str(tmp_path))
    assert error.value.got.endswith(f"; {str(tmp_path / 'captions.csv')!r}, an empty file")


def test_paths_where_nothing_is(tmp_path):
    path = tmp_path / "none"
    assert message(path) == (
        f"[data] path: got {str(path)!r}, no such file or folder, {FORMATS}"
        "Check the path; for a data set of the Hugging Face hub, use hf-hub:OWNER/NAME."
    )
    path.mkdir()
    assert message(path) == f"[data] path: got {str(path)!r}, an empty folder, {FORMATS}{SET}"
    (path / "0.tar.gz").write_bytes(gzip.compress(b"x", mtime=0))
    assert message(path) == f"[data] path: got {str(path)!r}, a folder with 1 .gz, {FORMATS}{UNPACK}"


@pytest.mark.parametrize(
    ("before", "caption"), [("", "a\u2028b"), ("", "a\x85b"), ("\n\r\n", "a\u2029b"), ("", "a" * 70_000)]
)
def test_the_first_line_of_json_lines(folder, before, caption):
    path = folder / "pairs.jsonl"
    lines = [json.dumps({"image": f"{k}.jpg", "text": caption}, ensure_ascii=False) for k in range(2)]
    path.write_text(before + "\n".join(lines) + "\n", newline="", encoding="utf-8")
    assert detect(str(path)).format == "jsonl"
    assert open_source(DataSection(path=str(path))).pairs()["captions"].to_list() == [[caption]] * 2


def test_empty_lines_before_a_header(folder):
    path = folder / "pairs.csv"
    path.write_text("\n\nimage,caption\n0.jpg,a\n1.jpg,b,c,d,\n2.jpg\n")
    source = open_source(DataSection(path=str(path)))
    assert sorted(source.pairs()["captions"].to_list()) == [["a"], ["b,c,d,"]]
    assert [(one.key, one.reason) for one in source.problems] == [("line 6", "fewer cells than columns")]


@pytest.mark.parametrize("ending", ["tar", "parquet"])
def test_hidden_shards_are_not_read(tmp_path, ending):
    write = formats.webdataset if ending == "tar" else formats.parquet_struct
    there = write(tmp_path / "set", some_pairs())
    expected = open_source(DataSection(path=str(there))).pairs()
    write(there / ".old", some_pairs(9))
    (there / f"._0.{ending}").write_bytes(b"written by macOS")
    assert open_source(DataSection(path=str(there))).pairs().equals(expected)


def test_images_without_captions(tmp_path):
    for k in range(3):
        (tmp_path / f"{k}.png").write_bytes(encoded_image(k))
    (tmp_path / "notes.pdf").write_bytes(b"x")
    assert message(tmp_path) == (
        f"[data] path: got {str(tmp_path)!r}, a folder with 3 .png, 1 .pdf, expected captions: metadata.csv "
        f"(file_name, caption), or a .txt or .json file next to each image. {SET}"
    )


def test_parquet_of_other_columns(tmp_path):
    path = tmp_path / "a.parquet"
    pl.DataFrame({"url": ["x"], "caption": ["y"]}).write_parquet(path)
    assert (
        message(path) == f"[data] path: got {str(path)!r}, Parquet with the columns ['url', 'caption'], {COLUMNS}{SET}"
    )
    # the caption is the one that the recipe names
    pl.DataFrame({"image": [encoded_image(0)], "alt": ["y"]}).write_parquet(path)
    assert "Parquet with the columns ['image', 'alt']" in message(path)
    assert detect(str(path), DataSection(caption_column="alt")).reason == "Parquet with 'image' and 'alt'"


def test_a_folder_with_one_table_of_captions_is_that_table(tmp_path):
    path = coco(tmp_path, some_pairs())
    found = detect(str(tmp_path))
    assert found == ("coco", str(path), "JSON with images and caption annotations")
    assert open_source(DataSection(path=str(tmp_path))).pairs().height == 6
    other = path.with_name("captions_val2017.json")
    other.write_bytes(path.read_bytes())
    assert message(tmp_path) == (
        f"[data] path: got {str(tmp_path)!r}, a folder with 2 data sets: {path}, {other}, expected one data set. "
        "Set data.path to one of these files."
    )


def test_annotations_of_other_kinds_are_not_captions(tmp_path):
    path = tmp_path / "instances.json"
    path.write_text(json.dumps({"images": [{"id": 1, "file_name": "a"}], "annotations": [{"image_id": 1, "bbox": []}]}))
    assert "JSON with the keys ['images', 'annotations']" in message(path)


def test_nothing_is_the_shipped_emoji():
    assert isinstance(open_source(DataSection()), EmojiSource)
    assert isinstance(open_source(DataSection(source="")), EmojiSource)
    with pytest.raises(InputError) as error:
        open_source(DataSection(source="emoji", path="a.csv"))
    assert str(error.value) == (
        "[data] path: got 'a.csv' with source 'emoji', which is shipped with clipmem, expected no path. "
        "Set data.source to 'auto'."
    )


def test_data_without_a_usable_pair(tmp_path):
    path = write_csv(tmp_path / "a.csv", ("image", "caption"), [("none.jpg", b"", ["a", "b"]), ("no.jpg", b"", ["c"])])
    with pytest.raises(InputError) as error:
        open_source(DataSection(path=str(path))).pairs()
    assert str(error.value) == (
        f"[data] path: got {str(path)!r} without a usable pair (2 x no such image file, the first 'none.jpg'), "
        "expected at least one image with a caption. Check data.path, data.image_root and the columns; docs/data.md "
        "has examples of all formats."
    )


def test_the_folder_of_images_can_be_named(tmp_path):
    path = csv_file(tmp_path / "a", some_pairs())
    moved = tmp_path / "far" / "away" / "indeed"
    moved.mkdir(parents=True)
    table = path.rename(moved / "pairs.csv")
    with pytest.raises(InputError, match="6 x no such image file"):
        open_source(DataSection(path=str(table))).pairs()
    source = open_source(DataSection(path=str(table), image_root=str(tmp_path / "a")))
    assert source.pairs().height == len(source.read(source.pairs()["image"].to_list())) == 6
    with pytest.raises(InputError) as error:
        open_source(DataSection(path=str(table), image_root="nowhere")).pairs()
    assert (error.value.what, error.value.got) == ("[data] image_root", "'nowhere', which is not a folder")


def test_loops_of_links_near_the_images_are_skipped(tmp_path):
    table = coco(tmp_path / "data", some_pairs())
    for folder in (table.parent, tmp_path / "data", tmp_path):
        (folder / "loop").symlink_to("loop")
    assert open_source(DataSection(path=str(table))).pairs().height == 6


def test_large_json_is_told_by_its_ends(tmp_path, monkeypatch):
    monkeypatch.setattr("clipmem.data.sources.path_probe._PARSED", 300)
    for name in ("coco", "karpathy"):
        path = formats.FORMATS[name][1](tmp_path / name, some_pairs())
        assert path.stat().st_size > 300
        assert detect(str(path)).format == name
        path.write_text(path.read_text().replace("caption", "bbox").replace("sentences", "boxes"))
        assert "JSON of 0 MiB that begins '{\"" in message(path)


def test_a_split_where_there_are_none(tmp_path):
    path = csv_file(tmp_path, some_pairs())
    with pytest.raises(InputError) as error:
        open_source(DataSection(path=str(path), split="train"))
    assert (error.value.what, error.value.expected) == ("[data] split", "the default, ''")
    assert "'train' with the source 'csv'" in error.value.got
    assert "data.caption_column" in error.value.hint


def test_missing_files_and_sources_are_named(tmp_path):
    with pytest.raises(InputError) as error:
        open_source(DataSection(source="parquet", path=str(tmp_path / "none.parquet")))
    assert (error.value.what, error.value.expected[:15]) == ("[data] path", "a .parquet file")
    with pytest.raises(InputError, match=r"data source 'emojy': got an unknown name.* Did you mean 'emoji'"):
        open_source(DataSection(source="emojy"))
    (tmp_path / "x.parquet").write_text("no")
    with pytest.raises(InputError, match="not readable as Parquet"):
        open_source(DataSection(source="parquet", path=str(tmp_path / "x.parquet")))
