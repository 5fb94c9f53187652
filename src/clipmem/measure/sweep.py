"""One pass of a model over pairs and views, with the activations for units and the distances for layers.

Activations of the layers of both towers are averaged per sample and read by forward hooks. A *site* is a point in a
layer where activations are read. Its kind is one of:

- `mlp`: the hidden activations of the layer's MLP, after the nonlinearity (transformers);
- `attn`: the output of the attention, per channel, before it is added to the residual stream (transformers);
- `conv1`, `conv2`: the channels after the first and the second nonlinearity of a bottleneck (ResNets);
- `block`: the output of the whole layer.

Images are averaged over tokens (including the class token) or over space, captions over the tokens up to end-of-text,
so that padding, and thus the batch, does not matter. For all kinds but `block`, the positive part is taken first, per
token: UnitMem needs nonnegative activations.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int, UInt8
from torch import Tensor, nn

from clipmem.base.errors import InputError, require
from clipmem.base.random import derive_seed
from clipmem.base.sections import LocalizeSection, TrainSection
from clipmem.data.views import Crops, as_float, draw_crops, normalize_pixels, pair_keys, render, text_views
from clipmem.models.protocol import DualEncoder
from clipmem.stats.unitmem import nonnegative

TOWERS = ("image", "text")
UNIT_KINDS = ("mlp", "attn", "conv1", "conv2")
BLOCK = "block"

_TRANSFORMERS = {
    "image": ("visual.transformer.resblocks", "visual.trunk.blocks", "vision_model.encoder.layers"),
    "text": ("transformer.resblocks", "text.transformer.resblocks", "text_model.encoder.layers"),
}
_STAGES = tuple(f"visual.layer{k}" for k in range(1, 5))
# the module after the MLP's nonlinearity, and the attention, as the libraries name them
_NONLINEARITY = ("mlp.gelu", "mlp.act", "mlp.activation_fn")
_ATTENTION = ("attn", "self_attn")


class Site(NamedTuple):
    """A point where activations are read: a layer of a tower, counted from 1 at the input, and the hooked module."""

    tower: str
    layer: int
    kind: str
    path: str
    layout: Literal["ntu", "tnu", "nuhw"]


Pooled = dict[Site, Float[Tensor, "n unit"]]


def find_sites(model: nn.Module, *, towers: Sequence[str] = TOWERS) -> list[Site]:
    """Return the sites of a model by tower, in the order of the forward pass."""
    modules = dict(model.named_modules())
    sites: list[Site] = []
    for tower in towers:
        found = _transformer_sites(modules, tower) or (_resnet_sites(modules) if tower == "image" else [])
        if not found:
            known = (*_TRANSFORMERS[tower], *(_STAGES[:1] if tower == "image" else ()))
            got = "no layers that can be hooked"
            expected = f"one of {', '.join(known)}"
            hint = "Localize in a ViT, ResNet or text transformer of open_clip, or in transformers' CLIPModel."
            raise InputError(f"{tower} tower of {type(model).__name__}", got=got, expected=expected, hint=hint)
        sites += found
    return sites


def _transformer_sites(modules: dict[str, nn.Module], tower: str) -> list[Site]:
    for path in _TRANSFORMERS[tower]:
        blocks = modules.get(path)
        if not isinstance(blocks, nn.ModuleList | nn.Sequential) or len(blocks) == 0:
            continue
        # older open_clip models have the token axis first
        first = getattr(modules[path.rpartition(".")[0]], "batch_first", True)
        layout: Literal["ntu", "tnu"] = "ntu" if first else "tnu"
        sites: list[Site] = []
        for index in range(len(blocks)):
            for kind, names in (("mlp", _NONLINEARITY), ("attn", _ATTENTION)):
                full = [f"{path}.{index}.{name}" for name in names if f"{path}.{index}.{name}" in modules]
                sites += [Site(tower, index + 1, kind, full[0], layout)] if full else []
            sites.append(Site(tower, index + 1, BLOCK, f"{path}.{index}", layout))
        return sites
    return []


def _resnet_sites(modules: dict[str, nn.Module]) -> list[Site]:
    if _STAGES[0] not in modules:
        return []
    sites: list[Site] = []
    layer = 0
    for stage in _STAGES:
        for name, _ in modules[stage].named_children() if stage in modules else ():
            layer += 1
            path = f"{stage}.{name}"
            for kind, act in (("conv1", "act1"), ("conv2", "act2")):
                if f"{path}.{act}" in modules:
                    sites.append(Site("image", layer, kind, f"{path}.{act}", "nuhw"))
            sites.append(Site("image", layer, BLOCK, path, "nuhw"))
    return sites


def token_mask(tokens: Int[Tensor, "n length"]) -> Bool[Tensor, "n length"]:
    """Mark the tokens up to and including end-of-text, the last that is not padding (0)."""
    position = torch.arange(tokens.shape[1], device=tokens.device)
    last = torch.where(tokens != 0, position, 0).amax(dim=1)
    return position <= last.unsqueeze(1)


class Activations(NamedTuple):
    """A tower's output (not normalized) and averaged activations by site, from one forward pass."""

    embedding: Float[Tensor, "n d"]
    plain: Pooled
    units: Pooled


