"""The adapter for transformers' CLIP, SigLIP and SigLIP 2: the only module that imports transformers (extra `hf`).

CLIP's text tower is causal with end-of-text pooling, so that padding changes nothing. SigLIP's is bidirectional with
last-token pooling: captions are padded to the whole context, and padding is attended to unless the tokenizer masks it.
Masked token ids i are encoded as -1 - i.

When not to trust it: SigLIP 2 NaFlex models (`siglip2` in the config) take images of any shape, but get squares here.
transformers crops an odd margin one pixel further to the left or top than torchvision.
"""

import contextlib
import json
import math
import warnings
from collections.abc import Callable, Generator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from jaxtyping import Float, Int
from safetensors import SafetensorError
from torch import Tensor, nn

from clipmem.base.errors import InputError, require, shorten
from clipmem.base.paths import atomic_write, make_folder
from clipmem.data.decoding import Geometry, Interpolation, ResizeMode
from clipmem.models import hub, tokenizers
from clipmem.models.protocol import Rows, Tokens, TrainableEncoder, three
from clipmem.models.weights import BROKEN, reason

Tokenize = Callable[[Sequence[str]], Sequence[Sequence[int]]]
# by `model_type`: the class, and its default preprocessing
_CLASSES = {"clip": "CLIPModel", "siglip": "SiglipModel", "siglip2": "Siglip2Model"}
_OPENAI = {"image_mean": [0.48145466, 0.4578275, 0.40821073], "image_std": [0.26862954, 0.26130258, 0.27577711]}
_HALVES = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}
_IMAGES: dict[str, dict[str, Any]] = {
    "clip": {**_OPENAI, "resample": 3, "do_center_crop": True},
    "siglip": {**_HALVES, "resample": 3, "do_center_crop": False},
    "siglip2": {**_HALVES, "resample": 2, "do_center_crop": False, "max_num_patches": 256},
}
_PROCESSORS = ("processor_config.json", "preprocessor_config.json")  # the first has precedence
# Pillow's constants
_INTERPOLATIONS: dict[int, Interpolation] = {2: "bilinear", 3: "bicubic"}
_BROKEN = (*BROKEN, ImportError, SafetensorError)


class _Preprocessing(NamedTuple):
    geometry: Geometry
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


