"""Files of tokenizers other than open_clip's own. Models that need custom code are refused."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from clipmem.base.errors import InputError
from clipmem.models import hub

VOCABULARIES = (
    *("tokenizer.json", "spiece.model", "tokenizer.model", "sentencepiece.bpe.model"),
    *("vocab.json", "vocab.txt"),
)
SETTINGS = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "merges.txt")
FILES = (*VOCABULARIES, *SETTINGS)


def files_of(folder: Path) -> list[Path]:
    """Return the tokenizer files in a folder."""
    return [folder / name for name in FILES if (folder / name).is_file()]


def find(
    text: Mapping[str, Any], *, subject: str, folder: Path | None = None, download: bool | None = None
) -> Path | None:
    """Find the folder of the tokenizer named by a config's `text_cfg`; None for open_clip's own."""
    name = text.get("hf_tokenizer_name")
    if (text.get("tokenizer_kwargs") or {}).get("trust_remote_code"):
        got = "a config with tokenizer_kwargs.trust_remote_code"
        hint = "Remove that key: custom code is never run."
        raise InputError(subject, got=got, expected="a tokenizer of transformers", hint=hint)
    if not name:
        return None
    if folder is None:
        folder = _named(str(name), subject, hub.may_download() if download is None else download)
    if not any((folder / file).is_file() for file in VOCABULARIES):
        got, hint = f"no tokenizer in {folder}", f"Copy the tokenizer files of {name} into the folder."
        raise InputError(subject, got=got, expected=f"one of {', '.join(VOCABULARIES)}", hint=hint)
    refuse_code(folder, subject)
    return folder


def _named(name: str, subject: str, download: bool) -> Path:
    name = name.removeprefix("hf-hub:")
    if Path(name).expanduser().is_dir():
        return Path(name).expanduser().resolve()
    vocabulary = hub.get(name, VOCABULARIES, subject=f"{subject}: its tokenizer", download=download)
    hub.get_optional(name, (*SETTINGS, "config.json"), subject=subject, download=download)
    return vocabulary.parent


def find_text_tower(text: Mapping[str, Any], *, subject: str, download: bool | None = None) -> Path | None:
    """Find the config folder of a text tower from transformers; None for open_clip's own."""
    name = text.get("hf_model_name")
    if not name:
        return None
    folder = Path(str(name)).expanduser()
    if not folder.is_dir():
        allowed = hub.may_download() if download is None else download
        folder = hub.get(str(name), ["config.json"], subject=f"{subject}: its text tower", download=allowed).parent
    refuse_code(folder, subject)
    return folder.resolve()


def refuse_code(folder: Path, subject: str) -> None:
    """Refuse a folder whose configs name custom classes."""
    for name in ("config.json", "tokenizer_config.json", "preprocessor_config.json", "processor_config.json"):
        try:
            document = json.loads((folder / name).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue  # reported by the library
        if isinstance(document, dict) and "auto_map" in document:
            got = f"{name} with auto_map, which names custom code"
            hint = "Remove that key if transformers has the class: custom code is never run."
            raise InputError(subject, got=got, expected="classes of transformers", hint=hint)
