"""Tables of images: Parquet, and what Hugging Face `datasets` saves or has in its cache, read without that library.

A data set of the hub is named `hf-hub:OWNER/NAME`, and searched in the caches of `datasets` (`load_dataset`) and of
`huggingface-cli download`. Downloads only if `data.download` is set, with `datasets` (extra `hf`). Code in a data set
is never run.
"""

import importlib
import importlib.util
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import pyarrow as pa
import pyarrow.parquet as pq

from clipmem.base.errors import InputError, require, shorten
from clipmem.base.paths import parsing
from clipmem.base.remote import arrow_input, data_path, is_remote
from clipmem.base.sections import DataSection
from clipmem.data.skipped import source_name
from clipmem.data.sources.base import SOURCES, Cleaned, Source, Wrapped, detect, open_named, require_data, require_split
from clipmem.data.sources.path_probe import PathProbe, parse_json
from clipmem.data.sources.records import KEYS, Record, read_file, recognized
from clipmem.data.sources.rows import ArrowRows, ParquetRows, RowSource, is_image_type

PREFIXES = ("hf-hub:", "hf://datasets/")
_NAME = re.compile(r"(?P<name>[\w.-]+(?:/[\w.-]+)?)(?::(?P<config>[\w.-]+))?")
_AGAIN = "Save the data set again."


@SOURCES.register("parquet")
class ParquetSource(RowSource):
    """A Parquet file, or a folder of them in the order of their names; one row per pair.

    As written by `datasets` and img2dataset, or with image paths. The files of a split are named
    `train-00000-of-00004.parquet`, or in a folder of that name.
    """

    summary = "Parquet with images or image paths, by Hugging Face or img2dataset."
    uses = KEYS | {"image_root", "split"}
    rank = 40
    remote = True
    sharded = True

    def __init__(self, section: DataSection, shard: str | None = None) -> None:
        path, split = data_path(section.path), section.split if not shard else ""
        files = [path / (shard or "")]
        if path.is_dir() and not shard:
            names = [name for name in PathProbe(section.path).all_files() if name.lower().endswith(".parquet")]
            files = sorted(path / name for name in [name for name in names if "/" not in name] or names)
        has_files = files and all(file.is_file() for file in files)
        require_data(has_files, section, "a .parquet file, or a folder of them")
        if split:
            splits = [{file.stem.split("-")[0], file.parent.name} for file in files]
            require_split(split, set[str]().union(*splits))
            files = [file for file, names in zip(files, splits, strict=True) if split in names]
        super().__init__(section, files, ParquetRows, path if path.is_dir() else path.parent, shard)

    def records(self) -> Iterator[Record]:
        yield from super().records()
        if data_path(self.section.path).is_dir() and not self.shard:
            used = {self._name(path) for path in self._paths}
            probe = PathProbe(self.section.path)
            probe.count_others(self.ledger, probe.all_files(), used)

    @classmethod
    def recognize(cls, probe: PathProbe) -> str:
        named = probe.with_suffix(".parquet") if probe.is_dir else []
        if not named and not probe.head.startswith(b"PAR1"):
            return ""
        try:
            schema = pq.read_schema(arrow_input(probe.path / named[0] if named else probe.path))
        except (pa.ArrowException, OSError):
            return ""
        image, captions = recognized(schema.names, probe.section)
        # the type of a column that the recipe names is checked when the rows are read
        fits = image == probe.section.image_column or (bool(image) and is_image_type(schema.field(image).type))
        form = f"a folder with {len(named):,} Parquet files" if named else "Parquet"
        return f"{form} with {image!r} and {captions!r}" if image and captions and fits else ""


@SOURCES.register("saved")
class SavedSource(RowSource):
    """A data set saved by `datasets` (`save_to_disk`), or one or all of its splits, or an Arrow file."""

    summary = "A folder saved by Hugging Face datasets, or an Arrow file."
    uses = KEYS | {"image_root", "split"}
    rank = 10
    sharded = True

    def __init__(self, section: DataSection, shard: str | None = None) -> None:
        path, split = Path(section.path), section.split
        if shard or (section.path and path.is_file()):
            files = [path]
        elif (path / "dataset_dict.json").is_file():
            _, entries = _described(path, "dataset_dict.json", "splits")
            splits = [str(name) for name in entries]
            require_split(split, splits)
            parts = [path / _plain(name, path) for name in splits if not split or name == split]
            files = [file for part in parts for file in _arrow_files(part)]
        else:
            if split and (path / "state.json").is_file():
                require_split(split, [str(_described(path, "state.json")[0].get("_split"))])
            files = _arrow_files(path)
        super().__init__(section, files, ArrowRows, path if path.is_dir() else path.parent, shard)

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


def _arrow_files(folder: Path) -> list[Path]:
    state, entries = _described(folder, "state.json", "_data_files")
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


