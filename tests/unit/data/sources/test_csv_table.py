"""CSV and JSON lines: what each line means, and which lines are listed."""

import json

import polars as pl
import pytest

from clipmem.base.errors import InputError
from clipmem.base.sections import DataSection
from clipmem.data.sources import detect, open_source
from tests.tiny import encoded_image


def opened(path, **settings):
    source = open_source(DataSection(path=str(path), **settings))
    pairs = source.pairs()
    return dict(zip(pairs["key"], pairs["captions"].to_list(), strict=True)), sorted(source.problems)


@pytest.mark.parametrize(
    ("header", "lines"),
    [
        ("filepath\ttitle", ["0.jpg\ta cat, red", "1.jpg\ttwo"]),
        ("Image_Path,similarity,Caption", ['0.jpg,0.5,"a cat, red"', "1.jpg,,two"]),
        ("file_name;text", ["0.jpg;a cat, red", "1.jpg;two"]),
        ("image|caption", ["0.jpg|a cat, red", "./1.jpg|two"]),
        ("image,caption", ["0.jpg,a cat, red", "1.jpg,two"]),  # a comma that nobody quoted
    ],
)
@pytest.mark.parametrize("ends", ["\n", "\r\n"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_csv_dialects(folder, header, lines, ends, encoding):
    path = folder / "pairs.csv"
    path.write_bytes(ends.join([header, *lines, ""]).encode(encoding))
    assert detect(str(path)).format == "csv"
    assert opened(path) == ({"0.jpg": ["a cat, red"], "1.jpg": ["two"]}, [])


def test_rows_of_one_image_are_one_pair_and_bad_ones_are_listed(folder):
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "page.jpg").write_bytes(b"<html>")
    (folder / "copy.jpg").write_bytes(encoded_image(1, form="JPEG"))
    lines = [
        "image,caption",
        "0.jpg,one",
        "1.jpg,alone",
        "0.jpg,two",
        "0.jpg,one",  # an exact duplicate: dropped, and no problem
        "0.jpg,",
        "gone.jpg,one",
        "gone.jpg,two",
        "empty.jpg,one",
        "page.jpg,one",
        ",one",
        "2.jpg,nan",
        f"3.jpg,{'x' * 100_001}",
        "copy.jpg,alone",
        ".,folder",
        "/dev/zero,never ends",
        '2.jpg,"over',
        'two lines"',
    ]
    path = folder / "pairs.csv"
    path.write_text("\n".join(lines))
    found, problems = opened(path)
    assert found == {"0.jpg": ["one", "two"], "1.jpg": ["alone"], "2.jpg": ["over\ntwo lines"]}
    assert problems == sorted(
        [
            ("pairs.csv", "line 6", "empty caption"),
            ("pairs.csv", "gone.jpg", "no such image file"),
            ("pairs.csv", "empty.jpg", "empty file"),
            ("pairs.csv", "page.jpg", "not an image of a known format"),
            ("pairs.csv", "line 11", "no image path"),
            ("pairs.csv", "line 12", "caption is NaN"),
            ("pairs.csv", "line 13", "caption of more than 100,000 characters"),
            ("pairs.csv", "copy.jpg", "same image and captions as an earlier record"),
            ("pairs.csv", ".", "not a regular file"),
            ("pairs.csv", "/dev/zero", "not a regular file"),
        ]
    )


def test_bytes_that_are_no_text_are_listed(folder):
    path = folder / "pairs.csv"
    path.write_bytes(b"image,caption\n0.jpg,caf\xe9\n1.jpg,caf\xc3\xa9\n\xff.jpg,gone\n")
    found, problems = opened(path)
    assert found == {"1.jpg": ["café"]}
    assert problems == [
        ("pairs.csv", "\\udcff.jpg", "no such image file"),
        ("pairs.csv", "line 2", "caption is not valid Unicode (save the file as UTF-8)"),
    ]


def test_columns_of_the_recipe(folder):
    path = folder / "pairs.csv"
    path.write_text('url,pic,alt,title,who,kind,things\nx,0.jpg,a cat,no,me,pet,"cat, sofa"\nx,1.jpg,a dog,no,me,,\n')
    columns = {"image_column": "pic", "caption_column": "alt", "group_column": "who"}
    section = DataSection(path=str(path), label_column="kind", object_column="things", **columns)
    pairs = open_source(section).pairs().sort("key")
    assert pairs.select("captions", "group", "label", "objects").rows() == [
        (["a cat"], "me", "pet", ["cat", "sofa"]),
        (["a dog"], "me", "", []),
    ]
    wrong = open_source(DataSection(source="csv", path=str(path), image_column="pick"))
    with pytest.raises(InputError) as error:
        wrong.pairs()
    assert str(error.value) == f"{path}: got no column 'pick'. Did you mean 'pic'?"


def test_json_lines(folder):
    path = folder / "pairs.json"  # detection looks at the content, not at the name
    lines = [
        json.dumps({"image": "0.jpg", "captions": ["one", "two", "", None, 3, float("nan")]}),
        "{broken",
        "[1]",
        json.dumps({"image": "1.jpg", "captions": "text"}),
        json.dumps({"image": 5, "captions": "text"}),
        json.dumps({"image": "2.jpg", "captions": ["\ud800"]}),
        json.dumps({"image": "3.jpg"}),
    ]
    path.write_text("\n".join(lines))
    assert detect(str(path)).format == "jsonl"
    found, problems = opened(path)
    assert found == {"0.jpg": ["one", "two"], "1.jpg": ["text"]}
    assert problems == sorted(
        [
            ("pairs.json", "line 1, caption 3", "empty caption"),
            ("pairs.json", "line 1, caption 4", "empty caption"),
            ("pairs.json", "line 1, caption 5", "caption is not text"),
            ("pairs.json", "line 1, caption 6", "caption is NaN"),
            ("pairs.json", "line 2", "line that is not JSON"),
            ("pairs.json", "line 3", "line that is not JSON"),
            ("pairs.json", "line 5", "no image path"),
            ("pairs.json", "line 6", "caption is not valid Unicode (save the file as UTF-8)"),
            ("pairs.json", "3.jpg", "no caption"),
        ]
    )


def test_tables_that_are_not_readable(tmp_path):
    (tmp_path / "metadata.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(InputError, match=r"metadata.parquet: got not readable as Parquet \("):
        opened(tmp_path)
    pl.DataFrame({"file_name": ["a.png"], "label": [1]}).write_parquet(tmp_path / "metadata.parquet")
    with pytest.raises(InputError) as error:
        opened(tmp_path)
    assert (
        str(error.value) == f"{tmp_path}/metadata.parquet: got no column 'captions'. Known columns: file_name, label."
    )
