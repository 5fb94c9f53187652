"""One set of pairs in every format: the same uids and images; a key of `[data]` that is set is obeyed or refused."""

import polars as pl
import pytest

from clipmem.base.errors import InputError
from clipmem.base.hashing import pair_uid
from clipmem.base.sections import DataSection
from clipmem.data.sources import SOURCES, data_section, detect, open_source
from tests.unit.data.sources import formats
from tests.unit.data.sources.formats import FORMATS, some_pairs
from tests.unit.data.sources.test_base import IMAGES, opened, refused
from tests.unit.data.sources.test_webdataset import shard


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


ASKED = {
    "image_root": ".", "split": "train", "download": True, "image_column": "nope", "caption_column": "nope",
    "group_column": "nope", "label_column": "nope", "object_column": "nope",
}  # fmt: skip


@pytest.mark.parametrize("name", formats.FORMATS)
def test_every_setting_is_used_or_refused(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    format_name, write = formats.FORMATS[name]
    path = write(tmp_path / "set", formats.some_pairs())
    assert set(SOURCES[format_name].uses) <= set(DataSection.model_fields)
    for source in ("auto", format_name):
        for key, value in ASKED.items():
            if key not in SOURCES[format_name].uses:
                error = refused(path, source=source, **{key: value})
                assert error.what == f"[data] {key}"
                assert repr(value) in error.got
                assert f"Remove data.{key}" in error.hint
            elif key.endswith("_column"):
                error = refused(path, source=source, **{key: value})
                assert "nope" in error.got
                assert error.hint


def test_a_column_that_only_one_format_could_have_is_named(folder):
    path = folder / "pairs.csv"
    path.write_text("foo,bar\n0.jpg,a cat\n1.jpg,a dog\n")
    error = refused(path, image_column="foo", caption_column="baz")
    assert (error.what, error.got) == ("[data] caption_column", f"'baz', which is not in {path}")
    assert "Did you mean 'bar'?" in error.hint
    assert opened(path, image_column="foo", caption_column="bar")[0] == {"0.jpg": ["a cat"], "1.jpg": ["a dog"]}
    pl.DataFrame({"foo": [IMAGES[0]], "bar": ["x"]}).write_parquet(folder / "a.parquet")
    assert refused(folder / "a.parquet", image_column="foo", caption_column="baz").what == "[data] caption_column"


def test_a_named_key_of_the_json_is_the_caption(tmp_path):
    members = [("a.png", IMAGES[0]), ("a.json", b'{"alt": "by the key", "caption": "no"}'), ("a.txt", b"by the text")]
    path = shard(tmp_path / "a.tar", members)
    assert opened(path, caption_column="alt")[0] == {"a": ["by the key"]}
    assert opened(path, caption_column="txt")[0] == {"a": ["by the text"]}
    assert opened(path)[0] == {"a": ["by the text"]}


def test_a_root_for_images_that_are_in_the_table(tmp_path):
    pl.DataFrame({"image": [IMAGES[0]], "text": ["x"]}).write_parquet(tmp_path / "a.parquet")
    assert refused(tmp_path / "a.parquet", image_root=str(tmp_path)).what == "[data] image_root"


def test_path_and_source_of_a_command_line_are_obeyed_or_refused():
    assert data_section("a.tar", settings=["data.source='parquet'"]).source == "parquet"
    assert data_section("a.tar", {"source": "webdataset"}).source == "webdataset"
    assert data_section("a.tar").source == data_section("a.tar", settings=["data.source='auto'"]).source == "auto"
    for key, options in (("path", {}), ("source", {"source": "csv"})):
        with pytest.raises(InputError) as error:
            data_section("a.tar", options, [f"data.{key}='jsonl'"])
        assert error.value.what == f"--set data.{key}"
