"""Cleaned data: kept + corrected + removed = read in every format, and the input is never touched."""

import json
import os
import shutil
import tarfile
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clipmem.base.errors import InputError, RunError
from clipmem.base.hashing import file_sha256, pair_uid
from clipmem.base.sections import DataSection
from clipmem.data.export import check_output, export_pairs, write_cleaned
from clipmem.data.sources import emoji, open_source
from clipmem.study.score_inputs import read_pairs
from tests.tiny import encoded_image
from tests.unit.data.sources.formats import FORMATS, add_member, csv_file, some_pairs, write_csv, write_images

NEW = 'a better caption, with "quotes" and commas'
AS_PARQUET = {"coco", "karpathy", "flickr", "saved"}  # formats that are read, not written


def opened(path, **keys):
    return open_source(DataSection(path=str(path), **keys))


def state(folder):
    return {str(file): file_sha256(file) for file in sorted(folder.rglob("*")) if file.is_file()}


@pytest.mark.parametrize("name", FORMATS)
def test_round_trip_of_every_format(name, tmp_path):
    format_name, write = FORMATS[name]
    pairs = some_pairs()
    path = write(tmp_path / "set", pairs)
    before = state(tmp_path / "set")
    uids = [pair_uid(data, captions) for _, data, captions in pairs]
    out = tmp_path / "clean"
    found = write_cleaned(opened(path), out, [uids[1], uids[4]], {uids[2]: NEW})
    same = format_name not in AS_PARQUET
    assert (found.format, found.same_format) == (format_name if same else "parquet", same)
    assert (found.read, found.kept, found.corrected, found.removed, found.unusable) == (6, 3, 1, 2, 0)
    assert state(tmp_path / "set") == before
    again = opened(found.path)
    table = again.pairs()
    expected = {uids[0], uids[3], uids[5], pair_uid(pairs[2][1], [NEW])}
    assert set(table["uid"]) == expected
    if not same:
        keys = dict(opened(path).pairs().select("uid", "key").iter_rows())
        written = pl.read_parquet(found.path / "*.parquet")
        assert set(written["uid"]) == expected
        assert dict(written.select("uid", "key").iter_rows()).items() >= {uid: keys[uid] for uid in uids[3::2]}.items()
    assert again.problems == []
    images = dict(zip(table["uid"], again.read(table["image"].to_list()), strict=True))
    assert images[uids[5]] == pairs[5][1]  # the same bytes
    assert images[pair_uid(pairs[2][1], [NEW])] == pairs[2][1]
    # the folder is enough: nothing of the input is needed
    (tmp_path / "set").rename(tmp_path / "gone")
    assert set(opened(found.path).pairs()["uid"]) == expected
    assert not list(tmp_path.glob(".*"))


def test_unusable_records_and_duplicates(tmp_path):
    pairs = some_pairs(6, captions=1)
    path = csv_file(tmp_path / "set", pairs)
    (tmp_path / "set" / "copy.png").write_bytes(pairs[1][1])
    (tmp_path / "set" / "broken.png").write_bytes(b"no image")
    more = f"copy.png,{pairs[1][2][0]}\r\nbroken.png,x\r\nmissing.png,y\r\n,z\r\nonly\r\n"
    path.write_bytes(path.read_bytes() + more.encode())
    uid = pair_uid(pairs[1][1], pairs[1][2])
    found = write_cleaned(opened(path), tmp_path / "clean", [uid])
    again = opened(found.path)
    # the copy of the removed pair goes too, and what cannot be used stays as it was
    assert again.pairs().height == 5
    assert (again.ledger.read, again.ledger.left_out) == (9, 4)
    assert found.unusable == 5
    assert (tmp_path / "clean" / "broken.png").read_bytes() == b"no image"
    assert more[more.index("broken") :] in found.path.read_bytes().decode()


def test_lines_keep_their_bytes(tmp_path):
    pairs = some_pairs(3, captions=1)
    write_images(tmp_path / "set", pairs)
    rows = "image;caption\r\n0000.png;  spaced, ünïcode \r\n0001.png;two\r\n0002.png;three"
    (tmp_path / "set" / "pairs.csv").write_bytes(rows.encode("utf-16"))
    uid = pair_uid(pairs[1][1], ["two"])
    found = write_cleaned(opened(tmp_path / "set" / "pairs.csv"), tmp_path / "clean", [uid])
    assert found.path.read_bytes() == rows.replace("0001.png;two\r\n", "").encode("utf-16")


