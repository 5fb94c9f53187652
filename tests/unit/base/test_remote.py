"""Remote paths: which texts are one, what is refused before a request, and errors of a file system in four parts."""

import subprocess
import sys
from pathlib import Path

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.registry import known_implementations

from clipmem.base.errors import InputError
from clipmem.base.remote import RemotePath, check_remote, data_path, is_remote

SECRET = "Se/cr3t"


class Failing(MemoryFileSystem):
    """A file system whose requests fail with an error of the class."""

    protocol = "failing"
    error: Exception = PermissionError(13, "Forbidden")

    def info(self, path, **kwargs):
        raise self.error

    def _open(self, path, *args, **kwargs):
        raise self.error


@pytest.fixture
def failing():
    fsspec.register_implementation("failing", Failing, clobber=True)
    return Failing


@pytest.mark.parametrize(
    ("text", "remote"),
    [
        ("s3://bucket/a.tar", True),
        ("memory://a.tar", True),
        ("hf://datasets/somebody/pairs/data/0.parquet", True),
        ("hf://datasets/somebody/pairs", False),  # a name on the hub
        ("hf-hub:somebody/pairs", False),
        ("C:/photos", False),
        ("photos/s3://bucket", False),
        ("", False),
    ],
)
def test_which_texts_are_remote(text, remote):
    assert is_remote(text) is remote
    assert isinstance(data_path(text), RemotePath if remote else Path)


def test_a_range_or_list_of_shards_is_no_file():
    for text in ("s3://bucket/{0..1}.tar", "s3://bucket/0.tar::s3://bucket/1.tar"):
        assert isinstance(data_path(text), Path)


def test_parts_of_a_path():
    path = RemotePath("s3://bucket/folder/0.tar")
    assert str(path) == f"{path}" == "s3://bucket/folder/0.tar"
    assert str(path.parent) == "s3://bucket/folder"
    assert str(path.with_suffix(".parquet")) == "s3://bucket/folder/0.parquet"
    assert str(path.with_name("1.tar")) == str(path.parent / "1.tar") == "s3://bucket/folder/1.tar"
    assert path.relative_to(RemotePath("s3://bucket")).as_posix() == "folder/0.tar"
    assert str(RemotePath("memory://0.tar").parent / "1.tar") == "memory://1.tar"
    assert str(RemotePath("file:///data/0.tar").with_name("1.tar")) == "file:///data/1.tar"


@pytest.mark.parametrize(
    "text",
    [
        f"s3://key:{SECRET}@bucket/a.tar",
        f"s3://:{SECRET}@bucket/a.tar",
        f"memory://{SECRET.replace('/', '')}@store/a.tar",
        f"https://{SECRET.replace('/', '')}@host/a.tar",
        f"https://user:1234/{SECRET}@host/a.tar",
        f"abfs://user:{SECRET}@host/a.tar",
        f"https://host/a.tar?X-Amz-Signature={SECRET}",
        f"s3://bucket/a\n{SECRET}",
    ],
)
def test_a_secret_is_refused_and_not_repeated(text):
    with pytest.raises(InputError) as error:
        check_remote(text, "[data] path")
    assert error.value.what == "[data] path"
    assert all((error.value.got, error.value.expected, error.value.hint))
    assert SECRET not in str(error.value)
    assert SECRET.replace("/", "") not in str(error.value)


@pytest.mark.parametrize("text", ["file://data/a.tar", "file:///", "local://a.tar"])
def test_a_file_address_is_from_the_root(text):
    with pytest.raises(InputError) as error:
        check_remote(text, "[data] path")
    assert (error.value.what, error.value.got) == ("[data] path", repr(text))


@pytest.mark.parametrize(
    "text",
    [
        "s3://bucket/a@b.tar",
        "http://host:9000/a@b.tar",
        "file:///data/a@b.tar",
        "abfs://container@account.dfs.core.windows.net/a.tar",
    ],
)
def test_a_path_without_a_secret_is_accepted(text):
    check_remote(text, "[data] path")


