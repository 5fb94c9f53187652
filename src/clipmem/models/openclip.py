"""The open_clip adapter: with `clipmem.models.shortcut` the only module that imports open_clip.

It uses open_clip's model layer, tokenizers and configs. Its own part is the text pass on trimmed captions: open_clip's
`CLIP.encode_text` refuses input shorter than the context, and most of a 77-token context is padding. With a causal
text tower that is read out at the end-of-text token, what follows that token cannot change the embedding, so the
trimmed pass is exact.
"""

import contextlib
import json
import logging
import tempfile
from collections.abc import Generator, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, cast

import open_clip
import torch
from jaxtyping import Float, Int
from open_clip.loss import ClipLoss, SigLipLoss
from open_clip.model import CLIP
from open_clip.transformer import text_global_pool
from safetensors import SafetensorError
from safetensors.torch import save as save_safetensors
from torch import Tensor, nn

from clipmem.base.errors import InputError, shorten
from clipmem.base.suggest import did_you_mean
from clipmem.models.shortcut import image_pass, text_pass
from clipmem.models.vocabulary import Vocabulary
from clipmem.store.atomic import atomic_write, make_folder

SHIPPED = ("clipmem-tiny", "clipmem-micro")
# clipmem-tiny with towers of other widths, for `clipmem reproduce --figure model-size`
GRID = tuple(
    f"clipmem-i{image}-t{text}" for image in (64, 128, 192) for text in (64, 128, 192) if image * text != 16384
)
CONFIG_FILE, WEIGHTS_FILE = "open_clip_config.json", "open_clip_model.safetensors"


class OpenClipEncoder:
    """A `DualEncoder` on an open_clip model.

    Args:
        model: The model.
        config: Its `model_cfg`, as in open_clip's config files.
        tokenizer: Its tokenizer.
    """

    def __init__(self, model: nn.Module, config: Mapping[str, Any], tokenizer: Any) -> None:
        self._model, self._config, self._tokenizer = model, config, tokenizer
        size: int | tuple[int, int] = model.visual.image_size  # pyright: ignore[reportAssignmentType, reportAttributeAccessIssue]
        self.image_size: int = size if isinstance(size, int) else size[0]
        preprocess: dict[str, Any] = model.visual.preprocess_cfg  # pyright: ignore[reportAssignmentType, reportAttributeAccessIssue]
        self.mean: tuple[float, float, float] = tuple(preprocess["mean"])
        self.std: tuple[float, float, float] = tuple(preprocess["std"])
        self._preprocess = preprocess
        self._vocabulary: Vocabulary | None = None

    @property
    def tokens(self) -> int:
        """Length of the longer of the two towers' sequences; of a tower that is not a transformer, of the text's."""
        vision: Any = self._model.visual
        patches = getattr(vision, "grid_size", (0, 0))
        return max(patches[0] * patches[1] + 1, int(self._config["text_cfg"].get("context_length", 77)))

    @property
    def module(self) -> nn.Module:
        """The open_clip model."""
        return self._model

    def tokenize(self, captions: Sequence[str]) -> Int[Tensor, "n length"]:
        """Turn captions into token ids, trimmed to the longest one (see `trim`)."""
        return trim(self._tokenizer(list(captions)))

    def encode_image(self, pixels: Float[Tensor, "n 3 size size"]) -> Float[Tensor, "n d"]:
        """Embed normalised pictures."""
        embedded = image_pass(self._model, pixels)
        if embedded is not None:
            return embedded
        return self._model.encode_image(pixels)  # pyright: ignore[reportCallIssue]

    def encode_text(self, tokens: Int[Tensor, "n length"]) -> Float[Tensor, "n d"]:
        """Embed captions; exact on trimmed ones (see the module's text)."""
        tokens = trim(tokens)
        if _is_plain_clip(self._model):
            rows = tokens if self._vocabulary is None else self._vocabulary.compact(tokens)
            embedded = text_pass(self._model, tokens, rows)
            return _encode_trimmed(self._model, tokens, rows) if embedded is None else embedded
        length = int(self._config["text_cfg"].get("context_length", 77))
        return self._model.encode_text(nn.functional.pad(tokens, (0, length - tokens.shape[1])))  # pyright: ignore[reportCallIssue]

    def logit_scale(self) -> Float[Tensor, ""]:
        """The exponentiated logit scale."""
        return self._model.logit_scale.exp()  # pyright: ignore[reportCallIssue, reportAttributeAccessIssue]

    def compact_vocabulary(self, used: Int[Tensor, "m length"]) -> None:
        """Keep only the embedding rows of the tokens in `used` until `expand_vocabulary` (see `Vocabulary`)."""
        if _is_plain_clip(self._model) and self._vocabulary is None:
            self._vocabulary = Vocabulary(cast(nn.Embedding, self._model.token_embedding), used)

    def expand_vocabulary(self, decay: float = 1.0) -> None:
        """Bring back the whole embedding table; unused rows are multiplied by `decay`."""
        if self._vocabulary is not None:
            self._vocabulary.expand(decay)
            self._vocabulary = None

    def save(self, folder: Path) -> list[Path]:
        """Write the folder that `open_clip.create_model_and_transforms("local-dir:FOLDER")` loads.

        Returns:
            The files written: the config and the weights (safetensors).
        """
        make_folder(folder)
        config = {"model_cfg": self._config, "preprocess_cfg": self._preprocess}
        state = {name: tensor.contiguous() for name, tensor in self._model.state_dict().items()}
        atomic_write(folder / WEIGHTS_FILE, save_safetensors(state))
        atomic_write(folder / CONFIG_FILE, (json.dumps(config, indent=1) + "\n").encode())
        return [folder / CONFIG_FILE, folder / WEIGHTS_FILE]


