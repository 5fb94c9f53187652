"""Parquet and Arrow: memory that does not grow with the images, one pass, broken pages, types of columns."""

import json
import subprocess
import sys

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clipmem.base.errors import InputError
from clipmem.base.hashing import pair_uid
from clipmem.base.sections import DataSection
from clipmem.data.sources import open_source
from clipmem.data.sources.rows import ParquetRows
from tests.tiny import encoded_image
from tests.unit.data.sources.formats import some_pairs

MEASURE = """
import sys
import pyarrow as pa
from clipmem.base.sections import DataSection
from clipmem.data.sources import open_source
source = open_source(DataSection(path=sys.argv[1]))
references = source.pairs()["image"].to_list()
order = source.storage_order(references)
for start in range(0, len(order), 64):
    source.read([references[k] for k in order[start : start + 64]])
print(pa.default_memory_pool().max_memory() / 2**20)
"""


def large_images(path, n, size=100_000, **options):
    """PNG in the first bytes only: nothing here decodes them."""
    rng = np.random.default_rng(0)
    rows = [{"bytes": b"\x89PNG\r\n\x1a\n" + rng.bytes(size), "path": f"{k}.png"} for k in range(n)]
    pl.DataFrame({"image": rows, "captions": [[f"number {k}"] for k in range(n)]}).write_parquet(path, **options)


def peak(path):
    """Most memory, in MiB, that Arrow held while all pairs were listed and read in storage order."""
    done = subprocess.run([sys.executable, "-c", MEASURE, str(path)], capture_output=True, text=True, check=True)
    return float(done.stdout)


@pytest.mark.slow
def test_memory_does_not_grow_with_the_images(tmp_path):
    # all rows in one row group, as polars writes them: 25 MB and 100 MB
    for n in (250, 1000):
        large_images(tmp_path / f"{n}.parquet", n, compression="uncompressed")
        assert ParquetRows(tmp_path / f"{n}.parquet")._file.num_row_groups == 1
    small, large = (peak(tmp_path / f"{n}.parquet") for n in (250, 1000))
    assert large < 1.3 * small + 1
    assert large < 40


class Counting(ParquetRows):
    """Counts the rows that are read."""

    def __init__(self, path):
        super().__init__(path)
        self.read = 0

    def batches(self, columns, start=0):
        for first, batch in super().batches(columns, start):
            self.read += batch.num_rows
            yield first, batch


def test_reading_in_storage_order_is_one_pass(tmp_path):
    path = tmp_path / "a.parquet"
    large_images(path, 300, size=1000, row_group_size=50)
    source = open_source(DataSection(path=str(path)))
    references = source.pairs()["image"].to_list()
    file = Counting(path)
    source._files = [file]
    order = source.storage_order(references)
    for start in range(0, 300, 32):
        source.read([references[k] for k in order[start : start + 32]])
    assert file.read == 300
    # one row costs its row group at most
    file.read = 0
    source.read(["120"])
    assert file.read <= 50


@pytest.mark.parametrize("rows", [1, 2, 3, 100])
def test_any_row_of_any_row_group(tmp_path, rows):
    pairs = some_pairs(7)
    table = pl.DataFrame({"image": [data for _, data, _ in pairs], "text": [own[0] for _, _, own in pairs]})
    table[:4].write_parquet(tmp_path / "a.parquet", row_group_size=rows)
    table[4:].write_parquet(tmp_path / "b.parquet", row_group_size=rows)
    source = open_source(DataSection(path=str(tmp_path)))
    assert source.pairs().height == 7
    for order in ([6, 0, 3], [5, 4, 6], [2], [0, 1, 2, 3, 4, 5, 6], [3, 3]):
        assert source.read([str(k) for k in order]) == [pairs[k][1] for k in order]
    with pytest.raises(InputError) as error:
        source.read(["7"])
    assert (error.value.what, error.value.got) == ("image 'row 7'", "7 rows")