def test_a_tar_keeps_the_bytes_of_other_members(tmp_path):
    folder = tmp_path / "set"
    folder.mkdir()
    long = "f" * 150
    with tarfile.open(folder / "0.tar", "w", format=tarfile.PAX_FORMAT) as tar:
        for k in range(3):
            add_member(tar, f"{long}{k}.png", encoded_image(k))
            add_member(tar, f"{long}{k}.txt", f"thing {k}".encode())
            add_member(tar, f"{long}{k}.cls", b"7")
    (folder / "0_stats.json").write_text(json.dumps({"successes": 3}))
    rows = {"key": [f"{long}0", "x"], "status": ["success", "failed_to_download"]}
    pl.DataFrame(rows).write_parquet(folder / "0.parquet")
    found = write_cleaned(opened(folder), tmp_path / "clean", [pair_uid(encoded_image(0), ["thing 0"])])
    with tarfile.open(tmp_path / "clean" / "0.tar") as tar:
        assert tar.getnames() == [
            f"{long}0.cls",
            *(f"{long}{k}.{end}" for k in (1, 2) for end in ("png", "txt", "cls")),
        ]
    assert opened(tmp_path / "clean").pairs().height == 2
    assert json.loads((tmp_path / "clean" / "0_stats.json").read_text()) == {"successes": 2}
    assert found.unusable == 1


def test_a_range_of_shards_and_one_shard(tmp_path):
    path = FORMATS["webdataset"][1](tmp_path / "set", some_pairs())
    uid = opened(path).pairs()["uid"][0]
    found = write_cleaned(opened(f"{path}/{{00000..00001}}.tar"), tmp_path / "clean", [uid])
    assert opened(found.path).pairs().height == 5
    one = opened(path / "00000.tar")
    found = write_cleaned(one, tmp_path / "one", [one.pairs()["uid"][0]])
    assert found.path == tmp_path / "one" / "00000.tar"


def test_second_members_of_a_key_go_with_its_pair(tmp_path):
    with tarfile.open(tmp_path / "set.tar", "w") as tar:
        for k, key in enumerate(("0000", "0000", "0001", "0002")):
            add_member(tar, f"{key}.png", encoded_image(k))
            add_member(tar, f"{key}.txt", f"thing {k}".encode())
            add_member(tar, f"{key}.v{k}.png", encoded_image(k + 4))
            add_member(tar, f"{key}.v{k}.txt", f"variant {k}".encode())
        link = tarfile.TarInfo("0002.json")
        link.type, link.linkname = tarfile.SYMTYPE, "elsewhere"
        tar.addfile(link)
    source = opened(tmp_path / "set.tar")
    assert (source.pairs().height, source.ledger.read, source.ledger.left_out) == (3, 13, 10)
    removed = [pair_uid(encoded_image(0), ["thing 0"]), pair_uid(encoded_image(3), ["thing 3"])]
    found = write_cleaned(source, tmp_path / "clean", removed)
    assert (found.kept, found.removed, found.records, found.removed_records, found.unusable) == (1, 2, 13, 10, 2)
    with tarfile.open(found.path) as tar:
        assert tar.getnames() == [f"0001.{end}" for end in ("png", "txt", "v2.png", "v2.txt")]


TEXTS = ("\ufeffmark", "end\n", "end\r\n", "end\r", "\n\nbegin", "two\nlines\n\n", "nan", "x\n0005.png,y")
NOT_HELD = {
    "imagefolder-txt": {*TEXTS} - {"\ufeffmark", "end\r", "nan"},
    "imagefolder-csv": {"nan", "x\n0005.png,y"},
    "csv": {"nan", "x\n0005.png,y"},
    "tsv": {"nan"},
}


