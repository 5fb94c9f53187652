"""Paths given by the user: conversion of operating-system errors into clipmem's."""

import contextlib
import errno
import os
import re
from collections.abc import Generator
from pathlib import Path

from clipmem.base.errors import ClipmemError, InputError, RunError, require, shorten, shorten_text

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
# errors of the machine; all others mean a wrong path
_DEVICE = {errno.EIO, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.EBUSY, errno.ESTALE}
_NAME, _PATH = 255, 4095  # bytes: the limits of Linux, and of nearly all of its file systems


def checked_path(path: str | Path, what: str) -> Path:
    """Check that a path is valid on common file systems."""
    text = isinstance(path, str | os.PathLike)  # pyright: ignore[reportUnnecessaryIsInstance]
    require(text, what, shorten(path), "a path", "Give a text or a pathlib.Path.")
    url = re.fullmatch(r"(\w\w+):/(.+)", str(path)) if isinstance(path, Path) else None  # which merges slashes
    require(not url, what, url.expand(r"\1://\2") if url else "", "a path on this machine", "Download it first.")
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
    require(not got, f"{what} {shorten(str(path))}", got, expected, "Check the path.")
    return Path(path)


def as_read_error(
    error: OSError | UnicodeDecodeError, what: str, *, expected: str, hint: str = "Check the path."
) -> InputError:
    """Convert an error while reading a file that the user named."""
    got = (error.strerror or str(error)) if isinstance(error, OSError) else "bytes that are not UTF-8 text"
    return InputError(what, got=got, expected=expected, hint=hint)


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
    what = f"cannot write {shorten_text(str(path), _NAME)}"
    return InputError(what, got=reason, expected="a writable folder", hint="Choose another --out DIR.")


def as_os_error(error: OSError) -> ClipmemError:
    """Convert an unhandled error that names a path (RunError if the machine failed)."""
    reason, path = error.strerror or str(error), shorten_text(str(error.filename), _NAME)
    if error.errno is None or error.errno in _DEVICE | _FULL:
        return RunError(f"{path}: {reason}.")
    return InputError(path, got=reason, expected="a usable path", hint="Check the path.")


@contextlib.contextmanager
def reading(what: str, *, expected: str, hint: str = "Check the path.") -> Generator[None]:
    """Convert errors while reading a file that the user named (see `as_read_error`)."""
    try:
        yield
    except (OSError, UnicodeDecodeError) as error:
        raise as_read_error(error, what, expected=expected, hint=hint) from error


def check_readable(path: str | Path, what: str) -> None:
    """Check that a path is a readable file or folder."""
    file = checked_path(path, what)
    with reading(f"{what} {file}", expected="a readable file"):
        file.stat()
        if not os.access(file, os.R_OK):
            raise PermissionError(13, "Permission denied")