def contrastive_loss(
    image: Float[Tensor, "n d"], text: Float[Tensor, "n d"], scale: Float[Tensor, ""]
) -> Float[Tensor, ""]:
    """Return open_clip's `ClipLoss`: for normalised u, v and scale s, (CE(s u vᵀ, i) + CE(s v uᵀ, i)) / 2."""
    return ClipLoss()(image, text, scale)


def sigmoid_loss(
    image: Float[Tensor, "n d"], text: Float[Tensor, "n d"], scale: Float[Tensor, ""], bias: Float[Tensor, ""]
) -> Float[Tensor, ""]:
    """Return open_clip's `SigLipLoss`: for normalised u, v, -1/n Σ_ij log sigmoid(±(s u_i·v_j + b)), + where i = j."""
    return SigLipLoss()(image, text, scale, bias)


def trim(tokens: Int[Tensor, "n length"]) -> Int[Tensor, "n short"]:
    """Cut the columns that are padding (0) in every row; at least one column stays."""
    used = (tokens != 0).any(dim=0)
    longest = int(used.nonzero().max()) + 1 if bool(used.any()) else 1
    return tokens[:, :longest]


def model_config(name: str) -> dict[str, Any]:
    """Find a model's config: shipped with clipmem, built into open_clip, or a JSON file.

    Raises:
        InputError: There is no such model (near names are shown), or the file is not such a config.
    """
    if name in SHIPPED or name in GRID:
        return json.loads((files("clipmem.models") / "configs" / f"{name}.json").read_text(encoding="utf-8"))
    if name.endswith(".json"):
        return _config_file(Path(name))
    # "hf-hub:..." would be fetched, "local-dir:..." opened: neither is a name
    config = None if ":" in name else open_clip.get_model_config(name)
    if config is None:
        raise InputError(
            f"[model] name = {name!r}",
            got="no model of that name",
            expected="a name of open_clip, a shipped one, or a JSON config",
            todo=did_you_mean(name, SHIPPED, kind="shipped model")
            if not _near(name)
            else did_you_mean(name, [*SHIPPED, *open_clip.list_models()]),
        )
    return config


