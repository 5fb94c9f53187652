"""Tables in memory as data: what every verb takes."""

from pathlib import Path

import polars as pl
import pytest

import clipmem
from tests.tiny import write_parquet


@pytest.fixture(scope="module")
def frame(tmp_path_factory):
    """Pairs as bytes and texts, in an order of their own, with other columns."""
    table = pl.read_parquet(write_parquet(tmp_path_factory.mktemp("data") / "pairs.parquet", 12))
    return table.sample(fraction=1, shuffle=True, seed=1).with_columns(number=pl.int_range(pl.len()))


def uids(source):
    return set(source.pairs()["uid"])


def test_a_table_in_memory_has_the_pairs_of_its_file(frame, tmp_path):
    frame.write_parquet(tmp_path / "pairs.parquet")
    pairs = clipmem.load_pairs(frame)
    assert uids(pairs) == uids(clipmem.load_pairs(tmp_path / "pairs.parquet"))
    assert len(uids(pairs)) == 12
    assert pairs.title == "a table of 12 rows"


def test_pandas_and_datasets(frame):
    pytest.importorskip("pandas", reason="the extra bench is not installed")
    assert uids(clipmem.load_pairs(frame.to_pandas())) == uids(clipmem.load_pairs(frame))


def test_datasets(frame):
    datasets = pytest.importorskip("datasets", reason="the extra hf is not installed")
    dataset = datasets.Dataset.from_dict(frame.select("image", "captions").to_dict(as_series=False))
    dataset = dataset.cast_column("image", datasets.Image())
    assert uids(clipmem.load_pairs(dataset)) == uids(clipmem.load_pairs(frame))


def suspects_of(table, *rows, **keys):
    """A list as `clipmem.curate` returns it, with some rows as suspects."""
    pairs = clipmem.load_pairs(table, **keys).pairs()
    issue = pl.col("key").is_in([f"{row}" for row in rows])
    return pairs.select("uid", is_label_issue=issue)


def test_a_table_without_its_suspects(frame):
    assert clipmem.clean(frame, suspects_of(frame, 3, 7)).equals(frame[[k for k in range(12) if k not in (3, 7)]])
    assert clipmem.clean(frame, suspects_of(frame)).equals(frame)
    twice = pl.concat([frame, frame[3:4]])  # a row that is there again goes, too
    assert clipmem.clean(twice, suspects_of(twice, 3)).equals(frame[[k for k in range(12) if k != 3]])
    renamed = frame.rename({"image": "photo"})
    listed = suspects_of(renamed, 0, image_column="photo")
    assert clipmem.clean(renamed, listed, image_column="photo").equals(renamed[1:])


def test_pandas_and_datasets_without_their_suspects(frame):
    pytest.importorskip("pandas", reason="the extra bench is not installed")
    table = frame.to_pandas()
    assert clipmem.clean(table, suspects_of(frame, 0, 11)).equals(table.iloc[1:11])


def test_a_dataset_without_its_suspects(frame):
    datasets = pytest.importorskip("datasets", reason="the extra hf is not installed")
    dataset = datasets.Dataset.from_dict(frame.select("image", "captions").to_dict(as_series=False))
    dataset = dataset.cast_column("image", datasets.Image())
    cleaned = clipmem.clean(dataset, suspects_of(dataset, 0, 11))
    assert cleaned["captions"] == frame["captions"][1:11].to_list()
    assert cleaned.features == dataset.features


def test_what_cannot_be_cleaned_is_refused(frame, tmp_path):
    listed = suspects_of(frame, 1)
    for table, suspects in (
        (tmp_path / "pairs.parquet", listed),
        (frame, listed.drop("is_label_issue")),
        (frame[2:], listed),  # of another table
        (frame, suspects_of(frame, *range(12))),
    ):
        with pytest.raises(clipmem.InputError):
            clipmem.clean(table, suspects)


def test_paths_are_relative_to_the_working_directory(frame, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()
    files = [f"photos/{k}.png" for k in range(frame.height)]
    for file, data in zip(files, frame["image"], strict=True):
        Path(file).write_bytes(data["bytes"])
    pairs = clipmem.load_pairs(frame.with_columns(image=pl.Series(files)))
    monkeypatch.chdir("/")
    assert uids(pairs) == uids(clipmem.load_pairs(frame))


def test_columns_are_named_by_keys(frame):
    renamed = frame.rename({"image": "photo", "captions": "words"})
    with pytest.raises(clipmem.InputError):
        clipmem.load_pairs(renamed).pairs()
    pairs = clipmem.load_pairs(renamed, image_column="photo", caption_column="words")
    assert uids(pairs) == uids(clipmem.load_pairs(frame))


def test_the_file_goes_with_the_object(frame):
    pairs = clipmem.load_pairs(frame)
    file = Path(pairs.section.path)
    assert file.is_file()
    del pairs
    assert not file.exists()


def test_a_path_and_what_is_open_already(frame, tmp_path):
    frame.write_parquet(tmp_path / "pairs.parquet")
    pairs = clipmem.load_pairs(tmp_path / "pairs.parquet", label_column="number")
    assert clipmem.load_pairs(pairs) is pairs
    with pytest.raises(clipmem.InputError) as caught:  # not ignored
        clipmem.load_pairs(pairs, label_column="captions")
    assert "label_column" in caught.value.got
    assert pairs.title == str(tmp_path / "pairs.parquet")
    with pytest.raises(clipmem.InputError) as caught:
        clipmem.load_pairs(tmp_path / "none")
    assert caught.value.what == "[data] path"


def test_pairs_to_evaluate_on_may_be_a_table(frame):
    from clipmem.study.opening import evaluation_section, open_data

    pairs = open_data(frame)
    section = evaluation_section(pairs)
    assert Path(section.path).is_file()
    del pairs
    assert not Path(section.path).exists()


def test_a_study_of_a_table_keeps_its_pairs(frame, tmp_path):
    from clipmem.study.opening import section_of

    section = section_of(clipmem.load_pairs(frame), tmp_path / "runs" / "mine")
    assert section.path == str(tmp_path / "runs" / "mine-pairs.parquet")
    assert section_of(clipmem.load_pairs(frame), tmp_path / "runs" / "mine") == section
    with pytest.raises(clipmem.InputError) as caught:
        section_of(clipmem.load_pairs(frame.head(5)), tmp_path / "runs" / "mine")
    assert caught.value.got == "an existing file"
