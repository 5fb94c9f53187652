"""Tars: hostile ones end quickly and write nothing; Python agrees on good ones."""

import io
import tarfile
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clipmem.base.hashing import pair_uid
from clipmem.base.sections import DataSection
from clipmem.data.sources import open_source
from clipmem.data.sources.tar import Member, TarError, is_tar, members
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


@pytest.mark.parametrize("size", ["", "-1", "1.5", "٣", "5 "])
def test_a_size_that_is_no_number_is_refused(size):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as tar:
        info = tarfile.TarInfo("a.txt")
        info.size, info.pax_headers = 5, {"size": size}
        tar.addfile(info, io.BytesIO(b"12345"))
    with pytest.raises(TarError, match="a size of"):
        list(members(io.BytesIO(stream.getvalue())))