class Capture:
    """A context manager that reads the activations of an encoder while it embeds."""

    def __init__(self, encoder: DualEncoder, *, towers: Sequence[str] = TOWERS) -> None:
        self._encoder = encoder
        self.sites = find_sites(encoder.module, towers=towers)
        self._mask: Bool[Tensor, "n length"] | None = None
        self._plain: Pooled = {}
        self._units: Pooled = {}
        self._hooks = ExitStack()

    def __enter__(self) -> "Capture":
        modules = dict(self._encoder.module.named_modules())
        for site in self.sites:
            handle = modules[site.path].register_forward_hook(self._reader(site))
            self._hooks.callback(handle.remove)
        return self

    def __exit__(self, *_: object) -> None:
        self._hooks.close()

    def image(self, pixels: Float[Tensor, "n 3 size size"]) -> Activations:
        """Embed normalized images and read the image tower."""
        return self._read("image", lambda: self._encoder.encode_image(pixels))

    def text(self, tokens: Int[Tensor, "n length"]) -> Activations:
        """Embed captions and read the text tower."""
        self._mask = token_mask(tokens)
        return self._read("text", lambda: self._encoder.encode_text(tokens))

    def _read(self, tower: str, forward: Callable[[], Tensor]) -> Activations:
        self._plain, self._units = {}, {}
        embedding = forward()
        missing = [site.path for site in self.sites if site.tower == tower and site not in self._plain]
        if missing:
            got = f"{len(missing)} layers that the forward pass did not call, the first is {missing[0]}"
            hint = "Load the model without fused or compiled layers."
            raise InputError(f"{tower} tower", got=got, expected="a model that calls every layer", hint=hint)
        return Activations(embedding.float(), self._plain, self._units)

    def _reader(self, site: Site) -> Callable[[nn.Module, Any, Any], None]:
        def read(_module: nn.Module, _inputs: Any, output: Any) -> None:
            # attention modules return (output, weights)
            values: Tensor = (output[0] if isinstance(output, tuple) else output).detach()
            mask = self._mask if site.tower == "text" else None
            self._plain[site] = pool(values, site.layout, mask)
            if site.kind in UNIT_KINDS:
                self._units[site] = pool(nonnegative(values), site.layout, mask)

        return read


def pool(
    values: Float[Tensor, "*axes"], layout: str, mask: Bool[Tensor, "n length"] | None = None
) -> Float[Tensor, "n unit"]:
    """Average activations over (masked) tokens or space, float32."""
    values = values.float()
    if layout == "nuhw":
        return values.mean(dim=(2, 3))
    if layout == "tnu":
        values = values.transpose(0, 1)
    if mask is None:
        return values.mean(dim=1)
    # a tower may pad to its context, or append a token
    weight = mask.to(values.dtype)[:, : values.shape[1]]
    return torch.einsum("ntu,nt->nu", values[:, : weight.shape[1]], weight) / weight.sum(dim=1, keepdim=True)


