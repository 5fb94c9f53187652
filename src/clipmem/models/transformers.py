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
from clipmem.models import extras, hub, openclip, tokenizers
from clipmem.models.family import FAMILIES, ModelFamily
from clipmem.models.protocol import three
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


class TransformersEncoder:
    """A `TrainableEncoder` on transformers' CLIPModel, SiglipModel or Siglip2Model; `source` has its tokenizer."""

    def __init__(
        self, model: nn.Module, tokenizer: Tokenize, images: _Preprocessing | None = None, source: Path | None = None
    ) -> None:
        self._model: Any = model
        self._tokenizer, self._source = tokenizer, source
        images = images or _preprocessing({}, self._model.config)
        self.image_size: int = images.geometry.size
        self.resize_mode: ResizeMode = images.geometry.resize_mode
        self.interpolation: Interpolation = images.geometry.interpolation
        self.mean, self.std = images.mean, images.std

    @property
    def module(self) -> nn.Module:
        """The model of transformers."""
        return self._model

    def tokenize(self, captions: Sequence[str]) -> Int[Tensor, "n length"]:
        """Return the token ids of captions; for CLIP, padded with 0 to the longest one."""
        rows = [torch.tensor(list(row), dtype=torch.long) for row in self._tokenizer(captions)]
        return nn.utils.rnn.pad_sequence(rows, batch_first=True)

    def encode_image(self, pixels: Float[Tensor, "n 3 size size"]) -> Float[Tensor, "n d"]:
        """Embed normalized images."""
        if self._model.config.model_type == "siglip2":
            patches, mask, shapes = _patches(pixels, self._model.config.vision_config.patch_size)
            # positional, as the name of the mask depends on the library's version
            return self._model.vision_model(patches, mask, shapes).pooler_output
        pooled = self._model.vision_model(pixel_values=pixels).pooler_output
        return self._model.visual_projection(pooled) if hasattr(self._model, "visual_projection") else pooled

    def encode_text(self, tokens: Int[Tensor, "n length"]) -> Float[Tensor, "n d"]:
        """Embed captions."""
        seen = tokens >= 0
        ids = torch.where(seen, tokens, -1 - tokens)
        # not for CLIP; checking on a GPU would synchronize
        masked = self._model.config.model_type != "clip" and (tokens.device.type != "cpu" or not bool(seen.all()))
        mask = seen.long() if masked else None
        pooled = self._model.text_model(input_ids=ids, attention_mask=mask).pooler_output
        return self._model.text_projection(pooled) if hasattr(self._model, "text_projection") else pooled

    def logit_scale(self) -> Float[Tensor, ""]:
        """The exponentiated logit scale."""
        return self._model.logit_scale.exp().reshape(())

    def set_logit_scale(self, value: float) -> None:
        """Set the logit scale, given exponentiated."""
        with torch.no_grad():
            self._model.logit_scale.fill_(math.log(value))

    @property
    def context(self) -> int:
        """Length of the longest caption, in tokens."""
        return int(self._model.config.text_config.max_position_embeddings)

    @property
    def tokens(self) -> int:
        """Length of the longer of the two towers' sequences."""
        return max((self.image_size // self._model.config.vision_config.patch_size) ** 2 + 1, self.context)

    def trim(self, tokens: Int[Tensor, "n length"]) -> Int[Tensor, "n short"]:
        """For CLIP, cut the columns that are padding in every row; SigLIP reads its padding."""
        return openclip.trim(tokens) if self._model.config.model_type == "clip" else tokens

    def is_image_parameter(self, name: str) -> bool:
        """Return whether a parameter belongs to the vision model or its projection."""
        return name.startswith(("vision_model.", "visual_projection."))

    def compact_vocabulary(self, used: Int[Tensor, "m length"]) -> str:
        """Do nothing: the whole embedding table is trained."""
        del used
        return ""

    def expand_vocabulary(self, decay: float = 1.0) -> None:
        """Do nothing (see `compact_vocabulary`)."""

    def compile(self) -> None:
        """Compile the passes of both towers."""
        self._model.vision_model.compile()
        self._model.text_model.compile()

    def save(self, folder: Path) -> list[Path]:
        """Write config, weights (safetensors), tokenizer and preprocessing as `from_pretrained` reads them."""
        make_folder(folder)
        with _quiet(extras.library("transformers", "transformers models")):
            self._model.save_pretrained(folder, safe_serialization=True)
        for file in _files(self._source) if self._source else []:
            if file.name in (*_PROCESSORS, *tokenizers.FILES):
                atomic_write(folder / file.name, file.read_bytes())
        return _files(folder)


def _patches(pixels: Float[Tensor, "n 3 size size"], side: int) -> tuple[Tensor, Tensor, Tensor]:
    """Cut images for NaFlex models: patches (n, patch, side * side * 3), mask, rows and columns."""
    n, channels, height, width = pixels.shape
    rows, columns = height // side, width // side
    cut = pixels.reshape(n, channels, rows, side, columns, side).permute(0, 2, 4, 3, 5, 1)
    shapes = torch.tensor([[rows, columns]], device=pixels.device).expand(n, 2)
    mask = torch.ones((n, rows * columns), dtype=torch.int32, device=pixels.device)
    return cut.reshape(n, rows * columns, side * side * channels), mask, shapes


@FAMILIES.register("transformers")
class Transformers(ModelFamily):
    """CLIP, SigLIP and SigLIP 2 in folders that transformers' `save_pretrained` wrote."""

    @classmethod
    def files(cls, path: Path) -> list[Path]:
        """Return the config, weight and tokenizer files of a folder."""
        files = _files(path)
        missing = [] if (path / "config.json").is_file() else ["config.json"]
        missing += [] if _weights(path) else ["*.safetensors"]
        got, hint = f"a folder with no {' and no '.join(missing)}", "Save the model with save_pretrained."
        require(not missing, f"model folder {path}", got, "config.json and safetensors weights", hint)
        return files

    @classmethod
    def load(cls, path: Path) -> "TransformersEncoder":
        """Load a model in float32, with its own tokenizer."""
        return load(path)

    @classmethod
    def is_saved(cls, folder: Path) -> bool:
        """Return whether a folder has a config of transformers."""
        return (folder / "config.json").is_file()


def _weights(folder: Path) -> list[Path]:
    return sorted(folder.glob("model*.safetensors")) or sorted(folder.glob("pytorch_model*.bin"))


def _files(folder: Path) -> list[Path]:
    weights = _weights(folder)
    names = ("config.json", *_PROCESSORS)
    indexes = [Path(f"{weights[0].name.split('-')[0].split('.')[0]}{weights[0].suffix}.index.json")] if weights else []
    files = [folder / name for name in (*names, *indexes) if (folder / name).is_file()]
    return [*files, *weights, *tokenizers.files_of(folder)]


def load(folder: Path, tokenizer: Tokenize | None = None) -> TransformersEncoder:
    """Load a model from a local folder in float32, by default with its own tokenizer."""
    subject = f"model folder {folder}"
    if not (folder / "config.json").is_file():
        raise InputError(subject, got="no config.json", hint="Give a folder saved by transformers.")
    library = extras.library("transformers", "transformers models")
    if tokenizer is None and not any((folder / name).is_file() for name in tokenizers.VOCABULARIES):
        # the library would create an empty tokenizer without an error
        expected, hint = ", ".join(tokenizers.VOCABULARIES), "Save the tokenizer into it with save_pretrained."
        raise InputError(subject, got="no tokenizer", expected=f"one of {expected}", hint=hint)
    tokenizers.refuse_code(folder, subject)
    kind = _kind(folder)
    try:
        with hub.offline(), _quiet(library):
            model = _load_model(library, folder, kind)
            if tokenizer is None:
                tokenizer = _load_tokenizer(library, folder, kind, model.config.text_config.max_position_embeddings)
    except ImportError as error:
        got = f"a tokenizer that needs another package ({shorten(' '.join(str(error).split()))})"
        hint = "Install it in the checkout: pip install '.[hf]'."
        raise InputError(subject, got=got, expected="the extra hf", hint=hint) from error
    except _BROKEN as error:
        got = error.got if isinstance(error, InputError) else f"files that do not load ({reason(error)})"
        hint = "Save the model and the tokenizer with save_pretrained."
        raise InputError(subject, got=got, expected=f"a {_CLASSES[kind]} and its tokenizer", hint=hint) from error
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


def _kind(folder: Path) -> str:
    try:
        document = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        kind = document.get("model_type")
    except (OSError, ValueError, AttributeError) as error:
        got = f"files that do not load (config.json: {shorten(str(error))})"
        hint = "Save the model and the tokenizer with save_pretrained."
        raise InputError(f"model folder {folder}", got=got, expected="a config of transformers", hint=hint) from error
    if kind not in _CLASSES:
        got = f"model_type {shorten(kind)} in its config.json"
        hint = "Choose a supported model."
        raise InputError(f"model folder {folder}", got=got, expected=f"one of {', '.join(_CLASSES)}", hint=hint)
    return str(kind)


def _load_model(library: Any, folder: Path, kind: str) -> Any:
    safe = any(file.suffix == ".safetensors" for file in _weights(folder))
    # initialization must not change the caller's random state
    with torch.random.fork_rng(devices=[]):
        model, info = getattr(library, _CLASSES[kind]).from_pretrained(
            folder, local_files_only=True, use_safetensors=safe, weights_only=True, output_loading_info=True
        )
    missing = sorted(info["missing_keys"])
    if missing:  # initialized at random, which the library only logs
        raise ValueError(f"the weights lack {len(missing)} parameters: {missing[0]}")
    return model


def _load_tokenizer(library: Any, folder: Path, kind: str, longest: int) -> Tokenize:
    tokenizer = library.AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)

    def clip(texts: Sequence[str]) -> Sequence[Sequence[int]]:
        return tokenizer(list(texts), truncation=True, max_length=longest)["input_ids"]

    def siglip(texts: Sequence[str]) -> Sequence[Sequence[int]]:
        batch = tokenizer(list(texts), padding="max_length", truncation=True, max_length=longest)
        ids, masks = batch["input_ids"], batch.get("attention_mask")
        if masks is None:
            return ids
        return [[i if m else -1 - i for i, m in zip(*row, strict=True)] for row in zip(ids, masks, strict=True)]

    return clip if kind == "clip" else siglip


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
    """Derive a model's preprocessing from its processor's settings and its config."""
    kind = str(config.model_type)
    settings = {**_IMAGES[kind], **processor}
    rescaled = settings.get("do_rescale", True) and math.isclose(settings.get("rescale_factor", 1 / 255), 1 / 255)
    interpolation = _INTERPOLATIONS.get(settings["resample"])
    if interpolation is None or not rescaled or not settings.get("do_resize", True):
        steps = {k: settings.get(k) for k in ("do_resize", "resample", "do_rescale", "rescale_factor") if k in settings}
        raise _unsupported(subject, str(steps), "resample 2 (bilinear) or 3 (bicubic), values divided by 255")
    if kind == "siglip2":
        patch = int(config.vision_config.patch_size)
        geometry = Geometry(patch * math.isqrt(int(settings["max_num_patches"])), "squash", interpolation)
    else:
        size = config.vision_config.image_size
        geometry = Geometry(int(size), _mode(settings, kind, size, subject), interpolation)
    if not settings.get("do_normalize", True):
        return _Preprocessing(geometry, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    mean, std = (three(settings[key]) for key in ("image_mean", "image_std"))
    return _Preprocessing(geometry, mean, std)


def _mode(settings: Mapping[str, Any], kind: str, size: Any, subject: str) -> ResizeMode:
    usual: ResizeMode = "shortest" if kind == "clip" else "squash"
    if "size" not in settings and "crop_size" not in settings and isinstance(size, int):
        return usual
    scaled, cropped = settings.get("size"), settings.get("crop_size")
    if isinstance(scaled, int):
        scaled = {"shortest_edge": scaled} if kind == "clip" else {"height": scaled, "width": scaled}
    if isinstance(cropped, int):
        cropped = {"height": cropped, "width": cropped}
    square = {"height": size, "width": size}
    crops = bool(settings["do_center_crop"])
    if _same(scaled, square) and (not crops or cropped is None or _same(cropped, square)):
        return "squash"
    if _same(scaled, {"shortest_edge": size}) and crops and (cropped is None or _same(cropped, square)):
        return "shortest"
    got = f"images scaled to {scaled}" + (f" and cropped to {cropped}" if crops else "") + f" for a model of {size}"
    raise _unsupported(subject, got, "images scaled to the model's size and cropped to a square")


def _same(size: Any, other: Mapping[str, int]) -> bool:
    return isinstance(size, Mapping) and {k: v for k, v in size.items() if v is not None} == other


def _unsupported(subject: str, got: str, expected: str) -> InputError:
    return InputError(subject, got=got, expected=expected, hint="Use a model with supported preprocessing.")
