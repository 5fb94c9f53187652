"""Tokenizers: open_clip's own, which remembers texts, files of others, and training with the tokens of the captions.

Models that need custom code are refused.
"""

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor, nn

from clipmem.base.errors import require
from clipmem.base.remote import may_download
from clipmem.models import hub
from clipmem.models.names import TextConfig

VOCABULARIES = (
    *("tokenizer.json", "spiece.model", "tokenizer.model", "sentencepiece.bpe.model"),
    *("vocab.json", "vocab.txt"),
)
SETTINGS = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "merges.txt")
FILES = (*VOCABULARIES, *SETTINGS)
# texts kept: their ids take 40 MB at 77 tokens
_KEPT = 1 << 17


def files_of(folder: Path) -> list[Path]:
    """Return the tokenizer files in a folder."""
    return [folder / name for name in FILES if (folder / name).is_file()]


def find(text: TextConfig, *, subject: str, folder: Path | None = None, download: bool | None = None) -> Path | None:
    """Find the folder of the tokenizer named by a config's `text_cfg`; None for open_clip's own."""
    name = str(text.get("hf_tokenizer_name") or "")
    runs_code = (text.get("tokenizer_kwargs") or {}).get("trust_remote_code")
    got, hint = "a config with tokenizer_kwargs.trust_remote_code", "Remove that key: custom code is never run."
    require(not runs_code, subject, got, "a tokenizer of transformers", hint)
    if not name:
        return None
    repository, allowed = name.removeprefix("hf-hub:"), may_download() if download is None else download
    if folder is None and (local := Path(repository).expanduser()).is_dir():
        folder = local.resolve()
    if folder is None:
        folder = hub.get(repository, VOCABULARIES, subject=f"{subject}: its tokenizer", download=allowed).parent
        for file in (*SETTINGS, "config.json") if allowed else ():
            if not hub.cached(repository, file):
                hub.fetch(repository, [file], subject)
    exists, expected = any((folder / file).is_file() for file in VOCABULARIES), f"one of {', '.join(VOCABULARIES)}"
    hint = f"Copy the tokenizer files of {name} into the folder."
    require(exists, subject, f"no tokenizer in {folder}", expected, hint)
    refuse_code(folder, subject)
    return folder


def find_text_tower(text: TextConfig, *, subject: str, download: bool) -> Path | None:
    """Find the config folder of a text tower from transformers; None for open_clip's own."""
    name = text.get("hf_model_name")
    if not name:
        return None
    folder = Path(str(name)).expanduser()
    if not folder.is_dir():
        folder = hub.get(str(name), ["config.json"], subject=f"{subject}: its text tower", download=download).parent
    refuse_code(folder, subject)
    return folder.resolve()


def refuse_code(folder: Path, subject: str) -> None:
    """Refuse a folder whose configs name custom classes."""
    for name in ("config.json", "tokenizer_config.json", "preprocessor_config.json", "processor_config.json"):
        try:
            document = json.loads((folder / name).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue  # reported by the library
        runs_code = isinstance(document, dict) and "auto_map" in document
        got = f"{name} with auto_map, which names custom code"
        hint = "Remove that key if transformers has the class: custom code is never run."
        require(not runs_code, subject, got, "classes of transformers", hint)


class SimpleTokenizer:
    """Calls open_clip's tokenizer for texts that were not seen before; ids are the same.

    Every model of a study embeds the same captions, and in many data sets pairs share them: cleaning and splitting them
    again takes as long as a tiny model's forward pass.
    """

    def __init__(self, length: int, settings: Mapping[str, Any]) -> None:
        import open_clip  # slow to import

        self._tokenizer = open_clip.SimpleTokenizer(context_length=length, **settings)
        self._ids: dict[str, np.ndarray] = {}

    def __call__(self, texts: Sequence[str]) -> Int[Tensor, "n length"]:
        """Return the token ids of each text, padded with 0."""
        # a reduction drops other words of a long text each time
        if self._tokenizer.reduction_fn is not None or not 0 < len(texts) <= _KEPT:
            return self._tokenizer(list(texts))
        if len(self._ids) + len(texts) > _KEPT:
            self._ids = {}  # not cleared: other threads may be reading it
        ids = self._ids
        new = [text for text in dict.fromkeys(texts) if text not in ids]
        if new:
            # token ids are below 2^16
            ids |= zip(new, self._tokenizer(new).numpy().astype(np.int32), strict=True)
        return torch.from_numpy(np.stack([ids[text] for text in texts]).astype(np.int64))


@lru_cache(maxsize=8)
def simple_tokenizer(length: int, settings: str = "{}") -> SimpleTokenizer:
    """Return the tokenizer of these settings, sorted JSON, the same one for every model, loaded once per process."""
    return SimpleTokenizer(length, json.loads(settings))


class Vocabulary:
    """Trains with only the rows of an embedding table that the token ids in `used` need, until `expand`.

    This is exact, and faster for small models. The gradient of an unused row is zero: AdamW multiplies it by
    (1 - lr * weight_decay) per step, so that its final value is known. Steps of a tiny model, with 6 million weights in
    such rows and 1.5 million others, are 1.5 times faster in batches of 16, and 1.1 times in batches of 128
    (`python benchmarks/run.py --suite passes`). Ids keep their order, so that `argmax` pooling still finds end-of-text.
    """

    def __init__(self, embedding: nn.Embedding, used: Int[Tensor, "m length"]) -> None:
        self._embedding = embedding
        self._full = embedding.weight.detach().clone()
        # 0 is the padding
        self.ids = torch.unique(torch.cat([used.flatten(), torch.zeros(1, dtype=used.dtype)]))
        self._position = torch.full((len(self._full),), -1, dtype=torch.long)
        self._position[self.ids] = torch.arange(len(self.ids))
        self._trained = embedding.weight.requires_grad
        embedding.weight = nn.Parameter(self._full[self.ids].clone(), requires_grad=self._trained)

    def compact(self, tokens: Int[Tensor, "n length"]) -> Int[Tensor, "n length"]:
        """Map token ids to rows of the compact table; unused tokens to -1."""
        self._position = self._position.to(tokens.device)
        return self._position[tokens]

    def expand(self, decay: float) -> None:
        """Restore the whole table, with unused rows multiplied by `decay`."""
        trained = self._embedding.weight.detach()
        full = (self._full * decay).to(trained.device)
        full[self.ids.to(trained.device)] = trained
        self._embedding.weight = nn.Parameter(full, requires_grad=self._trained)
