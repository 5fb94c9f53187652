"""Properties of a path for format detection, read once: first bytes, parsed JSON, names in a folder."""

import itertools
import json
import os
import re
from collections import Counter
from collections.abc import Container, Iterable, Iterator
from functools import cached_property
from pathlib import Path, PurePosixPath

import pyarrow as pa
import pyarrow.parquet as pq

from clipmem.base.remote import RemotePath, arrow_input, data_path
from clipmem.base.sections import DataSection
from clipmem.data.decoding import image_format
from clipmem.data.skipped import Ledger

IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff")
PACKED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd")  # gzip, bzip2, xz, zstd
_HEAD = 1 << 16
_LINE = 1 << 20
_PARSED = 32 * 2**20  # COCO also has other JSON files of half a gigabyte
_MANY = 20_000  # maximum number of names of a folder


def text_encoding(head: bytes) -> str:
    """Return the encoding of a text file: UTF-16 with a byte order mark, else UTF-8."""
    return "utf-16" if head[:2] in {b"\xff\xfe", b"\xfe\xff"} else "utf-8-sig"


def parse_json(text: str | bytes) -> object:
    """Parse JSON; None if it is invalid or nested too deeply."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


class PathProbe:
    """A path as written by the user, and its content."""

    def __init__(self, text: str, section: DataSection | None = None) -> None:
        self.text, self.path = text, data_path(text)
        self.section = section or DataSection()
        self.is_file, self.is_dir = self.path.is_file(), self.path.is_dir()
        self.unreadable: list[tuple[str, str]] = []

    @cached_property
    def head(self) -> bytes:
        """The first 64 KiB of a file; empty for a folder."""
        if not self.is_file:
            return b""
        with self.path.open("rb") as stream:
            return stream.read(_HEAD)

    @cached_property
    def lines(self) -> list[str]:
        """The first lines of a text file, at most 50; empty for other files."""
        text = self.head.decode(text_encoding(self.head), "replace")
        # as bytes: str.splitlines also ends lines at U+2028 and U+0085
        lines = [line.decode() for line in text.lstrip("\r\n").encode().splitlines()]
        if len(self.head) == _HEAD and len(lines) > 1:  # the last one may be cut
            lines.pop()
        control = sum(character < " " and character not in "\t\r\n\x1b" for character in text)
        return lines[:50] if control <= len(text) // 100 else []

    @cached_property
    def first_row(self) -> object:
        """The parsed first line; None if it is not JSON or has more than 1 MiB."""
        if len(self.lines) != 1 or len(self.head) < _HEAD:
            return parse_json(self.lines[0]) if self.lines else None
        with self.path.open("rb") as stream:
            return parse_json(stream.readline(_LINE))

    @cached_property
    def document(self) -> object:
        """The parsed JSON of a file of at most 32 MiB, or None."""
        return parse_json(self.path.read_bytes()) if self._may_be_json and not self.large_json else None

    @property
    def _may_be_json(self) -> bool:
        return self.head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith((b"{", b"["))

    @cached_property
    def large_json(self) -> str:
        """The first and last 64 KiB of a JSON file that is too large to parse for detection."""
        if not self._may_be_json or self.path.stat().st_size <= _PARSED:
            return ""
        with self.path.open("rb") as stream:
            stream.seek(-min(_HEAD, self.path.stat().st_size), os.SEEK_END)
            return (self.head + stream.read()).decode("utf-8", "replace")

    def lists(self, name: str, *keys: str) -> bool:
        """Return whether the JSON object has a list `name` whose first object has these keys; a large one, the keys."""
        if self.large_json:
            return all(f'"{key}"' in self.large_json for key in keys)
        values = self.document.get(name) if isinstance(self.document, dict) else None
        first = values[0] if isinstance(values, list) and values else None
        return isinstance(first, dict) and all(key in first for key in keys)

    @cached_property
    def columns(self) -> list[str]:
        """The columns of a Parquet file; empty for other files."""
        if not self.head.startswith(b"PAR1"):  # opening a pipe would block
            return []
        try:
            return list(pq.read_schema(arrow_input(self.path)).names)
        except (pa.ArrowException, OSError):
            return []

    @cached_property
    def names(self) -> list[str]:
        """The columns of a table: Parquet columns, keys of the first JSON line, or header; else empty."""
        if self.columns or not self.lines or self.document is not None:
            return self.columns
        row = self.first_row or re.split(r"[,\t;|]", self.lines[0])
        names = row if isinstance(row, dict | list) and len(row) > 1 else ()
        return [str(name).strip() for name in names]

    @cached_property
    def files(self) -> list[str]:
        """The first 20,000 of `all_files`."""
        return list(itertools.islice(self.all_files(), _MANY))

    def all_files(self) -> Iterator[str]:
        """Yield the names of all files in a folder and its sub-folders in order, except hidden ones."""
        self.unreadable = []

        def fails(error: OSError) -> None:
            self.unreadable.append((str(error.filename), "unreadable folder"))

        remote = self.path if isinstance(self.path, RemotePath) else None
        for folder, names, files in remote.walk() if remote else os.walk(self.path, onerror=fails):
            names[:] = sorted(name for name in names if name[0] != ".")
            inside = PurePosixPath(folder).relative_to(PurePosixPath(self.path)).as_posix()
            linked = [Path(folder) / name for name in names if not remote and (Path(folder) / name).is_symlink()]
            self.unreadable += [(str(link), "link to a folder, not followed") for link in linked]
            yield from (name if inside == "." else f"{inside}/{name}" for name in sorted(files) if name[0] != ".")

    def count_others(self, ledger: Ledger, names: Iterable[str], used: Container[str]) -> None:
        """Count the files that a source does not use, and list folders that cannot be read."""
        for name in names:
            if name not in used:
                ledger.ignore(name)
        for name, reason in self.unreadable:
            ledger.note(name, name, reason)

    def with_suffix(self, *suffixes: str) -> list[str]:
        """Return the names in a folder with one of these suffixes."""
        return [name for name in self.files if name.lower().endswith(suffixes)]

    def describe(self) -> str:
        """Describe the content of the path in a few words."""
        if self.is_dir:
            counts = Counter(PurePosixPath(name).suffix.lower() for name in self.files)
            common = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:4]
            kinds = ", ".join(f"{count:,} {suffix or 'without extension'}" for suffix, count in common)
            return f"a folder with {kinds}" if kinds else "an empty folder"
        if not self.is_file:
            return "neither a file nor a folder" if self.path.exists() else "no such file or folder"
        if not self.head:
            return "an empty file"
        if image_format(self.head):
            return "one image"
        if self.head.startswith(PACKED):
            return "a compressed file"
        if self.head.startswith(b"PAR1") and not self.columns:
            return "unreadable Parquet"
        if self.columns or (self.names and self.path.suffix.lower() in {".csv", ".tsv", ".jsonl"}):
            return f"{'Parquet' if self.columns else 'a table'} with the columns {self.names[:6]}"
        if self.large_json:
            return f"JSON of {self.path.stat().st_size // 2**20:,} MiB that begins {self.large_json[:60]!r}"
        if isinstance(self.document, dict):
            return f"JSON with the keys {[str(key) for key in list(self.document)[:6]]}"
        if self.document is not None:
            return "a JSON list"
        return f"text that begins {self.lines[0][:60]!r}" if self.lines else "a file of an unknown kind"
