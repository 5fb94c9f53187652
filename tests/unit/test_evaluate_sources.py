"""Labeled data of `clipmem evaluate`: the format is told by content."""

from pathlib import Path

import polars as pl
import pytest

from clipmem.base.errors import InputError
from clipmem.data.sources import open_source
from clipmem.study.evaluating import data_section
from clipmem.testing.tiny import write_parquet

CLASSES = ["a", "b"] * 3


@pytest.fixture
def folder(tmp_path):
    write_parquet(tmp_path / "made.parquet", 6)
    made = pl.read_parquet(tmp_path / "made.parquet")["image"]
    images = [one["bytes"] if isinstance(one, dict) else one for one in made]
    (tmp_path / "made.parquet").unlink()
    pl.DataFrame({"image": images, "label": CLASSES}).write_parquet(tmp_path / "labels.parquet")
    captions = [f"image {k}" for k in range(6)]
    pl.DataFrame({"image": images, "caption": captions, "class": CLASSES}).write_parquet(tmp_path / "both.parquet")
    rows = ["filepath,label"]
    for k, (image, label) in enumerate(zip(images, CLASSES, strict=True)):
        file = tmp_path / "classes" / label / f"{k}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(image)
        rows.append(f"classes/{label}/{k}.png,{label}")
    (tmp_path / "labels.csv").write_text("\n".join(rows) + "\n")
    return tmp_path


@pytest.mark.parametrize(
    ("name", "label", "source", "captions_are_labels"),
    [
        ("labels.parquet", None, "parquet", True),
        ("both.parquet", "class", "parquet", False),
        ("classes", None, "classfolder", True),
        ("labels.csv", None, "csv", True),
    ],
)
def test_labels_and_captions_are_found(folder, name, label, source, captions_are_labels):
    section = data_section(folder / name, "", label=label, caption=None, image=None)
    assert section.source == source
    opened = open_source(section)
    pairs = opened.pairs()
    assert sorted(pairs["label"]) == sorted(CLASSES)
    assert opened.problems == []
    assert (pairs["captions"].list.first() == pairs["label"]).all() == captions_are_labels


def test_nothing_there(folder):
    with pytest.raises(InputError) as caught:
        data_section(folder / "nothing", "", label=None, caption=None, image=None)
    assert str(caught.value).startswith(f"[data] path: got '{folder / 'nothing'}', no such file or folder, expected")


def test_no_data_at_all():
    assert data_section(None, "", label=None, caption=None, image=None) is None


def test_emoji_is_the_shipped_data_unless_a_file_has_the_name(folder, monkeypatch):
    monkeypatch.chdir(folder)
    section = data_section(Path("emoji"), "", label=None, caption=None, image=None)
    assert (section.source, section.path) == ("emoji", "")
    (folder / "classes").rename(folder / "emoji")
    section = data_section(Path("emoji"), "", label=None, caption=None, image=None)
    assert (section.source, section.path) == ("classfolder", "emoji")
