"""Nothing is lost without a word: records read = pairs + merged + left out, in every format, against slow counts."""

import json
import tempfile
from collections import Counter
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clipmem.base.errors import InputError, RunError
from clipmem.base.sections import DataSection
from clipmem.data.skipped import ignored_sentence, records_sentence
from clipmem.data.sources import open_source
from clipmem.data.sources.csv_table import CsvSource
from tests.tiny import encoded_image
from tests.unit.data.sources import formats
from tests.unit.data.sources.test_webdataset import shard

quick = settings(max_examples=25, suppress_health_check=list(HealthCheck))
IMAGES = [encoded_image(k) for k in range(24)]


def opened(path, **options):
    """The captions by key, what is listed (key and reason), and the ledger."""
    source = open_source(DataSection(path=str(path), **options))
    try:
        pairs = source.pairs()
    except InputError as error:
        if "without a usable pair" not in str(error):
            raise
        return {}, [one[1:] for one in source.problems], source.ledger
    return (
        dict(zip(pairs["key"], pairs["captions"].to_list(), strict=True)),
        [one[1:] for one in source.problems],
        source.ledger,
    )


def counts(ledger):
    return ledger.read, ledger.pairs, ledger.merged, ledger.left_out


def refused(path, **options):
    with pytest.raises(InputError) as error:
        opened(path, **options)
    return error.value


# ---- the identity, on random data


def slow_tar(members):
    """Keys of the pairs, keys of what is listed, and how many members are of other kinds, by going through names."""
    good, listed, others = set(), Counter(), 0
    groups = {}
    for name, content in members:
        last = name.rsplit(".", 1)[1]
        if last not in {"png", "jpg", "txt", "json"}:
            others += 1
            continue
        groups.setdefault(name.split(".")[0], []).append((name, last, content))
    for key, found in groups.items():
        plain = [one for one in found if one[0].count(".") == 1]
        samples = {key: plain}
        if plain:
            listed.update(name for name, _, _ in found if name.count(".") > 1)
        else:
            samples = {}
            for one in found:
                samples.setdefault(one[0].rsplit(".", 1)[0], []).append(one)
        for sample, own in samples.items():
            images = [one for one in own if one[1] in {"png", "jpg"}]
            listed.update(name for name, _, _ in images[1:])
            texts = [content for _, last, content in own if last in {"txt", "json"}]
            if images and b"good" in images[0][2] and any(b"caption" in text and b"{c" not in text for text in texts):
                good.add(sample)
            else:
                listed[sample] += 1
    return good, listed, others


TAR_NAMES = [
    f"{stem}.{kind}"
    for stem in ("a", "b", "photo.v1", "photo.v2", "c", "c.seg", "d.e.f")
    for kind in ("jpg", "png", "txt", "json", "cls")
]


@quick
@given(chosen=st.dictionaries(st.sampled_from(TAR_NAMES), st.booleans(), min_size=1, max_size=14))
def test_tars(chosen):
    members = []
    for k, (name, fine) in enumerate(sorted(chosen.items())):
        kind = name.rsplit(".", 1)[1]
        content = b"3"
        if kind in {"png", "jpg"}:
            content = b"\x89PNG\r\n\x1a\n" + b"good %d" % k if fine else b"bad %d" % k
        elif kind == "txt":
            content = b"caption %d" % k if fine else b" "
        elif kind == "json":
            content = b'{"caption": "caption %d"}' % k if fine else b"{caption"
        members.append((name, content))
    good, listed, others = slow_tar(members)
    with tempfile.TemporaryDirectory() as scratch:
        found, problems, ledger = opened(shard(Path(scratch) / "a.tar", members))
    # an empty text beside JSON counts before it, as ever: then nothing is a caption
    empty_text = {name.rsplit(".", 1)[0] for name, content in members if content == b" "}
    assert set(found) == good - empty_text
    moved = Counter(good & empty_text)
    assert ledger.read == len(good) + sum(listed.values()) == ledger.pairs + ledger.left_out
    assert ledger.left_out == sum(listed.values()) + sum(moved.values())
    assert not (listed + moved) - Counter(key for key, _ in problems)
    assert sum(ledger.ignored.values()) == others + sum(".txt beside" in kind for kind in ledger.ignored)