@pytest.mark.parametrize("name", ["imagefolder-txt", "imagefolder-csv", "csv", "tsv", "jsonl", "webdataset", "txt-tar"])
def test_new_captions_read_back_or_are_refused(name, tmp_path):
    pairs = some_pairs(4, captions=1)
    if name == "txt-tar":
        path = tmp_path / "set.tar"
        with tarfile.open(path, "w") as tar:
            for image, data, [caption] in pairs:
                add_member(tar, image, data)
                add_member(tar, image.replace("png", "txt"), f"{caption}\n\n".encode())
    else:
        path = FORMATS[name][1](tmp_path / "set", pairs)
    table = opened(path).pairs()
    uid, key = table.row(1, named=True)["uid"], table.row(1, named=True)["key"]
    for number, caption in enumerate(TEXTS):
        out = tmp_path / f"clean-{number}"
        if caption in NOT_HELD.get(name, ()):
            with pytest.raises(InputError) as caught:
                write_cleaned(opened(path), out, [], {uid: caption})
            assert key in caught.value.what
            assert repr(caption)[1:4] in caught.value.got
            assert "another caption" in caught.value.hint
            assert not out.exists()
        else:
            found = write_cleaned(opened(path), out, [], {uid: caption})
            assert [caption] in opened(found.path).pairs()["captions"].to_list()
    assert not list(tmp_path.glob(".*"))


def test_an_arrow_file_is_written_back(tmp_path):
    pairs = some_pairs()
    file = FORMATS["saved"][1](tmp_path / "set", pairs) / "data-00000-of-00001.arrow"
    uids = [pair_uid(data, captions) for _, data, captions in pairs]
    found = write_cleaned(opened(file), tmp_path / "clean", uids[:2])
    assert (found.path, found.format, found.same_format) == (tmp_path / "clean" / file.name, "saved", True)
    assert set(opened(found.path).pairs()["uid"]) == set(uids[2:])


def test_class_folders_become_parquet_with_their_classes(tmp_path):
    for k in range(4):
        (tmp_path / "set" / f"kind_{k % 2}").mkdir(parents=True, exist_ok=True)
        (tmp_path / "set" / f"kind_{k % 2}" / f"{k}.png").write_bytes(encoded_image(k))
    source = opened(tmp_path / "set", source="classfolder")
    pairs = source.pairs()
    first, *others = pairs["uid"].to_list()
    found = write_cleaned(source, tmp_path / "clean", [], {first: "another"})
    assert (found.kept, found.corrected, found.removed, found.same_format) == (3, 1, 0, False)
    table = opened(tmp_path / "clean", label_column="label").pairs()
    assert set(others) < set(table["uid"])
    assert sorted(table["label"]) == sorted(pairs["label"])


def test_captions_shared_by_images_of_one_name(tmp_path):
    folder = tmp_path / "set"
    folder.mkdir()
    for k, name in enumerate(("a.png", "b.png", "b.jpg")):
        (folder / name).write_bytes(encoded_image(k))
    (folder / "a.txt").write_text("one")
    (folder / "b.txt").write_text("two")
    (folder / "README.txt").write_text("stays")
    uid = pair_uid(encoded_image(1), ["two"])
    write_cleaned(opened(folder), tmp_path / "clean", [uid])
    assert sorted(file.name for file in (tmp_path / "clean").iterdir()) == [
        "README.txt", "a.png", "a.txt", "b.jpg", "b.txt",
    ]  # fmt: skip


