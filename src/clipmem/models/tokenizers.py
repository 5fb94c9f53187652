"""Where the tokenizer of a model lies, for models that do not have open_clip's own: which files, from which folder.

Refused is what would run code that comes with a model: a custom tokenizer class, or a config that asks to trust one.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from clipmem.base.errors import InputError
from clipmem.models import hub

# one of these is a vocabulary; the others say how it is used
VOCABULARIES = (
    *("tokenizer.json", "spiece.model", "tokenizer.model", "sentencepiece.bpe.model"),
    *("vocab.json", "vocab.txt"),
)
SETTINGS = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "merges.txt")
FILES = (*VOCABULARIES, *SETTINGS)


def files_of(folder: Path) -> list[Path]:
    """Return the files of a folder that make its tokenizer."""
    return [folder / name for name in FILES if (folder / name).is_file()]


def find(
    text: Mapping[str, Any], *, what: str, folder: Path | None = None, download: bool | None = None
) -> Path | None:
    """Find the folder of the tokenizer that a config's `text_cfg` names; None: open_clip's own."""
    name = text.get("hf_tokenizer_name")
    if (text.get("tokenizer_kwargs") or {}).get("trust_remote_code"):
        got = "a config with tokenizer_kwargs.trust_remote_code"
        hint = "Code that comes with a model is never run: remove that key."
        raise InputError(what, got=got, expected="a tokenizer that transformers knows", hint=hint)
    if not name:
        return None
    if folder is None:
        folder = _named(str(name), what, hub.may_download() if download is None else download)
    if not any((folder / file).is_file() for file in VOCABULARIES):
        hint = f"The model was trained with that of {name}: put its files into the folder."
        raise InputError(what, got=f"no tokenizer in {folder}", expected=f"one of {', '.join(VOCABULARIES)}", hint=hint)
    refuse_code(folder, what)
    return folder


def _named(name: str, what: str, download: bool) -> Path:
    name = name.removeprefix("hf-hub:")
    if Path(name).expanduser().is_dir():
        return Path(name).expanduser().resolve()
    vocabulary = hub.get(name, VOCABULARIES, what=f"{what}: its tokenizer", download=download)
    hub.get_optional(name, (*SETTINGS, "config.json"), what=what, download=download)
    return vocabulary.parent


def find_text_tower(text: Mapping[str, Any], *, what: str, download: bool | None = None) -> Path | None:
    """Find the folder with the config of a text tower that open_clip takes from transformers; None: it takes none."""
    name = text.get("hf_model_name")
    if not name:
        return None
    folder = Path(str(name)).expanduser()
    if not folder.is_dir():
        allowed = hub.may_download() if download is None else download
        folder = hub.get(str(name), ["config.json"], what=f"{what}: its text tower", download=allowed).parent
    refuse_code(folder, what)
    return folder.resolve()


def refuse_code(folder: Path, what: str) -> None:
    """Refuse a folder whose configs name classes of its own."""
    for name in ("config.json", "tokenizer_config.json", "preprocessor_config.json", "processor_config.json"):
        try:
            document = json.loads((folder / name).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue  # the library says what is wrong with it
        if isinstance(document, dict) and "auto_map" in document:
            got = f"{name} with auto_map, which names code of the model's own"
            hint = "Code that comes with a model is never run. If the library has the class, remove that key."
            raise InputError(what, got=got, expected="classes that transformers has", hint=hint)