# text of a CSV row, whether it counts as a record, whether it is left out
ROWS = [
    ("0.jpg,one,x", 1, 0),
    ('1.jpg,"two, with a comma",x', 1, 0),
    ('2.jpg,"over\n two lines",x', 1, 0),
    ('2.jpg,"and ""quotes""",x', 1, 0),
    ("0.jpg,further,x", 1, 0),
    ("3.jpg,more,", 1, 0),
    ("3.jpg,an empty cell too many,x,", 1, 0),
    ("", 0, 0),
    ("  ", 1, 1),
    ("# a comment", 1, 1),
    ("1.jpg,few", 1, 1),
    ("1.jpg,many,x,y", 1, 1),
    (",no path,x", 1, 1),
    ("1.jpg,,x", 1, 1),
    ("1.jpg,nan,x", 1, 1),
    ('1.jpg,"never closed,x', 1, 1),
    ("2.jpg,a quote\" inside,x", 1, 0),
]  # fmt: skip


NAMED = {"1.jpg,,x", "1.jpg,nan,x"}


@pytest.fixture(scope="module")
def jpegs(tmp_path_factory):
    where = tmp_path_factory.mktemp("jpegs")
    for k in range(4):
        (where / f"{k}.jpg").write_bytes(encoded_image(k, form="JPEG"))
    return where


@quick
@given(rows=st.lists(st.sampled_from(ROWS), max_size=12), ends=st.sampled_from(["\n", "\r\n"]))
def test_csv_rows(jpegs, rows, ends):
    path = jpegs / "pairs.csv"
    path.write_text(ends.join(["image,caption,note", *(text for text, _, _ in rows), ""]), newline="")
    found, problems, ledger = opened(path)
    read, left_out = sum(row[1] for row in rows), sum(row[2] for row in rows)
    images = {text[0] for text, record, bad in rows if record and not bad}
    assert {key[0] for key in found} == images
    assert counts(ledger) == (read, len(images), read - left_out - len(images), left_out)
    assert len(problems) == left_out
    # a row that can be read names its image, whatever its caption is
    named = images | {text[0] for text, _, _ in rows if text in NAMED}
    assert ledger.unnamed == (4 - len(named) if named else 0)


FOLDER_NAMES = [
    f"{stem}.{kind}"
    for stem in ("a", "a.v2", "sub/b", "sub/c.d", "e")
    for kind in ("png", "jpg", "txt", "json", "TXT", "pdf")
]


@quick
@given(chosen=st.dictionaries(st.sampled_from(FOLDER_NAMES), st.booleans(), min_size=1, max_size=14))
def test_image_folders(chosen):
    with tempfile.TemporaryDirectory() as scratch:
        for k, (name, fine) in enumerate(sorted(chosen.items())):
            path = Path(scratch) / name
            path.parent.mkdir(exist_ok=True)
            kind = path.suffix.lower()
            text = b'{"caption": "of json %d"}' % k if kind == ".json" else b"of text %d" % k
            path.write_bytes(IMAGES[k] if kind in {".png", ".jpg"} else text if fine else b"")
        found, problems, ledger = opened(scratch, source="imagefolder")
    images = [name for name in chosen if name.endswith((".png", ".jpg"))]
    texts = [name for name in chosen if name.lower().endswith((".txt", ".json"))]
    alone = [name for name in texts if not {f"{name.rsplit('.', 1)[0]}{end}" for end in (".png", ".jpg")} & set(images)]
    assert ledger.read == len(images) + len(alone)
    assert (ledger.pairs, ledger.merged) == (len(found), 0)
    listed = {key for key, _ in problems}
    assert set(images) - set(found) <= listed
    assert set(alone) <= listed
    assert ledger.ignored[".pdf"] == sum(name.endswith(".pdf") for name in chosen)


def test_the_formats_count_their_records(tmp_path):
    merged = {"csv", "tsv", "jsonl", "coco", "flickr-token", "flickr-bars", "flickr-commas", "imagefolder-csv"}
    for name, (_, write) in formats.FORMATS.items():
        _, problems, ledger = opened(write(tmp_path / name / "set", formats.some_pairs()))
        several = name in merged or name in {"parquet-rows", "parquet-paths"}
        assert (counts(ledger), problems) == ((12 if several else 6, 6, 6 if several else 0, 0), []), name


def test_a_record_that_is_lost_without_a_word_is_a_bug(folder):
    class Losing(CsvSource):
        def rows(self):
            yield from list(super().rows())[1:]

    (folder / "pairs.csv").write_text("image,caption\n0.jpg,a\n1.jpg,b\n")
    with pytest.raises(RunError, match=r"1 pairs, 0 merged, 0 left out of 2 records.*report it"):
        Losing(DataSection(source="csv", path=str(folder / "pairs.csv"))).pairs()


# ---- tars