class TransformersEncoder(TrainableEncoder):
    """A `TrainableEncoder` on transformers' CLIPModel, SiglipModel or Siglip2Model; `source` has its tokenizer."""

    def __init__(
        self, model: nn.Module, tokenizer: Tokenize, images: _Preprocessing | None = None, source: Path | None = None
    ) -> None:
        self._model: Any = model
        self._tokenizer, self._source = tokenizer, source
        images = images or _preprocessing({}, self._model.config)
        self.image_size, self.resize_mode, self.interpolation = images.geometry
        self.mean, self.std = images.mean, images.std

    @property
    def module(self) -> nn.Module:
        return self._model

    def tokenize(self, captions: Sequence[str]) -> Tokens:
        """Return the token ids of captions; for CLIP, padded with 0 to the longest one."""
        rows = [torch.tensor(list(row), dtype=torch.long) for row in self._tokenizer(captions)]
        return nn.utils.rnn.pad_sequence(rows, batch_first=True)

    def encode_image(self, pixels: Float[Tensor, "n 3 size size"]) -> Rows:
        if self._model.config.model_type == "siglip2":
            # NaFlex models take patches (n, patch, side * side * 3), a mask, and the numbers of rows and columns
            (n, channels, height, width), side = pixels.shape, self._model.config.vision_config.patch_size
            rows, columns = height // side, width // side
            cut = pixels.reshape(n, channels, rows, side, columns, side).permute(0, 2, 4, 3, 5, 1)
            patches = cut.reshape(n, rows * columns, side * side * channels)
            mask = torch.ones((n, rows * columns), dtype=torch.int32, device=pixels.device)
            shapes = torch.tensor([[rows, columns]], device=pixels.device).expand(n, 2)
            # positional, as the name of the mask depends on the library's version
            return self._model.vision_model(patches, mask, shapes).pooler_output
        pooled = self._model.vision_model(pixel_values=pixels).pooler_output
        return self._model.visual_projection(pooled) if hasattr(self._model, "visual_projection") else pooled

    def encode_text(self, tokens: Tokens) -> Rows:
        seen = tokens >= 0
        ids = torch.where(seen, tokens, -1 - tokens)
        # not for CLIP; checking on a GPU would synchronize
        masked = self._model.config.model_type != "clip" and (tokens.device.type != "cpu" or not bool(seen.all()))
        mask = seen.long() if masked else None
        pooled = self._model.text_model(input_ids=ids, attention_mask=mask).pooler_output
        return self._model.text_projection(pooled) if hasattr(self._model, "text_projection") else pooled

    @property
    def context(self) -> int:
        return int(self._model.config.text_config.max_position_embeddings)

    @property
    def tokens(self) -> int:
        return max((self.image_size // self._model.config.vision_config.patch_size) ** 2 + 1, self.context)

    def trim(self, tokens: Tokens) -> Int[Tensor, "n short"]:
        """For CLIP, cut the columns that are padding in every row; SigLIP reads its padding."""
        return super().trim(tokens) if self._model.config.model_type == "clip" else tokens

    def is_image_parameter(self, name: str) -> bool:
        return name.startswith(("vision_model.", "visual_projection."))

    def compile(self) -> None:
        self._model.vision_model.compile()
        self._model.text_model.compile()

    def save(self, folder: Path) -> list[Path]:
        """Write config, weights (safetensors), tokenizer and preprocessing as `from_pretrained` reads them."""
        make_folder(folder)
        with _quiet(hub.library("transformers", "transformers models")):
            self._model.save_pretrained(folder, safe_serialization=True)
        for file in _files(self._source) if self._source else []:
            if file.name in (*_PROCESSORS, *tokenizers.FILES):
                atomic_write(folder / file.name, file.read_bytes())
        return _files(folder)


def files(folder: Path) -> list[Path]:
    """Return the config, weight and tokenizer files of a folder."""
    missing = [] if (folder / "config.json").is_file() else ["config.json"]
    missing += [] if _weights(folder) else ["*.safetensors"]
    got, hint = f"a folder with no {' and no '.join(missing)}", "Save the model with save_pretrained."
    require(not missing, f"model folder {folder}", got, "config.json and safetensors weights", hint)
    return _files(folder)


def _weights(folder: Path) -> list[Path]:
    return sorted(folder.glob("model*.safetensors")) or sorted(folder.glob("pytorch_model*.bin"))


def _files(folder: Path) -> list[Path]:
    weights, names = _weights(folder), ["config.json", *_PROCESSORS]
    names += [f"{file.name.split('-')[0].split('.')[0]}{file.suffix}.index.json" for file in weights[:1]]
    described = [folder / name for name in names if (folder / name).is_file()]
    return [*described, *weights, *tokenizers.files_of(folder)]


def load(folder: Path, tokenizer: Tokenize | None = None) -> TransformersEncoder:
    """Load a model from a local folder in float32, by default with its own tokenizer."""
    subject, save_again = f"model folder {folder}", "Save the model and the tokenizer with save_pretrained."
    require((folder / "config.json").is_file(), subject, "no config.json", "", "Give a folder saved by transformers.")
    library = hub.library("transformers", "transformers models")
    # without a vocabulary, the library would create an empty tokenizer without an error
    has_tokenizer = tokenizer or any((folder / name).is_file() for name in tokenizers.VOCABULARIES)
    expected, hint = ", ".join(tokenizers.VOCABULARIES), "Save the tokenizer into it with save_pretrained."
    require(has_tokenizer, subject, "no tokenizer", f"one of {expected}", hint)
    tokenizers.refuse_code(folder, subject)
    try:
        kind = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("model_type")
    except (OSError, ValueError, AttributeError) as error:
        got = f"files that do not load (config.json: {shorten(str(error))})"
        raise InputError(subject, got=got, expected="a config of transformers", hint=save_again) from error
    got, expected = f"model_type {shorten(kind)} in its config.json", f"one of {', '.join(_CLASSES)}"
    require(kind in _CLASSES, subject, got, expected, "Choose a supported model.")
    try:
        # initialization must not change the caller's random state
        with hub.offline(), _quiet(library), torch.random.fork_rng(devices=[]):
            safe = any(file.suffix == ".safetensors" for file in _weights(folder))
            model, info = getattr(library, _CLASSES[kind]).from_pretrained(
                folder, local_files_only=True, use_safetensors=safe, weights_only=True, output_loading_info=True
            )
            if missing := sorted(info["missing_keys"]):  # initialized at random, which the library only logs
                raise ValueError(f"the weights lack {len(missing)} parameters: {missing[0]}")
            if tokenizer is None:
                tokenizer = _load_tokenizer(library, folder, kind, model.config.text_config.max_position_embeddings)
    except ImportError as error:
        got = f"a tokenizer that needs another package ({shorten(' '.join(str(error).split()))})"
        hint = "Install it in the checkout: pip install '.[hf]'."
        raise InputError(subject, got=got, expected="the extra hf", hint=hint) from error
    except _BROKEN as error:
        got = error.got if isinstance(error, InputError) else f"files that do not load ({reason(error)})"
        expected = f"a {_CLASSES[kind]} and its tokenizer"
        raise InputError(subject, got=got, expected=expected, hint=save_again) from error
    images = _preprocessing(_read_preprocessing(folder), model.config, subject)
    return TransformersEncoder(model.float().eval(), tokenizer, images, folder)


@contextlib.contextmanager
def _quiet(library: Any) -> Generator[None]:
    output = library.utils.logging
    before = output.is_progress_bar_enabled()
    output.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        if before:
            output.enable_progress_bar()


def _load_tokenizer(library: Any, folder: Path, kind: str, longest: int) -> Tokenize:
    tokenizer = library.AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)

    def tokenize(texts: Sequence[str]) -> Sequence[Sequence[int]]:
        padding = False if kind == "clip" else "max_length"
        batch = tokenizer(list(texts), padding=padding, truncation=True, max_length=longest)
        ids, masks = batch["input_ids"], batch.get("attention_mask")
        if kind == "clip" or masks is None:
            return ids
        return [[i if m else -1 - i for i, m in zip(*row, strict=True)] for row in zip(ids, masks, strict=True)]

    return tokenize


def _read_preprocessing(folder: Path) -> dict[str, Any]:
    """Read the image preprocessing from the processor's config, else from its own file."""
    for name in _PROCESSORS:
        try:
            document = json.loads((folder / name).read_text(encoding="utf-8"))
        except FileNotFoundError:
            continue
        except (OSError, ValueError) as error:
            got = f"files that do not load ({name}: {shorten(str(error))})"
            hint = "Save the processor with save_pretrained."
            raise InputError(f"model folder {folder}", got=got, expected="JSON", hint=hint) from error
        if name.startswith("processor"):
            document = document.get("image_processor")
        if isinstance(document, dict):
            return cast(dict[str, Any], document)
    return {}


def _preprocessing(processor: Mapping[str, Any], config: Any, subject: str = "model") -> _Preprocessing:
    kind, hint = str(config.model_type), "Use a model with supported preprocessing."
    settings = {**_IMAGES[kind], **processor}
    rescaled = settings.get("do_rescale", True) and math.isclose(settings.get("rescale_factor", 1 / 255), 1 / 255)
    interpolation = _INTERPOLATIONS.get(settings["resample"])
    if interpolation is None or not rescaled or not settings.get("do_resize", True):
        steps = {k: settings.get(k) for k in ("do_resize", "resample", "do_rescale", "rescale_factor") if k in settings}
        expected = "resample 2 (bilinear) or 3 (bicubic), values divided by 255"
        raise InputError(subject, got=str(steps), expected=expected, hint=hint)
    if kind == "siglip2":
        patch = int(config.vision_config.patch_size)
        geometry = Geometry(patch * math.isqrt(int(settings["max_num_patches"])), "squash", interpolation)
    else:
        size, crops = config.vision_config.image_size, bool(settings["do_center_crop"])
        mode: ResizeMode | None = "shortest" if kind == "clip" else "squash"
        scaled, cropped = settings.get("size"), settings.get("crop_size")
        if not {"size", "crop_size"}.isdisjoint(settings) or not isinstance(size, int):
            square, shortest = {"height": size, "width": size}, {"shortest_edge": size}
            if isinstance(scaled, int):
                scaled = {"shortest_edge": scaled} if kind == "clip" else {"height": scaled, "width": scaled}
            if isinstance(cropped, int):
                cropped = {"height": cropped, "width": cropped}
            fits, to_square = _stated(scaled), cropped is None or _stated(cropped) == square
            mode = "squash" if fits == square and (not crops or to_square) else None
            mode = "shortest" if fits == shortest and crops and to_square else mode
        if mode is None:
            got = f"images scaled to {scaled}{f' and cropped to {cropped}' if crops else ''} for a model of {size}"
            expected = "images scaled to the model's size and cropped to a square"
            raise InputError(subject, got=got, expected=expected, hint=hint)
        geometry = Geometry(int(size), mode, interpolation)
    if not settings.get("do_normalize", True):
        return _Preprocessing(geometry, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    mean, std = (three(settings[key]) for key in ("image_mean", "image_std"))
    return _Preprocessing(geometry, mean, std)


def _stated(size: Any) -> dict[str, Any] | None:
    return {k: v for k, v in size.items() if v is not None} if isinstance(size, Mapping) else None