def _described(folder: Path, name: str, key: str = "") -> tuple[dict[str, object], list[object]]:
    """Read a description in a saved folder; return it with its list `key`."""
    data = read_file(folder / name)
    content = parse_json(data) if isinstance(data, bytes) else None
    expected, hint = "a folder saved by datasets (save_to_disk)", "Set data.path to such a folder."
    values: dict[str, object] = content if isinstance(content, dict) else {}
    require(isinstance(content, dict), f"{folder}", f"no readable {name}", expected, hint)
    entries = values.get(key) if key else []
    require(isinstance(entries, list), f"{folder}", f"no list {key!r} in its description", "", _AGAIN)
    return values, entries  # pyright: ignore[reportReturnType]


@SOURCES.register("hub")
class HubSource(Wrapped):
    """A data set by its name; with several configurations, `hf-hub:OWNER/NAME:CONFIGURATION`."""

    summary = "A data set of the Hugging Face hub on this machine, by name."
    uses = KEYS | {"image_root", "split", "download"}
    rank = 0
    sharded = True

    def __init__(self, section: DataSection, shard: str | None = None) -> None:
        super().__init__(_open(section, shard), section)
        self.title = source_name(section)

    @classmethod
    def recognize(cls, probe: PathProbe) -> str:
        names = probe.text.startswith(PREFIXES) and not is_remote(probe.text)
        return "a name on the Hugging Face hub" if names else ""


def _open(section: DataSection, shard: str | None) -> Source:
    match = _NAME.fullmatch(section.path.removeprefix(PREFIXES[0]).removeprefix(PREFIXES[1]))
    require(match, "[data] path", f"{section.path!r}", "hf-hub:OWNER/NAME", "Fix the data set's name.")
    name, config = match.groups("") if match else ("", "")
    prepared, downloaded = _cache_folder("HF_DATASETS_CACHE", "datasets"), _cache_folder("HF_HUB_CACHE", "hub")
    info, folder = _prepared(prepared, name, config), None
    if info is None:
        snapshots = (downloaded / f"datasets--{name.replace('/', '--')}" / "snapshots").glob("*/")
        folder = max(snapshots, key=lambda path: (path.stat().st_mtime, path), default=None)
    if info is None and folder is None and section.download:
        info = _fetch(name, config)
    if info is not None:
        broken = (OSError, ValueError, KeyError, TypeError, AttributeError)
        with parsing(f"{info}", "not readable", broken, hint="Prepare it again."):
            described = json.loads(info.read_text(encoding="utf-8"))
            splits = {str(name): len(entry.get("shard_lengths") or [0]) for name, entry in described["splits"].items()}
            stem = str(described.get("dataset_name") or described.get("builder_name"))
        require_split(section.split, splits)
        files: list[Path] = []
        for split, shards in splits.items():
            if section.split in {"", split}:
                ends = [""] if shards == 1 else [f"-{k:05d}-of-{shards:05d}" for k in range(shards)]
                files += [info.parent / f"{stem}-{split}{end}.arrow" for end in ends]
        missing = "".join([file.name for file in files if not file.is_file()][:1])
        require(not missing, f"{info.parent}", f"no file {missing!r}", "", "Prepare the data set again.")
        return RowSource(section, files, ArrowRows, info.parent, shard)
    if folder is not None:
        data = detect(str(folder), section)
        update = {"source": data.format, "path": data.path, "download": False}
        return open_named(section.model_copy(update=update), shard)
    got = f"no files in {prepared} or {downloaded}"
    hint = "Set data.download = true (needs `pip install '.[hf]'` and the internet), or copy it there."
    raise InputError(f"data set {name!r}", got=got, expected="a data set on this machine", hint=hint)


def _cache_folder(variable: str, name: str) -> Path:
    if cache := os.environ.get(variable):
        return Path(cache)
    home = os.environ.get("HF_HOME")
    return Path(home or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "huggingface") / name


def _prepared(cache: Path, name: str, config: str) -> Path | None:
    """Return the newest dataset_info.json of a prepared data set and configuration, if any."""
    folder = cache / name.replace("/", "___")
    infos = sorted(folder.glob("*/**/dataset_info.json"), key=lambda path: (path.stat().st_mtime, path))
    config_of = {path: path.relative_to(folder).parts[0] for path in infos}
    configs = sorted(set(config_of.values()))
    is_unique = not infos or (config in configs if config else len(configs) == 1)
    got = f"hf-hub:{name}{f':{config}' if config else ''}"
    hint = f"Use hf-hub:{name}:{''.join(configs[:1])}, for example."
    require(is_unique, "[data] path", got, f"one of the configurations {configs}", hint)
    return next((path for path in reversed(infos) if config in {"", config_of[path]}), None)


def _fetch(name: str, config: str) -> Path | None:
    subject, spec = f"data set {name!r}", importlib.util.find_spec("datasets")
    require(spec, subject, "no package 'datasets'", "the extra hf", "Run `pip install '.[hf]'`.")
    library, cache = importlib.import_module("datasets"), _cache_folder("HF_DATASETS_CACHE", "datasets")
    try:
        library.load_dataset_builder(name, config or None, cache_dir=str(cache)).download_and_prepare()
    except (OSError, ValueError, RuntimeError, library.exceptions.DatasetsError) as error:
        got = f"a failed download ({type(error).__name__}: {shorten(str(error))})"
        expected = "an accessible data set of the hub"
        raise InputError(subject, got=got, expected=expected, hint="Check the name and the connection.") from error
    return _prepared(cache, name, config)
