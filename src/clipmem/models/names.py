"""Names of architectures and of models, read without importing torch or open_clip.

    FOLDER, local-dir:FOLDER      a folder of open_clip
    NAME/TAG                      an architecture and pretrained tag of open_clip
    NAME@CHECKPOINT               an architecture, or a JSON config, with weights from a file; with the suffix #ema,
                                  the averaged weights
    hf-hub:OWNER/NAME             a repository of open_clip on the Hugging Face hub
    FAMILY:PATH                   a model of another family, such as transformers:FOLDER (`clipmem.models.family`)

Architectures take precedence over folders: `ViT-B-32/openai` is always the tag, and `./ViT-B-32/openai` the folder.
"""

import json
import os
import sys
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, NamedTuple, NotRequired, TypedDict

from clipmem.base.errors import InputError, did_you_mean, near_names, shorten
from clipmem.base.paths import checked_path, reading
from clipmem.models.family import FAMILIES

SHIPPED = ("clipmem-tiny", "clipmem-tiny-32", "clipmem-micro")
# smaller architectures of the same images, for shadow models
PROXIES = {"clipmem-tiny": "clipmem-tiny-32", "ViT-B-32": "ViT-S-32", "ViT-B-16": "ViT-S-16", "ViT-L-14": "ViT-S-16"}
# clipmem-tiny with towers of other widths, for `clipmem reproduce --finding model-size`
GRID = tuple(
    f"clipmem-i{image}-t{text}" for image in (64, 128, 192) for text in (64, 128, 192) if image * text != 16384
)
LOCAL, HUB, AVERAGED = "local-dir:", "hf-hub:", "#ema"
_EXPECTED = f"a folder of open_clip, NAME/TAG, NAME@CHECKPOINT, {LOCAL}FOLDER, {HUB}OWNER/NAME, or "
_CONFIGS = ("open_clip_config.json", "config.json", "adapter_config.json")
_CHECK = "Check the path: relative paths start at the working directory."


class TextConfig(TypedDict, total=False):
    """The keys of open_clip's `text_cfg` that are read here."""

    context_length: int
    hf_model_name: str
    hf_tokenizer_name: str
    tokenizer_kwargs: dict[str, Any]
    tokenizer_mode: str


class ModelConfig(TypedDict):
    """The keys of open_clip's `model_cfg` that are read here."""

    embed_dim: int
    vision_cfg: dict[str, Any]
    text_cfg: TextConfig
    quick_gelu: NotRequired[bool]


class Settings(TypedDict):
    """An architecture: the content of open_clip's config files."""

    model_cfg: ModelConfig
    preprocess_cfg: dict[str, Any]


class Address(NamedTuple):
    """A parsed name of a model; `name` is that of the architecture, repository or family."""

    kind: Literal["folder", "tag", "checkpoint", "hub", "family"]
    path: Path = Path()
    name: str = ""
    tag: str = ""
    averaged: bool = False

    def __str__(self) -> str:
        """Return the name with absolute paths."""
        texts = {
            "folder": f"{LOCAL if '@' in str(self.path) else ''}{self.path}",
            "tag": f"{self.name}/{self.tag}",
            "checkpoint": f"{self.name}@{self.path}{AVERAGED if self.averaged else ''}",
            "hub": f"{HUB}{self.name}",
            "family": f"{self.name}:{self.path}",
        }
        return texts[self.kind]


@cache
def _config_files() -> Mapping[str, Path]:
    spec = find_spec("open_clip")  # does not import it
    folders = (spec.submodule_search_locations if spec else None) or []
    configs = [file for folder in folders for file in Path(folder, "model_configs").glob("*.json")]
    return {file.stem: file for file in sorted(configs)}


def architectures() -> list[str]:
    """Return the names of all architectures: those shipped with clipmem, then open_clip's."""
    library = sys.modules.get("open_clip")
    return [*SHIPPED, *(library.list_models() if library else _config_files())]


