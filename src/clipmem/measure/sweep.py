"""One pass of a model over pairs and views, with the activations for units and the distances for layers.

Activations of the layers of both towers are averaged per sample and read by forward hooks. A *site* is a point in a
layer where activations are read. Its kind is one of:

- `mlp`: the hidden activations of the layer's MLP, after the nonlinearity (transformers);
- `attn`: the output of the attention, per channel, before it is added to the residual stream (transformers);
- `conv1`, `conv2`: the channels after the first and the second nonlinearity of a bottleneck (ResNets);
- `block`: the output of the whole layer;
- `embedding`: the output of the tower, counted as the layer after the last.

Images are averaged over tokens (including the class token) or over space, captions over the tokens up to end-of-text,
so that padding, and thus the batch, does not matter. For all kinds but `block`, the positive part is taken first, per
token: UnitMem needs nonnegative activations.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from clipmem.base import slices
from clipmem.base.errors import require
from clipmem.base.sections import LocalizeSection
from clipmem.data.pairs import Pairs
from clipmem.data.views import draw_views, text_views
from clipmem.models.passes import view_pixels
from clipmem.models.protocol import DualEncoder, geometry_of
from clipmem.stats.unitmem import nonnegative

TOWERS = ("image", "text")
UNIT_KINDS = ("mlp", "attn", "conv1", "conv2")
BLOCK = "block"
EMBEDDING = "embedding"
BATCH = 64

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


def find_sites(model: nn.Module, tower: str) -> list[Site]:
    """Return the sites of a tower, in the order of the forward pass."""
    modules, sites = dict(model.named_modules()), list[Site]()
    for path in _TRANSFORMERS[tower]:
        blocks = modules.get(path)
        if not sites and isinstance(blocks, nn.ModuleList | nn.Sequential):
            # older open_clip models have the token axis first
            first = getattr(modules[path.rpartition(".")[0]], "batch_first", True)
            layout: Literal["ntu", "tnu"] = "ntu" if first else "tnu"
            for index in range(len(blocks)):
                for kind, names in (("mlp", _NONLINEARITY), ("attn", _ATTENTION)):
                    full = [f"{path}.{index}.{name}" for name in names if f"{path}.{index}.{name}" in modules]
                    sites += [Site(tower, index + 1, kind, full[0], layout)] if full else []
                sites.append(Site(tower, index + 1, BLOCK, f"{path}.{index}", layout))
    is_resnet = tower == "image" and not sites and _STAGES[0] in modules
    stages = [stage for stage in _STAGES if stage in modules] if is_resnet else []
    children = [f"{stage}.{name}" for stage in stages for name, _ in modules[stage].named_children()]
    for layer, path in enumerate(children, start=1):
        for kind, act in (("conv1", "act1"), ("conv2", "act2")):
            if f"{path}.{act}" in modules:
                sites.append(Site("image", layer, kind, f"{path}.{act}", "nuhw"))
        sites.append(Site("image", layer, BLOCK, path, "nuhw"))
    paths = (*_TRANSFORMERS[tower], *(_STAGES[:1] if tower == "image" else ()))
    subject, got = f"{tower} tower of {type(model).__name__}", "no layers that can be hooked"
    hint = "Localize in a ViT, ResNet or text transformer of open_clip, or in transformers' CLIPModel."
    require(sites, subject, got, f"one of {', '.join(paths)}", hint)
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
    """A context manager that reads the activations of a tower of an encoder while it embeds.

    Attributes:
        sites: Where they are read.
        embedding: The output of the tower, as the site after its last layer, which no hook reads.
    """

    def __init__(self, encoder: DualEncoder, tower: str) -> None:
        self._encoder, self._tower = encoder, tower
        self.sites = find_sites(encoder.module, tower)
        self.embedding = Site(tower, max(site.layer for site in self.sites) + 1, EMBEDDING, "", "ntu")
        self._mask: Bool[Tensor, "n length"] | None = None
        self._plain: Pooled = {}
        self._units: Pooled = {}
        self._hooks = ExitStack()

    def __enter__(self) -> "Capture":
        modules = dict(self._encoder.module.named_modules())
        for site in self.sites:
            handle = modules[site.path].register_forward_hook(partial(self._read, site))
            self._hooks.callback(handle.remove)
        return self

    def __exit__(self, *_: object) -> None:
        self._hooks.close()

    def read(self, inputs: Tensor) -> Activations:
        """Embed normalized images, shape (n, 3, size, size), or tokens, shape (n, length), with the tower."""
        is_text, self._plain, self._units = self._tower == "text", {}, {}
        self._mask = token_mask(inputs) if is_text else None
        embedding = self._encoder.encode_text(inputs) if is_text else self._encoder.encode_image(inputs)
        missing = [site.path for site in self.sites if site not in self._plain]
        got = f"{len(missing)} layers that the forward pass did not call, the first is {''.join(missing[:1])}"
        hint = "Load the model without fused or compiled layers."
        require(not missing, f"{self._tower} tower", got, "a model that calls every layer", hint)
        return Activations(embedding.float(), self._plain, self._units)

    def _read(self, site: Site, _module: nn.Module, _inputs: Any, output: Any) -> None:
        # attention modules return (output, weights)
        values: Tensor = (output[0] if isinstance(output, tuple) else output).detach()
        self._plain[site] = pool(values, site.layout, self._mask)
        if site.kind in UNIT_KINDS:
            self._units[site] = pool(nonnegative(values), site.layout, self._mask)


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


class Block(NamedTuple):
    """Averages over consecutive pairs in one tower, by site.

    Attributes:
        rows: The pairs.
        units: Mean activations over the views of each pair, or of the pair itself without views, shape (n, unit).
        distances: L(m; x), the mean distance of the views of each pair from itself, shape (n,); NaN without views.
    """

    rows: slice
    units: dict[Site, Tensor]
    distances: dict[Site, Tensor]


def blocks(
    encoder: DualEncoder,
    pairs: Pairs,
    section: LocalizeSection,
    *,
    tower: str,
    batch_size: int = BATCH,
    progress: Callable[[int], object] = lambda _: None,
) -> Iterator[Block]:
    """Pass pairs and their views through a tower; yield the averages of each block, in order.

    The encoder stays on its device. The crops are those of the section; the table of the pairs has their row in
    `pixels`, `row`.
    """
    device = next(encoder.module.eval().parameters()).device
    pixels, rows, uids = pairs.pixels[geometry_of(encoder)], pairs.table["row"].to_numpy(), pairs.uids.to_list()
    scale, ratio, flip, count = section.crop_scale, section.crop_ratio, section.flip, section.views
    of_images = count if tower == "image" else 0
    views = draw_views(uids, of_images, size=pixels.shape[1], scale=scale, ratio=ratio, flip=flip)
    with Capture(encoder, tower) as capture:
        for block in slices(len(pairs), batch_size):
            with torch.inference_mode():
                if tower == "image":
                    batch = torch.from_numpy(np.ascontiguousarray(pixels[rows[block]])).to(device)
                    pair, places = torch.arange(len(batch), device=device), np.arange(block.start, block.stop)
                    inputs = ((pair, view_pixels(encoder, batch, view, places)) for view in (None, *views))
                else:
                    captions = zip(pairs.captions[block], uids[block], strict=True)
                    texts = [text_views(*pair, count=count) for pair in captions]
                    several = [(row, view) for row, (_, views) in enumerate(texts) for view in views]
                    parts = [several[k : k + batch_size] for k in range(0, len(several), batch_size)]
                    parts = [[(row, caption) for row, (caption, _) in enumerate(texts)], *parts]
                    inputs = (
                        (torch.tensor(rows, device=device), encoder.tokenize(batch).to(device))
                        for rows, batch in (zip(*part, strict=True) for part in parts)
                    )
                passes = ((pair, capture.read(values)) for pair, values in inputs)
                averages = _reduce(capture.embedding, block, passes)
            yield averages
            progress(block.stop - block.start)


def _reduce(embedding: Site, rows: slice, passes: Iterator[tuple[Int[Tensor, " m"], Activations]]) -> Block:
    """Average unit activations over views, and the distances of views from the clean input."""
    _, clean = next(passes)
    origin = {site: _unit(values) for site, values in {embedding: clean.embedding, **clean.plain}.items()}
    units = {site: torch.zeros_like(values) for site, values in clean.units.items()}
    total = {site: values.new_zeros(len(values)) for site, values in origin.items()}
    count = torch.zeros(len(clean.embedding), dtype=torch.float64, device=clean.embedding.device)
    for owner, seen in passes:
        count.index_add_(0, owner, torch.ones(len(owner), dtype=count.dtype, device=count.device))
        for site, values in seen.units.items():
            units[site].index_add_(0, owner, values)
        for site, values in {embedding: seen.embedding, **seen.plain}.items():
            total[site].index_add_(0, owner, torch.linalg.vector_norm(_unit(values) - origin[site][owner], dim=-1))
    some, divisor = (count > 0).unsqueeze(1), count.clamp(min=1).unsqueeze(1)
    for site, values in units.items():
        units[site] = torch.where(some, values / divisor.to(values.dtype), clean.units[site]).cpu()
    sums = {site: values.cpu() for site, values in total.items()}
    broken = sum(int((~torch.isfinite(values)).sum()) for values in (*units.values(), *sums.values()))
    got, hint = f"{broken} activations that are not finite", "Check the model and its input."
    require(broken == 0, f"{embedding.tower} tower", got, "finite numbers", hint)
    # NaN (0 / 0) means no view
    return Block(rows, units, {site: values / count.cpu() for site, values in sums.items()})


def _unit(values: Tensor) -> Tensor:
    """Normalize rows to length 1; rows of zeros (a dead layer) stay zero."""
    values = values.double()
    length = torch.linalg.vector_norm(values, dim=-1, keepdim=True)
    return values / torch.where(length > 0, length, 1.0)
