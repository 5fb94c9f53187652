"""One set of pairs in every format: the same uids, the same images, and the format is told by its content."""

import pytest

from clipmem.base.hashing import pair_uid
from clipmem.base.sections import DataSection
from clipmem.data.sources import detect, open_source
from tests.unit.data.sources.formats import FORMATS, some_pairs


@pytest.fixture(scope="module", params=FORMATS)
def written(request, tmp_path_factory):
    format_name, write = FORMATS[request.param]
    pairs = some_pairs()
    return format_name, write(tmp_path_factory.mktemp("data") / "set", pairs), pairs


def test_the_same_uids_from_every_format(written):
    _, path, pairs = written
    source = open_source(DataSection(path=str(path)))
    table = source.pairs()
    assert source.problems == []
    assert dict(zip(table["uid"], table["captions"].to_list(), strict=True)) == {
        pair_uid(data, captions): captions for _, data, captions in pairs
    }
    assert table["uid"].is_sorted()
    assert table["group"].to_list() == table["uid"].to_list()


def test_images_come_back_in_any_order(written):
    _, path, pairs = written
    references = open_source(DataSection(path=str(path))).pairs()
    by_uid = {pair_uid(data, captions): data for _, data, captions in pairs}
    # another process, which has never listed the pairs
    source = open_source(DataSection(path=str(path)))
    names = references["image"].to_list()
    assert source.read(names) == [by_uid[uid] for uid in references["uid"]]
    assert source.read(names[::-1]) == [by_uid[uid] for uid in references["uid"]][::-1]
    assert source.read([names[2]] * 2) == [by_uid[references["uid"][2]]] * 2
    assert sorted(source.storage_order(names)) == list(range(len(names)))


def test_each_is_recognized(written):
    format_name, path, _ = written
    found = detect(str(path))
    assert found.format == format_name
    assert found.path == str(path)
    assert found.reason
