"""Low-rank adapters (LoRA, Hu et al. 2022) of pretrained models: the only module that imports peft (extra `hf`).

A matrix W (out, in) becomes W + (alpha / r) B A. A (r, in) starts at random and B (out, r) at zero, so that training
starts at the pretrained model; only A and B are trained. Of an `nn.MultiheadAttention`, the joint matrix of query, key
and value is adapted. Its output projection keeps an update of zero: peft 0.21 adds that update twice in every pass.

A folder has peft's two files, and `base.json` with the address and hashes of the pretrained model. Loading needs no
peft: the updates are added to the weights.
"""

import json
import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypedDict, cast

import torch
from safetensors.torch import save as save_safetensors
from torch import Tensor, nn

from clipmem.base.errors import InputError, did_you_mean, require, shorten
from clipmem.base.paths import atomic_write, make_folder
from clipmem.base.sections import LoraSection
from clipmem.models import hub, parts
from clipmem.models.protocol import DualEncoder, TrainableEncoder
from clipmem.models.weights import read_checkpoint

CONFIG_FILE, WEIGHTS_FILE, BASE_FILE = "adapter_config.json", "adapter_model.safetensors", "base.json"
FILES = (CONFIG_FILE, WEIGHTS_FILE, BASE_FILE)
_PREFIX, _A, _B = "base_model.model.", ".lora_A.weight", ".lora_B.weight"  # of names in peft's file
_OTHER_FORMULAS = ("use_dora", "use_rslora", "rank_pattern", "alpha_pattern")
_BROKEN = (OSError, ValueError, LookupError, TypeError, AttributeError, RuntimeError, ArithmeticError)


class Base(TypedDict):
    """The pretrained model of adapters, in base.json: its name with absolute paths, and the hashes of its files."""

    address: str
    files: dict[str, str]


def add(encoder: TrainableEncoder, lora: LoraSection, *, seed: int, base: Base | None = None) -> None:
    """Add adapters to a model, and freeze its own weights; `save` then writes the adapters only.

    Args:
        encoder: The pretrained model, which is changed.
        lora: Rank, scale, dropout and targets.
        seed: Seed of A.
        base: The pretrained model; None from scratch.
    """
    peft, module = hub.library("peft", "[train] adapter = 'lora'"), encoder.module
    names = _targets(encoder, lora)
    joint = [name for name in names if isinstance(module.get_submodule(name), nn.MultiheadAttention)]
    got, hint = f"{lora.dropout} for {joint[:1]}, whose matrices are joint", "Set train.lora.dropout to 0."
    require(not (lora.dropout and joint), "[train.lora] dropout", got, "0 for attention of open_clip", hint)
    config = peft.LoraConfig(r=lora.rank, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules=names)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        peft.inject_adapter_in_model(config, module)
    for name in joint:
        attention: Any = module.get_submodule(name)
        # peft's own pass adds the update to the weights and subtracts it again, which rounds them
        attention.forward = partial(_attend, attention)
        attention.base_layer.out_proj.requires_grad_(False)
    # set on the object: everything else about the encoder stays the same
    encoder.save = partial(_save, module, config, base or {})


def _attend(attention: Any, *inputs: Tensor, **settings: Any) -> tuple[Tensor, Tensor | None]:
    weight = attention.base_layer.in_proj_weight + attention.get_delta_weight("default")
    return torch.func.functional_call(attention.base_layer, {"in_proj_weight": weight}, inputs, settings)