def test_names_with_further_dots_are_pairs_unless_they_stand_beside_one(tmp_path):
    members = [
        ("photo.v2.png", IMAGES[0]),
        ("photo.v2.txt", b"one"),
        ("photo.v1.png", IMAGES[1]),
        ("photo.v1.txt", b"two"),
        ("000.seg.png", IMAGES[2]),
        ("000.png", IMAGES[3]),
        ("000.txt", b"three"),
        ("000.cls", b"3"),
        ("000.mask.npy", b"3"),
        ("README", b"3"),
        ("x.\x1b[31mred", b"3"),
        ("two.jpg", IMAGES[4]),
        ("two.png", IMAGES[5]),
        ("two.txt", b"four"),
    ]
    found, problems, ledger = opened(shard(tmp_path / "a.tar", members))
    assert found == {"photo.v1": ["two"], "photo.v2": ["one"], "000": ["three"], "two": ["four"]}
    assert problems == [
        ("000.seg.png", "image or text with the key of another pair"),
        ("two.png", "second image or text of the same kind and key"),
    ]
    assert counts(ledger) == (6, 4, 0, 2)
    assert ledger.facts()["ignored"] == {".cls": 1, ".npy": 1, "other extensions": 2}
    assert ignored_sentence(ledger.facts()["ignored"]).startswith(
        "4 other files or members ignored: other extensions 2, .cls 1"
    )
    # images first, then texts: the same pairs
    apart = sorted(members, key=lambda one: one[0].endswith(".txt"))
    again = opened(shard(tmp_path / "b.tar", apart))
    assert (again[0], sorted(again[1]), counts(again[2])) == (found, problems, counts(ledger))


def test_json_that_is_broken_is_its_own_reason(tmp_path):
    members = [
        ("a.png", IMAGES[0]),
        ("a.json", b"{broken"),
        ("b.png", IMAGES[1]),
        ("b.json", b"[1]"),
        ("b.txt", b"still there"),
        ("c.png", IMAGES[2]),
        ("c.json", b'{"width": 3}'),
    ]
    expected = [("a", "JSON that is not an object"), ("b", "JSON that is not an object"), ("c", "no caption")]
    found, problems, ledger = opened(shard(tmp_path / "a.tar", members))
    assert (found, problems, counts(ledger)) == ({"b": ["still there"]}, expected, (3, 1, 0, 2))
    (tmp_path / "folder").mkdir()
    for name, data in members:
        (tmp_path / "folder" / name).write_bytes(data)
    found, problems, ledger = opened(tmp_path / "folder")
    assert found == {"b.png": ["still there"]}
    assert sorted(problems) == [(f"{key}.png", reason) for key, reason in expected]
    assert counts(ledger) == (3, 1, 0, 2)


def test_members_of_one_key_in_two_places_and_twice(tmp_path):
    members = [
        ("a.png", IMAGES[0]),
        ("b.png", IMAGES[1]),
        ("a.txt", b"one"),
        ("b.txt", b"two"),
        ("a.txt", b"again"),
    ]
    found, problems, ledger = opened(shard(tmp_path / "a.tar", [*members, ("b.png", IMAGES[2])]))
    assert found == {"a": ["one"], "b": ["two"]}
    second = "second image or text of the same kind and key"
    assert problems == [("a.txt", second), ("b.png", second)]
    assert counts(ledger) == (4, 2, 0, 2)


def test_other_files_of_a_folder_of_tars_are_counted(tmp_path):
    shard(tmp_path / "0.tar", [("a.png", IMAGES[0]), ("a.txt", b"one")])
    (tmp_path / "0_stats.json").write_text("{}")
    (tmp_path / "1.tar.gz").write_bytes(b"\x1f\x8b")
    (tmp_path / "loose.png").write_bytes(IMAGES[1])
    _, _, ledger = opened(tmp_path)
    assert ledger.ignored == {".gz": 1, ".png": 1}


# ---- headers, quotes, rows


@pytest.mark.parametrize(("header", "comma"), [("foo,bar", True), ("foo| n| bar", False)])
def test_an_unknown_header_is_refused(folder, header, comma):
    path = folder / "captions.txt"
    path.write_text("\n".join([header, *(f"{k}.jpg,a cat" if comma else f"{k}.jpg| 0| a cat" for k in range(3))]))
    assert header in refused(path).got
    error = refused(path, source="flickr")
    assert header in error.got
    assert "data.image_column" in error.hint


def test_a_first_line_that_is_no_row_of_tabs_is_listed(folder):
    path = folder / "Flickr8k.token.txt"
    path.write_text("nonsense\n0.jpg#0\tone\n1.jpg#0\ttwo\n")
    found, problems, ledger = opened(path, source="flickr")
    assert found == {"0.jpg": ["one"], "1.jpg": ["two"]}
    assert problems == [("line 1", "line without an image and a caption")]
    assert counts(ledger) == (3, 2, 0, 1)


