"""A local language model of transformers that says captions in other words (the extra `hf`); nothing is fetched.

How good the variants are depends on the model alone: a small one may say something else, and a caption that says
something else is a wrong caption. Look at `mitigate/caption_variants.parquet` before you trust a study with them.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from clipmem.base.errors import InputError, shorten
from clipmem.base.random import derive_seed
from clipmem.store.hashing import file_sha256, json_sha256

PROMPT = "Caption: {}\nThe same caption in other words:"
_LONGEST = 40  # tokens of a variant: captions of photographs have about 12 words
_WEIGHTS = (".safetensors", ".json", ".txt", ".model")


class LanguageModel:
    """A causal or sequence-to-sequence language model in a local folder.

    Args:
        folder: Config, tokenizer and safetensors weights, as `save_pretrained` writes them.

    Raises:
        InputError: transformers is not installed, or the folder does not load.
    """

    def __init__(self, folder: Path) -> None:
        library = _library()
        if not (folder / "config.json").is_file():
            raise InputError(
                f"language model {str(folder)!r}",
                got="no config.json in it" if folder.is_dir() else "no such folder",
                expected="a folder that transformers' save_pretrained wrote",
                hint="Download the model first; nothing is fetched here.",
            )
        try:
            config = library.AutoConfig.from_pretrained(folder, local_files_only=True)
            kind = library.AutoModelForSeq2SeqLM if config.is_encoder_decoder else library.AutoModelForCausalLM
            self._tokenizer: Any = library.AutoTokenizer.from_pretrained(folder, local_files_only=True)
            with torch.random.fork_rng(devices=[]):
                self._model: Any = kind.from_pretrained(folder, local_files_only=True, use_safetensors=True).eval()
        except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
            raise InputError(
                f"language model {str(folder)!r}",
                got=f"files that do not load ({shorten(str(error))})",
                expected="config, tokenizer and safetensors weights of a text generation model",
                hint="Save the model with save_pretrained(FOLDER), its tokenizer too.",
            ) from error
        self._folder, self._decoder_only = folder, not config.is_encoder_decoder

    def content(self) -> str:
        """Hash the model's files and the prompt: equal ones write equal variants."""
        files = sorted(file for file in self._folder.iterdir() if file.suffix in _WEIGHTS)
        return json_sha256([PROMPT, _LONGEST, *([file.name, file_sha256(file)] for file in files)])

    def rewrite(self, caption: str, *, count: int, seed: int) -> list[str]:
        """Draw `count` variants of a caption; they depend on caption and seed, on no other caption.

        Args:
            caption: The caption.
            count: How many are drawn.
            seed: Seed of the sampling.

        Returns:
            What the model wrote, first lines only; equal ones and empty ones too.
        """
        given = self._tokenizer(PROMPT.format(caption), return_tensors="pt")
        with torch.random.fork_rng(devices=[]), torch.inference_mode():
            torch.manual_seed(derive_seed(seed, "rewrite", caption))
            written = self._model.generate(
                **{name: given[name] for name in ("input_ids", "attention_mask")},
                do_sample=True,
                top_p=0.95,
                num_return_sequences=count,
                max_new_tokens=_LONGEST,
                pad_token_id=self._padding(),
            )
        own = written[:, given["input_ids"].shape[1] :] if self._decoder_only else written
        return [_first_line(text) for text in self._decoded(own)]

    def _padding(self) -> int | None:
        padding: int | None = self._tokenizer.pad_token_id
        return self._tokenizer.eos_token_id if padding is None else padding

    def _decoded(self, tokens: torch.Tensor) -> Sequence[str]:
        return self._tokenizer.batch_decode(tokens, skip_special_tokens=True)


def _first_line(text: str) -> str:
    lines = [line.strip().strip("\"'“”").strip() for line in text.strip().splitlines()]
    return next((line for line in lines if line), "")


def _library() -> Any:
    # here, not at the top: the package is not a dependency, and importing it takes seconds
    try:
        import transformers  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise InputError(
            "a language model",
            got="no package transformers",
            expected="the extra hf",
            hint="Install it: pip install 'clipmem[hf]'.",
        ) from error
    return transformers
