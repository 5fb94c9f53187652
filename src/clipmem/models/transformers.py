"""The adapter for transformers' `CLIPModel`: the only module that imports transformers (the extra `hf`).

Models come from a config or from a local folder with safetensors weights; nothing is fetched. Captions are tokenized
by the folder's own tokenizer; without one, by a callable that is given.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from clipmem.base.errors import InputError, shorten
from clipmem.store.atomic import make_folder

_TOKENIZER = ("tokenizer.json", "vocab.json")
# the statistics of OpenAI's CLIP: what every published CLIPModel was trained with, unless its folder says otherwise
_MEAN, _STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


def _library() -> Any:
    # here, not at the top: the package is not a dependency, and importing it takes seconds
    try:
        import transformers  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise InputError(
            "transformers models",
            got="no package transformers",
            expected="the extra hf",
            todo="Install it: pip install 'clipmem[hf]'.",
        ) from error
    return transformers


class TransformersEncoder:
    """A `DualEncoder` on transformers' CLIPModel.

    Args:
        model: The model.
        tokenizer: Turns captions into rows of token ids, each with its start and end tokens, cut to the context.
        mean: Channel means of normalised pictures.
        std: Channel standard deviations.
    """

    def __init__(
        self,
        model: nn.Module,
        tokenizer: Callable[[Sequence[str]], Sequence[Sequence[int]]],
        *,
        mean: tuple[float, float, float] = _MEAN,
        std: tuple[float, float, float] = _STD,
    ) -> None:
        self._model: Any = model
        self._tokenizer = tokenizer
        self.image_size: int = self._model.config.vision_config.image_size
        self.mean, self.std = mean, std

    @property
    def module(self) -> nn.Module:
        """The CLIPModel."""
        return self._model

    def tokenize(self, captions: Sequence[str]) -> Int[Tensor, "n length"]:
        """Turn captions into token ids, padded with 0 after end-of-text to the longest one."""
        rows = [torch.tensor(list(row), dtype=torch.long) for row in self._tokenizer(captions)]
        return nn.utils.rnn.pad_sequence(rows, batch_first=True)

    def encode_image(self, pixels: Float[Tensor, "n 3 size size"]) -> Float[Tensor, "n d"]:
        """Embed normalised pictures."""
        pooled = self._model.vision_model(pixel_values=pixels).pooler_output
        return self._model.visual_projection(pooled)

    def encode_text(self, tokens: Int[Tensor, "n length"]) -> Float[Tensor, "n d"]:
        """Embed captions; the tower is causal and read out at end-of-text, so padding changes nothing."""
        pooled = self._model.text_model(input_ids=tokens).pooler_output
        return self._model.text_projection(pooled)

    def logit_scale(self) -> Float[Tensor, ""]:
        """The exponentiated logit scale."""
        return self._model.logit_scale.exp()

    def save(self, folder: Path) -> list[Path]:
        """Write config and weights (safetensors) as `CLIPModel.from_pretrained` reads them."""
        make_folder(folder)
        self._model.save_pretrained(folder, safe_serialization=True)
        return sorted(file for file in folder.iterdir() if file.suffix in {".json", ".safetensors"})


def create(
    config: Mapping[str, Any], tokenizer: Callable[[Sequence[str]], Sequence[Sequence[int]]], *, seed: int
) -> TransformersEncoder:
    """Create a model with fresh weights that depend on the seed alone.

    Args:
        config: What `CLIPConfig` takes: `text_config`, `vision_config`, `projection_dim`.
        tokenizer: See `TransformersEncoder`.
        seed: Seed of the initial weights; the global random state is left as it was.
    """
    library = _library()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = library.CLIPModel(library.CLIPConfig(**config))
    return TransformersEncoder(model.eval(), tokenizer)


def load(
    folder: Path, tokenizer: Callable[[Sequence[str]], Sequence[Sequence[int]]] | None = None
) -> TransformersEncoder:
    """Load a model from a local folder; nothing is fetched, and weights that are not safetensors are refused.

    Args:
        folder: A folder with `config.json` and safetensors weights.
        tokenizer: See `TransformersEncoder`; None: the folder's own.

    Raises:
        InputError: The folder has no such model, or no tokenizer and none was given.
    """
    if not (folder / "config.json").is_file():
        raise InputError(f"model folder {folder}", got="no config.json", todo="Give a folder saved by transformers.")
    library = _library()
    if tokenizer is None and not any((folder / name).is_file() for name in _TOKENIZER):
        # without these files the library makes an empty tokenizer, and says nothing
        raise InputError(
            f"model folder {folder}",
            got="no tokenizer",
            expected=f"one of {', '.join(_TOKENIZER)}",
            todo="Save the tokenizer into it with save_pretrained, or give one.",
        )
    try:
        # the weights are drawn before they are read: that must not move the caller's random numbers
        with torch.random.fork_rng(devices=[]):
            model = library.CLIPModel.from_pretrained(folder, local_files_only=True, use_safetensors=True)
        if tokenizer is None:
            own = library.AutoTokenizer.from_pretrained(folder, local_files_only=True)
            longest = model.config.text_config.max_position_embeddings
            tokenizer = lambda texts: own(list(texts), truncation=True, max_length=longest)["input_ids"]  # noqa: E731
        statistics = _statistics(folder)
    except (OSError, ValueError, RuntimeError) as error:
        raise InputError(
            f"model folder {folder}",
            got=f"files that do not load ({shorten(str(error))})",
            expected="a CLIPModel with safetensors weights, and its tokenizer",
            todo="Save it with save_pretrained of the model and of the tokenizer.",
        ) from error
    return TransformersEncoder(model.eval(), tokenizer, **statistics)


def _statistics(folder: Path) -> dict[str, tuple[float, float, float]]:
    """Read by which means and deviations the folder's own preprocessor normalises pictures, where it says so."""
    file = folder / "preprocessor_config.json"
    if not file.is_file():
        return {}
    config = json.loads(file.read_text(encoding="utf-8"))
    found: dict[str, tuple[float, float, float]] = {}
    for name, key in (("mean", "image_mean"), ("std", "image_std")):
        if key in config:
            red, green, blue = config[key]
            found[name] = (float(red), float(green), float(blue))
    return found
