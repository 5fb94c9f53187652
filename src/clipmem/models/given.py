"""Existing models: found by address, hashed, and loaded with their own library."""

import json
import re
import warnings
from pathlib import Path
from typing import Any, NamedTuple

from clipmem.base.errors import ClipmemWarning, InputError, require, shorten
from clipmem.base.hashing import file_sha256, json_sha256
from clipmem.base.paths import reading
from clipmem.models import adapters, address, hub, names, openclip, tokenizers, transformers
from clipmem.models.address import Address
from clipmem.models.family import FAMILIES, ModelFamily
from clipmem.models.protocol import DualEncoder
from clipmem.models.weights import Checkpoint, find_weights, read_checkpoint, reason

_QUICK_GELU = re.compile(r"quick[-_]?gelu", re.IGNORECASE)


class GivenModel(NamedTuple):
    """A model on disk: its address as written and parsed, and the folder and file of its weights.

    `adapted`: the folder has adapters of another model.
    """

    name: str
    folder: Path
    weights: Path
    parsed: Address
    adapted: bool = False

    @property
    def address(self) -> str:
        """The address with absolute paths."""
        return str(self.parsed)

    @property
    def family(self) -> type[ModelFamily] | None:
        """The family that its address names; None for adapters and for open_clip."""
        return FAMILIES[self.parsed.name] if self.parsed.kind == "family" and not self.adapted else None


class _Parts(NamedTuple):
    settings: dict[str, Any]
    tokenizer: Path | None
    text_tower: Path | None


def find(name: str, *, download: bool | None = None) -> GivenModel:
    """Find the files of a model by its address (see `clipmem.models.address`)."""
    parsed = address.parse(name)
    if parsed.kind in {"folder", "family"} and adapters.is_saved(parsed.path):
        return GivenModel(name, parsed.path, parsed.path / adapters.WEIGHTS_FILE, parsed, adapted=True)
    allowed = hub.may_download() if download is None else download
    if parsed.kind == "family":
        try:
            files = FAMILIES[parsed.name].files(parsed.path)
        except InputError as error:  # add the model's name
            subject = f"model {shorten(name)}"
            raise InputError(subject, got=error.got, expected=error.expected, hint=error.hint) from error
        return GivenModel(name, parsed.path, files[0], parsed)
    weights = _weights(parsed, name, allowed)
    if allowed:
        _parts(parsed, name, weights.parent, download=True)  # now, so that later steps need no network
    return GivenModel(name, weights.parent, weights, parsed)


def content(model: GivenModel) -> dict[str, str]:
    """Hash weights, config and tokenizer: file name → SHA-256, sorted by name."""
    if model.family:
        files, hashes = model.family.files(model.folder), {}
    elif model.adapted:
        files, hashes = [model.folder / name for name in adapters.FILES], {}
    else:
        parts = _parts(model.parsed, model.name, model.folder)
        config = model.folder / openclip.CONFIG_FILE
        named = model.parsed.kind in {"tag", "checkpoint"}
        hashes = {f"config of {Path(model.parsed.name).name}": json_sha256(parts.settings)} if named else {}
        files = [model.weights, *([] if named else [config])]
        files += tokenizers.files_of(parts.tokenizer) if parts.tokenizer else []
        files += [parts.text_tower / "config.json"] if parts.text_tower else []
    suffix = address.AVERAGED if model.parsed.averaged else ""
    with reading(f"model {shorten(model.name)}", expected="readable files"):
        hashes |= {file.name + (suffix if file == model.weights else ""): file_sha256(file) for file in files}
    return dict(sorted(hashes.items()))


def describe(model: GivenModel, encoder: DualEncoder) -> dict[str, Any]:
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
        return load(find(f"{address.LOCAL}{folder}"))
    if (folder / openclip.CONFIG_FILE).is_file():
        return openclip.load(folder)
    families = (FAMILIES[name] for name in FAMILIES)
    return next((family.load(folder) for family in families if family.is_saved(folder)), None) or openclip.load(folder)


