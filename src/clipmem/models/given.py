"""Existing models: found by name, hashed, and loaded with their own library."""

import json
import re
import warnings
from pathlib import Path
from typing import Any, NamedTuple, NotRequired, TypedDict

from clipmem import models
from clipmem.base.errors import ClipmemWarning, InputError, require, shorten
from clipmem.base.hashing import file_sha256, json_sha256
from clipmem.base.paths import reading
from clipmem.base.remote import may_download
from clipmem.data.decoding import Interpolation, ResizeMode
from clipmem.models import adapters, hub, names, tokenizers
from clipmem.models.family import FAMILIES, ModelFamily
from clipmem.models.names import Address
from clipmem.models.protocol import DualEncoder
from clipmem.models.weights import find_weights, read_checkpoint, reason

_QUICK_GELU = re.compile(r"quick[-_]?gelu", re.IGNORECASE)


class GivenModel(NamedTuple):
    """A model on disk: its name as written and parsed, and the folder and file of its weights.

    `adapted`: the folder has adapters of another model.
    """

    name: str
    folder: Path
    weights: Path
    parsed: Address
    adapted: bool = False

    @property
    def address(self) -> str:
        """The name with absolute paths."""
        return str(self.parsed)

    @property
    def subject(self) -> str:
        """The model in errors."""
        return f"model {shorten(self.name)}"

    @property
    def family(self) -> type[ModelFamily] | None:
        """The family that its name names; None for adapters and for open_clip."""
        return FAMILIES[self.parsed.name] if self.parsed.kind == "family" and not self.adapted else None


class ModelFacts(TypedDict):
    """A model's entry in a manifest."""

    name: str
    address: str
    image_size: int
    resize_mode: ResizeMode
    interpolation: Interpolation
    parameters: int
    width: NotRequired[int]
    files: NotRequired[dict[str, str]]


def find(name: str, *, download: bool | None = None) -> GivenModel:
    """Find the files of a model by its name (see `clipmem.models.names`)."""
    parsed = names.parse(name)
    model = GivenModel(name, parsed.path, parsed.path / adapters.WEIGHTS_FILE, parsed, adapted=True)
    if parsed.kind in {"folder", "family"} and adapters.is_saved(parsed.path):
        return model
    model = model._replace(adapted=False)
    if model.family:
        try:
            return model._replace(weights=model.family.files(parsed.path)[0])
        except InputError as error:  # add the model's name
            raise InputError(model.subject, got=error.got, expected=error.expected, hint=error.hint) from error
    allowed = may_download() if download is None else download
    weights = _weights(parsed, name, allowed)
    model = model._replace(folder=weights.parent, weights=weights)
    if allowed:
        _parts(model, download=True)  # now, so that later steps need no network
    return model


def content(model: GivenModel) -> dict[str, str]:
    """Hash weights, config and tokenizer: file name → SHA-256, sorted by name."""
    if model.family:
        files, hashes = model.family.files(model.folder), {}
    elif model.adapted:
        files, hashes = [model.folder / name for name in adapters.FILES], {}
    else:
        settings, tokenizer, text_tower = _parts(model)
        named = model.parsed.kind in {"tag", "checkpoint"}
        hashes = {f"config of {Path(model.parsed.name).name}": json_sha256(settings)} if named else {}
        files = [model.weights, *([] if named else [model.folder / models.openclip.CONFIG_FILE])]
        files += tokenizers.files_of(tokenizer) if tokenizer else []
        files += [text_tower / "config.json"] if text_tower else []
    suffix = names.AVERAGED if model.parsed.averaged else ""
    with reading(model.subject, expected="readable files"):
        hashes |= {file.name + (suffix if file == model.weights else ""): file_sha256(file) for file in files}
    return dict(sorted(hashes.items()))


def describe(model: GivenModel, encoder: DualEncoder) -> ModelFacts:
    """Return a model's entry in a manifest, without the hashes of its files (see `content`)."""
    return {
        "name": model.name,
        "address": model.address,
        "image_size": encoder.image_size,
        "resize_mode": encoder.resize_mode,
        "interpolation": encoder.interpolation,
        "parameters": sum(p.numel() for p in encoder.module.parameters()),
    }