def _near(name: str) -> bool:
    return "Did you mean" in did_you_mean(name, [*SHIPPED, *open_clip.list_models()])


def _config_file(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(
            f"[model] name = {str(path)!r}", got=str(error), expected="a JSON file", todo="Check the path."
        ) from error
    config = config.get("model_cfg", config) if isinstance(config, dict) else config
    if not isinstance(config, dict) or not {"embed_dim", "vision_cfg", "text_cfg"} <= set(config):
        raise InputError(
            f"[model] name = {str(path)!r}",
            got=f"keys {sorted(config)}" if isinstance(config, dict) else f"a JSON {type(config).__name__}",
            expected="embed_dim, vision_cfg and text_cfg",
            todo="Start from a file of open_clip's model_configs folder.",
        )
    return config


def create(name: str, *, seed: int) -> OpenClipEncoder:
    """Create a model with fresh weights that depend on the seed alone.

    Args:
        name: See `model_config`.
        seed: Seed of the initial weights; the global random state is left as it was.
    """
    config = model_config(name)
    with tempfile.TemporaryDirectory() as folder, torch.random.fork_rng(devices=[]), _quiet():
        (Path(folder) / CONFIG_FILE).write_text(json.dumps({"model_cfg": config}), encoding="utf-8")
        torch.manual_seed(seed)
        model = open_clip.create_model(f"local-dir:{folder}", load_weights=False, pretrained_text=False)
        tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}")
    return OpenClipEncoder(model, config, tokenizer)


@contextlib.contextmanager
def _quiet() -> Generator[None]:
    """Silence open_clip's warnings that a new model has no weights: that is what was asked for."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


def load(folder: Path) -> OpenClipEncoder:
    """Load a model that `OpenClipEncoder.save` wrote.

    Raises:
        InputError: The folder lacks the config or the weights.
    """
    missing = [file for file in (CONFIG_FILE, WEIGHTS_FILE) if not (folder / file).is_file()]
    if missing:
        raise InputError(f"model folder {folder}", got=f"no {' and no '.join(missing)}", todo="Run the study again.")
    try:
        config = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))["model_cfg"]
        # the weights are drawn before they are read: that must not move the caller's random numbers
        with torch.random.fork_rng(devices=[]):
            model = open_clip.create_model(f"local-dir:{folder}")
    except (ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        raise InputError(
            f"model folder {folder}",
            got=f"files that do not load ({shorten(str(error))})",
            expected="what clipmem wrote",
            todo="Delete the folder and run the study again: only that model is trained again.",
        ) from error
    return OpenClipEncoder(model, config, open_clip.get_tokenizer(f"local-dir:{folder}"))


def _is_plain_clip(model: nn.Module) -> bool:
    if not isinstance(model, CLIP) or model.text_pool_type not in {"argmax", "eos"}:
        return False
    causal: Any = model.attn_mask
    return causal is not None


def _encode_trimmed(model: Any, tokens: Int[Tensor, "n length"], rows: Int[Tensor, "n length"]) -> Float[Tensor, "n d"]:
    """Embed trimmed captions; `rows` are the tokens' rows of the embedding table, which may be a compact one."""
    length = tokens.shape[1]
    dtype = model.transformer.get_cast_dtype()
    x = model.token_embedding(rows).to(dtype) + model.positional_embedding[:length].to(dtype)
    x = model.ln_final(model.transformer(x, attn_mask=model.attn_mask[:length, :length]))
    # only the end-of-text position is projected: pool first, and by the token ids: `eos` looks for one of them
    x = text_global_pool(x, tokens, model.text_pool_type, eos_token_id=getattr(model, "text_eos_id", None))
    projection = model.text_projection
    if projection is None:
        return x
    return projection(x) if isinstance(projection, nn.Linear) else x @ projection
