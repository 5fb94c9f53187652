"""A folder of images that tables of the tests name."""

import pytest

from tests.tiny import encoded_image


@pytest.fixture
def folder(tmp_path):
    """Four JPEGs: 0.jpg to 3.jpg."""
    for k in range(4):
        (tmp_path / f"{k}.jpg").write_bytes(encoded_image(k, form="JPEG"))
    return tmp_path