@pytest.mark.parametrize("keys", [{"source": "emoji"}, {"path": "set", "flaws": {"distorted": 0.5}}])
def test_other_sources_are_written_as_parquet(keys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    csv_file(tmp_path / "set", some_pairs())
    table = emoji.emoji_table().head(40)
    monkeypatch.setattr(emoji, "emoji_table", lambda: table)
    source = open_source(DataSection.model_validate(keys))
    uids = source.pairs()["uid"].to_list()
    found = write_cleaned(source, tmp_path / "clean", uids[:2], {uids[2]: NEW})
    assert (found.format, found.same_format, found.removed, found.corrected) == ("parquet", False, 2, 1)
    assert set(uids[3:]) < set(opened(found.path).pairs()["uid"])
    assert opened(found.path).pairs().height == len(uids) - 2


def test_images_that_do_not_decode_are_not_exported(tmp_path):
    pairs = some_pairs(6, captions=1)
    path = csv_file(tmp_path / "set", pairs)
    (tmp_path / "set" / "0003.png").write_bytes(pairs[3][1][:-40])
    source = open_source(DataSection.model_validate({"path": str(path), "flaws": {"distorted": 0.01}}))
    uids = [pair_uid(data, captions) for _, data, captions in pairs]
    found = write_cleaned(source, tmp_path / "clean", [uids[0]])
    assert (found.same_format, found.read, found.kept, found.removed, found.unusable) == (False, 5, 4, 1, 1)
    assert opened(found.path).pairs().height == 4


@pytest.mark.parametrize(
    ("removed", "out", "what"),
    [
        (["unknown"], "clean", "pairs to remove"),
        (None, "clean", "pairs to remove"),
        ([], "set/inside", "--write"),
        ([], "full", "--write"),
    ],
)
def test_refused(removed, out, what, tmp_path):
    path = FORMATS["imagefolder-csv"][1](tmp_path / "set", some_pairs())
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("x")
    source = opened(path)
    before = state(tmp_path)
    with pytest.raises(InputError) as caught:
        write_cleaned(source, tmp_path / out, source.pairs()["uid"].to_list() if removed is None else removed)
    assert caught.value.what.startswith(what)
    assert state(tmp_path) == before


def test_the_place_is_tried_first_and_may_be_the_working_directory(tmp_path, monkeypatch):
    source = opened(FORMATS["csv"][1](tmp_path / "set", some_pairs()))
    with pytest.raises(InputError) as caught:
        check_output(source, Path("/proc/none/clean"))
    assert (caught.value.what, caught.value.hint) == ("--write /proc/none/clean", "Choose another folder.")
    (tmp_path / "clean").mkdir()
    monkeypatch.chdir(tmp_path / "clean")
    write_cleaned(source, Path("."), source.pairs()["uid"].to_list()[:1])  # noqa: PTH201
    assert list((tmp_path / "clean").iterdir())


def test_paths_that_leave_the_folder(tmp_path):
    pairs = some_pairs(3, captions=1)
    write_images(tmp_path / "images", pairs)
    away = [(f"../images/{name}", data, captions) for name, data, captions in pairs]
    path = write_csv(tmp_path / "set" / "pairs.csv", ("image", "caption"), away)
    source = opened(path)
    with pytest.raises(InputError) as caught:
        write_cleaned(source, tmp_path / "clean", source.pairs()["uid"].to_list()[:1])
    assert caught.value.what.startswith("image")
    assert not (tmp_path / "clean").exists()
    here = [(f"{tmp_path}/images/{name}", data, captions) for name, data, captions in pairs]
    source = opened(write_csv(tmp_path / "set" / "here.csv", ("image", "caption"), here))
    found = write_cleaned(source, tmp_path / "clean", source.pairs()["uid"].to_list()[:1])
    assert opened(found.path).pairs().height == 2
    assert [file.name for file in (tmp_path / "clean").iterdir()] == ["here.csv"]


@pytest.mark.parametrize("inside", ["images", ".images", "../real"])
def test_images_that_metadata_name_are_copied_from_anywhere_in_the_folder(inside, tmp_path):
    pairs = [(f"{inside}/{name}", data, captions) for name, data, captions in some_pairs(4, captions=1)]
    folder = tmp_path / "set"
    if inside == "images":
        (tmp_path / "elsewhere").mkdir()
        folder.mkdir()
        (folder / inside).symlink_to(tmp_path / "elsewhere")
    path = FORMATS["imagefolder-csv"][1](folder, pairs)
    source = opened(path)
    uid = pair_uid(pairs[0][1], pairs[0][2])
    if inside == "../real":
        with pytest.raises(InputError) as caught:
            write_cleaned(source, tmp_path / "clean", [uid])
        assert (caught.value.what, caught.value.got) == (
            "image '../real/0001.png'", "a path that leaves the folder of the images",
        )  # fmt: skip
        assert not (tmp_path / "clean").exists()
        return
    found = write_cleaned(source, tmp_path / "clean", [uid])
    folder.rename(tmp_path / "gone")
    assert sorted(file.name for file in (found.path / inside).iterdir()) == ["0001.png", "0002.png", "0003.png"]
    assert (found.kept, opened(found.path).pairs().height) == (3, 3)


def test_links_to_nothing_stay(tmp_path):
    path = FORMATS["imagefolder-txt"][1](tmp_path / "set", some_pairs())
    for name in ("a.png", "inside/b.txt", "c.other"):
        (path / name).parent.mkdir(exist_ok=True)
        (path / name).symlink_to("nothing")
    source = opened(path)
    found = write_cleaned(source, tmp_path / "clean", source.pairs()["uid"].to_list()[:1])
    assert (found.kept, found.records, found.unusable) == (5, 8, 2)
    assert all((found.path / name).is_symlink() for name in ("a.png", "inside/b.txt", "c.other"))


def test_new_captions_of_images_that_share_a_file(tmp_path):
    pairs = some_pairs(4, captions=1)
    path = FORMATS["imagefolder-txt"][1](tmp_path / "set", pairs)
    (path / "0001.jpg").write_bytes(encoded_image(8))
    (path / "0001.gif").write_bytes(b"no image")
    uids = [pair_uid(data, pairs[1][2]) for data in (pairs[1][1], encoded_image(8))]
    for change in ({uids[0]: NEW}, {uids[0]: NEW, uids[1]: "another"}):
        with pytest.raises(InputError) as caught:
            write_cleaned(opened(path), tmp_path / "clean", [], change)
        assert {*f"{caught.value.what} {caught.value.got}".split("'")} >= {"0001.png", "0001.jpg"}
        assert not (tmp_path / "clean").exists()
    found = write_cleaned(opened(path), tmp_path / "clean", [], dict.fromkeys(uids, NEW))
    assert (found.kept, found.corrected) == (3, 2)
    found = write_cleaned(opened(path), tmp_path / "other", uids[1:], {uids[0]: NEW})
    assert (found.kept, found.corrected, found.removed) == (3, 1, 1)


@pytest.mark.parametrize("kind", ["arrow", "parquet"])
def test_types_that_filters_do_not_take(kind, tmp_path):
    pairs = some_pairs(6, captions=1)
    rows = pl.DataFrame({"image": [data for _, data, _ in pairs], "caption": [texts[0] for *_, texts in pairs]})
    path = tmp_path / f"set.{kind}"
    if kind == "arrow":
        rows.write_ipc(path)  # views
    else:
        texts = pa.array([[text, f"{text} again"] for text in rows["caption"]], pa.list_(pa.string(), 2))
        pq.write_table(pa.table({"image": rows["image"].to_arrow(), "caption": texts}), path)
    source = opened(path)
    table = source.pairs()
    uids = table["uid"].to_list()
    found = write_cleaned(source, tmp_path / "clean", uids[:2], {uids[2]: NEW})
    assert (found.kept, found.corrected, found.removed, found.same_format) == (3, 1, 2, True)
    assert opened(found.path).pairs()["captions"].to_list().count([NEW]) == 1
    schemas = [(pa.ipc.open_file if kind == "arrow" else pq.ParquetFile)(file) for file in (path, found.path)]
    first, second = [file.schema if kind == "arrow" else file.schema_arrow for file in schemas]
    assert first.equals(second)


@pytest.mark.parametrize("name", ["webdataset", "parquet-struct"])
def test_names_in_upper_case(name, tmp_path):
    path = FORMATS[name][1](tmp_path / "set", some_pairs())
    keys = {} if name == "webdataset" else {"split": "train"}
    for file in list(path.iterdir()):
        file.rename(file.with_name(f"{file.stem}{file.suffix.upper()}"))
    source = opened(path, **keys)
    assert (source.pairs().height, source.problems, source.ledger.ignored) == (6, [], {})
    found = write_cleaned(source, tmp_path / "clean", source.pairs()["uid"].to_list()[:1])
    assert opened(found.path).pairs().height == 5
    if name == "webdataset":
        assert opened(f"{path}/{{00000..00001}}.TAR").pairs().height == 6


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_blank_lines_and_encodings_stay(form, encoding, tmp_path):
    pairs = some_pairs(3, captions=1)
    write_images(tmp_path / "set", pairs)
    rows = [f'{{"image": "{name}", "caption": "thing {name}"}}\n' for name, *_ in pairs]
    if form == "csv":
        rows = [f"{name},thing {name}\r\n" for name, *_ in pairs]
    text = "\n".join(["\r\n\n", "image,caption\n" * (form == "csv"), *rows, "\n"])
    mark = {"utf-16-le": b"\xff\xfe", "utf-16-be": b"\xfe\xff"}.get(encoding, b"")
    path = tmp_path / "set" / f"pairs.{form}"
    path.write_bytes(mark + text.encode(encoding))
    source = opened(path)
    uid = pair_uid(pairs[1][1], ["thing 0001.png"])
    found = write_cleaned(source, tmp_path / "clean", [uid])
    assert (found.records, found.kept) == (3, 2)
    assert found.path.read_bytes() == mark + text.replace(rows[1], "").encode(encoding)


@pytest.mark.parametrize("name", ["csv", "webdataset", "parquet-struct", "coco", "imagefolder-txt"])
def test_a_full_disk_leaves_nothing(name, tmp_path, disk):
    place, remount = disk
    assert remount("size=64k").returncode == 0
    path = FORMATS[name][1](tmp_path / "set", some_pairs(40))
    source = opened(path)
    with (place / "ballast").open("wb") as stream:
        os.posix_fallocate(stream.fileno(), 0, os.statvfs(place).f_bavail * os.statvfs(place).f_frsize - 8192)
    with pytest.raises(RunError, match="No space left on device"):
        write_cleaned(source, place / "clean", source.pairs()["uid"].to_list()[:1])
    assert [file.name for file in place.iterdir()] == ["ballast"]
    (place / "ballast").unlink()


def test_a_killed_output_is_written_anew(tmp_path, monkeypatch):
    source = opened(csv_file(tmp_path / "set", some_pairs()))
    uids = source.pairs()["uid"].to_list()

    class Killed(BaseException):
        pass

    write = type(source).write_kept

    def kill(self, cleaned):
        write(self, cleaned)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(type(source), "write_kept", kill)
        patch.setattr(shutil, "rmtree", lambda *_, **__: None)  # a killed process cleans nothing up
        with pytest.raises(Killed):
            write_cleaned(source, tmp_path / "clean", uids[:1])
    partial = tmp_path / ".clean.clipmem-partial.tmp"
    assert partial.is_dir()
    assert not (tmp_path / "clean").exists()
    (partial / "stray.png").write_bytes(b"of the killed call")
    assert write_cleaned(source, tmp_path / "clean", uids[:2]).kept == 4
    assert not partial.exists()
    assert not (tmp_path / "clean" / "stray.png").exists()


def test_an_output_that_lacks_a_pair_is_an_error(tmp_path, monkeypatch):
    source = opened(csv_file(tmp_path / "set", some_pairs()))
    uids = source.pairs()["uid"].to_list()
    write = type(source).write_kept

    def loses_one(self, cleaned):
        cleaned.changes[self.pairs().filter(pl.col("uid") == uids[5])["key"][0]] = ""
        return write(self, cleaned)

    monkeypatch.setattr(type(source), "write_kept", loses_one)
    with pytest.raises(RunError, match="1 pairs are missing"):
        write_cleaned(source, tmp_path / "clean", uids[:1])
    assert not (tmp_path / "clean").exists()


def test_records_of_removed_pairs_are_counted_with_their_copies(tmp_path):
    pairs = some_pairs(6, captions=1)
    (tmp_path / "set").mkdir()
    copies = [(f"copy-{name}", *more) for name, *more in pairs[:2]]
    path = csv_file(tmp_path / "set", [*pairs, *copies])
    uids = [pair_uid(data, captions) for _, data, captions in pairs]
    found = write_cleaned(opened(path), tmp_path / "clean", [uids[0], uids[2]])
    assert (found.read, found.kept, found.removed) == (6, 4, 2)
    assert (found.records, found.removed_records) == (8, 3)
    assert len(path.read_text().splitlines()) - len(found.path.read_text().splitlines()) == found.removed_records


@pytest.mark.parametrize("kind", ["csv", "parquet"])
@pytest.mark.parametrize("to", ["images/new", "images/0/new", "link/new", "far/new"])
def test_nothing_is_written_among_the_images_of_a_table(tmp_path, kind, to):
    (tmp_path / "set").mkdir()
    pairs = [(f"images/{k % 2}/{name}" if k else f"{tmp_path}/far/{name}", *more)
             for k, (name, *more) in enumerate(some_pairs())]  # fmt: skip
    write_images(tmp_path / "set", pairs)
    table = pl.DataFrame({"image": [pair[0] for pair in pairs], "caption": [pair[2][0] for pair in pairs]})
    path = tmp_path / "set" / f"table.{kind}"
    (table.write_csv if kind == "csv" else table.write_parquet)(path)
    (tmp_path / "set" / "link").symlink_to("images")
    (tmp_path / "set" / "far").symlink_to(tmp_path / "far")
    before, out = state(tmp_path), tmp_path / "set" / to
    for option, write in (
        ("--out", lambda: export_pairs(opened(path), out, "parquet")),
        ("--write", lambda: write_cleaned(opened(path), out, [])),
        ("--data", lambda: read_pairs(str(path), None, "").refuse("--data", out)),
    ):
        with pytest.raises(InputError) as error:
            write()
        assert (error.value.what, error.value.got) == (f"{option} {out}", "a folder inside the data")
    assert state(tmp_path) == before
    assert not out.exists()
    assert export_pairs(opened(path), tmp_path / "set" / "new", "parquet") == 6  # beside the table