def _targets(encoder: TrainableEncoder, lora: LoraSection) -> list[str]:
    """Return the names of the modules to adapt: linear layers, and attention of torch as a whole."""
    every = dict(encoder.module.named_modules())
    joint = [name for name, layer in every.items() if isinstance(layer, nn.MultiheadAttention)]
    usable = [name for name in joint if getattr(every[name], "in_proj_weight", None) is not None]
    inside = tuple(f"{name}." for name in joint)
    usable += [name for name, layer in every.items() if isinstance(layer, nn.Linear) and not name.startswith(inside)]
    layers = {name: parts.part_of(f"{name}.weight", image=encoder.is_image_parameter(f"{name}.")) for name in usable}
    subject, ends = "[train.lora] targets", sorted({name.rpartition(".")[2] for name in layers})
    targets: set[str] = set()
    for target in lora.targets:
        matches = {name for name in layers if f".{name}".endswith(f".{target}")}
        expected = "linear layers, or attention of torch as a whole"
        require(matches, subject, f"{target!r}, which names none", expected, did_you_mean(target, ends, kind="module"))
        targets |= matches
    targets |= {name for name, part in layers.items() if part.kind == "blocks"} if not lora.targets else set()
    hint = did_you_mean("", ends, kind="module")
    require(targets, subject, "none, for a model without linear layers in blocks", "names of modules", hint)
    return sorted(targets)


def _save(module: nn.Module, config: Any, base: Mapping[str, object], folder: Path) -> list[Path]:
    peft = hub.library("peft", "adapters")
    make_folder(folder)
    state = peft.get_peft_model_state_dict(module, save_embedding_layers=False)
    state = {f"{_PREFIX}{name}": tensor.cpu().contiguous() for name, tensor in state.items()}
    settings = {**config.to_dict(), "inference_mode": True, "target_modules": sorted(config.target_modules)}
    atomic_write(folder / WEIGHTS_FILE, save_safetensors(state, {"format": "pt"}))
    for name, document in ((CONFIG_FILE, settings), (BASE_FILE, base)):
        atomic_write(folder / name, (json.dumps(document, indent=1) + "\n").encode())
    return [folder / name for name in FILES]


def is_saved(folder: Path) -> bool:
    """Return whether a folder has adapters."""
    return (folder / CONFIG_FILE).is_file()


def read_base(folder: Path) -> Base:
    """Read the pretrained model of saved adapters."""
    try:
        document = json.loads((folder / BASE_FILE).read_text(encoding="utf-8"))
        return {"address": str(document["address"]), "files": {k: str(v) for k, v in document["files"].items()}}
    except _BROKEN as error:
        got = f"adapters without their base model ({BASE_FILE}: {shorten(str(error))})"
        hint = "Merge other adapters with peft's merge_and_unload, and save the model."
        raise InputError(f"model folder {folder}", got=got, expected="adapters saved by clipmem", hint=hint) from error


def restore(encoder: TrainableEncoder, folder: Path) -> None:
    """Load saved adapters into a model with the same adapters, which stay separate from its weights."""
    state = read_checkpoint(folder / WEIGHTS_FILE).state
    weights = {re.sub(r"(lora_[AB])\.", r"\1.default.", name.removeprefix(_PREFIX)): state[name] for name in state}
    unknown = encoder.module.load_state_dict(weights, strict=False).unexpected_keys
    hint = "Run that study again."
    require(not unknown, f"model folder {folder}", f"{unknown[:1]}", "the adapters of [train.lora]", hint)


def merge(encoder: DualEncoder, folder: Path) -> None:
    """Add saved updates (alpha / r) B A to the weights of their base model."""
    try:
        config = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
        if config["peft_type"] != "LORA" or any(config.get(key) for key in _OTHER_FORMULAS):
            raise ValueError(f"{CONFIG_FILE}: not plain LoRA")
        state, scale = read_checkpoint(folder / WEIGHTS_FILE).state, config["lora_alpha"] / config["r"]
        with torch.no_grad():
            for name in [key.removesuffix(_A) for key in state if key.endswith(_A)]:
                layer: Any = encoder.module.get_submodule(name.removeprefix(_PREFIX).replace(".base_layer.", "."))
                joint = isinstance(layer, nn.MultiheadAttention)
                weight = cast(Tensor, layer.in_proj_weight if joint else layer.weight)
                weight += scale * state.pop(name + _B) @ state.pop(name + _A)
        if state:
            raise ValueError(f"{WEIGHTS_FILE}: {next(iter(state))}")
    except _BROKEN as error:
        reason = error.got if isinstance(error, InputError) else str(error)
        got, expected = f"files that do not load ({shorten(reason, 160)})", "adapters saved by clipmem"
        raise InputError(f"model folder {folder}", got=got, expected=expected, hint="Check its files.") from error