def load(model: GivenModel) -> DualEncoder:
    """Load a model in float32, in evaluation mode."""
    if model.adapted:
        encoder = _load_adapted(model)
    else:
        encoder = model.family.load(model.folder) if model.family else _load_open_clip(model)
    broken = [name for name, weight in encoder.module.named_parameters() if not bool(weight.isfinite().all())]
    if broken:
        got = f"NaN or infinity in {len(broken):,} of its weights, the first {broken[0]}"
        hint = "Use a checkpoint from before training diverged."
        raise InputError(f"model {shorten(model.name)}", got=got, expected="finite weights", hint=hint)
    return encoder


def _load_adapted(model: GivenModel) -> DualEncoder:
    subject, origin = f"model {shorten(model.name)}", adapters.read_base(model.folder)
    hint = f"Restore the base model, or correct its address in {adapters.BASE_FILE}."
    try:
        base = find(origin["address"])
        files = content(base)
    except InputError as error:
        got = f"adapters whose base model cannot be read ({error.what}: got {error.got})"
        raise InputError(subject, got=got, expected="the base model at its address", hint=hint) from error
    for file in sorted({*origin["files"], *files}):
        expected, now = (side.get(file, "none")[:16] for side in (origin["files"], files))
        got = f"adapters of another base model: {file} of {origin['address']} with SHA-256 {now}"
        require(expected == now, subject, got, f"SHA-256 {expected}", hint)
    encoder = load(base)
    adapters.merge(encoder, model.folder)
    return encoder


def _load_open_clip(model: GivenModel) -> DualEncoder:
    subject, named = f"model {shorten(model.name)}", model.parsed.kind == "checkpoint"
    parts = _parts(model.parsed, model.name, model.folder)
    checkpoint = read_checkpoint(model.weights, averaged=model.parsed.averaged)
    if named:
        _warn_of_activation(model, parts.settings, checkpoint)
    try:
        encoder = openclip.assemble(
            parts.settings,
            checkpoint.state,
            tokenizer=parts.tokenizer,
            text_tower=parts.text_tower,
            resize=not named,  # position embeddings of another size mean a wrong config
        )
    except InputError as error:  # add the model's name
        raise InputError(subject, got=error.got, expected=error.expected, hint=error.hint) from error
    except openclip.BROKEN as error:
        expected = f"weights of {model.parsed.name}" if named else "a model saved by clipmem or open_clip"
        hint = "Check that the name is that of the training run, or give a JSON config instead."
        hint = hint if named else "Check that its files are complete."
        got = f"files that do not load ({reason(error)})"
        raise InputError(subject, got=got, expected=expected, hint=hint) from error
    encoder.module.eval()
    return encoder


def _weights(parsed: Address, name: str, allowed: bool) -> Path:
    subject = f"model {shorten(name)}"
    match parsed.kind:
        case "checkpoint":
            return parsed.path
        case "tag":
            pretrained = openclip.pretrained(parsed.name, parsed.tag)
            if pretrained is None:
                raise address.wrong(name, "no such tag", "Check the address.")
            _refuse_activation(parsed, name, pretrained)
            return hub.get(pretrained.repository, pretrained.files, subject=subject, download=allowed)
        case "hub":
            folder = hub.get(parsed.name, [openclip.CONFIG_FILE], subject=subject, download=allowed).parent
            weights = ["open_clip_model.safetensors", "open_clip_pytorch_model.bin"]
            file = hub.get(parsed.name, weights, subject=subject, download=allowed)
            if file.parent != folder:
                got = f"config and weights of different versions in {folder.parent}"
                hint = f"Download it again: hf download {parsed.name}."
                raise InputError(subject, got=got, expected="the same version", hint=hint)
            return file
        case _:
            return _weights_of_folder(parsed.path, name)


