"""Paths of users, errors of the operating system, and writes that are whole or not there."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from clipmem.base.errors import InputError, RunError
from clipmem.base.paths import as_os_error, as_write_error, atomic_file, atomic_write, checked_path, make_folder


@pytest.mark.parametrize("path", ["a\0b", "x" * 256, "/".join("x" * 200 for _ in range(30)), "\ud800"])
def test_paths_that_no_file_system_holds_are_refused(path):
    with pytest.raises(InputError) as error:
        checked_path(path, "--out")
    assert error.value.what.startswith("--out ")
    assert error.value.got
    assert checked_path("x" * 255, "--out").name == "x" * 255


@pytest.mark.parametrize(
    ("number", "kind"),
    [(errno.ENOENT, InputError), (errno.ENAMETOOLONG, InputError), (errno.ELOOP, InputError), (errno.EROFS, InputError),
     (errno.ENOSPC, RunError), (errno.EIO, RunError), (errno.EMFILE, RunError)],
)  # fmt: skip
def test_errors_of_the_system_are_the_users_or_the_machines(number, kind, tmp_path):
    error = OSError(number, "reason", str(tmp_path))
    for explained in (as_write_error(error, tmp_path), as_os_error(error)):
        assert type(explained) is kind
        assert "reason" in str(explained)


def test_a_failed_write_leaves_the_old_file(tmp_path):
    file = tmp_path / "x"
    atomic_write(file, b"old")

    def fail():
        with atomic_file(file) as stream:
            stream.write(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert file.read_bytes() == b"old"
    assert [file.name for file in tmp_path.iterdir()] == ["x"]


def test_two_processes_of_the_same_number_write_a_file(tmp_path):
    """As in containers that share a folder: the file of the last one stays, whole."""
    file = tmp_path / "x"
    with atomic_file(file) as first:
        first.write(b"first")
        atomic_write(file, b"second")
        assert file.read_bytes() == b"second"
    assert file.read_bytes() == b"first"
    assert [file.name for file in tmp_path.iterdir()] == ["x"]


def test_an_array_that_does_not_fit_is_not_written(tmp_path):
    """Written by numpy in C, its last bytes would be missing without an error."""
    code = (
        "import resource, signal, sys, numpy as np\nfrom pathlib import Path\n"
        "from clipmem.base.paths import atomic_file\nsignal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (2500, 2500))\n"
        "with atomic_file(Path(sys.argv[1])) as stream:\n    np.save(stream, np.zeros(int(sys.argv[2])))\n"
    )
    ended = [
        subprocess.run([sys.executable, "-c", code, str(tmp_path / f"{n}.npy"), str(n)], check=False).returncode
        for n in (200, 400)
    ]
    assert ended == [0, 1]
    assert [file.name for file in tmp_path.iterdir()] == ["200.npy"]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_one_message_and_exit_code_1(tmp_path, code):
    file = tmp_path / "x"
    with pytest.raises(RunError) as error, atomic_file(file) as stream:  # noqa: PT012
        stream.write(b"half")
        raise OSError(code, os.strerror(code))
    told = str(error.value)
    assert told.startswith(f"could not write {file}: {os.strerror(code)}")
    assert ("MB free" in told) == (code == errno.ENOSPC)  # a quota has numbers of its own
    assert error.value.exit_code == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_really_full_device(monkeypatch, tmp_path):
    full = Path("/dev/full").open("wb", buffering=0)  # noqa: SIM115
    monkeypatch.setattr(Path, "open", lambda *_: full)
    monkeypatch.setattr(Path, "unlink", lambda *_, **__: None)
    with pytest.raises(RunError, match="No space left on device"):
        atomic_write(tmp_path / "x", b"data")
    full.close()


def test_an_unwritable_place_is_the_users_to_mend(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError) as error:
        make_folder(tmp_path / "file" / "inner")
    assert str(error.value) == (
        f"cannot write {tmp_path / 'file' / 'inner'}: got Not a directory, expected a writable folder. "
        "Choose another --out DIR."
    )
