"""Safe loading of checkpoints: safetensors, or `torch.load(weights_only=True)`, which runs no code.

When not to trust it: weights that were tampered with load like any others.
"""

import contextlib
import pickle
import struct
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from clipmem.base.errors import InputError, require, shorten
from clipmem.base.paths import parsing

SUFFIXES = (".safetensors", ".pt", ".pth", ".bin", ".ckpt")
# weight files in open_clip's order of preference
_USUAL = (
    *("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors"),
    *("open_clip_pytorch_model.bin", "open_clip_pytorch_model.pth"),
    *("model.safetensors", "pytorch_model.bin", "pytorch_model.pth", "model.pth"),
)
_PLAIN = ("state_dict", "model_state_dict", "model")
_AVERAGED = ("state_dict_ema", "ema_state_dict", "model_ema", "ema")
# raised by torch.load on invalid files; this module alone names pickle, for its error
BROKEN = (
    *(pickle.UnpicklingError, zipfile.BadZipFile, struct.error, EOFError, OSError, RuntimeError, ValueError),
    *(TypeError, AttributeError, LookupError, OverflowError, MemoryError, AssertionError, NotImplementedError),
)


class Checkpoint(NamedTuple):
    """Parameters by name, without the prefixes of training engines, and the name of the run."""

    state: dict[str, Tensor]
    run: str = ""


def find_weights(folder: Path) -> Path | None:
    """Return a folder's weight file as open_clip does, safetensors first, or None."""
    for name in _USUAL:
        if (folder / name).is_file():
            return folder / name
    for suffixes in ({".safetensors"}, {".bin", ".pth", ".pt"}):
        files = sorted(file for file in folder.glob("*") if file.suffix in suffixes and file.is_file())
        got = f"several weight files: {', '.join(file.name for file in files[:5])}"
        expected, hint = f"one weight file, or one named {_USUAL[0]}", "Rename the file, or use ARCHITECTURE@FILE."
        require(len(files) < 2, f"model folder {folder}", got, expected, hint)
        if files:
            return files[0]
    return None


def read_checkpoint(path: Path, *, averaged: bool = False) -> Checkpoint:
    """Read weights from safetensors, a state dict, or a training checkpoint; `averaged` reads the EMA weights."""
    got, hint = f"the file extension {path.suffix!r}", "Save the model's state_dict as safetensors."
    require(path.suffix in SUFFIXES, f"checkpoint {path}", got, f"one of {', '.join(SUFFIXES)}", hint)
    if path.suffix == ".safetensors":
        broken = (SafetensorError, OSError, ValueError, TypeError, LookupError)
        hint = "Check that the file is complete."
        with parsing(f"checkpoint {path}", "a file that does not load", broken, expected="safetensors", hint=hint):
            content: object = load_file(path)
    else:
        content = _read_torch(path)
    if not isinstance(content, Mapping):
        raise _no_weights(path, f"a {type(content).__name__}")
    content, keys, other = cast(Mapping[Any, Any], content), *((_AVERAGED, _PLAIN) if averaged else (_PLAIN, _AVERAGED))
    nested = [content[key] for key in keys if isinstance(content.get(key), Mapping)]
    if not averaged and content and all(isinstance(value, Tensor) for value in content.values()):
        nested.append(content)
    if not nested and any(isinstance(content.get(key), Mapping) for key in other):
        got = "no averaged weights (EMA)" if averaged else "averaged weights (EMA) only"
        hint = "Omit #ema." if averaged else "Add #ema to the name."
        raise InputError(f"checkpoint {path}", got=got, expected=f"one of {', '.join(keys)}", hint=hint)
    if not nested:
        raise _no_weights(path, f"keys {[str(key) for key in list(content)[:5]]}")
    run = content.get("name")
    return Checkpoint(_bare(path, nested[0]), run if isinstance(run, str) else "")


def _read_torch(path: Path) -> object:
    names: list[str] = []
    with contextlib.suppress(*BROKEN):
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                names = archive.namelist()
    program = any("/code/" in name or name.endswith("/constants.pkl") for name in names)
    hint = "It was not loaded, since it can run code. Use a pretrained tag, such as ViT-B-32-quickgelu/openai, or save "
    hint += "the model's state_dict."
    require(not program, f"checkpoint {path}", "a TorchScript program", "weights only", hint)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # mapped: two thirds of a training checkpoint are optimizer state
            return torch.load(path, map_location="cpu", weights_only=True, mmap=bool(names))
    except pickle.UnpicklingError as error:
        got = f"a pickle with more than weights ({reason(error)})"
        hint = "It was not loaded, since it can run code. Save the model's state_dict, preferably as safetensors."
        raise InputError(f"checkpoint {path}", got=got, expected="tensors, numbers and text", hint=hint) from error
    except BROKEN as error:
        got, hint = f"a file that does not load ({reason(error)})", "Check that the file is complete."
        raise InputError(f"checkpoint {path}", got=got, expected="a file written by torch.save", hint=hint) from error


def reason(error: BaseException) -> str:
    """Return the relevant line of an error of torch or the libraries below it."""
    text = str(error).rpartition("WeightsUnpickler error:")[2]
    lines = [line.strip() for line in text.splitlines() if line.strip()] or [type(error).__name__]
    listed = len(lines) > 1 and lines[0].startswith("Error(s) in loading")
    return shorten(lines[1 if listed else 0], 160)


def _no_weights(path: Path, got: str) -> InputError:
    expected = "a state dict (parameter names and tensors), or a training checkpoint with one in state_dict"
    return InputError(f"checkpoint {path}", got=got, expected=expected, hint="Save the model's state_dict.")


def _bare(path: Path, state: Mapping[Any, Any]) -> dict[str, Tensor]:
    """Remove what training engines add: `module.` (DistributedDataParallel), `_orig_mod.` (compile), a count."""
    named = {str(name): value for name, value in state.items()}
    named = {name: value for name, value in named.items() if name != "n_averaged"}
    while named:
        prefix = next((p for p in ("module.", "_orig_mod.") if all(name.startswith(p) for name in named)), None)
        if prefix is None:
            break
        named = {name.removeprefix(prefix): value for name, value in named.items()}
    foreign = [name for name, value in named.items() if not isinstance(value, Tensor)]
    if foreign or not named:
        raise _no_weights(path, f"{foreign[0]!r}, which is not a tensor" if foreign else "an empty state dict")
    return named
