"""Atomic writes: a temporary file in the same folder, flushed to disk, then renamed.

A process killed at any moment leaves the old file, the new one, or a stray `.tmp`; never a partial file.
"""

import contextlib
import errno
import json
import os
import shutil
import tempfile
from collections.abc import Generator
from pathlib import Path
from typing import IO

from clipmem.base.errors import require
from clipmem.base.paths import as_write_error, checked_path

_PROBE = 1 << 16
_PARTIAL = ".clipmem-partial.tmp"


@contextlib.contextmanager
def explain_write_errors(path: Path) -> Generator[None]:
    """Convert an operating-system error while writing `path` into clipmem's."""
    try:
        yield
    except OSError as error:
        raise as_write_error(error, path, room=_room(path, error)) from error


def _room(path: Path, error: OSError) -> str:
    """Describe the free disk space if the disk is full (not for quotas)."""
    there = next((folder for folder in path.parents if folder.is_dir()), None)
    if error.errno != errno.ENOSPC or there is None:
        return ""
    disk = shutil.disk_usage(there)
    return f", {disk.free / 1e6:,.2f} of {disk.total / 1e6:,.2f} MB free"


def make_folder(path: Path) -> Path:
    """Create a folder and its parents."""
    with explain_write_errors(path):
        path.mkdir(parents=True, exist_ok=True)
    return path


def check_place(path: Path) -> None:
    """Check that a folder can be created at `path`, or written to if it exists, without leaving anything behind."""
    with explain_write_errors(path):
        # tried, since permission bits are wrong for /proc and read-only file systems
        there = next((folder for folder in (path, *path.parents) if folder.exists()), Path())
        Path(tempfile.mkdtemp(prefix=".clipmem-", suffix=".tmp", dir=there)).rmdir()


def check_new_table(out: Path, option: str = "--out") -> None:
    """Check the output file of a table: its extension, and that its folder can be written to."""
    require(out.suffix.lower() == ".parquet", option, f"{out}", "a .parquet file", "Use the extension .parquet.")
    check_place(checked_path(out, option).parent)


def is_free(folder: Path) -> bool:
    """Return whether a folder is new or empty, apart from what a killed command left."""
    return not folder.is_dir() or all(file.name.startswith(".") and file.suffix == ".tmp" for file in folder.iterdir())


@contextlib.contextmanager
def atomic_file(path: Path) -> Generator[IO[bytes]]:
    """Open a binary file for writing that gets its name only if the block ends without an error."""
    make_folder(path.parent)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with explain_write_errors(path):
        try:
            with temporary.open("wb") as stream:
                try:
                    yield stream
                except Exception:
                    _raise_write_error(stream)
                    raise
                stream.flush()
                os.fsync(stream.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)  # also on Ctrl-C
            raise


@contextlib.contextmanager
def atomic_folder(path: Path) -> Generator[Path]:
    """Yield a folder whose files get into `path`, a new or empty folder, only if the block ends without an error."""
    place = path.resolve()  # which has a name, unlike "."
    # into an empty folder files are moved: it may be another file system, or where the user is
    partial = place / _PARTIAL if place.is_dir() else place.with_name(f".{place.name}{_PARTIAL}")
    shutil.rmtree(partial, ignore_errors=True)  # of a call that was killed
    try:
        yield make_folder(partial)
        with explain_write_errors(path):
            if partial.parent == place:
                for file in partial.iterdir():
                    file.replace(place / file.name)
                partial.rmdir()
            else:
                partial.replace(place)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def _raise_write_error(stream: IO[bytes]) -> None:
    """Raise the system's error if writing fails: numpy drops its errno, polars raises another class."""
    if not stream.closed:
        stream.seek(0, os.SEEK_END)
        stream.write(bytes(_PROBE))
        stream.flush()


def atomic_write(path: Path, data: bytes) -> None:
    """Write `data` to `path` atomically (see `atomic_file`)."""
    with atomic_file(path) as stream:
        stream.write(data)


def write_json(path: Path, value: object) -> Path:
    """Write a JSON document atomically."""
    text = json.dumps(value, indent=1, allow_nan=False, ensure_ascii=False) + "\n"
    atomic_write(path, text.encode("utf-8", "surrogatepass"))
    return path
