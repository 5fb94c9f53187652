"""Tars: hostile ones end quickly and write nothing, what is good in them is used; Python agrees on good ones."""

import io
import tarfile
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clipmem.base.errors import InputError
from clipmem.base.hashing import pair_uid
from clipmem.base.sections import DataSection
from clipmem.data.sources import open_source
from clipmem.data.sources.tar import Member, TarError, is_tar, members
from clipmem.data.sources.webdataset import expand
from tests.tiny import encoded_image
from tests.unit.data.sources.formats import add_member

BAD = [
    ("link.jpg", tarfile.SYMTYPE, "/etc/passwd"),
    ("hard.jpg", tarfile.LNKTYPE, "good.png"),
    ("device.jpg", tarfile.CHRTYPE, ""),
    ("pipe.jpg", tarfile.FIFOTYPE, ""),
]


def hostile_tar(path):
    """A good pair between links, a device, a pipe, names that lead out, a sparse and a huge member."""
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as tar:
        for name, kind, target in BAD:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, target
            tar.addfile(info)
            add_member(tar, name.replace(".jpg", ".txt"), b"a caption")
        for name in ("/absolute/a", "../../outside/b", "good"):
            add_member(tar, f"{name}.png", encoded_image(len(name)))
            add_member(tar, f"{name}.txt", b"a good one")
        sparse = tarfile.TarInfo("sparse.png")
        sparse.type, sparse.size = b"S", 512
        header = bytearray(sparse.tobuf(tarfile.GNU_FORMAT))
        header[386:410] = b"00000000000\0" + b"00000001000\0"  # one piece of the map
        header[483:495] = b"77777777777\0"  # that says 8 GiB
        header[148:156] = b" " * 8
        header[148:156] = b"%06o\0 " % sum(header)
        tar.fileobj.write(bytes(header) + b"x" * 512)
        tar.offset += 1024
        add_member(tar, "sparse.txt", b"a caption")
    size = 10 * 2**30
    with path.open("r+b") as stream:
        end = list(members(stream))[-1]
        stream.seek(end.offset + 512)
        huge = tarfile.TarInfo("huge.png")
        huge.size = size
        stream.write(huge.tobuf(tarfile.GNU_FORMAT))
        stream.truncate(stream.tell() + size)  # a hole: 10 GiB that take no room
        stream.seek(0, io.SEEK_END)
        tail = io.BytesIO()
        with tarfile.open(fileobj=tail, mode="w") as tar:
            add_member(tar, "huge.txt", b"a caption")
            add_member(tar, "last.png", encoded_image(99))
            add_member(tar, "last.txt", b"the last")
        stream.write(tail.getvalue())


