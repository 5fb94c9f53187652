"""Local generators of captions (transformers) and images (diffusers)."""

import contextlib
import io
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from clipmem.base.errors import InputError, shorten
from clipmem.base.random import derive_seed
from clipmem.base.require import require
from clipmem.models.extras import library
from clipmem.models.tokenizers import refuse_code
from clipmem.store.hashing import file_sha256, json_sha256

PROMPT = "Caption: {}\nThe same caption in other words:"
STEPS = 25
_OFFLINE: Any = {"local_files_only": True, "trust_remote_code": False}
_LONGEST = 40  # tokens of a variant


def _check_folder(what: str, folder: Path, marker: str, saved_by: str) -> None:
    got = f"no {marker} in it" if folder.is_dir() else "no such folder"
    expected = f"a folder written by save_pretrained of {saved_by}"
    hint = "Download the model first."
    require((folder / marker).is_file(), what, got, expected, hint)
    code = next(folder.rglob("*.py"), None)  # a pipeline's own class, which diffusers would import
    require(code is None, what, f"code in it ({code})", "configs and weights", "Remove it: custom code is never run.")
    refuse_code(folder, what)


@contextlib.contextmanager
def _loading(what: str, expected: str, hint: str) -> Generator[None]:
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        got = f"files that do not load ({shorten(str(error))})"
        raise InputError(what, got=got, expected=expected, hint=hint) from error


def _hash(folder: Path, suffixes: set[str], *settings: object) -> str:
    files = sorted(file for file in folder.rglob("*") if file.suffix in suffixes)
    return json_sha256([*settings, *([str(file.relative_to(folder)), file_sha256(file)] for file in files)])


class LanguageModel:
    """A causal or sequence-to-sequence language model in a local folder, written by `save_pretrained`."""

    def __init__(self, folder: Path) -> None:
        transformers, what = library("transformers", "a language model"), f"language model {str(folder)!r}"
        _check_folder(what, folder, "config.json", "transformers")
        expected = "config, tokenizer and safetensors weights of a text generation model"
        with _loading(what, expected, "Save the model and its tokenizer with save_pretrained(FOLDER)."):
            config = transformers.AutoConfig.from_pretrained(folder, **_OFFLINE)
            kind = (
                transformers.AutoModelForSeq2SeqLM if config.is_encoder_decoder else transformers.AutoModelForCausalLM
            )
            self._tokenizer: Any = transformers.AutoTokenizer.from_pretrained(folder, **_OFFLINE)
            with torch.random.fork_rng(devices=[]):
                self._model: Any = kind.from_pretrained(folder, use_safetensors=True, **_OFFLINE).eval()
        self._folder, self._decoder_only = folder, not config.is_encoder_decoder

    def content(self) -> str:
        """Hash the model's files and the prompt."""
        return _hash(self._folder, {".safetensors", ".json", ".txt", ".model"}, PROMPT, _LONGEST)

    def rewrite(self, caption: str, *, count: int, seed: int) -> list[str]:
        """Sample `count` variants of a caption (their first lines), which depend on caption and seed only."""
        given = self._tokenizer(PROMPT.format(caption), return_tensors="pt")
        padding: int | None = self._tokenizer.pad_token_id
        with torch.random.fork_rng(devices=[]), torch.inference_mode():
            torch.manual_seed(derive_seed(seed, "rewrite", caption))
            written = self._model.generate(
                **{name: given[name] for name in ("input_ids", "attention_mask")},
                do_sample=True,
                top_p=0.95,
                num_return_sequences=count,
                max_new_tokens=_LONGEST,
                pad_token_id=self._tokenizer.eos_token_id if padding is None else padding,
            )
        own = written[:, given["input_ids"].shape[1] :] if self._decoder_only else written
        texts: Sequence[str] = self._tokenizer.batch_decode(own, skip_special_tokens=True)
        return [_first_line(text) for text in texts]


def _first_line(text: str) -> str:
    lines = [line.strip().strip("\"'“”").strip() for line in text.strip().splitlines()]
    return next((line for line in lines if line), "")


class DiffusionModel:
    """A text-to-image pipeline in a local folder, written by diffusers' `save_pretrained` with safetensors weights."""

    def __init__(self, folder: Path) -> None:
        expected, install = "diffusers and the extra hf", "diffusers '.[hf]'"
        diffusers = library("diffusers", "a diffusion pipeline", expected=expected, install=install)
        what = f"diffusion pipeline {str(folder)!r}"
        _check_folder(what, folder, "model_index.json", "diffusers")
        hint = "Save it with save_pretrained(FOLDER, safe_serialization=True)."
        with _loading(what, "a text-to-image pipeline with safetensors weights", hint):
            self._pipeline: Any = diffusers.DiffusionPipeline.from_pretrained(folder, use_safetensors=True, **_OFFLINE)
        self._pipeline.set_progress_bar_config(disable=True)
        if torch.cuda.is_available():
            self._pipeline.to("cuda")
        self._folder = folder

    def content(self) -> str:
        """Hash the pipeline's files."""
        return _hash(self._folder, {".safetensors", ".json", ".txt"}, STEPS)

    def draw(self, caption: str, number: int, *, seed: int) -> bytes:
        """Generate image `number` (from 0) of a caption as PNG; it depends on caption, number and seed only."""
        stream = torch.Generator().manual_seed(derive_seed(seed, "draw", number, caption))
        with torch.random.fork_rng(devices=[]), torch.inference_mode():
            [drawn] = self._pipeline(caption, generator=stream, num_inference_steps=STEPS).images
        image: Image.Image = drawn
        data = io.BytesIO()
        image.convert("RGB").save(data, "PNG")
        return data.getvalue()