def load_saved(folder: Path) -> DualEncoder:
    """Load a model that a study trained, from its run folder."""
    if adapters.is_saved(folder):
        return load(find(f"{names.LOCAL}{folder}"))
    is_open_clip = (folder / models.openclip.CONFIG_FILE).is_file()
    families = [] if is_open_clip else [FAMILIES[name] for name in FAMILIES if FAMILIES[name].is_saved(folder)]
    return families[0].load(folder) if families else models.openclip.load(folder)


def load(model: GivenModel) -> DualEncoder:
    """Load a model in float32, in evaluation mode."""
    if model.adapted:
        origin = adapters.read_base(model.folder)
        hint = f"Restore the base model, or correct its address in {adapters.BASE_FILE}."
        try:
            base = find(origin["address"])
            files = content(base)
        except InputError as error:
            got = f"adapters whose base model cannot be read ({error.what}: got {error.got})"
            expected = "the base model under its name"
            raise InputError(model.subject, got=got, expected=expected, hint=hint) from error
        for file in sorted({*origin["files"], *files}):
            expected, now = (side.get(file, "none")[:16] for side in (origin["files"], files))
            got = f"adapters of another base model: {file} of {origin['address']} with SHA-256 {now}"
            require(expected == now, model.subject, got, f"SHA-256 {expected}", hint)
        encoder = load(base)
        adapters.merge(encoder, model.folder)
    else:
        encoder = model.family.load(model.folder) if model.family else _load_open_clip(model)
    broken = [name for name, weight in encoder.module.named_parameters() if not bool(weight.isfinite().all())]
    got = f"NaN or infinity in {len(broken):,} of its weights, the first {''.join(broken[:1])}"
    require(not broken, model.subject, got, "finite weights", "Use a checkpoint from before training diverged.")
    return encoder


def _load_open_clip(model: GivenModel) -> DualEncoder:
    named, (settings, tokenizer, text_tower) = model.parsed.kind == "checkpoint", _parts(model)
    checkpoint = read_checkpoint(model.weights, averaged=model.parsed.averaged)
    if named and not settings["model_cfg"].get("quick_gelu"):
        _warn_of_activation(model, checkpoint.run)
    try:
        how = {"tokenizer": tokenizer, "text_tower": text_tower}
        # position embeddings of another size mean a wrong config
        encoder = models.openclip.assemble(settings, checkpoint.state, **how, resize=not named)
    except InputError as error:  # add the model's name
        raise InputError(model.subject, got=error.got, expected=error.expected, hint=error.hint) from error
    except models.openclip.BROKEN as error:
        expected = f"weights of {model.parsed.name}" if named else "a model saved by clipmem or open_clip"
        hint = "Check that the name is that of the training run, or give a JSON config instead."
        hint = hint if named else "Check that its files are complete."
        got = f"files that do not load ({reason(error)})"
        raise InputError(model.subject, got=got, expected=expected, hint=hint) from error
    encoder.module.eval()
    return encoder


