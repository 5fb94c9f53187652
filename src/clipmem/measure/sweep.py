"""One pass of a model over pairs and views, with the activations for units and the distances for layers."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float64, Int, UInt8
from torch import Tensor

from clipmem.base.errors import require
from clipmem.base.random import derive_seed
from clipmem.base.sections import LocalizeSection, TrainSection
from clipmem.data.edits import text_views
from clipmem.data.views import Crops, as_float, draw_crops, normalize_pixels, pair_keys, render
from clipmem.measure.hooks import Activations, Capture, Site
from clipmem.models.protocol import DualEncoder


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
