"""Names, offsets and sizes of the members of a tar file. Nothing is extracted.

`tarfile` reads the headers, but trusts them: here a broken header or a missing end is an error, not the end of the tar,
extended headers have a largest size, and members that are not files are reported.
"""

import os
import tarfile
from collections.abc import Iterable, Iterator
from io import BufferedIOBase
from typing import IO, NamedTuple

BLOCK = tarfile.BLOCKSIZE
_PIECE = 1 << 20
_MOST_HEADER = 1 << 16
_EXTENDED = b"xgXLK"  # types of headers of a following member: pax, and long names of GNU
_KINDS = {
    tarfile.LNKTYPE: "hard link", tarfile.SYMTYPE: "symbolic link", tarfile.FIFOTYPE: "pipe",
    tarfile.CHRTYPE: "device", tarfile.BLKTYPE: "device",
}  # fmt: skip


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


class _Header(tarfile.TarInfo):
    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> "_Header":
        header = super().frombuf(buf, encoding, errors)
        if header.size < 0 or (header.type in _EXTENDED and header.size > _MOST_HEADER):
            raise tarfile.ReadError(f"a header of {header.size:,} bytes")
        return header


def is_tar(head: bytes) -> bool:
    """Return whether bytes start with the header of a tar member."""
    try:
        tarfile.TarInfo.frombuf(head[:BLOCK], "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return False
    return True


def members(stream: BufferedIOBase) -> Iterator[Member]:
    """Yield the members of a tar, except folders.

    Raises:
        tarfile.TarError: The tar is broken from some byte on.
    """
    end, offset = stream.seek(0, os.SEEK_END), stream.seek(0)
    try:
        with tarfile.TarFile(fileobj=stream, tarinfo=_Header, encoding="utf-8", errors="surrogateescape") as tar:
            while header := tar.next():
                tar.members.clear()  # pyright: ignore[reportAttributeAccessIssue]
                offset, plain = tar.offset, header.isreg() and not header.issparse()
                if header.size < 0 or (plain and header.offset_data + header.size > end):
                    raise tarfile.ReadError(f"member {header.name!r} is truncated")
                if not header.isdir() and not header.name.endswith("/"):
                    yield Member(header.name, header.offset_data, header.size, _problem(header), header.offset, offset)
    except (ValueError, IndexError, OverflowError, RecursionError) as error:
        raise tarfile.ReadError(f"a broken header after byte {offset:,}") from error
    stream.seek(offset)
    block = stream.read(BLOCK)
    if len(block) < BLOCK:
        raise tarfile.ReadError("the end of the tar is missing")
    if any(block):  # a tar ends with two blocks of zeros; one is accepted
        raise tarfile.ReadError(f"no tar header at byte {offset:,}")


def _problem(header: tarfile.TarInfo) -> str:
    if header.issparse():
        return "sparse member"
    return "" if header.isreg() else _KINDS.get(header.type, "member of an unknown kind")


def copy_members(original: BufferedIOBase, stream: IO[bytes], changes: Iterable[tuple[Member, bytes | None]]) -> None:
    """Copy a tar byte by byte, except some members: None leaves one out, bytes replace its content."""
    copied = 0
    for member, data in sorted(changes, key=lambda change: change[0].begin):
        _copy(original, stream, copied, member.begin)
        copied = member.end
        if data is not None:
            header = tarfile.TarInfo(member.name)
            header.size = len(data)
            stream.write(header.tobuf(tarfile.GNU_FORMAT, errors="surrogateescape"))
            stream.write(data.ljust(-(-len(data) // BLOCK) * BLOCK, b"\0"))
    _copy(original, stream, copied, original.seek(0, os.SEEK_END))


def _copy(original: BufferedIOBase, stream: IO[bytes], begin: int, end: int) -> None:
    original.seek(begin)
    while begin < end:
        data = original.read(min(_PIECE, end - begin))
        stream.write(data)
        begin += len(data)