@pytest.mark.parametrize(
    ("error", "got"),
    [
        (PermissionError(13, "Forbidden"), "no permission"),
        (type("NoCredentialsError", (Exception,), {})("Unable to locate credentials"), "no permission"),
        (FileNotFoundError("bucket"), "no such file, folder or bucket"),
        (OSError(16, "another ETag"), "a file that changed while it was read"),
        (ConnectionError("refused"), "ConnectionError"),
        (RuntimeError("503"), "RuntimeError"),
    ],
)
def test_errors_of_a_file_system_are_input_errors(failing, monkeypatch, error, got):
    monkeypatch.setattr(failing, "error", error)
    for request in (RemotePath.open, RemotePath.stat):
        with pytest.raises(InputError) as raised:
            request(RemotePath("failing://bucket/a.tar"))
        assert raised.value.what == "failing://bucket/a.tar"
        assert raised.value.got.startswith(got)
        assert raised.value.expected
        assert raised.value.hint
        assert raised.value.exit_code == 2


def test_without_permission_a_path_is_not_a_file(failing):
    path = RemotePath("failing://bucket/a.tar")
    assert not any((path.is_file(), path.is_dir(), path.exists()))


def test_unknown_protocol_and_missing_package(monkeypatch):
    monkeypatch.setitem(known_implementations, "lacking", {"class": "no_such_package.Files", "err": "Install it"})
    for text, got, hint in (
        ("nonsense://bucket/a.tar", "Protocol not known", "Check the path"),
        ("lacking://bucket/a.tar", "no package for this protocol", "Install it."),
    ):
        with pytest.raises(InputError) as error:
            RemotePath(text).stat()
        assert got in error.value.got
        assert hint in error.value.hint


def test_positions_of_two_open_files_are_their_own():
    fsspec.filesystem("memory").pipe("/positions/a", bytes(range(200)))
    with RemotePath("memory://positions/a").open() as first, RemotePath("memory://positions/a").open("rb", 0) as second:
        assert first.read(3) == bytes(range(3))
        assert second.seek(100) == 100
        assert second.read(2) == bytes((100, 101))
        assert first.read(2) == bytes((3, 4))
        assert first.seek(-1, 2) == 199
        assert first.read() == bytes((199,))
        assert first.read(5) == b""


def test_a_file_that_got_shorter_while_it_is_read():
    fsspec.filesystem("memory").pipe("/shorter/a", bytes(30_000))
    with RemotePath("memory://shorter/a").open("rb", 0) as stream:
        stream.raw._file.truncate(10_000)
        stream.seek(20_000)
        with pytest.raises(InputError) as error:
            stream.read(10)
    assert (error.value.what, error.value.got) == ("memory://shorter/a", "20,000 bytes")


def test_a_changed_file_has_another_state():
    files, path = fsspec.filesystem("memory"), RemotePath("memory://state")
    files.pipe({"/state/a": b"1", "/state/b": b"2"})
    before = path.state()
    assert path.state() == before
    files.pipe("/state/b", b"22")
    assert path.state() != before


def test_the_address_behind_a_redirect_is_not_a_fact(monkeypatch):
    files, path = fsspec.filesystem("memory"), RemotePath("memory://state/c")
    files.pipe("/state/c", b"123")
    info, count = type(files).info, iter(range(10))
    monkeypatch.setattr(type(files), "info", lambda *more: info(*more) | {"url": f"https://store/c?sign={next(count)}"})
    before = path.facts()
    assert path.facts() == before
    files.pipe("/state/c", b"456")  # at another time
    assert path.facts() != before


def test_a_listing_and_a_request_tell_the_same_facts(monkeypatch):
    """A store lists a file with other keys and times than it answers with; the ETag is the same, quoted or not."""
    files, path = fsspec.filesystem("memory"), RemotePath("memory://state/d")
    files.pipe("/state/d", b"123")
    info = type(files).info
    for tag, answers in (
        ("a", [{"ETag": '"a"', "Key": "d", "LastModified": 1.5}, {"etag": "a", "ContentType": "tar"}]),
        ("b", [{"ETag": '"b"'}]),
    ):
        for answer in answers:
            monkeypatch.setattr(type(files), "info", lambda *more, answer=answer: info(*more) | answer)
            assert path.facts() == (3, tag)


def test_local_paths_do_not_import_fsspec():
    code = "import sys, clipmem; clipmem.load_pairs('emoji').pairs(); sys.exit('fsspec' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
