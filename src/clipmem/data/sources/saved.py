"""Folders that Hugging Face `datasets` has saved (`save_to_disk`), and Arrow files; read without that library."""

import json
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from clipmem.base.errors import InputError
from clipmem.base.recipes import DataSection
from clipmem.base.suggest import did_you_mean
from clipmem.data.sources.base import SOURCES
from clipmem.data.sources.columns import KEYS
from clipmem.data.sources.look import Look
from clipmem.data.sources.row_files import ArrowRows
from clipmem.data.sources.rows import RowSource


@SOURCES.register("saved")
class SavedSource(RowSource):
    """A saved data set, or several splits of one; `data.split` takes one of them."""

    uses = KEYS | {"image_root", "split"}

    def __init__(self, section: DataSection) -> None:
        path = Path(section.path)
        files = [path] if section.path and path.is_file() else arrow_files(path, section.split)
        super().__init__(section, [ArrowRows(file) for file in files], path if path.is_dir() else path.parent)

    @classmethod
    def recognise(cls, look: Look) -> str:
        """A folder with dataset_dict.json or state.json, or an Arrow file."""
        if look.is_dir:
            named = next((name for name in ("dataset_dict.json", "state.json") if (look.path / name).is_file()), "")
            return f"a folder with {named}, as datasets saves it" if named else ""
        # a stream begins with a continuation mark and the length of its schema
        streams = look.head.startswith(b"\xff\xff\xff\xff") and look.path.suffix == ".arrow"
        return "an Arrow file" if look.head.startswith(b"ARROW1") or streams else ""


def arrow_files(folder: Path, split: str) -> list[Path]:
    """Return the Arrow files of a saved data set, in order."""
    if not (folder / "dataset_dict.json").is_file():
        if split and (folder / "state.json").is_file() and _described(folder, "state.json").get("_split") != split:
            raise _no_split(split, [str(_described(folder, "state.json").get("_split"))])
        return _of_one(folder)
    splits = [str(name) for name in _list(_described(folder, "dataset_dict.json"), "splits", folder)]
    if split and split not in splits:
        raise _no_split(split, splits)
    return [file for name in splits if not split or name == split for file in _of_one(folder / _plain(name, folder))]


def _of_one(folder: Path) -> list[Path]:
    state = _described(folder, "state.json")
    entries = _list(state, "_data_files", folder)
    if state.get("_indices_files"):
        raise InputError(
            f"{folder}",
            got="rows chosen by an index beside them",
            expected="a data set saved by datasets 2 or newer",
            hint="Load it and save it again: datasets.load_from_disk(A).save_to_disk(B).",
        )
    files = [folder / _plain(str(entry.get("filename")), folder) for entry in entries if isinstance(entry, dict)]
    missing = [file.name for file in files if not file.is_file()]
    if missing or not files:
        raise InputError(
            f"{folder}",
            got=f"no file {missing[0]!r} ({len(missing)} of {len(files)} are missing)" if missing else "no Arrow file",
            expected="every file that state.json names",
            hint="Save the data set again.",
        )
    return files


def _plain(name: str, folder: Path) -> str:
    if PurePosixPath(name).name != name or name in {"", ".", ".."}:
        raise InputError(f"{folder}", got=f"the name {name!r}", expected="names of files in it", hint="Save it again.")
    return name


def _described(folder: Path, name: str) -> dict[str, object]:
    try:
        found = json.loads((folder / name).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise InputError(
            f"{folder}",
            got=f"no {name} that can be read",
            expected="a folder that datasets has saved (save_to_disk)",
            hint="Set data.path to that folder.",
        )
    return found


def _list(values: dict[str, object], key: str, folder: Path) -> Sequence[object]:
    found = values.get(key)
    if not isinstance(found, list):
        raise InputError(f"{folder}", got=f"no list {key!r} in its description", hint="Save the data set again.")
    return found


def _no_split(split: str, known: Sequence[str]) -> InputError:
    return InputError(
        "[data] split", got=f"{split!r}", expected=f"one of {list(known)}",
        hint=did_you_mean(split, known, kind="split"),
    )  # fmt: skip
