"""Paths that a user names: the one place where what an operating system says of them becomes an `InputError`."""

import contextlib
import errno
import os
from collections.abc import Generator
from pathlib import Path

from clipmem.base.errors import ClipmemError, InputError, RunError, shorten, shorten_text
from clipmem.base.require import require

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
# errors of the machine; all others say that the path is wrong
_DEVICE = {errno.EIO, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.EBUSY, errno.ESTALE}
_NAME, _PATH = 255, 4095  # bytes: the limits of Linux, and of nearly all of its file systems


def checked_path(path: str | Path, what: str) -> Path:
    """Return a path that some file system could hold."""
    got = ""
    try:
        encoded = os.fsencode(path)
    except UnicodeEncodeError:
        encoded, got = b"", "characters that no file name can hold"
    if b"\0" in encoded:
        got = "the character NUL in a path"
    elif len(encoded) > _PATH or any(len(name) > _NAME for name in encoded.split(b"/")):
        got = f"a path of {len(encoded):,} bytes"
    expected = f"at most {_NAME} bytes a name and {_PATH:,} in all, without NUL"
    require(not got, f"{what} {shorten(str(path))}", got, expected, "Check the path.")
    return Path(path)


def as_read_error(
    error: OSError | UnicodeDecodeError, what: str, *, expected: str, hint: str = "Check the path."
) -> InputError:
    """Say of an error while reading what a user named: what, and why it cannot be read."""
    got = (error.strerror or str(error)) if isinstance(error, OSError) else "bytes that are not UTF-8 text"
    return InputError(what, got=got, expected=expected, hint=hint)


def as_write_error(error: OSError, path: Path, *, room: str = "") -> ClipmemError:
    """Say of an error while writing: the disk is full or the device broken (RunError), or the place is wrong."""
    reason = error.strerror or str(error)
    if error.errno in _FULL:
        return RunError(
            f"could not write {path}: {reason}{room}. Nothing half-written was kept. "
            "Free some space and run the same command again: it resumes where it stopped."
        )
    if error.errno is None or error.errno in _DEVICE:
        return RunError(f"could not write {path}: {reason}. Nothing half-written was kept.")
    what = f"cannot write {shorten_text(str(path), _NAME)}"
    return InputError(what, got=reason, expected="a writable folder", hint="Choose another --out DIR.")


def as_os_error(error: OSError) -> ClipmemError:
    """Say of an error that nobody explained which path it is about (RunError where the machine is in trouble)."""
    reason, path = error.strerror or str(error), shorten_text(str(error.filename), _NAME)
    if error.errno is None or error.errno in _DEVICE | _FULL:
        return RunError(f"{path}: {reason}.")
    return InputError(path, got=reason, expected="a path that can be used so", hint="Check the path.")


@contextlib.contextmanager
def reading(what: str, *, expected: str, hint: str = "Check the path.") -> Generator[None]:
    """Turn an error while reading what a user named into an `InputError` (see `as_read_error`)."""
    try:
        yield
    except (OSError, UnicodeDecodeError) as error:
        raise as_read_error(error, what, expected=expected, hint=hint) from error
