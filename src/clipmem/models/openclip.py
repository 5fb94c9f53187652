"""The open_clip adapter: with `clipmem.models.shortcut` and `tokenizers` the only module that imports open_clip.

Captions are trimmed to the longest one, as most of a 77-token context is padding. This is exact for causal text towers
with end-of-text pooling. Other text towers, such as SigLIP's, get the whole context.
"""

import contextlib
import json
import logging
import tempfile
import warnings
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import open_clip
import torch
from jaxtyping import Float, Int
from open_clip.convert import convert_state_dict
from open_clip.loss import ClipLoss, SigLipLoss
from open_clip.model import CLIP, convert_to_custom_text_state_dict, resize_pos_embed, resize_text_pos_embed
from open_clip.tokenizer import HFTokenizer
from open_clip.transform import PreprocessCfg
from open_clip.transformer import text_global_pool
from safetensors.torch import save as save_safetensors
from torch import Tensor, nn

from clipmem.base.errors import InputError, require, shorten
from clipmem.base.paths import atomic_write, make_folder
from clipmem.data.decoding import Geometry, Interpolation, ResizeMode
from clipmem.models import hub, tokenizers
from clipmem.models.names import ModelConfig, Settings, TextConfig, model_config, settings_of
from clipmem.models.protocol import Rows, Scalar, Tokens, TrainableEncoder, three, trim
from clipmem.models.shortcut import image_pass, project, text_pass
from clipmem.models.tokenizers import Vocabulary, simple_tokenizer
from clipmem.models.weights import read_checkpoint

CONFIG_FILE, WEIGHTS_FILE = "open_clip_config.json", "open_clip_model.safetensors"
# raised by open_clip and the libraries below it on invalid files
BROKEN = (ValueError, LookupError, TypeError, RuntimeError, AttributeError, OSError, AssertionError, ImportError)


class Pretrained(NamedTuple):
    """A pretrained tag of an architecture, as open_clip lists it."""

    repository: str
    files: tuple[str, ...]
    preprocess: dict[str, Any]
    quick_gelu: bool | None


class OpenClipEncoder(TrainableEncoder):
    """A `TrainableEncoder` on an open_clip model; `config` is its `model_cfg`, as in open_clip's config files."""

    def __init__(self, model: nn.Module, config: ModelConfig, tokenizer: Any) -> None:
        self._model: Any = model
        self.config, self._tokenizer = config, tokenizer
        self._preprocess: Any = self._model.visual.preprocess_cfg
        geometry = _geometry(self._model.visual.image_size, self._preprocess)
        self.image_size, self.resize_mode, self.interpolation = geometry
        self.mean, self.std = three(self._preprocess["mean"]), three(self._preprocess["std"])
        self._vocabulary: Vocabulary | None = None
        self._compiled: tuple[Callable[..., Tensor], Callable[..., Tensor]] | None = None

    @property
    def context(self) -> int:
        return int(self.config["text_cfg"].get("context_length", 77))

    @property
    def tokens(self) -> int:
        """Length of the longer of the two towers' sequences; of the text's if the image tower is no transformer."""
        patches = getattr(self._model.visual, "grid_size", (0, 0))
        return max(patches[0] * patches[1] + 1, self.context)

    @property
    def module(self) -> nn.Module:
        return self._model

    def tokenize(self, captions: Sequence[str]) -> Tokens:
        """Turn captions into token ids, trimmed to the longest one (see `trim`)."""
        return trim(self._tokenizer(list(captions)))

    def encode_image(self, pixels: Float[Tensor, "n 3 size size"]) -> Rows:
        if self._compiled:
            return self._compiled[0](pixels)
        embedded = image_pass(self._model, pixels)
        return self._model.encode_image(pixels) if embedded is None else embedded

    def encode_text(self, tokens: Tokens) -> Rows:
        """Embed captions, trimmed or not."""
        if tokens.device.type == "cpu":  # on other devices it would synchronize
            tokens = trim(tokens)
        if not _is_plain_clip(self._model):
            return self._model.encode_text(nn.functional.pad(tokens, (0, self.context - tokens.shape[1])))
        rows = tokens if self._vocabulary is None else self._vocabulary.compact(tokens)
        if self._compiled:
            return self._compiled[1](self._model, tokens, rows)
        embedded = text_pass(self._model, tokens, rows)
        return _encode_trimmed(self._model, tokens, rows) if embedded is None else embedded

    def compile(self, *, backend: str = "inductor") -> None:
        """Use open_clip's forward passes, compiled by torch, instead of `clipmem.models.shortcut`."""
        passes = self._model.encode_image, _encode_trimmed
        self._compiled = (torch.compile(passes[0], backend=backend), torch.compile(passes[1], backend=backend))

    def is_image_parameter(self, name: str) -> bool:
        return name.startswith("visual.")

    def compact_vocabulary(self, used: Int[Tensor, "m length"]) -> str:
        if not _is_plain_clip(self._model):
            return ""
        if self._vocabulary is None:
            self._vocabulary = Vocabulary(self._model.token_embedding, used)
        return "token_embedding.weight"

    def expand_vocabulary(self, decay: float = 1.0) -> None:
        if self._vocabulary is not None:
            self._vocabulary.expand(decay)
            self._vocabulary = None

    def save(self, folder: Path) -> list[Path]:
        """Write the folder that `open_clip.create_model_and_transforms("local-dir:FOLDER")` loads."""
        make_folder(folder)
        config = {"model_cfg": self.config, "preprocess_cfg": self._preprocess}
        state = {name: tensor.contiguous() for name, tensor in self._model.state_dict().items()}
        atomic_write(folder / WEIGHTS_FILE, save_safetensors(state))
        atomic_write(folder / CONFIG_FILE, (json.dumps(config, indent=1) + "\n").encode())
        written = [folder / CONFIG_FILE, folder / WEIGHTS_FILE]
        if isinstance(self._tokenizer, HFTokenizer):  # open_clip looks for it in the folder
            self._tokenizer.save_pretrained(folder)
            written += tokenizers.files_of(folder)
        return written


