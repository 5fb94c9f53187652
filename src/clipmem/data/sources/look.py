"""What detection may know of a path, read once for all formats: first bytes, parsed JSON, names in a folder."""

import itertools
import json
import os
from collections import Counter
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path, PurePosixPath

from clipmem.base.recipes import DataSection
from clipmem.data.sources.records import looks_like_a_picture

PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff")
_HEAD = 1 << 16
_MANY = 20_000  # names of a folder that are looked at


class Look:
    """A path as the user wrote it, and what lies there.

    Args:
        text: The path.
        section: The recipe's `[data]` section, whose columns count; the defaults without it.

    Attributes:
        text: The path as written; it may be a list of shards, which no file has as its name.
        path: The path.
    """

    def __init__(self, text: str, section: DataSection | None = None) -> None:
        self.text, self.path = text, Path(text)
        self.section = section or DataSection.model_validate({})
        self.is_file, self.is_dir = self.path.is_file(), self.path.is_dir()

    @cached_property
    def head(self) -> bytes:
        """The first 64 KiB of a file; nothing of a folder."""
        if not self.is_file:
            return b""
        with self.path.open("rb") as stream:
            return stream.read(_HEAD)

    @cached_property
    def lines(self) -> list[str]:
        """The first lines of a text file, at most 50 and whole ones only; none where it is not text."""
        encoding = "utf-16" if self.head[:2] in {b"\xff\xfe", b"\xfe\xff"} else "utf-8-sig"
        text = self.head.decode(encoding, "replace")
        lines = text.splitlines()
        if len(self.head) == _HEAD and len(lines) > 1:  # the last one may be cut
            lines.pop()
        control = sum(character < " " and character not in "\t\r\n\x1b" for character in text)
        return lines[:50] if control <= len(text) // 100 else []

    @cached_property
    def document(self) -> object:
        """A JSON file, parsed; None where it is not one JSON value."""
        if not self.head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith((b"{", b"[")):
            return None
        try:
            return json.loads(self.path.read_text(encoding="utf-8-sig"))
        except (ValueError, RecursionError):
            return None

    @cached_property
    def files(self) -> list[str]:
        """Names of a folder's files, with those of its sub-folders, in order; at most 20,000 of them."""
        return list(itertools.islice(self.all_files(), _MANY))

    def all_files(self) -> Iterator[str]:
        """Yield the names of all files in a folder and its sub-folders, without hidden ones, in order."""
        for folder, names, files in os.walk(self.path):
            names[:] = sorted(name for name in names if name[0] != ".")
            inside = Path(folder).relative_to(self.path).as_posix()
            yield from (name if inside == "." else f"{inside}/{name}" for name in sorted(files) if name[0] != ".")

    @cached_property
    def suffixes(self) -> Counter[str]:
        """How often each name ending occurs in a folder."""
        return Counter(PurePosixPath(name).suffix.lower() for name in self.files)

    def with_suffix(self, *suffixes: str) -> list[str]:
        """Return the names in a folder that end so."""
        return [name for name in self.files if name.lower().endswith(suffixes)]

    def describe(self) -> str:
        """Say in a few words what lies there."""
        if self.is_dir:
            kinds = ", ".join(f"{count:,} {suffix or 'without an ending'}" for suffix, count in self._common())
            return f"a folder with {kinds}" if kinds else "an empty folder"
        if not self.is_file:
            return "no such file or folder"
        if not self.head:
            return "an empty file"
        if looks_like_a_picture(self.head):
            return "one picture"
        if self.head.startswith(b"\x1f\x8b"):
            return "a file compressed with gzip"
        if isinstance(self.document, dict):
            return f"JSON with the keys {[str(key) for key in list(self.document)[:6]]}"
        if self.document is not None:
            return "a JSON list"
        return f"text that begins {self.lines[0][:60]!r}" if self.lines else "a file of an unknown kind"

    def _common(self) -> list[tuple[str, int]]:
        return sorted(self.suffixes.items(), key=lambda item: (-item[1], item[0]))[:4]
