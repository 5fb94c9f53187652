"""Images in one folder a class: labels, captions, what is passed over, errors."""

import pytest

from clipmem.base.errors import InputError
from clipmem.base.hashing import pair_uid
from clipmem.base.sections import DataSection
from clipmem.base.tables import SCHEMAS
from clipmem.data.sources import open_source
from tests.tiny import encoded_image


def section(path):
    return DataSection(source="classfolder", path=str(path))  # pyright: ignore[reportCallIssue]


@pytest.fixture
def root(tmp_path):
    for k, name in enumerate(("hot-dog/a.png", "hot-dog/deep/b.PNG", "ice_cream/a.png", "ice_cream/c.png")):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(encoded_image(k))
    (tmp_path / "ice_cream" / "notes.txt").write_text("no image")
    (tmp_path / "ice_cream" / ".hidden.png").write_bytes(encoded_image(9))
    (tmp_path / ".cache").mkdir()
    (tmp_path / ".cache" / "x.png").write_bytes(encoded_image(8))
    (tmp_path / "loose.png").write_bytes(encoded_image(7))
    return tmp_path


def test_a_folder_is_a_class(root):
    source = open_source(section(root))
    pairs = source.pairs()
    assert set(pairs.columns) == set(SCHEMAS["pairs"])
    assert pairs["uid"].is_sorted()
    assert dict(zip(pairs["image"], pairs["label"], strict=True)) == {
        "hot-dog/a.png": "hot-dog", "hot-dog/deep/b.PNG": "hot-dog", "ice_cream/a.png": "ice_cream",
        "ice_cream/c.png": "ice_cream",
    }  # fmt: skip
    captions = dict(zip(pairs["label"], pairs["captions"].to_list(), strict=True))
    assert captions == {"hot-dog": ["hot dog"], "ice_cream": ["ice cream"]}
    for uid, image, own in zip(pairs["uid"], pairs["image"], pairs["captions"].to_list(), strict=True):
        assert uid == pair_uid(source.read([image])[0], own)


def test_the_same_image_twice_in_a_class_is_one_pair(root):
    (root / "hot-dog" / "again.png").write_bytes(encoded_image(0))
    assert open_source(section(root)).pairs().height == 4


def test_the_same_image_in_two_classes_is_refused(root):
    (root / "ice_cream" / "z.png").write_bytes(encoded_image(0))
    with pytest.raises(InputError) as error:
        open_source(section(root)).pairs()
    assert error.value.what == f"{root}, ice_cream/z.png"
    assert error.value.got == "the same image in the classes 'hot-dog' and 'ice_cream'"


def test_no_classes_are_refused(tmp_path):
    for path in (tmp_path, tmp_path / "none", ""):
        with pytest.raises(InputError) as error:
            open_source(section(path))
        assert error.value.what == "[data] path"
        assert error.value.got == f"{str(path)!r}, which is not of this format or does not exist"


def test_a_image_that_vanished(root):
    source = open_source(section(root))
    (root / "ice_cream" / "c.png").unlink()
    with pytest.raises(InputError, match=r"^image 'ice_cream/c\.png': got no such image file"):
        source.read(["ice_cream/c.png"])
