"""Model addresses.

    FOLDER, local-dir:FOLDER      a folder of open_clip
    NAME/TAG                      an architecture and pretrained tag of open_clip
    NAME@CHECKPOINT               an architecture, or a JSON config, with weights from a file; with the suffix #ema,
                                  the averaged weights
    hf-hub:OWNER/NAME             a repository of open_clip on the Hugging Face hub
    FAMILY:PATH                   a model of another family, such as transformers:FOLDER (`clipmem.models.family`)

Architectures take precedence over folders: `ViT-B-32/openai` is always the tag, and `./ViT-B-32/openai` the folder.
"""

import os
from pathlib import Path
from typing import Literal, NamedTuple

from clipmem.base.declared import plugins
from clipmem.base.errors import InputError, did_you_mean, near_names, shorten
from clipmem.models import names

TRANSFORMERS, LOCAL, HUB, AVERAGED = "transformers", "local-dir:", "hf-hub:", "#ema"
_EXPECTED = f"a folder of open_clip, NAME/TAG, NAME@CHECKPOINT, {LOCAL}FOLDER, {HUB}OWNER/NAME, or "
_CONFIGS = ("open_clip_config.json", "config.json", "adapter_config.json")
_CHECK = "Check the path: relative paths start at the working directory."


class Address(NamedTuple):
    """A parsed address; `name` is that of the architecture, repository or family."""

    kind: Literal["folder", "tag", "checkpoint", "hub", "family"]
    path: Path = Path()
    name: str = ""
    tag: str = ""
    averaged: bool = False

    def __str__(self) -> str:
        """Return the address with absolute paths."""
        match self.kind:
            case "folder":
                return f"{LOCAL if '@' in str(self.path) else ''}{self.path}"
            case "tag":
                return f"{self.name}/{self.tag}"
            case "checkpoint":
                return f"{self.name}@{self.path}{AVERAGED if self.averaged else ''}"
            case "hub":
                return f"{HUB}{self.name}"
            case "family":
                return f"{self.name}:{self.path}"


def parse(text: str) -> Address:
    """Parse an address."""
    if family := _family(text):
        path = text.removeprefix(f"{family}:")
        return Address("family", _folder(text, path) if family == TRANSFORMERS else _absolute(text, path), family)
    if text.startswith(LOCAL):
        return Address("folder", _folder(text, text.removeprefix(LOCAL)))
    if text.startswith(HUB):
        return _hub(text)
    address = _checkpoint(text) or _tag(text)
    if address is None and text:
        path = _absolute(text, text)
        if _is_folder(path):
            return Address("folder", path)
    if address is None:
        raise _unknown(text)
    return address


def names_model(text: str) -> bool:
    """Return whether a text names an architecture or a model rather than data, for commands that take either.

    JSON files and `hf-hub:` names are data; a folder is a model if it has the config of one.
    """
    if text in names.architectures() or text.startswith(LOCAL) or _family(text):
        return True
    if text.startswith(HUB) or not text:
        return False
    path = Path(text)
    if _is_folder(path):
        return any((path / name).is_file() for name in _CONFIGS)
    return not _is_file(path) and (_checkpoint(text) or _tag(text)) is not None


def wrong(text: str, got: str, hint: str, expected: str = "") -> InputError:
    """Return the error for an address."""
    expected = expected or _EXPECTED + " or ".join(
        f"{name}:{'FOLDER' if name == TRANSFORMERS else 'PATH'}" for name in (TRANSFORMERS, *plugins("models"))
    )
    return InputError(f"model {shorten(text)}", got=got, expected=expected, hint=hint)


def _family(text: str) -> str:
    """Return the family whose prefix a model name has, or ""."""
    prefix, colon, _ = text.partition(":")
    return prefix if colon and (prefix == TRANSFORMERS or prefix in plugins("models")) else ""


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


def _hub(text: str) -> Address:
    name = text.removeprefix(HUB)
    owner, slash, repository = name.partition("/")
    if not (owner and slash and repository) or "/" in repository:
        raise wrong(text, f"a repository {shorten(name)}", "Copy the name from the repository's page.")
    return Address("hub", name=name)


def _checkpoint(text: str) -> Address | None:
    for at in (k for k, letter in enumerate(text) if letter == "@"):
        name, rest = text[:at], text[at + 1 :]
        if not names.is_architecture(name):
            continue
        averaged = rest.endswith(AVERAGED) and not _is_file(_absolute(text, rest))
        path = _absolute(text, rest.removesuffix(AVERAGED) if averaged else rest)
        if not rest or not _is_file(path):
            got = "a folder" if _is_folder(path) and rest else "no such file"
            hint = f"{_CHECK} {_inside(path)}" if got == "a folder" else _CHECK
            raise wrong(text, f"{got} after @", hint.strip())
        # JSON configs are files and need absolute paths, too
        architecture = str(_absolute(text, name)) if name.endswith(".json") else name
        return Address("checkpoint", path, architecture, averaged=averaged)
    return None


def _inside(folder: Path) -> str:
    files = sorted(file.name for file in folder.iterdir() if file.suffix in {".pt", ".pth", ".safetensors", ".bin"})
    return f"Name one of its files: {', '.join(files[:5])}." if files else ""


def _tag(text: str) -> Address | None:
    name, slash, tag = text.partition("/")
    if not slash or not names.is_architecture(name):
        return None
    from clipmem.models import openclip  # imports torch

    if openclip.pretrained(name, tag) is None:
        return None
    # in open_clip's spelling
    return Address("tag", name=name, tag=next(spelling for spelling in _tags(name) if _clean(spelling) == _clean(tag)))


def _clean(tag: str) -> str:
    return tag.lower().replace("-", "_")


def _tags(name: str) -> list[str]:
    from clipmem.models import openclip  # imports torch

    return openclip.tags(name)


def _unknown(text: str) -> InputError:
    supported = names.architectures()
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