@dataclass(frozen=True)
class Points:
    """The pairs to localize over, one entry per pair."""

    uids: Sequence[str]
    roles: Sequence[str]
    groups: Sequence[str]
    labels: Sequence[str]
    pixels: UInt8[np.ndarray, "rows size size 3"]
    rows: Int[np.ndarray, " n"]
    captions: Sequence[Sequence[str]]

    def __post_init__(self) -> None:
        n = len(self.uids)
        for name in ("roles", "groups", "labels", "rows", "captions"):
            entries, hint = len(getattr(self, name)), "Take all columns from the same table."
            require(entries == n, f"points: {name}", f"{entries} entries", f"{n}, one per pair", hint)
        require(n > 0, "points", "no pair", "at least two pairs", "Check the roles asked for.")
        bare = [uid for uid, own in zip(self.uids, self.captions, strict=True) if len(own) == 0]
        got = f"{len(bare)} pairs without a caption, the first is {next(iter(bare), None)}"
        require(not bare, "points: captions", got, "at least one caption per pair", "Leave out those pairs.")

    def take(self, index: Sequence[int] | Int[np.ndarray, " m"]) -> "Points":
        """Return the pairs of `index`, in that order."""
        kept = [int(i) for i in index]
        uids, roles, groups, labels = (
            [column[i] for i in kept] for column in (self.uids, self.roles, self.groups, self.labels)
        )
        return Points(uids, roles, groups, labels, self.pixels, self.rows[kept], [self.captions[i] for i in kept])


@dataclass(frozen=True)
class ViewSettings:
    """Settings of the views."""

    image_views: int = 10
    text_views: int = 10
    dropout: float = 0.2
    crop_scale: tuple[float, float] = (0.9, 1.0)
    crop_ratio: tuple[float, float] = (0.75, 4 / 3)
    flip: float = 0.0
    batch_size: int = 64
    seed: int = 0

    @staticmethod
    def from_recipe(section: LocalizeSection, train: TrainSection, *, batch_size: int = 64) -> "ViewSettings":
        """Return the views of `[localize]`, with its own crops or those of training."""
        crops = section if section.crop == "own" else train
        return ViewSettings(
            image_views=section.views,
            text_views=section.views,
            crop_scale=crops.crop_scale,
            crop_ratio=crops.crop_ratio,
            flip=crops.flip,
            batch_size=batch_size,
        )


# L(m; x) of every pair at each site, and under a tower's name that of its embedding; NaN for a pair without views
Distances = dict[Site | str, Float64[np.ndarray, " n"]]


class Block(NamedTuple):
    """Averages over a block of pairs in one tower; `first` is the index of its first pair."""

    first: int
    pairs: int
    units: dict[Site, Tensor]
    distances: dict[Site | str, Tensor]


def blocks(
    encoder: DualEncoder,
    points: Points,
    settings: ViewSettings,
    *,
    tower: str,
    device: str = "cpu",
    progress: Callable[[int], object] = lambda _: None,
) -> Iterator[Block]:
    """Pass the points and their views through a tower; yield the averages of each block, in order."""
    encoder.module.to(device).eval()
    with Capture(encoder, towers=[tower]) as capture:
        crops = _crops(points, settings) if tower == "image" else []
        for first in range(0, len(points.uids), settings.batch_size):
            index = np.arange(first, min(first + settings.batch_size, len(points.uids)))
            with torch.inference_mode():
                if tower == "image":
                    passes = _image_passes(capture, encoder, points, index, crops, device)
                else:
                    passes = _text_passes(capture, encoder, points, index, settings, device)
                block = _reduce(tower, first, len(index), passes)
            yield block
            progress(len(index))


def _crops(points: Points, settings: ViewSettings) -> list[Crops]:
    keys = pair_keys(points.uids)
    return [
        draw_crops(
            keys,
            seed=derive_seed(0, "embed view", view),
            size=points.pixels.shape[1],
            scale=settings.crop_scale,
            ratio=settings.crop_ratio,
            flip=settings.flip,
        )
        for view in range(settings.image_views)
    ]


