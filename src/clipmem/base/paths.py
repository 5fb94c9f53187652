"""Paths given by the user, errors of the operating system as clipmem's, and atomic writes.

A file is written to a temporary one in the same folder, flushed to disk, then renamed. A process killed at any moment
leaves the old file, the new one, or a stray `.tmp`; never a partial file.
"""

import contextlib
import errno
import json
import os
import re
import shutil
import tempfile
from collections.abc import Generator
from pathlib import Path
from typing import IO

from clipmem.base.errors import ClipmemError, InputError, RunError, require, shorten, shorten_text

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
# errors of the machine; all others mean a wrong path
_DEVICE = {errno.EIO, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.EBUSY, errno.ESTALE}
_NAME, _PATH = 255, 4095  # bytes: the limits of Linux, and of nearly all of its file systems


def checked_path(path: str | Path, subject: str) -> Path:
    """Check that a path is valid on common file systems."""
    text = isinstance(path, str | os.PathLike)  # pyright: ignore[reportUnnecessaryIsInstance]
    require(text, subject, shorten(path), "a path", "Give a text or a pathlib.Path.")
    url = re.fullmatch(r"(\w\w+):/(.+)", str(path)) if isinstance(path, Path) else None  # which merges slashes
    require(not url, subject, url.expand(r"\1://\2") if url else "", "a path on this machine", "Download it first.")
    got = ""
    try:
        encoded = os.fsencode(path)
    except UnicodeEncodeError:
        encoded, got = b"", "characters not allowed in file names"
    if b"\0" in encoded:
        got = "a path with a NUL character"
    elif len(encoded) > _PATH or any(len(name) > _NAME for name in encoded.split(b"/")):
        got = f"a path of {len(encoded):,} bytes"
    expected = f"at most {_NAME} bytes per name and {_PATH:,} in total, without NUL"
    require(not got, f"{subject} {shorten(str(path))}", got, expected, "Check the path.")
    return Path(path)


def as_write_error(error: OSError, path: Path, *, room: str = "") -> ClipmemError:
    """Convert an error while writing: RunError if the disk is full or broken, InputError if the path is wrong."""
    reason = error.strerror or str(error)
    if error.errno in _FULL:
        return RunError(
            f"could not write {path}: {reason}{room}. Nothing half-written was kept. "
            "Free some space and run the same command again: finished parts are used."
        )
    if error.errno is None or error.errno in _DEVICE:
        return RunError(f"could not write {path}: {reason}. Nothing half-written was kept.")
    subject = f"cannot write {shorten_text(str(path), _NAME)}"
    return InputError(subject, got=reason, expected="a writable folder", hint="Choose another --out DIR.")


def as_os_error(error: OSError) -> ClipmemError:
    """Convert an unhandled error that names a path (RunError if the machine failed)."""
    reason, path = error.strerror or str(error), shorten_text(str(error.filename), _NAME)
    if error.errno is None or error.errno in _DEVICE | _FULL:
        return RunError(f"{path}: {reason}.")
    return InputError(path, got=reason, expected="a usable path", hint="Check the path.")


@contextlib.contextmanager
def reading(subject: str, *, expected: str, hint: str = "Check the path.") -> Generator[None]:
    """Convert errors while reading a file that the user named."""
    try:
        yield
    except (OSError, UnicodeDecodeError) as error:
        got = (error.strerror or str(error)) if isinstance(error, OSError) else "bytes that are not UTF-8 text"
        raise InputError(subject, got=got, expected=expected, hint=hint) from error


@contextlib.contextmanager
def parsing(
    subject: str, got: str, errors: tuple[type[Exception], ...], *, expected: str = "", hint: str = "Check the file."
) -> Generator[None]:
    """Convert errors of a library that reads a file: what the file is, `got`, with the library's reason."""
    try:
        yield
    except errors as error:
        raise InputError(subject, got=f"{got} ({shorten(str(error))})", expected=expected, hint=hint) from error


def check_readable(path: str | Path, subject: str) -> None:
    """Check that a path is a readable file or folder."""
    file = checked_path(path, subject)
    with reading(f"{subject} {file}", expected="a readable file"):
        file.stat()
        if not os.access(file, os.R_OK):
            raise PermissionError(13, "Permission denied")


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
    parent = next((folder for folder in path.parents if folder.is_dir()), None)
    if error.errno != errno.ENOSPC or parent is None:
        return ""
    disk = shutil.disk_usage(parent)
    return f", {disk.free / 1e6:,.2f} of {disk.total / 1e6:,.2f} MB free"


def make_folder(path: Path) -> Path:
    """Create a folder and its parents."""
    with explain_write_errors(path):
        path.mkdir(parents=True, exist_ok=True)
    return path


def recipe_file(folder: Path) -> Path:
    """Return the path of a run folder's recipe, which exists."""
    file, expected = folder / "recipe.toml", "a folder created by `clipmem run` or `clipmem demo`"
    got = "no recipe.toml in it" if folder.is_dir() else "no such folder"
    require(file.is_file(), f"{folder}", got, expected, "Check the path.")
    return file


def check_place(path: Path) -> None:
    """Check that a folder can be created at `path`, or written to if it exists, without leaving anything behind."""
    with explain_write_errors(path):
        # tried, since permission bits are wrong for /proc and read-only file systems
        folder = next((parent for parent in (path, *path.parents) if parent.exists()), Path())
        Path(tempfile.mkdtemp(prefix=".clipmem-", suffix=".tmp", dir=folder)).rmdir()


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
    temporary = path.with_name(f".{path.name}.{os.urandom(4).hex()}.tmp")  # containers have equal process numbers
    with explain_write_errors(path):
        try:
            with temporary.open("w+b") as stream:  # into "wb", numpy writes by C, and does not see a full disk
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
    target = path.resolve()  # which has a name, unlike "."
    # into an empty folder files are moved: it may be another file system, or where the user is
    partial = target / _PARTIAL if target.is_dir() else target.with_name(f".{target.name}{_PARTIAL}")
    shutil.rmtree(partial, ignore_errors=True)  # of a call that was killed
    try:
        yield make_folder(partial)
        with explain_write_errors(path):
            if partial.parent == target:
                for file in partial.iterdir():
                    file.replace(target / file.name)
                partial.rmdir()
            else:
                partial.replace(target)
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
