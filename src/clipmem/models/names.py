"""Architectures and their configs, without importing torch or open_clip."""

import json
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from clipmem.base.errors import InputError, did_you_mean, near_names, shorten
from clipmem.base.paths import checked_path, reading

SHIPPED = ("clipmem-tiny", "clipmem-tiny-32", "clipmem-micro")
# smaller architectures of the same images, for half-models
PROXIES = {
    "clipmem-tiny": "clipmem-tiny-32",
    "ViT-B-32": "ViT-S-32",
    "ViT-B-16": "ViT-S-16",
    "ViT-L-14": "ViT-S-16",
}
# clipmem-tiny with towers of other widths, for `clipmem reproduce --finding model-size`
GRID = tuple(
    f"clipmem-i{image}-t{text}" for image in (64, 128, 192) for text in (64, 128, 192) if image * text != 16384
)


def _of_open_clip() -> Sequence[str]:
    library = sys.modules.get("open_clip")
    return library.list_models() if library else list(_files())


def _config(name: str) -> dict[str, Any]:
    library = sys.modules.get("open_clip")
    return library.get_model_config(name) if library else json.loads(_files()[name].read_text(encoding="utf-8"))


@cache
def _files() -> Mapping[str, Path]:
    spec = find_spec("open_clip")  # does not import it
    folders = (spec.submodule_search_locations if spec else None) or []
    configs = [file for folder in folders for file in Path(folder, "model_configs").glob("*.json")]
    return {file.stem: file for file in sorted(configs)}


def is_architecture(name: str) -> bool:
    """Return whether a name is an architecture or a JSON file (which need not exist)."""
    return name in SHIPPED or name.endswith(".json") or name in _of_open_clip()


def architectures() -> list[str]:
    """Return the names of all architectures."""
    return [*SHIPPED, *_of_open_clip()]


def model_config(name: str) -> dict[str, Any]:
    """Return a model's config: shipped with clipmem, built into open_clip, or from a JSON file."""
    return settings_of(name)["model_cfg"]


def settings_of(name: str) -> dict[str, Any]:
    """Return a model's `model_cfg` and `preprocess_cfg` (see `model_config`)."""
    if name in SHIPPED or name in GRID:
        shipped = files("clipmem.models") / "configs" / f"{name}.json"
        return {"model_cfg": json.loads(shipped.read_text(encoding="utf-8")), "preprocess_cfg": {}}
    if name.endswith(".json"):
        return _config_file(name)
    if name in _of_open_clip():
        return {"model_cfg": _config(name), "preprocess_cfg": {}}
    near = near_names(name, architectures())
    expected = "an open_clip model, a shipped one, or a JSON config"
    hint = did_you_mean(name, architectures() if near else SHIPPED, kind="shipped model")
    raise InputError(f"[model] name = {shorten(name)}", got="no model of that name", expected=expected, hint=hint)


def _config_file(name: str) -> dict[str, Any]:
    subject = f"[model] name = {shorten(name)}"
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
    return {"model_cfg": config, "preprocess_cfg": preprocess}