def _image_passes(
    capture: Capture,
    encoder: DualEncoder,
    points: Points,
    index: Int[np.ndarray, " rows"],
    crops: Sequence[Crops],
    device: str,
) -> Iterator[tuple[Tensor, Activations]]:
    batch = torch.from_numpy(np.ascontiguousarray(points.pixels[points.rows[index]])).to(device)
    owner = torch.arange(len(index), device=device)
    yield owner, capture.image(normalize_pixels(as_float(batch), encoder.mean, encoder.std))
    for view in crops:
        values = render(batch, Crops(*(drawn[index] for drawn in view)), size=encoder.image_size)
        yield owner, capture.image(normalize_pixels(values, encoder.mean, encoder.std, in_place=True))


def _text_passes(
    capture: Capture,
    encoder: DualEncoder,
    points: Points,
    index: Int[np.ndarray, " rows"],
    settings: ViewSettings,
    device: str,
) -> Iterator[tuple[Tensor, Activations]]:
    chosen = [
        text_views(
            points.captions[i], points.uids[i], count=settings.text_views, dropout=settings.dropout, seed=settings.seed
        )
        for i in map(int, index)
    ]
    clean = encoder.tokenize([text for text, _ in chosen]).to(device)
    yield torch.arange(len(index), device=device), capture.text(clean)
    texts = [text for _, views in chosen for text in views]
    owner = torch.tensor([row for row, (_, views) in enumerate(chosen) for _ in views], dtype=torch.long, device=device)
    for start in range(0, len(texts), settings.batch_size):
        rows = slice(start, start + settings.batch_size)
        yield owner[rows], capture.text(encoder.tokenize(texts[rows]).to(device))


def _reduce(tower: str, first: int, rows: int, passes: Iterator[tuple[Tensor, Activations]]) -> Block:
    """Average unit activations over views, and sum the distances of views from the clean input."""
    _, clean = next(passes)
    origin: dict[Site | str, Tensor] = {place: _unit(values) for place, values in _outputs(tower, clean)}
    units = {site: torch.zeros_like(values) for site, values in clean.units.items()}
    total = {place: values.new_zeros(rows) for place, values in origin.items()}
    count = torch.zeros(rows, dtype=torch.float64, device=clean.embedding.device)
    for owner, seen in passes:
        count.index_add_(0, owner, torch.ones(len(owner), dtype=count.dtype, device=count.device))
        for site, values in seen.units.items():
            units[site].index_add_(0, owner, values)
        for place, values in _outputs(tower, seen):
            total[place].index_add_(0, owner, torch.linalg.vector_norm(_unit(values) - origin[place][owner], dim=-1))
    some, divisor = (count > 0).unsqueeze(1), count.clamp(min=1).unsqueeze(1)
    for site, values in units.items():
        units[site] = torch.where(some, values / divisor.to(values.dtype), clean.units[site]).cpu()
    sums = {place: values.cpu() for place, values in total.items()}
    broken = sum(int((~torch.isfinite(values)).sum()) for values in (*units.values(), *sums.values()))
    hint = "Check the model and its input."
    require(broken == 0, f"{tower} tower", f"{broken} activations that are not finite", "finite numbers", hint)
    # NaN (0 / 0) means no view
    return Block(first, rows, units, {place: values / count.cpu() for place, values in sums.items()})


def _outputs(tower: str, seen: Activations) -> Iterator[tuple[Site | str, Tensor]]:
    yield tower, seen.embedding
    yield from seen.plain.items()


def _unit(values: Tensor) -> Tensor:
    """Normalize rows to length 1; rows of zeros (a dead layer) stay zero."""
    values = values.double()
    length = torch.linalg.vector_norm(values, dim=-1, keepdim=True)
    return values / torch.where(length > 0, length, 1.0)


def members(points: Points, role: str) -> Bool[np.ndarray, " n"]:
    """Mark the pairs of a role."""
    return np.array([own == role for own in points.roles])
