"""CSV, JSON lines, Flickr's dialects, COCO and Karpathy: what each line means, and which lines are listed."""

import json

import polars as pl
import pytest

from clipmem.base.errors import InputError
from clipmem.base.sections import DataSection
from clipmem.data.sources import detect, open_source
from tests.tiny import encoded_image
from tests.unit.data.sources.formats import karpathy, some_pairs


@pytest.fixture
def folder(tmp_path):
    for k in range(4):
        (tmp_path / f"{k}.jpg").write_bytes(encoded_image(k, form="JPEG"))
    return tmp_path


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


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("Flickr8k.token.txt", ["0.jpg#0\ta cat , red", '0.jpg#1\tit\'s "red"', "1.jpg#0\ttwo"]),
        (
            "results.csv",
            ["image_name| comment_number| comment", "0.jpg| 0| a cat , red", '0.jpg| 1   it\'s "red"', "1.jpg| 0| two"],
        ),
        ("captions.txt", ["image,caption", '0.jpg,"a cat , red"', '0.jpg,it\'s "red"', "1.jpg,two"]),
        ("captions.txt", ["image,caption", "0.jpg,a cat , red", '0.jpg,"it\'s ""red"""', "1.jpg,two"]),
        ("captions.txt", ["0.jpg,a cat , red", '0.jpg,it\'s "red"', "1.jpg,two"]),
        (
            "numbered.csv",
            ["image_name,comment_number,comment", '0.jpg,0,"a cat , red"', '0.jpg,1,it\'s "red"', "1.jpg,0,two"],
        ),
    ],
)
def test_flickr_dialects(folder, name, lines):
    path = folder / name
    path.write_text("\n".join(lines) + "\n")
    expected = {"0.jpg": ["a cat , red", 'it\'s "red"'], "1.jpg": ["two"]}
    found, problems = opened(path, source="flickr")
    assert {key: [caption.strip() for caption in captions] for key, captions in found.items()} == expected
    assert problems == []
    assert detect(str(path)).format in {"flickr", "csv"}
    found, problems = opened(path)
    assert ({key: [caption.strip() for caption in captions] for key, captions in found.items()}, problems) == (
        expected,
        [],
    )


def test_flickr_lines_that_are_broken_are_listed(folder):
    path = folder / "Flickr8k.token.txt"
    path.write_text(
        "0.jpg#0\tone\nnonsense\n1.jpg#0\t\n2.jpg.1#0\tthe name has a number\n1.jpg#1\ttwo\n0.jpg#1\tmore\n"
    )
    found, problems = opened(path)
    assert found == {"0.jpg": ["one", "more"], "1.jpg": ["two"]}
    assert problems == [
        ("Flickr8k.token.txt", "line 2", "line without an image and a caption"),
        ("Flickr8k.token.txt", "line 3", "empty caption"),
        ("Flickr8k.token.txt", "line 4", "line without an image and a caption"),
    ]


def test_coco_images_without_captions_and_captions_without_images(folder):
    path = folder / "captions.json"
    document = {
        "images": [{"id": k, "file_name": f"{k}.jpg"} for k in range(3)] + [{"id": 9}],
        "annotations": [
            {"image_id": 1, "id": 10, "caption": "a"},
            {"image_id": 7, "id": 11, "caption": "b"},
            {"image_id": 0, "id": 12, "caption": "c"},
            {"image_id": 1, "id": 13, "caption": ["d"]},
            {"image_id": 9, "id": 14, "caption": "e"},
        ],
    }
    path.write_text(json.dumps(document))
    found, problems = opened(path)
    assert found == {"1.jpg": ["a"], "0.jpg": ["c"]}
    assert problems == sorted(
        [
            ("captions.json", "annotation 11", "annotation of an unlisted image"),
            ("captions.json", "annotation 13", "caption is not text"),
            ("captions.json", "annotation 14", "no image path"),
            ("captions.json", "2.jpg", "no caption"),
        ]
    )
    path.write_text('{"images": [1], "annotations": []}')
    with pytest.raises(InputError) as error:
        opened(path, source="coco")
    assert (error.value.what, error.value.got) == (f"{path}", "JSON with another structure")
    path.write_text('{"images": [1], ')
    with pytest.raises(InputError, match=r"got a file that is not JSON. Check that the file is complete"):
        opened(path, source="coco")


def test_karpathy_train_has_restval(tmp_path):
    path = karpathy(tmp_path, some_pairs(8))
    assert sorted(opened(path)[0]) == [f"val2014/{k:04d}.png" for k in range(8)]
    assert sorted(opened(path, split="train")[0]) == [f"val2014/{k:04d}.png" for k in (0, 1, 4, 5)]
    assert sorted(opened(path, split="restval")[0]) == [f"val2014/{k:04d}.png" for k in (1, 5)]
    assert sorted(opened(path, split="val")[0]) == [f"val2014/{k:04d}.png" for k in (2, 6)]
    with pytest.raises(InputError) as error:
        opened(path, split="tset")
    assert str(error.value) == (
        "[data] split: got 'tset', expected one of ['restval', 'test', 'train', 'val']. Did you mean 'test'?"
    )


def test_the_folder_with_most_of_the_images_is_taken(tmp_path):
    """As in COCO: train2017 and val2017 are siblings, and captions_val2017.json means the second."""
    for name, numbers in (("train2017", (0, 1, 2)), ("val2017", (3, 4))):
        (tmp_path / name).mkdir()
        for k in numbers:
            (tmp_path / name / f"{k}.jpg").write_bytes(encoded_image(k, form="JPEG"))
    (tmp_path / "annotations").mkdir()
    path = tmp_path / "annotations" / "captions.csv"
    path.write_text("image,caption\n3.jpg,three\n4.jpg,four\n2.jpg,not there\n")
    source = open_source(DataSection(path=str(path)))
    pairs = source.pairs()
    assert sorted(pairs["image"]) == ["../val2017/3.jpg", "../val2017/4.jpg"]
    assert source.problems == [("captions.csv", "2.jpg", "no such image file")]


def test_imagefolder_lists_what_has_no_partner(tmp_path):
    for name in ("a/1.png", "a/2.png", "b/1.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(encoded_image(len(name) + ord(name[2]) + ord(name[0])))
    (tmp_path / "a" / "1.txt").write_text("one\n\ntwo\n")
    (tmp_path / "b" / "1.json").write_text('{"caption": "three", "kind": "pet"}')
    (tmp_path / "b" / "1.txt").write_text("not this one")
    (tmp_path / "b" / "5.txt").write_text("nothing beside it")
    (tmp_path / "README.txt").write_text("about")
    (tmp_path / "00000_stats.json").write_text("{}")
    found, problems = opened(tmp_path, label_column="kind")
    assert found == {"a/1.png": ["one", "two"], "b/1.png": ["three"]}
    assert problems == [
        ("a/2.png", "a/2.png", "no caption"),
        ("b/5.txt", "b/5.txt", "no image with the same name"),
    ]
    assert list(opened(tmp_path, split="a")[0]) == ["a/1.png"]
    with pytest.raises(InputError) as error:
        opened(tmp_path, split="c")
    assert (error.value.what, error.value.got, error.value.hint) == ("[data] split", "'c'", "Known folders: a, b.")
    # a metadata file counts instead, and tells which images belong
    (tmp_path / "a" / "metadata.csv").write_text("file_name,text\n1.png,by the table\n")
    found, problems = opened(tmp_path)
    assert found == {"a/1.png": ["by the table"]}
    assert problems == [(name, name, "image missing from the metadata") for name in ("a/2.png", "b/1.png")]


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
