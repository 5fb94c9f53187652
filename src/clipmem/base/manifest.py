"""The manifest: provenance of a run folder. A newer format is refused."""

import importlib.metadata
import platform
import subprocess
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from clipmem._version import __version__
from clipmem.base.errors import require, shorten
from clipmem.base.folder import RunFolder
from clipmem.base.hashing import file_sha256, json_sha256
from clipmem.base.machine import cores
from clipmem.base.recipes import Recipe, flatten

FORMAT = 1
_PACKAGES = ("torch", "torchvision", "open_clip_torch", "numpy", "scipy", "polars", "pillow", "safetensors")


def recipe_hash(recipe: Recipe) -> str:
    """Hash a recipe's values, regardless of formatting and comments."""
    return json_sha256(flatten(recipe))


def build(
    recipe: Recipe, *, data_sha256: str, command: str, user_set: Sequence[str], execution: Mapping[str, object]
) -> dict[str, object]:
    """Describe a run: versions, machine, recipe and data hashes, and the values the user set."""
    return {
        "format": FORMAT,
        "clipmem": __version__,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": command,
        "recipe_sha256": recipe_hash(recipe),
        "data_sha256": data_sha256,
        "files": _files_of(recipe),
        "user_set": list(user_set),
        "packages": {name: importlib.metadata.version(name) for name in _PACKAGES},
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": cores(),
        **execution,
        "git": _git(),
    }


def read(folder: RunFolder) -> dict[str, Any]:
    """Read the manifest of a run folder."""
    manifest = folder.read_json("manifest.json")
    check_format(manifest, f"run folder {folder.path}", FORMAT, made_by=manifest.get("clipmem"))
    return manifest


def check_format(document: Mapping[str, object], subject: str, newest: int, *, made_by: object) -> None:
    """Refuse a document of another format: a newer one needs an update, an older one the version that made it."""
    version = document.get("format")
    got, expected = f"format {shorten(version)}, made by clipmem {made_by}", f"format {newest}"
    old = isinstance(version, int) and version < newest
    hint = f"Read it with clipmem {made_by}, or run the study again in a new folder." if old else "Update clipmem."
    require(version == newest, subject, got, f"{expected} (this is clipmem {__version__})", hint)


def check_data(folder: RunFolder, data_sha256: str) -> None:
    """Refuse a folder that was made with other data."""
    sha256 = read(folder)["data_sha256"]
    subject = f"run folder {folder.path} was made with other data"
    got = f"fingerprint {sha256[:16]} there, {data_sha256[:16]} now"
    require(sha256 == data_sha256, subject, got, "", "Choose another --out DIR, or restore the original data.")


def check_files(folder: RunFolder, recipe: Recipe) -> None:
    """Refuse a folder that was made when files that the recipe names had another content."""
    now = _files_of(recipe)
    hashes = read(folder).get("files", now)  # absent in folders of earlier versions
    changed = [key for key in now if hashes.get(key) != now[key]]
    subject, got = f"run folder {folder.path}", f"another file in {', '.join(changed)}"
    require(not changed, subject, got, "the file it was made with", "Choose another --out DIR, or restore the file.")


def _files_of(recipe: Recipe) -> dict[str, str]:
    named = {"[split] wrong": recipe.split.wrong, "[evaluate] classnames": recipe.evaluate.classnames}
    return {key: file_sha256(Path(path)) for key, path in named.items() if path and Path(path).is_file()}


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "") or platform.processor() or platform.machine()


def _git() -> dict[str, str | bool] | None:
    root = Path(__file__).parents[3]
    if not (root / ".git").exists():
        return None

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(root), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()  # noqa: S603

    try:
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain"))}
    except (OSError, subprocess.CalledProcessError):
        return None