def is_architecture(name: str) -> bool:
    """Return whether a name is an architecture or a JSON file (which need not exist)."""
    return name.endswith(".json") or name in architectures()


def model_config(name: str) -> ModelConfig:
    """Return a model's config: shipped with clipmem, built into open_clip, or from a JSON file."""
    return settings_of(name)["model_cfg"]


def settings_of(name: str) -> Settings:
    """Return a model's `model_cfg` and `preprocess_cfg` (see `model_config`)."""
    subject = f"[model] name = {shorten(name)}"
    if name in SHIPPED or name in GRID:
        shipped = files("clipmem.models") / "configs" / f"{name}.json"
        return {"model_cfg": json.loads(shipped.read_text(encoding="utf-8")), "preprocess_cfg": {}}
    if name.endswith(".json"):
        with reading(subject, expected="a JSON file"):
            text = checked_path(name, "[model] name =").read_text(encoding="utf-8")
        try:
            config = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise InputError(subject, got=str(error), expected="a JSON file", hint="Check the path.") from error
        preprocess = config.get("preprocess_cfg") or {} if isinstance(config, dict) else {}
        config = config.get("model_cfg", config) if isinstance(config, dict) else config
        if not isinstance(config, dict) or not {"embed_dim", "vision_cfg", "text_cfg"} <= set(config):
            got = f"keys {shorten(sorted(config))}" if isinstance(config, dict) else f"a JSON {type(config).__name__}"
            hint = "Start from a file of open_clip's model_configs folder."
            raise InputError(subject, got=got, expected="embed_dim, vision_cfg and text_cfg", hint=hint)
        return {"model_cfg": config, "preprocess_cfg": preprocess}  # pyright: ignore[reportReturnType]
    if name in architectures():
        library = sys.modules.get("open_clip")
        text = "" if library else _config_files()[name].read_text(encoding="utf-8")
        return {"model_cfg": library.get_model_config(name) if library else json.loads(text), "preprocess_cfg": {}}
    near = near_names(name, architectures())
    expected = "an open_clip model, a shipped one, or a JSON config"
    hint = did_you_mean(name, architectures() if near else SHIPPED, kind="shipped model")
    raise InputError(subject, got="no model of that name", expected=expected, hint=hint)


def parse(text: str) -> Address:
    """Parse the name of a model."""
    if family := _family(text):
        path = text.removeprefix(f"{family}:")
        in_folder = FAMILIES[family].in_folders
        return Address("family", _folder(text, path) if in_folder else _absolute(text, path), family)
    if text.startswith(LOCAL):
        return Address("folder", _folder(text, text.removeprefix(LOCAL)))
    if text.startswith(HUB):
        name = text.removeprefix(HUB)
        owner, slash, repository = name.partition("/")
        if not (owner and slash and repository) or "/" in repository:
            raise wrong(text, f"a repository {shorten(name)}", "Copy the name from the repository's page.")
        return Address("hub", name=name)
    if address := _checkpoint(text) or _tag(text):
        return address
    if text and _is_folder(path := _absolute(text, text)):
        return Address("folder", path)
    raise _unknown(text)


def names_model(text: str) -> bool:
    """Return whether a text names an architecture or a model rather than data, for commands that take either.

    JSON files and `hf-hub:` names are data; a folder is a model if it has the config of one.
    """
    if text in architectures() or text.startswith(LOCAL) or _family(text):
        return True
    if text.startswith(HUB) or not text:
        return False
    path = Path(text)
    if _is_folder(path):
        return any((path / name).is_file() for name in _CONFIGS)
    return not _is_file(path) and (_checkpoint(text) or _tag(text)) is not None


def wrong(text: str, got: str, hint: str, expected: str = "") -> InputError:
    """Return the error for the name of a model."""
    families = (f"{name}:{'FOLDER' if FAMILIES[name].in_folders else 'PATH'}" for name in FAMILIES)
    expected = expected or _EXPECTED + " or ".join(families)
    return InputError(f"model {shorten(text)}", got=got, expected=expected, hint=hint)


