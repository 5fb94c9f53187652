"""Parquet files and folders of them as a source."""

import polars as pl
import pytest

from clipmem.base.errors import InputError
from clipmem.base.sections import DataSection
from clipmem.data.sources import open_source
from tests.tiny import encoded_image, write_parquet


def test_parquet_pairs(tmp_path):
    path = write_parquet(tmp_path / "a.parquet", 4)
    source = open_source(DataSection(source="parquet", path=str(path)))
    pairs = source.pairs()
    assert pairs.height == 4
    assert sorted(source.read(pairs["image"].to_list())) == sorted(encoded_image(seed) for seed in range(4))
    assert pairs["group"].to_list() == pairs["uid"].to_list()
    # one text a pair, plain bytes, group and label columns
    pl.DataFrame(
        {"png": [encoded_image(0), encoded_image(1)], "text": ["a", "b"], "who": [1, 1], "kind": ["x", None]}
    ).write_parquet(tmp_path / "b.parquet")
    section = DataSection(
        source="parquet",
        path=str(tmp_path / "b.parquet"),
        image_column="png",
        caption_column="text",
        group_column="who",
        label_column="kind",
    )
    pairs = open_source(section).pairs().sort("key")
    assert pairs["captions"].to_list() == [["a"], ["b"]]
    assert pairs["group"].to_list() == ["1", "1"]
    assert pairs["label"].to_list() == ["x", ""]


def test_a_folder_of_parquet_files_is_one_source(tmp_path):
    write_parquet(tmp_path / "1.parquet", 2)
    write_parquet(tmp_path / "0.parquet", 3, captions=[["x"], ["y"], ["z"]])
    pairs = open_source(DataSection(source="parquet", path=str(tmp_path))).pairs()
    # two rows with one path and the same image are one pair
    zero, one = (["thing number 0", "number 0"], ["thing number 1", "number 1"])
    assert sorted(pairs["captions"].to_list()) == [["x", *zero], ["y", *one], ["z"]]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (
            {"image": [b""], "captions": [["a"]]},
            " without a usable pair (1 x empty file, the first '0'), expected at least one image with a caption.",
        ),
        (
            {"image": [encoded_image(0)], "captions": [[""]]},
            " without a usable pair (1 x empty caption, the first '0')",
        ),
        ({"image": [encoded_image(0)], "captions": [None]}, " without a usable pair (1 x no caption, the first '0')"),
        ({"image": [None, b"x"], "captions": [["a"], ["a"]]}, " (1 x no image, 1 x not an image of a known format,"),
        ({"image": [1], "captions": [["a"]]}, "column 'image': got int64, expected bytes, a struct with a field"),
        ({"imgae": [b"x"], "captions": [["a"]]}, ": got no column 'image'. Did you mean 'imgae'?"),
    ],
)
def test_data_without_a_usable_row_are_refused(tmp_path, columns, message):
    path = tmp_path / "a.parquet"
    pl.DataFrame(columns, schema_overrides={"captions": pl.List(pl.String)}).write_parquet(path)
    with pytest.raises(InputError) as error:
        open_source(DataSection(source="parquet", path=str(path))).pairs()
    assert message in str(error.value)
