"""Files behind a protocol of fsspec, such as `s3://`, `gs://`, `hf://` and `memory://`, read by range.

Only such a path imports fsspec. Credentials come from the environment or fsspec's configuration, never from the path.
"""

import contextlib
import errno
import io
import os
import re
from collections.abc import Generator, Iterator
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from clipmem.base.errors import InputError, require, shorten

# hf://datasets/OWNER/NAME is the name of a data set on the hub, not a file
_REMOTE = re.compile(r"(?!hf://datasets/[^/]+(?:/[^/]*)?$)[A-Za-z][A-Za-z0-9+.-]+://")
# a user, but the container of Azure; a secret may have slashes; digits are a port, unless a host and a path follow
_CREDENTIALS = re.compile(
    r"(?!(?:abfss?|adl|az|wasbs?)://)[^:]+://[^/]*@|[^:]+://[^/@:]*:(?:(?!\d+(?:/|$)).*@|\d+/.*@[^/]*/)", re.S
)
_LOCAL = ("file:", "local:")  # protocols without a host
DOWNLOAD = "CLIPMEM_DOWNLOAD"
_AHEAD = 1 << 20  # bytes read at once: about what a store sends in the time of one more request
_ENVIRONMENT = "Set the credentials in the environment, such as AWS_PROFILE or GOOGLE_APPLICATION_CREDENTIALS."


def is_remote(path: str) -> bool:
    """Return whether a path has a protocol."""
    return _REMOTE.match(path) is not None


def may_download() -> bool:
    """Return whether the environment variable CLIPMEM_DOWNLOAD allows downloads."""
    return os.environ.get(DOWNLOAD, "").lower() in {"1", "true", "yes", "on"}


def check_remote(text: str, subject: str) -> None:
    """Refuse a path that no store has, or that contains a secret, which the error does not repeat."""
    form, hint = f"a path of {text.partition('://')[0]}://", _ENVIRONMENT
    require(not _CREDENTIALS.match(text), subject, f"{form} with credentials", "one without", hint)
    is_whole = not text.startswith(_LOCAL) or re.match(r"\w+:///.", text)
    require(is_whole, subject, shorten(text), f"{form} from the root, such as file:///data", "Add slashes.")
    is_plain = "?" not in text and text.isprintable()
    require(is_plain, subject, f"{form} with a query or control characters", "one without", hint)


class RemotePath(PurePosixPath):
    """A remote file or folder, with those methods of `pathlib.Path` that readers of data use."""

    def __str__(self) -> str:
        text = super().__str__()  # in which pathlib merges slashes
        return text.replace(":/", ":///" if text.startswith(_LOCAL) else "://", 1)

    @cached_property
    def _opened(self) -> tuple[Any, str]:
        """The file system, and the path in it."""
        import fsspec  # a fifth of a second

        return fsspec.core.url_to_fs(str(self))

    @contextlib.contextmanager
    def reading(self) -> Generator[tuple[Any, str]]:
        """Yield file system and path; convert errors: the library of each protocol has classes of its own."""
        try:
            yield self._opened
        except InputError:
            raise
        except Exception as error:
            reason = shorten(str(error))
            got, hint = f"{type(error).__name__}: {reason}", f"Check the path and the connection. {_ENVIRONMENT}"
            if isinstance(error, ImportError):  # "Install s3fs to access S3"
                got, hint = "no package for this protocol", f"{str(error).rstrip('.')}."
            elif isinstance(error, FileNotFoundError):
                got, hint = "no such file, folder or bucket", "Check the path."
            elif isinstance(error, PermissionError) or "Credential" in type(error).__name__:
                got, hint = f"no permission ({reason})", _ENVIRONMENT
            elif isinstance(error, OSError) and error.errno == errno.EBUSY:  # s3fs: another ETag
                got, hint = "a file that changed while it was read", "Run the same command again."
            raise InputError(str(self), got=got, expected="a readable file or folder", hint=hint) from error

    def state(self) -> list[str]:
        """Return size, time and hash of the file, or of each file of the folder, as the store gives them now."""
        with self.reading() as (system, path):
            system.invalidate_cache()
            return [str(facts) for _, facts in sorted(system.find(path, detail=True).items())]

    def facts(self) -> tuple[int, str]:
        """Return the size of the file, and its ETag or else all that the store last told of it, such as its time."""
        with self.reading() as (system, path):  # a listing of a store tells other things of a file than a request
            facts = {key.lower(): value for key, value in system.info(path).items() if key != "url"}  # can be signed
            return int(facts["size"] or 0), str(facts.get("etag") or facts).strip('"')

    def _kind(self) -> str:
        # without permission "", as pathlib from Python 3.14 on; some stores deny access to what does not exist
        with self.reading() as (system, path), contextlib.suppress(FileNotFoundError, PermissionError):
            return str(system.info(path)["type"])
        return ""

    def is_file(self) -> bool:
        """Return whether the path is a file that the store shows."""
        return self._kind() == "file"

    def is_dir(self) -> bool:
        """Return whether the path is a folder that the store shows."""
        return self._kind() == "directory"

    def exists(self) -> bool:
        """Return whether the store shows the path."""
        return self._kind() != ""

    def stat(self) -> os.stat_result:
        """Ask the store again, and return the size and zeros."""
        with self.reading() as (system, path):
            system.invalidate_cache()
            return os.stat_result((0,) * 6 + (int(system.info(path)["size"] or 0),) + (0,) * 3)

    def walk(self) -> Iterator[tuple[str, list[str], list[str]]]:
        """Yield folder, names of folders and names of files, as `os.walk`."""
        with self.reading() as (system, path):
            for folder, names, files in system.walk(path, on_error="raise"):
                yield str(self / folder[len(path) :].strip("/")), names, [name for name in files if name]

    def open(self, mode: Literal["rb"] = "rb", buffering: int = -1) -> io.BufferedReader:  # noqa: ARG002
        """Open the file; if buffered, a request asks for more than is read."""
        return io.BufferedReader(_RemoteFile(self, _AHEAD if buffering else 1), max(buffering, 1 << 13))

    def read_bytes(self) -> bytes:
        """Return the bytes of the file."""
        with self.open() as stream:
            return stream.read()


class _RemoteFile(io.RawIOBase):
    """A remote file with a position of its own; all that are open on a file of `memory://` share one."""

    def __init__(self, path: RemotePath, ahead: int) -> None:
        self._path, self._position = path, 0
        with path.reading() as (system, inside):
            self._file = system.open(inside, "rb", block_size=ahead)
            self._size = int(self._file.seek(0, io.SEEK_END))

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        self._position = offset + (0, self._position, self._size)[whence]
        return self._position

    def readinto(self, buffer: Any, /) -> int:
        with self._path.reading():
            self._file.seek(self._position)
            data = self._file.read(min(len(buffer), max(0, self._size - self._position)))
        got, hint = f"{self._position:,} bytes", "Do not change data while they are read."
        require(data or self._position >= self._size, f"{self._path}", got, f"{self._size:,} bytes, as before", hint)
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)


AnyPath = Path | RemotePath


def data_path(text: str) -> AnyPath:
    """Return the path of a file that sources read, here or behind a protocol; for shards, that of none."""
    return RemotePath(text) if is_remote(text) and not re.search(r"::|\{", text) else Path(text)


def arrow_input(path: AnyPath) -> Any:
    """Return what pyarrow opens a file with: its own reader for a local file."""
    return path.open() if isinstance(path, RemotePath) else path