def contrastive_loss(image: Rows, text: Rows, scale: Scalar) -> Scalar:
    """Return open_clip's `ClipLoss`: for normalized u, v and scale s, (CE(s u vᵀ, i) + CE(s v uᵀ, i)) / 2."""
    return ClipLoss()(image, text, scale)


def sigmoid_loss(image: Rows, text: Rows, scale: Scalar, bias: Scalar) -> Scalar:
    """Return open_clip's `SigLipLoss`: for normalized u, v, -1/n Σ_ij log sigmoid(±(s u_i·v_j + b)), + where i = j."""
    return SigLipLoss()(image, text, scale, bias)


def tags(name: str) -> list[str]:
    """Return the pretrained tags of an architecture."""
    return list(open_clip.list_pretrained_tags_by_model(name))


def pretrained(name: str, tag: str) -> Pretrained | None:
    """Return a pretrained tag of an architecture, or None."""
    config: Any = open_clip.get_pretrained_cfg(name, tag)
    if not config or not config.get("hf_hub"):
        return None
    repository, _, file = config["hf_hub"].rpartition("/")
    file = file or "open_clip_pytorch_model.bin"
    stem = file.rpartition(".")[0]
    safe = "open_clip_model.safetensors" if file == "open_clip_pytorch_model.bin" else f"{stem}.safetensors"
    preprocess = {key: config[key] for key in ("mean", "std", "interpolation", "resize_mode") if key in config}
    files = tuple(dict.fromkeys([safe, file]))
    return Pretrained(repository, files, preprocess, config.get("quick_gelu"))


def check(name: str) -> None:
    """Check that a model can be created, without building it."""
    geometry_of_config(name)
    tokenizers.find(model_config(name)["text_cfg"], subject=f"[model] name = {name!r}")


def geometry_of_config(name: str) -> Geometry:
    """Return the image geometry of an architecture, without building it."""
    settings = settings_of(name)
    return _geometry(settings["model_cfg"]["vision_cfg"].get("image_size", 224), settings["preprocess_cfg"])


def _geometry(size: Any, preprocess: dict[str, Any]) -> Geometry:
    sides = {int(side) for side in size} if isinstance(size, list | tuple) else {int(size)}
    if len(sides) != 1:
        got = f"images of {' x '.join(str(side) for side in size)} pixels"
        raise InputError("model", got=got, expected="square images", hint="Use a model with square images.")
    usual = PreprocessCfg()
    mode = preprocess.get("resize_mode") or usual.resize_mode
    # as in open_clip, `random` is bicubic outside of training
    interpolation = preprocess.get("interpolation") or usual.interpolation
    interpolation = {"random": "bicubic"}.get(interpolation, interpolation)
    unsupported = mode not in {"shortest", "squash", "longest"} or interpolation not in {"bicubic", "bilinear"}
    unsupported = unsupported or (mode == "longest" and preprocess.get("fill_color"))
    expected = "resize_mode shortest, squash or longest (padded with black), interpolation bicubic or bilinear"
    require(not unsupported, "model", f"preprocess_cfg with {preprocess}", expected, "Fix the model's config.")
    return Geometry(sides.pop(), cast(ResizeMode, mode), cast(Interpolation, interpolation))


def create(name: str, *, seed: int) -> OpenClipEncoder:
    """Create a model (see `model_config`) with random weights that depend on the seed only."""
    settings, config = settings_of(name), model_config(name)
    source = tokenizers.find(config["text_cfg"], subject=f"[model] name = {name!r}")
    return OpenClipEncoder(_build(settings, config, seed=seed), config, _tokenizer(config["text_cfg"], source))


def outline(name: str) -> OpenClipEncoder:
    """Build a model without weights, on torch's device `meta`, and without its tokenizer."""
    check(name)
    with torch.device("meta"):
        model = _build(settings_of(name), model_config(name), seed=0, device="meta").eval()
    return OpenClipEncoder(model, model_config(name), None)