def _weights(parsed: Address, name: str, allowed: bool) -> Path:
    subject, folder = f"model {shorten(name)}", parsed.path
    match parsed.kind:
        case "checkpoint":
            return parsed.path
        case "tag":
            pretrained = models.openclip.pretrained(parsed.name, parsed.tag)
            if pretrained is None:
                raise names.wrong(name, "no such tag", "Check the name.")
            if pretrained.quick_gelu and not names.model_config(parsed.name).get("quick_gelu"):  # open_clip only warns
                got = f"an architecture without QuickGELU and weights trained with it ({parsed.tag})"
                expected = "the activation that the weights were trained with"
                raise names.wrong(name, got, f"Use {parsed.name}-quickgelu/{parsed.tag}.", expected=expected)
            return hub.get(pretrained.repository, pretrained.files, subject=subject, download=allowed)
        case "hub":
            folder = hub.get(parsed.name, [models.openclip.CONFIG_FILE], subject=subject, download=allowed).parent
            usual = ["open_clip_model.safetensors", "open_clip_pytorch_model.bin"]
            file = hub.get(parsed.name, usual, subject=subject, download=allowed)
            got = f"config and weights of different versions in {folder.parent}"
            hint = f"Download it again: hf download {parsed.name}."
            require(file.parent == folder, subject, got, "the same version", hint)
            return file
        case _:
            weights, path = find_weights(folder), name.removeprefix(names.LOCAL)
            missing = [] if (folder / models.openclip.CONFIG_FILE).is_file() else [models.openclip.CONFIG_FILE]
            missing += [] if weights else ["weights"]
            if weights and not missing:
                return weights
            hint = f"Put the weights next to the config, as {models.openclip.WEIGHTS_FILE} for example."
            if family := next((name for name in FAMILIES if FAMILIES[name].is_saved(folder)), ""):
                hint = f"If {family} saved it, use '{family}:{path}'."
            elif weights:
                hint = f"Add the architecture: NAME@{path}/{weights.name}."
            raise names.wrong(name, f"a folder with no {' and no '.join(missing)}", hint)


def _parts(model: GivenModel, *, download: bool = False) -> tuple[names.Settings, Path | None, Path | None]:
    """Return the config of a model of open_clip, and where its tokenizer and its text tower are."""
    parsed, file = model.parsed, model.folder / models.openclip.CONFIG_FILE
    if parsed.kind in {"tag", "checkpoint"}:
        settings = names.settings_of(parsed.name)
        pretrained = models.openclip.pretrained(parsed.name, parsed.tag) if parsed.kind == "tag" else None
        preprocess = pretrained.preprocess if pretrained else settings["preprocess_cfg"]
        settings: names.Settings = {**settings, "preprocess_cfg": preprocess}
    else:
        document: Any = {}
        try:
            document = json.loads(file.read_text(encoding="utf-8"))
            config = document["model_cfg"]
            has_towers = all(isinstance(config[key], dict) for key in ("vision_cfg", "text_cfg"))
            problem = "" if has_towers and "embed_dim" in config else f"keys {sorted(config)}"
        except (OSError, ValueError, LookupError, TypeError) as error:
            problem = str(error) or type(error).__name__
        got = f"files that do not load ({file.name}: {shorten(problem)})"
        expected, hint = "a model saved by clipmem or open_clip", "Check that its files are complete."
        require(not problem, model.subject, got, expected, hint)
        settings = {"model_cfg": document["model_cfg"], "preprocess_cfg": document.get("preprocess_cfg") or {}}
    text = settings["model_cfg"]["text_cfg"]
    # as in open_clip: the tokenizer of a local folder is in that folder, others are named by the config
    tokenizer_folder = model.folder if parsed.kind == "folder" and text.get("hf_tokenizer_name") else None
    tokenizer = tokenizers.find(text, subject=model.subject, folder=tokenizer_folder, download=download)
    return settings, tokenizer, tokenizers.find_text_tower(text, subject=model.subject, download=download)


def _warn_of_activation(model: GivenModel, run: str) -> None:
    """Warn if names suggest that a checkpoint was trained with QuickGELU, which its architecture does not have."""
    evidence = [name for name in (model.weights.name, run) if _QUICK_GELU.search(name)]
    try:
        lines = (model.weights.parent.parent / "params.txt").read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        lines = []
    pattern = r"force_quick_gelu: True|(model|name): .*quick[-_]?gelu"
    evidence += [f"params.txt: {line}" for line in lines if re.match(pattern, line)]
    if evidence:
        named = model.parsed.name
        better = "a config with quick_gelu: true" if named.endswith(".json") else f"{named}-quickgelu"
        text = f"{model.subject}: {evidence[0]!r} suggests that it was trained with QuickGELU, which "
        text += f"{Path(named).name} does not have. If so, its embeddings are wrong: use {better} instead."
        warnings.warn(ClipmemWarning(text), stacklevel=3)
