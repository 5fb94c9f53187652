"""Names, offsets and sizes of the members of a tar file. Nothing is extracted.

Unlike Python's reader, which is also 2.4 times slower, this one does not trust headers: it does not expand sparse
members or read extended headers of any length, it stops at a wrong checksum, and reports members that are not files.
"""

import os
import tarfile
from collections.abc import Iterable, Iterator
from io import BufferedIOBase
from typing import IO, NamedTuple

BLOCK = 512
_PIECE = 1 << 20
_MOST_HEADER = 1 << 20
_PLAIN = (b"0", b"\0", b"7")
_KINDS = {
    b"1": "hard link", b"2": "symbolic link", b"3": "device", b"4": "device", b"6": "pipe", b"S": "sparse member",
}  # fmt: skip
_SPARSE = {"GNU.sparse.major", "GNU.sparse.size", "GNU.sparse.realsize", "GNU.sparse.map"}


class Member(NamedTuple):
    """One member of a tar file, and why it is not a plain file (or ""); names may have lone surrogates.

    Its headers and bytes are the bytes from `begin` to `end` of the file.
    """

    name: str
    offset: int
    size: int
    problem: str = ""
    begin: int = 0
    end: int = 0


class TarError(ValueError):
    """The tar file is broken from some byte on."""


def is_tar(head: bytes) -> bool:
    """Return whether bytes start with the header of a tar member."""
    return len(head) >= BLOCK and any(head[:BLOCK]) and _checksum_is_right(head[:BLOCK])


def members(stream: BufferedIOBase) -> Iterator[Member]:
    """Yield the members of a tar, except folders."""
    end, offset, first = stream.seek(0, os.SEEK_END), 0, -1
    extended: dict[str, str] = {}
    everywhere: dict[str, str] = {}
    while offset + BLOCK <= end:
        stream.seek(offset)
        header = stream.read(BLOCK)
        if not any(header):  # a tar ends with two blocks of zeros; one is accepted
            return
        if not _checksum_is_right(header):
            raise TarError(f"no tar header at byte {offset:,}")
        kind, size = header[156:157], _number(header[124:136])
        begin = offset + BLOCK
        if kind in {b"x", b"g", b"L", b"K"}:
            if size > _MOST_HEADER or begin + size > end:
                raise TarError(f"a header of {size:,} bytes at byte {offset:,}")
            (everywhere if kind == b"g" else extended).update(_extension(kind, stream.read(size)))
            # a header for all following members belongs to none of them
            first = -1 if kind == b"g" else offset if first < 0 else first
            offset = begin + _padded(size)
            continue
        attributes = {**everywhere, **extended}
        extended = {}
        if (text := attributes.get("size")) is not None:
            if not (text.isascii() and text.isdigit()):
                raise TarError(f"a size of {text!r} before byte {offset:,}")
            size = int(text)
        if kind == b"S":
            begin = _after_sparse_map(stream, header, begin)
        problem = "" if kind == b"5" else _KINDS.get(kind, "member of an unknown kind")
        if kind in _PLAIN:
            problem = "" if _SPARSE.isdisjoint(attributes) else "sparse member"
        prefix = _text(header[345:500]) if header[257:262] == b"ustar" and header[262:263] != b" " else ""
        name = attributes.get("path") or (f"{prefix}/" if prefix else "") + _text(header[:100])
        if begin + size > end and not problem.endswith("link"):
            raise TarError(f"member {name!r} is truncated")
        # links have no bytes, whatever their size
        after = begin + (0 if kind in {b"1", b"2", b"3", b"4", b"5", b"6"} else _padded(size))
        if kind != b"5" and not name.endswith("/"):
            yield Member(name, begin, size, problem, offset if first < 0 else first, after)
        offset, first = after, -1
    raise TarError("the end of the tar is missing")


def copy_members(original: BufferedIOBase, stream: IO[bytes], changes: Iterable[tuple[Member, bytes | None]]) -> None:
    """Copy a tar byte by byte, except some members: None leaves one out, bytes replace its content."""
    position = 0
    for member, data in sorted(changes, key=lambda change: change[0].begin):
        _copy(original, stream, position, member.begin)
        position = member.end
        if data is not None:
            info = tarfile.TarInfo(member.name)
            info.size, info.mode = len(data), 0o644
            stream.write(info.tobuf(tarfile.GNU_FORMAT, errors="surrogateescape"))
            stream.write(data.ljust(_padded(len(data)), b"\0"))
    _copy(original, stream, position, original.seek(0, os.SEEK_END))


def _copy(original: BufferedIOBase, stream: IO[bytes], begin: int, end: int) -> None:
    original.seek(begin)
    while begin < end:
        data = original.read(min(_PIECE, end - begin))
        stream.write(data)
        begin += len(data)


def _checksum_is_right(header: bytes) -> bool:
    try:
        written = _number(header[148:156])
    except TarError:
        return False
    return sum(header) - sum(header[148:156]) + 8 * 32 == written


def _number(field: bytes) -> int:
    """Parse a number: octal digits, or base 256 if the first bit is set."""
    if field[0] & 0x80:
        value = int.from_bytes(bytes([field[0] & 0x7F]) + field[1:], "big")
        if field[0] & 0x40:
            raise TarError("a negative size")
        return value
    digits = field.strip(b" \0").partition(b"\0")[0]
    try:
        return int(digits or b"0", 8)
    except ValueError:
        raise TarError("a number that is not octal") from None


def _padded(size: int) -> int:
    return -(-size // BLOCK) * BLOCK


def _text(data: bytes) -> str:
    return data.partition(b"\0")[0].decode("utf-8", "surrogateescape")


def _extension(kind: bytes, data: bytes) -> dict[str, str]:
    """Parse a long name, or an extended header of lines `LENGTH KEY=VALUE`, where LENGTH counts the whole record."""
    values = {"path": _text(data)} if kind == b"L" else dict[str, str]()
    while data and kind not in {b"L", b"K"}:
        length, separator, _ = data.partition(b" ")
        if not separator or not length.isdigit() or not len(length) + 2 <= int(length) <= len(data):
            raise TarError("a broken extended header")
        key, _, value = data[len(length) + 1 : int(length) - 1].partition(b"=")
        values[key.decode("utf-8", "surrogateescape")] = value.decode("utf-8", "surrogateescape")
        data = data[int(length) :].lstrip(b"\0")
    return values


def _after_sparse_map(stream: BufferedIOBase, header: bytes, begin: int) -> int:
    """Return the offset of a sparse member's bytes, after the blocks that continue its map."""
    more = header[482] != 0
    while more:
        stream.seek(begin)
        block = stream.read(BLOCK)
        if len(block) < BLOCK:
            raise TarError("a truncated sparse map")
        begin, more = begin + BLOCK, block[504] != 0
    return begin