def assemble(
    settings: Settings,
    state: dict[str, Tensor],
    *,
    tokenizer: Path | None = None,
    text_tower: Path | None = None,
    resize: bool = True,
) -> OpenClipEncoder:
    """Build a model and load weights, as open_clip does; raise one of `BROKEN` if they do not fit."""
    config: ModelConfig = json.loads(json.dumps(settings["model_cfg"]))
    if text_tower is not None:
        config["text_cfg"]["hf_model_name"] = str(text_tower)
    model: Any = _build(settings, config, seed=0)
    # as in `open_clip.load_checkpoint`
    state = dict(convert_state_dict(model, state))
    if "positional_embedding" in state and not hasattr(model, "positional_embedding"):
        state = convert_to_custom_text_state_dict(state)
    for name in ("logit_scale", "logit_bias"):
        parameter = getattr(model, name)
        if parameter is not None and name in state:
            state[name] = state[name].reshape(parameter.shape)
    if model.logit_bias is not None and "logit_bias" not in state and "logit_scale" in state:
        state["logit_bias"] = torch.zeros_like(state["logit_scale"])
    ids = "text.transformer.embeddings.position_ids"
    if ids not in model.state_dict():
        state.pop(ids, None)
    if resize:
        resize_pos_embed(state, model)
        resize_text_pos_embed(state, model)
    model.load_state_dict(state, strict=True)
    return OpenClipEncoder(model, settings["model_cfg"], _tokenizer(config["text_cfg"], tokenizer))


def _build(settings: Settings, config: ModelConfig, *, seed: int, device: str = "cpu") -> nn.Module:
    # initialization must not change the caller's random state
    with tempfile.TemporaryDirectory() as folder, torch.random.fork_rng(devices=[]), _quiet(), hub.offline():
        document = {"model_cfg": config, "preprocess_cfg": settings.get("preprocess_cfg") or {}}
        (Path(folder) / CONFIG_FILE).write_text(json.dumps(document), encoding="utf-8")
        torch.manual_seed(seed)
        model = open_clip.create_model(f"local-dir:{folder}", load_weights=False, pretrained_text=False, device=device)
        decoder: Any = getattr(model, "text_decoder", None)
        if decoder is not None:  # CoCa's, of which open_clip leaves one matrix as it finds the memory
            nn.init.normal_(decoder.text_projection, std=decoder.width**-0.5)
        return model


def _tokenizer(text: TextConfig, source: Path | None) -> Any:
    """Create the tokenizer as `open_clip.get_tokenizer` does, from local files, without remote code."""
    length = int(text.get("context_length", open_clip.tokenizer.DEFAULT_CONTEXT_LENGTH))
    settings = dict(text.get("tokenizer_kwargs") or {})
    if source is None:
        return simple_tokenizer(length, json.dumps(settings, sort_keys=True))
    settings |= {"tokenizer_mode": text.get("tokenizer_mode"), "trust_remote_code": False, "local_files_only": True}
    with hub.offline():
        return HFTokenizer(str(source), context_length=length, **settings)


@contextlib.contextmanager
def _quiet() -> Generator[None]:
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def load(folder: Path) -> OpenClipEncoder:
    """Load a model saved by `OpenClipEncoder.save`."""
    missing = [file for file in (CONFIG_FILE, WEIGHTS_FILE) if not (folder / file).is_file()]
    got = f"no {' and no '.join(missing)}"
    require(not missing, f"model folder {folder}", got, "both files", "Run the study again.")
    try:
        settings = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
        tokenizer = folder if settings["model_cfg"]["text_cfg"].get("hf_tokenizer_name") else None
        return assemble(settings, read_checkpoint(folder / WEIGHTS_FILE).state, tokenizer=tokenizer)
    except BROKEN as error:
        reason = error.got if isinstance(error, InputError) else f"files that do not load ({shorten(str(error))})"
        hint = "Delete the folder and run the study again: only that model is trained again."
        raise InputError(f"model folder {folder}", got=reason, expected="files of clipmem", hint=hint) from error


def _is_plain_clip(model: Any) -> bool:
    """Return whether a text tower is causal with end-of-text pooling, and 0 is its padding."""
    if not isinstance(model, CLIP) or cast(Any, model).attn_mask is None:
        return False
    return model.text_pool_type == "argmax" or (model.text_pool_type == "eos" and bool(model.text_eos_id != 0))


def _encode_trimmed(model: Any, tokens: Tokens, rows: Tokens) -> Rows:
    """Embed trimmed captions; `rows` are the tokens' rows of the embedding table, which may be compact."""
    length = tokens.shape[1]
    dtype = model.transformer.get_cast_dtype()
    x = model.token_embedding(rows).to(dtype) + model.positional_embedding[:length].to(dtype)
    x = model.ln_final(model.transformer(x, attn_mask=model.attn_mask[:length, :length]))
    # pool before projecting; by token ids, which `eos` pooling searches
    pooled = text_global_pool(x, tokens, model.text_pool_type, eos_token_id=getattr(model, "text_eos_id", None))
    return project(model, pooled)