def _family(text: str) -> str:
    prefix, colon, _ = text.partition(":")
    return prefix if colon and prefix in FAMILIES else ""


def _absolute(text: str, path: str) -> Path:
    try:
        return Path(path).expanduser().resolve()
    except (OSError, RuntimeError, ValueError) as error:  # a loop of links, an unknown user, a NUL byte
        raise wrong(text, f"an invalid path ({error})", _CHECK) from error


def _is_folder(path: Path) -> bool:
    # unlike `Path.is_dir`, does not raise on names that are too long
    return os.path.isdir(path)  # noqa: PTH112


def _is_file(path: Path) -> bool:
    return os.path.isfile(path)  # noqa: PTH113


def _folder(text: str, path: str) -> Path:
    folder = _absolute(text, path)
    if not path or not _is_folder(folder):
        raise wrong(text, "a file" if path and _is_file(folder) else "no such folder", _CHECK)
    return folder


def _checkpoint(text: str) -> Address | None:
    for at in (k for k, letter in enumerate(text) if letter == "@"):
        name, rest = text[:at], text[at + 1 :]
        if not is_architecture(name):
            continue
        averaged = rest.endswith(AVERAGED) and not _is_file(_absolute(text, rest))
        path = _absolute(text, rest.removesuffix(AVERAGED) if averaged else rest)
        if rest and _is_folder(path):
            suffixes = {".pt", ".pth", ".safetensors", ".bin"}
            inside = sorted(file.name for file in path.iterdir() if file.suffix in suffixes)
            hint = f"{_CHECK} Name one of its files: {', '.join(inside[:5])}." if inside else _CHECK
            raise wrong(text, "a folder after @", hint)
        if not rest or not _is_file(path):
            raise wrong(text, "no such file after @", _CHECK)
        # JSON configs are files and need absolute paths, too
        architecture = str(_absolute(text, name)) if name.endswith(".json") else name
        return Address("checkpoint", path, architecture, averaged=averaged)
    return None


def _tag(text: str) -> Address | None:
    name, slash, tag = text.partition("/")
    if not slash or not is_architecture(name):
        return None
    spellings = {spelling.lower().replace("-", "_"): spelling for spelling in reversed(_tags(name, tag))}
    spelling = spellings.get(tag.lower().replace("-", "_"))
    return Address("tag", name=name, tag=spelling) if spelling else None  # in open_clip's spelling


def _tags(name: str, tag: str = "") -> list[str]:
    """Return the pretrained tags of an architecture; with a tag that cannot be loaded, none."""
    from clipmem.models import openclip  # imports torch

    return [] if tag and openclip.pretrained(name, tag) is None else openclip.tags(name)


def _unknown(text: str) -> InputError:
    supported = architectures()
    name, slash, tag = text.partition("/")
    before, at, _ = text.partition("@")
    if text in supported:
        tags = _tags(text)
        other = f" or {text}/TAG, TAG being one of {', '.join(tags)}" if tags else ""
        return wrong(text, "an architecture without weights", f"Write {text}@CHECKPOINT{other}.")
    if slash and name in supported:
        tags = _tags(name)
        hint = did_you_mean(tag, tags, kind="tag") if tags else f"{name} has no pretrained tags."
        return wrong(text, f"no pretrained tag {shorten(tag)} of {name}, and no such folder", hint)
    if at and "/" not in before:
        return wrong(text, f"no architecture {shorten(before)}", did_you_mean(before, supported, kind="architecture"))
    path = _absolute(text, text)
    if text and _is_file(path):
        return wrong(text, "a file", f"Add its architecture: NAME@{text}.")
    near = near_names(name, supported) if "/" not in tag else []
    return wrong(text, "no such folder", did_you_mean(name, near) if near else _CHECK)
