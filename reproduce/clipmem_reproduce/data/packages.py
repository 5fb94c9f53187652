"""Packages of npm and Debian, fetched by name with the clients of their registries."""

import json
import re
import shutil
import subprocess
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from clipmem import InputError
from clipmem.base.errors import require, shorten_text
from clipmem.base.paths import atomic_folder, make_folder, parsing, reading

_AGAIN = "Remove the package and its folder, and try again."


class Package(NamedTuple):
    """An unpacked package: its folder, its name and version, and the license that it states."""

    folder: Path
    source: str
    license: str


def npm(name: str, version: str, folder: Path) -> Package:
    """Return a version of an npm package, fetched into `folder` and unpacked unless it is there."""
    file = f"{name.removeprefix('@').replace('/', '-')}-{version}.tgz"
    archive = fetched(folder, file, ["npm", "pack", "--silent", f"{name}@{version}"])
    target = folder / archive.stem
    if not target.is_dir():
        with (
            atomic_folder(target) as partial,
            parsing(f"{archive}", "not readable", (tarfile.TarError, OSError), hint=_AGAIN),
            tarfile.open(archive) as content,
        ):
            content.extractall(partial, filter="data")
    notice = target / "package/package.json"
    with parsing(f"{notice}", "no license", (ValueError, KeyError, TypeError), hint=_AGAIN):
        return Package(notice.parent, f"{name} {version}", str(json.loads(read(notice))["license"]))


def debian(name: str, folder: Path) -> Package:
    """Return a Debian package in the version that apt knows, fetched into `folder` and unpacked unless it is there."""
    archive = fetched(folder, f"{name}_*.deb", ["apt-get", "download", name])
    version = called(["dpkg-deb", "--field", archive.name, "Version"], folder, _AGAIN)
    target = folder / archive.stem
    if not target.is_dir():
        with atomic_folder(target) as partial:
            called(["dpkg-deb", "--extract", archive.name, f"{partial.resolve()}"], folder, _AGAIN)
    notice = target / "usr/share/doc" / name / "copyright"
    return Package(target, f"{name} {version}", license_of(read(notice)) if notice.is_file() else "")


def license_of(notice: str) -> str:
    r"""Return the license that a Debian copyright file states for all files.

    Example:
        >>> license_of("Format: 1.0\n\nFiles: *\nCopyright: A, B\nLicense: GPL-2+\n This is free software.")
        'GPL-2+'
    """
    stated = re.search(r"^Files: \*\n(?:.+\n)*?License: (.+)", notice, re.MULTILINE)
    return stated[1].strip() if stated else ""


def fetched(folder: Path, pattern: str, command: Sequence[str]) -> Path:
    """Return the file of a folder whose name matches a pattern, fetched with a command if there is none."""
    make_folder(folder)
    if not any(folder.glob(pattern)):
        called(command, folder, f"Check the network, or put {pattern} into {folder} yourself.")
    files = sorted(folder.glob(pattern))
    require(len(files) == 1, f"{folder / pattern}", f"{len(files)} files", "one", "Leave one version of the package.")
    return files[0]


def called(command: Sequence[str], folder: Path, hint: str) -> str:
    """Return what a command prints when it runs in a folder."""
    client, words = command[0], " ".join(command)
    require(shutil.which(client), client, "not installed", f"a client that runs `{words}`", f"Install {client}.")
    # the commands are those of this module, without a shell
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)  # noqa: S603
    if result.returncode:
        reason = shorten_text(" ".join(result.stderr.split()), 200) or f"exit code {result.returncode}"
        raise InputError(words, got=reason, expected="the package", hint=hint)
    return result.stdout.strip()


def read(file: Path) -> str:
    """Return the text of a file of a package."""
    with reading(f"{file}", expected="a text file of the package", hint=_AGAIN):
        return file.read_text(encoding="utf-8")
