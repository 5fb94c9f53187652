"""Data sets of the Hugging Face hub by name, `hf-hub:OWNER/NAME`, if they are on this machine.

Searches the caches of `datasets` (`load_dataset`) and of `huggingface-cli download`. Downloads only if `data.download`
is set, with `datasets` (extra `hf`). Code in a data set is never run.
"""

import importlib
import importlib.util
import json
import os
import re
from pathlib import Path

from clipmem.base.errors import InputError, require, shorten
from clipmem.base.sections import DataSection
from clipmem.data.quarantine import source_name
from clipmem.data.sources.base import SOURCES, Source, Wrapped, open_named, require_split
from clipmem.data.sources.detect import detect
from clipmem.data.sources.path_probe import PathProbe
from clipmem.data.sources.records import KEYS
from clipmem.data.sources.rows import ArrowRows, RowSource

PREFIXES = ("hf-hub:", "hf://datasets/")
_NAME = re.compile(r"(?P<name>[\w.-]+(?:/[\w.-]+)?)(?::(?P<config>[\w.-]+))?")


@SOURCES.register("hub")
class HubSource(Wrapped):
    """A data set by its name; with several configurations, `hf-hub:OWNER/NAME:CONFIGURATION`."""

    summary = "A data set of the Hugging Face hub on this machine, by name."
    uses = KEYS | {"image_root", "split", "download"}
    rank = 0

    def __init__(self, section: DataSection) -> None:
        super().__init__(_open(section), section)
        self.title = source_name(section)

    @classmethod
    def recognize(cls, probe: PathProbe) -> str:
        return "a name on the Hugging Face hub" if probe.text.startswith(PREFIXES) else ""


def _open(section: DataSection) -> Source:
    text = section.path
    for prefix in PREFIXES:
        text = text.removeprefix(prefix)
    match = _NAME.fullmatch(text)
    if match is None:
        hint = "Fix the data set's name."
        raise InputError("[data] path", got=f"{section.path!r}", expected="hf-hub:OWNER/NAME", hint=hint)
    name, config = match["name"], match["config"] or ""
    info = prepared(name, config)
    folder = None if info else downloaded(name)
    if info is None and folder is None and section.download:
        info = _fetch(name, config)
    if info is not None:
        files = arrow_files_of(info, section.split)
        return RowSource(section, [ArrowRows(file) for file in files], info.parent)
    if folder is not None:
        data = detect(str(folder), section)
        return open_named(section.model_copy(update={"source": data.format, "path": data.path, "download": False}))
    got = f"no files in {cache_folder()} or {hub_folder()}"
    hint = "Set data.download = true (needs `pip install '.[hf]'` and the internet), or copy it there."
    raise InputError(f"data set {name!r}", got=got, expected="a data set on this machine", hint=hint)


def cache_folder() -> Path:
    """Return the cache folder of `datasets`."""
    return Path(os.environ.get("HF_DATASETS_CACHE") or _home() / "datasets")


def hub_folder() -> Path:
    """Return the cache folder of hub downloads."""
    return Path(os.environ.get("HF_HUB_CACHE") or _home() / "hub")


def _home() -> Path:
    home = os.environ.get("HF_HOME")
    return Path(home) if home else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "huggingface"


def prepared(name: str, config: str) -> Path | None:
    """Return the newest dataset_info.json of a prepared data set and configuration, if any."""
    folder = cache_folder() / name.replace("/", "___")
    infos = sorted(folder.glob("*/**/dataset_info.json"), key=lambda path: (path.stat().st_mtime, path))
    config_of = {path: path.relative_to(folder).parts[0] for path in infos}
    configs = sorted(set(config_of.values()))
    is_unique = not infos or (config in configs if config else len(configs) == 1)
    got = f"hf-hub:{name}{f':{config}' if config else ''}"
    hint = f"Use hf-hub:{name}:{''.join(configs[:1])}, for example."
    require(is_unique, "[data] path", got, f"one of the configurations {configs}", hint)
    return next((path for path in reversed(infos) if config in {"", config_of[path]}), None)


def downloaded(name: str) -> Path | None:
    """Return the newest downloaded snapshot, if any."""
    snapshots = (hub_folder() / f"datasets--{name.replace('/', '--')}" / "snapshots").glob("*/")
    return max(snapshots, key=lambda path: (path.stat().st_mtime, path), default=None)


def arrow_files_of(info: Path, split: str) -> list[Path]:
    """Return the Arrow files of a prepared data set."""
    try:
        described = json.loads(info.read_text(encoding="utf-8"))
        splits = {str(name): len(entry.get("shard_lengths") or [0]) for name, entry in described["splits"].items()}
        stem = str(described.get("dataset_name") or described.get("builder_name"))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{info}", got=f"not readable ({shorten(str(error))})", hint="Prepare it again.") from error
    require_split(split, splits)
    files: list[Path] = []
    for name, shards in splits.items():
        if not split or name == split:
            ends = [""] if shards == 1 else [f"-{k:05d}-of-{shards:05d}" for k in range(shards)]
            files += [info.parent / f"{stem}-{name}{end}.arrow" for end in ends]
    missing = [file.name for file in files if not file.is_file()]
    for name in missing:
        raise InputError(f"{info.parent}", got=f"no file {name!r}", hint="Prepare the data set again.")
    return files


def _fetch(name: str, config: str) -> Path | None:
    subject, spec = f"data set {name!r}", importlib.util.find_spec("datasets")
    require(spec, subject, "no package 'datasets'", "the extra hf", "Run `pip install '.[hf]'`.")
    library = importlib.import_module("datasets")
    try:
        library.load_dataset_builder(name, config or None, cache_dir=str(cache_folder())).download_and_prepare()
    except (OSError, ValueError, RuntimeError, library.exceptions.DatasetsError) as error:
        got = f"a failed download ({type(error).__name__}: {shorten(str(error))})"
        expected = "an accessible data set of the hub"
        raise InputError(subject, got=got, expected=expected, hint="Check the name and the connection.") from error
    return prepared(name, config)
