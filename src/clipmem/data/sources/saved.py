"""Folders saved by Hugging Face `datasets` (`save_to_disk`) and Arrow files, read without that library."""

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from clipmem.base.errors import require
from clipmem.base.sections import DataSection
from clipmem.data.sources.base import SOURCES, Cleaned, require_split
from clipmem.data.sources.path_probe import PathProbe, parse_json
from clipmem.data.sources.records import KEYS, read_file
from clipmem.data.sources.rows import ArrowRows, RowSource

_AGAIN = "Save the data set again."


@SOURCES.register("saved")
class SavedSource(RowSource):
    """A saved data set, or one or all of its splits."""

    summary = "A folder saved by Hugging Face datasets, or an Arrow file."
    uses = KEYS | {"image_root", "split"}
    rank = 10

    def __init__(self, section: DataSection) -> None:
        path = Path(section.path)
        files = [path] if section.path and path.is_file() else arrow_files(path, section.split)
        super().__init__(section, [ArrowRows(file) for file in files], path if path.is_dir() else path.parent)

    @classmethod
    def recognize(cls, probe: PathProbe) -> str:
        if probe.is_dir:
            named = next((name for name in ("dataset_dict.json", "state.json") if (probe.path / name).is_file()), "")
            return f"a folder with {named}, saved by datasets" if named else ""
        # an Arrow stream starts with a continuation marker
        streams = probe.head.startswith(b"\xff\xff\xff\xff") and probe.path.suffix == ".arrow"
        return "an Arrow file" if probe.head.startswith(b"ARROW1") or streams else ""

    def write_kept(self, cleaned: Cleaned) -> str | None:
        """Write an Arrow file; a saved folder also has descriptions, which only `datasets` writes."""
        return super().write_kept(cleaned) if Path(self.section.path).is_file() else None


def arrow_files(folder: Path, split: str) -> list[Path]:
    """Return the Arrow files written by `save_to_disk`, of one split or all (""), in order."""
    if not (folder / "dataset_dict.json").is_file():
        if split and (folder / "state.json").is_file():
            require_split(split, [str(_described(folder, "state.json").get("_split"))])
        return _of_one(folder)
    splits = [str(name) for name in _list(_described(folder, "dataset_dict.json"), "splits", folder)]
    require_split(split, splits)
    return [file for name in splits if not split or name == split for file in _of_one(folder / _plain(name, folder))]


def _of_one(folder: Path) -> list[Path]:
    state = _described(folder, "state.json")
    entries = _list(state, "_data_files", folder)
    is_complete = not state.get("_indices_files")
    hint = "Load it and save it again: datasets.load_from_disk(A).save_to_disk(B)."
    require(is_complete, f"{folder}", "rows selected by an index file", "a data set saved by datasets 2 or newer", hint)
    files = [folder / _plain(str(entry.get("filename")), folder) for entry in entries if isinstance(entry, dict)]
    missing = [file.name for file in files if not file.is_file()]
    got = f"no file {missing[0]!r} ({len(missing)} of {len(files)} are missing)" if missing else "no Arrow file"
    require(files and not missing, f"{folder}", got, "all files listed in state.json", _AGAIN)
    return files


def _plain(name: str, folder: Path) -> str:
    plain = PurePosixPath(name).name == name and name not in {"", ".", ".."}
    require(plain, f"{folder}", f"the name {name!r}", "names of files in the folder", _AGAIN)
    return name


def _described(folder: Path, name: str) -> dict[str, object]:
    data = read_file(folder / name)
    content = parse_json(data) if isinstance(data, bytes) else None
    expected = "a folder saved by datasets (save_to_disk)"
    got, hint = f"no readable {name}", "Set data.path to such a folder."
    require(isinstance(content, dict), f"{folder}", got, expected, hint)
    return content  # pyright: ignore[reportReturnType]


def _list(values: dict[str, object], key: str, folder: Path) -> Sequence[object]:
    entries = values.get(key)
    require(isinstance(entries, list), f"{folder}", f"no list {key!r} in its description", "", _AGAIN)
    return entries  # pyright: ignore[reportReturnType]