def _weights_of_folder(folder: Path, name: str) -> Path:
    weights = find_weights(folder)
    missing = [] if (folder / openclip.CONFIG_FILE).is_file() else [openclip.CONFIG_FILE]
    missing += [] if weights else ["weights"]
    if missing or weights is None:
        hint = f"Put the weights next to the config, as {openclip.WEIGHTS_FILE} for example."
        if (folder / "config.json").is_file():
            path = name.removeprefix(address.LOCAL)
            hint = f"If transformers saved it, use '{transformers.Transformers.name}:{path}'."
        elif weights:
            hint = f"Add the architecture: NAME@{name.removeprefix(address.LOCAL)}/{weights.name}."
        raise address.wrong(name, f"a folder with no {' and no '.join(missing)}", hint)
    return weights


def _parts(parsed: Address, name: str, folder: Path, *, download: bool = False) -> _Parts:
    subject = f"model {shorten(name)}"
    if parsed.kind in {"tag", "checkpoint"}:
        settings = names.settings_of(parsed.name)
        pretrained = openclip.pretrained(parsed.name, parsed.tag) if parsed.kind == "tag" else None
        settings = {**settings, "preprocess_cfg": pretrained.preprocess if pretrained else settings["preprocess_cfg"]}
    else:
        settings = _read_config(folder / openclip.CONFIG_FILE, subject)
    text = settings["model_cfg"]["text_cfg"]
    # as in open_clip: the tokenizer of a local folder is in that folder, others are named by the config
    tokenizer_folder = folder if parsed.kind == "folder" and text.get("hf_tokenizer_name") else None
    return _Parts(
        settings,
        tokenizers.find(text, subject=subject, folder=tokenizer_folder, download=download),
        tokenizers.find_text_tower(text, subject=subject, download=download),
    )


def _read_config(path: Path, subject: str) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        config = document["model_cfg"]
        complete = all(isinstance(config[key], dict) for key in ("vision_cfg", "text_cfg")) and "embed_dim" in config
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise _bad_config(path, subject, str(error) or type(error).__name__) from error
    if not complete:
        raise _bad_config(path, subject, f"keys {sorted(config)}")
    return {"model_cfg": config, "preprocess_cfg": document.get("preprocess_cfg") or {}}


def _bad_config(path: Path, subject: str, reason: str) -> InputError:
    got = f"files that do not load ({path.name}: {shorten(reason)})"
    expected = "a model saved by clipmem or open_clip"
    return InputError(subject, got=got, expected=expected, hint="Check that its files are complete.")


def _refuse_activation(parsed: Address, name: str, pretrained: openclip.Pretrained) -> None:
    """Refuse weights trained with QuickGELU for an architecture without it (open_clip only warns)."""
    if pretrained.quick_gelu and not names.model_config(parsed.name).get("quick_gelu"):
        got = f"an architecture without QuickGELU and weights trained with it ({parsed.tag})"
        hint = f"Use {parsed.name}-quickgelu/{parsed.tag}."
        expected = "the activation that the weights were trained with"
        raise address.wrong(name, got, hint, expected=expected)


def _warn_of_activation(model: GivenModel, settings: dict[str, Any], checkpoint: Checkpoint) -> None:
    """Warn if names suggest that a checkpoint was trained with QuickGELU and the architecture does not have it."""
    if settings["model_cfg"].get("quick_gelu"):
        return
    evidence = [part for part in (model.weights.name, checkpoint.run) if _QUICK_GELU.search(part)]
    evidence += _from_run_folder(model.weights)
    if evidence:
        named = model.parsed.name
        better = "a config with quick_gelu: true" if named.endswith(".json") else f"{named}-quickgelu"
        warnings.warn(
            ClipmemWarning(
                f"model {shorten(model.name)}: {evidence[0]!r} suggests that it was trained with QuickGELU, which "
                f"{Path(named).name} does not have. If so, its embeddings are wrong: use {better} instead."
            ),
            stacklevel=3,
        )


def _from_run_folder(weights: Path) -> list[str]:
    try:
        lines = (weights.parent.parent / "params.txt").read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return []
    matches = [line for line in lines if re.match(r"force_quick_gelu: True|(model|name): .*quick[-_]?gelu", line)]
    return [f"params.txt: {line}" for line in matches[:1]]