def test_a_hostile_tar_writes_nothing_and_ends(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    hostile_tar(folder / "0.tar")
    before = sorted(tmp_path.rglob("*"))
    started = time.monotonic()
    source = open_source(DataSection(path=str(folder)))
    pairs = source.pairs()
    good = {"/absolute/a": 11, "../../outside/b": 15, "good": 4}
    wanted = {pair_uid(encoded_image(seed), ["a good one"]) for seed in good.values()} | {
        pair_uid(encoded_image(99), ["the last"])
    }
    assert set(pairs["uid"]) == wanted
    assert set(pairs["key"]) == {*good, "last"}
    assert len(source.read(pairs["image"].to_list())) == 4
    assert sorted(source.problems) == [
        ("0.tar", "device", "device"),
        ("0.tar", "hard", "hard link"),
        ("0.tar", "huge", "too many bytes"),
        ("0.tar", "link", "symbolic link"),
        ("0.tar", "pipe", "pipe"),
        ("0.tar", "sparse", "sparse member"),
    ]
    assert sorted(tmp_path.rglob("*")) == before
    assert time.monotonic() - started < 5


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@settings(max_examples=25)
@given(data=st.data())
def test_the_members_are_those_that_python_finds(form, data):
    names = st.text("abö/.0123456789 ", min_size=1, max_size=95 if form == tarfile.USTAR_FORMAT else 300)
    # a name that ends in a slash is a folder's
    listed = data.draw(st.lists(st.tuples(names.map(lambda name: f"{name}x"), st.binary(max_size=1500)), max_size=6))
    stream = io.BytesIO()
    try:
        with tarfile.open(fileobj=stream, mode="w", format=form) as tar:
            for name, content in listed:
                add_member(tar, name, content)
    except ValueError:  # USTAR: the name is too long
        return
    stream.seek(0)
    with tarfile.open(fileobj=stream) as tar:
        wanted = [Member(info.name, info.offset_data, info.size) for info in tar]
    found = [member._replace(name=member.name.rstrip("/"), begin=0, end=0) for member in members(stream)]
    assert found == wanted


@given(st.binary(max_size=3000))
def test_random_bytes_are_no_tar(data):
    assert not is_tar(data)
    if len(data) >= 512 and any(data[:512]):
        with pytest.raises(TarError):
            list(members(io.BytesIO(data)))


@settings(max_examples=200)
@given(st.integers(0, 4095), st.binary(min_size=1, max_size=8))
def test_a_changed_tar_ends_with_members_or_a_tar_error(place, change):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as tar:
        add_member(tar, "ö" * 120, b"x" * 700)
        add_member(tar, "b.png", b"y" * 600)
    raw = bytearray(stream.getvalue()[:5120])
    raw[place : place + len(change)] = change
    try:
        found = list(members(io.BytesIO(bytes(raw))))
    except TarError:
        return
    assert all(0 < one.offset <= len(raw) and one.size <= len(raw) for one in found)


def test_a_giant_extended_header_is_refused():
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.XHDTYPE, 2**40
    with pytest.raises(TarError, match="the end of the tar is missing"):
        list(members(io.BytesIO(tarfile.TarInfo("x").tobuf())))
    with pytest.raises(TarError, match=r"a header of 1,099,511,627,776 bytes at byte 0"):
        list(members(io.BytesIO(info.tobuf(tarfile.GNU_FORMAT))))


def shard(path, members):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, data in members:
            add_member(tar, name, data)
    return path


def pair_members(*numbers):
    return [
        one for k in numbers for one in ((f"{k:03d}.png", encoded_image(k)), (f"{k:03d}.txt", f"caption {k}".encode()))
    ]  # fmt: skip


def test_ranges_lists_and_folders_name_the_same_pairs(tmp_path):
    for k in range(3):
        shard(tmp_path / "shards" / f"s-{k:04d}.tar", pair_members(2 * k, 2 * k + 1))
    paths = [
        str(tmp_path / "shards"),
        str(tmp_path / "shards" / "s-{0000..0002}.tar"),
        "::".join(str(tmp_path / "shards" / f"s-000{k}.tar") for k in range(3)),
        f"{tmp_path}/shards/s-{{0000..0001}}.tar::{tmp_path}/shards/s-0002.tar",
    ]
    found = []
    for path in paths:
        source = open_source(DataSection(path=path))
        pairs = source.pairs()
        assert source.problems == []
        assert len(source.read(pairs["image"].to_list())) == 6
        found.append(pairs["uid"].to_list())
    assert found == [found[0]] * 4
    with pytest.raises(InputError) as error:
        open_source(DataSection(path=str(tmp_path / "shards" / "s-{0001..0004}.tar")))
    assert str(error.value) == (
        f"[data] path: got no file {str(tmp_path / 'shards' / 's-0003.tar')!r} (2 of 4 shards are missing), "
        "expected all named shards. Restore it, or fix the range."
    )


def test_expand():
    assert expand("a/{0..2}/{x,y}.tar") == [f"a/{k}/{name}.tar" for k in range(3) for name in "xy"]
    assert expand("{098..101}") == ["098", "099", "100", "101"]
    for text in ("{5..1}.tar", "{0..9999999}.tar"):
        with pytest.raises(InputError, match="an increasing range of at most 1,000,000 shards"):
            expand(text)
    with pytest.raises(InputError, match="more than 1,000,000 shards"):
        expand("{0..9999}{0..9999}.tar")


def test_members_that_do_not_stand_together_are_still_one_pair(tmp_path):
    names = pair_members(1, 2, 3)
    one = shard(tmp_path / "a.tar", names)
    other = shard(tmp_path / "b.tar", names[::2] + names[1::2])
    alone = open_source(DataSection(path=str(one))).pairs()
    source = open_source(DataSection(path=str(other)))
    assert source.pairs()["uid"].to_list() == alone["uid"].to_list()
    assert source.problems == []


def test_what_is_missing_or_broken_is_listed_and_the_rest_used(tmp_path):
    shard(
        tmp_path / "0.tar",
        [
            *pair_members(1),
            ("002.png", encoded_image(2)),  # no caption
            ("003.txt", b"no image"),
            ("004.png", b""),
            ("004.txt", b"zero bytes"),
            ("005.jpg", b"<html>not found</html>"),
            ("005.txt", b"not an image"),
            ("006.png", encoded_image(6)),
            ("006.txt", b"\xff\xfe\x00\xd8"),  # half a surrogate pair of UTF-16
            ("007.png", encoded_image(7)),
            ("007.txt", b"caf\xe9"),
            ("008.png", encoded_image(1)),
            ("008.txt", b"caption 1"),
            *pair_members(9),
        ],
    )
    cut = shard(tmp_path / "1.tar", pair_members(20, 21))
    cut.write_bytes(cut.read_bytes()[:3590])
    (tmp_path / "2.tar").write_bytes(b"")
    source = open_source(DataSection(path=str(tmp_path)))
    assert sorted(source.pairs()["key"]) == ["001", "009", "020"]
    assert sorted(source.problems) == [
        ("0.tar", "002", "no caption"),
        ("0.tar", "003", "no image"),
        ("0.tar", "004", "empty file"),
        ("0.tar", "005", "not an image of a known format"),
        ("0.tar", "006", "caption is not valid Unicode (save the file as UTF-8)"),
        ("0.tar", "007", "caption is not valid Unicode (save the file as UTF-8)"),
        ("0.tar", "008", "same image and captions as an earlier record"),
        ("1.tar", "021", "no caption"),
        ("1.tar", "member '021.txt' is truncated", "broken or truncated tar"),
        ("2.tar", "the end of the tar is missing", "broken or truncated tar"),
    ]


def test_img2dataset_tables_and_statistics(tmp_path):
    import polars as pl

    shard(tmp_path / "00000.tar", pair_members(1, 2, 3))
    pl.DataFrame(
        {
            "key": ["001", "002", "003", "004"],
            "status": ["success", "failed_to_resize", "success", "failed_to_download"],
        }
    ).write_parquet(tmp_path / "00000.parquet")
    (tmp_path / "00000_stats.json").write_text('{"count": 6, "successes": 5}')
    source = open_source(DataSection(path=str(tmp_path)))
    assert sorted(source.pairs()["key"]) == ["001", "003"]
    assert sorted(source.problems) == [
        ("00000.parquet", "002", "img2dataset: failed_to_resize"),
        ("00000.parquet", "004", "img2dataset: failed_to_download"),
        ("00000.tar", "3 of 5", "fewer images than in its _stats.json"),
    ]


def test_captions_of_json_and_text(tmp_path):
    shard(
        tmp_path / "0.tar",
        [
            ("a.jpg", encoded_image(1, form="JPEG")),
            ("a.json", b'{"caption": "of the json", "width": 3}'),
            ("b.jpg", encoded_image(2, form="JPEG")),
            ("b.json", b'{"caption": "of the json"}'),
            ("b.txt", b"of the text,\nall of it\n"),
            ("c.jpg", encoded_image(3, form="JPEG")),
            ("c.json", b'{"captions": ["one", "two"]}'),
            ("c.txt", b"one"),
            ("d.jpg", encoded_image(4, form="JPEG")),
            ("d.json", b"[not json"),
            ("d.txt", b"still there"),
        ],
    )
    pairs = open_source(DataSection(path=str(tmp_path / "0.tar"))).pairs()
    assert dict(zip(pairs["key"], pairs["captions"].to_list(), strict=True)) == {
        "a": ["of the json"],
        "b": ["of the text,\nall of it"],
        "c": ["one", "two"],
        "d": ["still there"],
    }


def test_compressed_and_other_files_are_refused(tmp_path):
    (tmp_path / "a.tar").write_bytes(b"\x1f\x8b" + b"x" * 600)
    (tmp_path / "b.tar").write_bytes(b"hello" * 200)
    messages = {
        "a.tar": "got a compressed tar, expected an uncompressed tar. Decompress it, for example with gunzip.",
        "b.tar": "got a file that is not a tar, expected an uncompressed tar. Remove it from data.path.",
    }
    for name, text in messages.items():
        with pytest.raises(InputError) as error:
            open_source(DataSection(source="webdataset", path=str(tmp_path / name)))
        assert str(error.value) == f"{tmp_path / name}: {text}"


def test_a_tar_that_has_changed_since_is_named(tmp_path):
    path = shard(tmp_path / "0.tar", pair_members(1, 2))
    source = open_source(DataSection(path=str(path)))
    references = source.pairs()["image"].to_list()
    path.write_bytes(path.read_bytes()[:600])
    with pytest.raises(InputError, match="got a shorter tar than before"):
        source.read(references)
    path.unlink()
    with pytest.raises(InputError, match="got No such file or directory, expected unchanged data"):
        source.read(references)
