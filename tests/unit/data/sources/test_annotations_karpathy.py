"""Karpathy's splits."""

import pytest

from clipmem.base.errors import InputError
from clipmem.base.sections import DataSection
from clipmem.data.sources import open_source
from tests.tiny import encoded_image
from tests.unit.data.sources.formats import karpathy, some_pairs
from tests.unit.data.sources.test_csv_table import opened


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