def test_every_type_of_column(tmp_path):
    data = [encoded_image(0), encoded_image(1)]
    wanted = {pair_uid(data[0], ["a"]), pair_uid(data[1], ["b"])}
    images = {
        "binary": pa.array(data, pa.binary()),
        "large": pa.array(data, pa.large_binary()),
        "struct": pa.array([{"bytes": one} for one in data]),
    }
    captions = {
        "text": pa.array(["a", "b"]),
        "large": pa.array(["a", "b"], pa.large_string()),
        "list": pa.array([["a"], ["b"]]),
        "structs": pa.array([[{"raw": "a", "id": 1}], [{"raw": "b", "id": 2}]]),
        "dictionary": pa.array(["a", "b"]).dictionary_encode(),
    }
    for image in images.values():
        for caption in captions.values():
            pq.write_table(pa.table({"jpg": image, "caption": caption}), tmp_path / "a.parquet")
            assert set(open_source(DataSection(path=str(tmp_path / "a.parquet"))).pairs()["uid"]) == wanted


def test_class_labels_have_names(tmp_path):
    features = {"info": {"features": {"label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}}}
    schema = pa.schema(
        [("image", pa.binary()), ("text", pa.string()), ("label", pa.int64())],
        metadata={"huggingface": json.dumps(features)},
    )
    rows = {"image": [encoded_image(k) for k in range(5)], "text": list("abcde"), "label": [1, 0, None, 7, -1]}
    pq.write_table(pa.table(rows, schema), tmp_path / "a.parquet")
    pairs = open_source(DataSection(path=str(tmp_path / "a.parquet"), label_column="label")).pairs().sort("key")
    assert pairs["label"].to_list() == ["dog", "cat", "", "7", ""]


@pytest.mark.parametrize("ending", ["parquet", "jsonl", "csv"])
def test_nan_is_no_value(tmp_path, ending):
    nan = float("nan")
    for k in range(3):
        (tmp_path / f"{k}.png").write_bytes(encoded_image(k))
    columns = {
        "image": [f"{k}.png" for k in range(3)],
        "text": list("abc"),
        "album": [nan, nan, 1.0],
        "kind": [nan] * 3,
    }
    rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    things = [nan, [nan, "cat"], "dog"]
    path, names = tmp_path / f"a.{ending}", {"group_column": "album", "label_column": "kind"}
    if ending == "parquet":
        pq.write_table(pa.table(columns), path)
    elif ending == "jsonl":
        rows = [{**row, "things": thing} for row, thing in zip(rows, things, strict=True)]
        path.write_text("\n".join(json.dumps(row) for row in rows))
        names["object_column"] = "things"
    else:
        lines = [
            f"{','.join(map(str, row.values()))},{thing}" for row, thing in zip(rows, [nan, nan, "dog"], strict=True)
        ]
        path.write_text("\n".join([",".join([*columns, "things"]), *lines]))
        names["object_column"] = "things"
    pairs = open_source(DataSection(path=str(path), **names)).pairs().sort("captions")
    assert pairs["group"].to_list() == [*pairs["uid"][:2], "1.0"]
    assert pairs["label"].to_list() == [""] * 3
    expected = {"parquet": [[], [], []], "jsonl": [[], ["cat"], ["dog"]], "csv": [[], [], ["dog"]]}
    assert pairs["objects"].to_list() == expected[ending]


def test_rows_of_one_path_are_one_pair_only_with_one_image(tmp_path):
    rows = [
        ({"bytes": encoded_image(0), "path": "a.png"}, "one"),
        ({"bytes": encoded_image(1), "path": "a.png"}, "another image of that name"),
        ({"bytes": encoded_image(0), "path": "a.png"}, "two"),
        ({"bytes": encoded_image(0), "path": None}, "one"),
    ]
    table = pl.DataFrame({"image": [row[0] for row in rows], "text": [row[1] for row in rows]})
    table.write_parquet(tmp_path / "a.parquet")
    pairs = open_source(DataSection(path=str(tmp_path / "a.parquet"))).pairs()
    assert sorted(pairs["captions"].to_list()) == [["another image of that name"], ["one"], ["one", "two"]]


def test_bad_rows_are_listed_and_the_rest_used(tmp_path):
    data = [
        encoded_image(0),
        None,
        b"",
        b"no image",
        encoded_image(4),
        encoded_image(5),
        encoded_image(0),
        encoded_image(7),
    ]
    captions = [["a"], ["b"], ["c"], ["d"], [""], None, ["a"], ["", "good", None]]
    status = ["success", "failed_to_download", *["success"] * 6]
    pl.DataFrame({"jpg": data, "caption": captions, "status": status}).write_parquet(tmp_path / "a.parquet")
    source = open_source(DataSection(path=str(tmp_path / "a.parquet")))
    assert sorted(source.pairs()["captions"].to_list()) == [["a"], ["good"]]
    assert source.problems == [
        ("a.parquet", "1", "img2dataset: failed_to_download"),
        ("a.parquet", "2", "empty file"),
        ("a.parquet", "3", "not an image of a known format"),
        ("a.parquet", "4", "empty caption"),
        ("a.parquet", "5", "no caption"),
        ("a.parquet", "6", "same image and captions as an earlier record"),
        ("a.parquet", "7, caption 1", "empty caption"),
        ("a.parquet", "7, caption 3", "empty caption"),
    ]


def test_a_broken_page_costs_the_rows_behind_it(tmp_path):
    good, bad = tmp_path / "0.parquet", tmp_path / "1.parquet"
    large_images(good, 5, size=1000)
    large_images(bad, 40, size=1000, row_group_size=10, compression="zstd")
    place = pq.ParquetFile(bad).metadata.row_group(2).column(0).data_page_offset
    raw = bytearray(bad.read_bytes())
    raw[place : place + 400] = b"\xff" * 400
    bad.write_bytes(raw)
    source = open_source(DataSection(path=str(tmp_path)))
    assert source.pairs().height >= 5
    assert source.problems == [("1.parquet", "20", "unreadable from this row on")]


def test_splits_by_the_names_of_files(tmp_path):
    for split in ("train", "test"):
        pl.DataFrame({"image": [encoded_image(len(split))], "text": [split]}).write_parquet(
            tmp_path / f"{split}-00000-of-00001.parquet"
        )
    assert open_source(DataSection(path=str(tmp_path))).pairs().height == 2
    pairs = open_source(DataSection(path=str(tmp_path), split="test")).pairs()
    assert pairs["captions"].to_list() == [["test"]]
    with pytest.raises(InputError) as error:
        open_source(DataSection(path=str(tmp_path), split="tset"))
    assert (error.value.what, error.value.got, error.value.hint) == ("[data] split", "'tset'", "Did you mean 'test'?")


PEAK = """
import resource, sys
from clipmem.base.sections import DataSection
from clipmem.data.sources import open_source
source = open_source(DataSection(path=sys.argv[1]))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
assert source.pairs().height == int(sys.argv[2])
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""


@pytest.mark.slow
def test_memory_of_many_pairs_does_not_grow_with_the_images(tmp_path):
    """100,000 pairs in one Parquet file, of 1 kB and of 10 kB each."""
    rng = np.random.default_rng(0)
    peaks = {}
    for size in (1000, 10_000):
        path = tmp_path / f"{size}.parquet"
        schema = pa.schema([("image", pa.binary()), ("caption", pa.string())])
        with pq.ParquetWriter(path, schema, compression="none", use_dictionary=False) as writer:
            for start in range(0, 100_000, 1000):
                rows = range(start, start + 1000)
                table = {
                    "image": [b"\xff\xd8\xff" + rng.bytes(size) for _ in rows],
                    "caption": [f"an image of thing number {k}, in some detail" for k in rows],
                }
                writer.write_table(pa.table(table, schema))
        done = subprocess.run([sys.executable, "-c", PEAK, path, "100000"], capture_output=True, text=True, check=True)
        peaks[size] = float(done.stdout)
        path.unlink()
    sys.stdout.write(f"peak above the start, MiB: {peaks}\n")
    assert peaks[10_000] < peaks[1000] + 60