@pytest.mark.parametrize("header", ["image,caption\n", ""])
@pytest.mark.parametrize(
    "broken",
    [
        '0.jpg,"never closed',
        '0.jpg,"never closed, with a comma',
        '0.jpg,"closed by the next quote\n1.jpg,"one, quoted"',
        '0.jpg,"closed by a stray one\n1.jpg,one"',
    ],
)
def test_a_quote_that_is_not_closed_costs_its_row(folder, header, broken):
    path = folder / ("pairs.csv" if header else "captions.txt")
    rows = ['1.jpg,"two, quoted"', '2.jpg,"over\n two lines"', "3.jpg,plain"]
    path.write_text(header + "\n".join([rows[0], broken, *rows[1:], ""]))
    found, problems, ledger = opened(path)
    assert {key: found[key] for key in ("2.jpg", "3.jpg")} == {"2.jpg": ["over\n two lines"], "3.jpg": ["plain"]}
    assert found["1.jpg"][0] == "two, quoted"
    assert "0.jpg" not in found
    assert problems == [(f"line {3 if header else 2}", "unclosed quote")]
    assert counts(ledger)[0] == 4 + broken.count("\n")


def test_a_quote_in_a_file_of_any_length_is_given_up(folder):
    path = folder / "pairs.csv"
    path.write_text("image,caption\n" + '0.jpg,"open\n' + "not a row\n" * 1200 + "1.jpg,good\n")
    found, problems, ledger = opened(path)
    assert found == {"1.jpg": ["good"]}
    assert problems[0] == ("line 2", "unclosed quote")
    assert counts(ledger) == (1202, 1, 0, 1201)


def test_values_that_a_merged_row_would_lose_are_listed(folder):
    path = folder / "pairs.csv"
    path.write_text("image,caption,kind\n0.jpg,a,cat\n0.jpg,b,dog\n0.jpg,c,\n")
    found, problems, ledger = opened(path, label_column="kind")
    assert found == {"0.jpg": ["a", "b", "c"]}
    assert problems == [("line 3", "group, label, role or objects differ from those of the first record of the image")]
    assert counts(ledger) == (3, 1, 2, 0)
    assert records_sentence(ledger.facts()) == (
        "3 records read: 1 pair, 2 merged into the pair of their image, 0 left out; 3 images that no record names"
    )


def test_an_image_that_cannot_be_used_takes_its_records_with_it(folder):
    path = folder / "pairs.csv"
    (folder / "4.jpg").write_bytes((folder / "0.jpg").read_bytes())
    rows = ["0.jpg,a", "0.jpg,b", *["gone.jpg,c"] * 3, "gone.jpg,", "4.jpg,a", "4.jpg,b"]
    path.write_text("\n".join(["image,caption", *rows]))
    found, problems, ledger = opened(path)
    assert found == {"0.jpg": ["a", "b"]}
    same = "same image and captions as an earlier record"
    assert problems == [("gone.jpg", "no such image file"), ("4.jpg", same)]
    assert counts(ledger) == (8, 1, 1, 6)


@pytest.mark.parametrize("relative", [True, False])
def test_absolute_paths_name_their_images_too(folder, relative):
    path = folder / "pairs.csv"
    (folder / "more").mkdir()
    names = [f"{k}.jpg" if relative and k % 2 else str(folder / "more" / ".." / f"{k}.jpg") for k in range(3)]
    path.write_text("\n".join(["image,caption", *(f"{name},a {name}" for name in names)]))
    found, _, ledger = opened(path)
    assert (len(found), ledger.unnamed) == (3, 1)


def test_items_of_a_list_that_are_no_captions_are_listed(folder):
    path = folder / "pairs.jsonl"
    path.write_text(json.dumps({"image": "0.jpg", "captions": [{"raw": "a"}, {"sent": "b"}, {"raw": None}]}) + "\n  \n")
    found, problems, ledger = opened(path)
    assert found == {"0.jpg": ["a"]}
    assert [key for key, _ in problems] == ["line 2", "line 1, caption 2", "line 1, caption 3"]
    assert counts(ledger) == (2, 1, 0, 1)


