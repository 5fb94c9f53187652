"""COCO annotations."""

import json

import pytest

from clipmem.base.errors import InputError
from tests.unit.data.sources.test_csv_table import opened


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