def test_images_of_coco_with_one_id(folder):
    images = [{"id": 1, "file_name": "0.jpg"}, {"id": 1, "file_name": "1.jpg"}, {"id": [2], "file_name": "2.jpg"}]
    annotations = [{"image_id": 1, "id": 1, "caption": "a"}, {"image_id": [2], "id": 1, "caption": "b"}]
    (folder / "a.json").write_text(json.dumps({"images": images, "annotations": annotations}))
    found, problems, ledger = opened(folder / "a.json")
    assert found == {"0.jpg": ["a"], "2.jpg": ["b"]}
    assert problems == [("image 1.jpg", "duplicate image id")]
    assert (counts(ledger), ledger.unnamed) == ((3, 2, 0, 1), 2)


def test_parquet_files_of_other_columns_and_pages_that_are_broken(tmp_path):
    pl.DataFrame({"image": [IMAGES[0]], "text": ["x"]}).write_parquet(tmp_path / "0.parquet")
    pl.DataFrame({"jpg": [IMAGES[1]], "text": ["x"]}).write_parquet(tmp_path / "1.parquet")
    error = refused(tmp_path)
    assert error.what.endswith("1.parquet")
    assert "jpg" in error.got


def test_bytes_that_are_no_text_are_listed_in_tables_too(folder):
    def texts(*values):
        return pa.Array.from_buffers(pa.string(), len(values), pa.array(values).buffers())

    where = {"image_path": texts(b"0.jpg", b"1.jpg", b"2.jpg"), "kind": texts(b"x", b"y", b"caf\xe9")}
    captions = texts(b"one", b"caf\xe9", b"two")
    lists = pa.ListArray.from_arrays(pa.array([0, 1, 2, 3], pa.int32()), captions)
    (folder / "set").mkdir()
    (folder / "metadata").mkdir()
    for column in (captions, lists):
        pq.write_table(pa.table({**where, "text": column}), folder / "set" / "a.parquet")
        found, problems, ledger = opened(folder / "set" / "a.parquet", label_column="kind")
        assert found == {"0": ["one"]}
        assert [key for key, _ in problems] == ["1", "2"]
        assert counts(ledger) == (3, 1, 0, 2)
        pq.write_table(pa.table({**where, "text": column}), folder / "metadata.parquet")
        found, problems, ledger = opened(folder, source="imagefolder", label_column="kind")
        assert found == {"0.jpg": ["one"]}
        assert counts(ledger) == (3, 1, 0, 2)
    (folder / "a.csv").write_bytes(b"image,caption,kind\n0.jpg,a,caf\xe9\n1.jpg,b,x\n")
    assert list(opened(folder / "a.csv", label_column="kind")[0]) == ["1.jpg"]


def test_links_to_folders_are_listed(tmp_path):
    (tmp_path / "set").mkdir()
    (tmp_path / "far").mkdir()
    (tmp_path / "set" / "a.png").write_bytes(IMAGES[0])
    (tmp_path / "set" / "a.txt").write_text("one")
    (tmp_path / "far" / "b.png").write_bytes(IMAGES[1])
    (tmp_path / "set" / "more").symlink_to(tmp_path / "far", target_is_directory=True)
    found, problems, _ = opened(tmp_path / "set")
    assert list(found) == ["a.png"]
    assert problems == [(str(tmp_path / "set" / "more"), "link to a folder, not followed")]


def test_images_of_a_class_folder_that_stand_twice_or_in_no_class(tmp_path):
    for k, name in enumerate(("cat/a.png", "dog/b.png", "loose.png")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(IMAGES[k])
    (tmp_path / "cat" / "again.png").write_bytes(IMAGES[0])
    (tmp_path / "cat" / "page.png").write_bytes(b"<html>")
    (tmp_path / "cat" / "notes.pdf").write_bytes(b"x")
    found, problems, ledger = opened(tmp_path, source="classfolder")
    assert found == {"cat/a.png": ["cat"], "dog/b.png": ["dog"]}
    assert problems == [
        ("cat/again.png", "same image and captions as an earlier record"),
        ("cat/page.png", "not an image of a known format"),
        ("loose.png", "image outside of class folders"),
    ]
    assert (counts(ledger), ledger.ignored) == ((4, 2, 0, 2), {".pdf": 1})


def test_the_shipped_pairs():
    ledger = opened("")[2]
    assert ledger.read == ledger.pairs + ledger.merged > ledger.pairs == 1914


def test_paths_that_no_file_can_have_are_listed(folder):
    path = folder / "pairs.csv"
    path.write_text(f"image,caption\n{'x' * 10_000}.jpg,a\nx\0.jpg,b\n0.jpg,c\n")
    found, problems, ledger = opened(path)
    assert found == {"0.jpg": ["c"]}
    assert [reason for _, reason in problems] == ["no such image file"] * 2
    assert counts(ledger) == (3, 1, 0, 2)
