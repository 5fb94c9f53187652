"""Image views: random crops and flips of batches.

Crops follow torchvision's RandomResizedCrop: area fraction uniform in `scale`, log of the aspect ratio uniform, ten
tries, the whole image if none fits. A view depends on the pair and the stream's seed only: it is the same for f and g
and any batch size.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from jaxtyping import Bool, Float, Float64, Int, UInt8
from torch import Tensor

from clipmem.base.random import uniform

_TRIES = 10
_SCRATCH = 2**20  # bytes of a block of images between the two passes: fits a core's cache


class Crops(NamedTuple):
    """Crop boxes in pixels, and flips; each of shape (n,)."""

    top: Int[np.ndarray, " n"]
    left: Int[np.ndarray, " n"]
    height: Int[np.ndarray, " n"]
    width: Int[np.ndarray, " n"]
    flip: Bool[np.ndarray, " n"]


def pair_keys(uids: Sequence[str]) -> np.ndarray:
    """Return the 64-bit key of each pair, from the first 16 hexadecimal digits of its uid."""
    return np.array([int(uid[:16], 16) for uid in uids], dtype=np.uint64)


def draw_crops(
    keys: np.ndarray, *, seed: int, size: int, scale: tuple[float, float], ratio: tuple[float, float], flip: float
) -> Crops:
    """Sample the crop of each pair in the stream `seed`."""
    n = len(keys)
    drawn = uniform(keys, seed, 2 * _TRIES + 3)
    area = size * size * (scale[0] + (scale[1] - scale[0]) * drawn[:, :_TRIES])
    log_low, log_high = math.log(ratio[0]), math.log(ratio[1])
    aspect = np.exp(log_low + (log_high - log_low) * drawn[:, _TRIES : 2 * _TRIES])
    widths = np.rint(np.sqrt(area * aspect)).astype(np.int64)
    heights = np.rint(np.sqrt(area / aspect)).astype(np.int64)
    fits = (widths > 0) & (widths <= size) & (heights > 0) & (heights <= size)
    first, rows = fits.argmax(axis=1), np.arange(n)
    some = fits.any(axis=1)
    width = np.where(some, widths[rows, first], size)
    height = np.where(some, heights[rows, first], size)
    top = np.floor(drawn[:, -3] * (size - height + 1)).astype(np.int64)
    left = np.floor(drawn[:, -2] * (size - width + 1)).astype(np.int64)
    return Crops(top, left, height, width, drawn[:, -1] < flip)


def render(pixels: UInt8[Tensor, "n size size 3"], crops: Crops, *, size: int) -> Float[Tensor, "n 3 out out"]:
    """Crop a batch and resize the crops to `size`, bilinearly; values in [0, 1].

    Pixel (i, j) of a view lies at row y = top + (i + 1/2) height / size - 1/2 of its image, and at column x likewise
    (for a flipped view, that of pixel size - 1 - j), both clamped to the image. Equals
    `torch.nn.functional.grid_sample` (bilinear, border, align_corners=False) on the crop box.

    Rows are interpolated first, then columns, each as an embedding bag of two rows of a matrix, in blocks of images
    that fit the cache. A view depends on its own image and crop only, bit by bit.
    """
    n, side = len(pixels), pixels.shape[1]
    rows, row_shares = _taps(crops.top, crops.height, side, size)
    columns, column_shares = _taps(crops.left, crops.width, side, size, mirrored=crops.flip)
    # the first pass also scales to [0, 1]
    row_shares, column_shares = (
        send(torch.from_numpy(shares.astype(np.float32)), pixels.device) for shares in (row_shares / 255, column_shares)
    )
    few = max(1, _SCRATCH // (12 * side * max(side, size))) if pixels.device.type == "cpu" else max(1, n)
    # first row of each image in the matrix of its block
    begin = (np.arange(n) % few * side)[:, None, None]
    rows, columns = (send(torch.from_numpy(taps + begin), pixels.device) for taps in (rows, columns))
    views = torch.empty((n, 3, size, size), device=pixels.device)
    for start in range(0, n, few):
        block = slice(start, start + few)
        table = pixels[block].to(torch.float32).reshape(-1, side * 3)
        mixed = _mix(table, rows[block], row_shares[block]).view(-1, size, side * 3)
        table = mixed.transpose(1, 2).reshape(-1, 3 * size)
        mixed = _mix(table, columns[block], column_shares[block]).view(-1, size, 3, size)
        views[block].copy_(mixed.permute(0, 2, 3, 1))
    return views


def _taps(
    start: Int[np.ndarray, " n"],
    extent: Int[np.ndarray, " n"],
    side: int,
    size: int,
    *,
    mirrored: Bool[np.ndarray, " n"] | None = None,
) -> tuple[Int[np.ndarray, "n out 2"], Float64[np.ndarray, "n out 2"]]:
    """Return the two source pixels of each output pixel along one axis, and their weights."""
    place = start[:, None] + (np.arange(size) + 0.5) * (extent[:, None] / size) - 0.5
    if mirrored is not None:
        place = np.where(mirrored[:, None], place[:, ::-1], place)
    place = place.clip(0, side - 1)
    low = np.floor(place).astype(np.int64)
    share = place - low
    return np.stack([low, np.minimum(low + 1, side - 1)], axis=-1), np.stack([1 - share, share], axis=-1)


def _mix(
    table: Float[Tensor, "rows width"], taps: Int[Tensor, "n out 2"], shares: Float[Tensor, "n out 2"]
) -> Float[Tensor, "mixed width"]:
    return F.embedding_bag(taps.view(-1, 2), table, per_sample_weights=shares.view(-1, 2), mode="sum")


def as_float(pixels: UInt8[Tensor, "n size size 3"]) -> Float[Tensor, "n 3 size size"]:
    """Return images as values in [0, 1], channels first."""
    return pixels.permute(0, 3, 1, 2).to(torch.float32).div_(255.0)


def normalize_pixels(
    pixels: Float[Tensor, "n 3 size size"],
    mean: tuple[float, float, float],
    std: tuple[float, float, float],
    *,
    in_place: bool = False,
) -> Float[Tensor, "n 3 size size"]:
    """Apply a model's channel means and standard deviations to pixels in [0, 1]."""
    shift = torch.tensor(mean, device=pixels.device).view(1, 3, 1, 1)
    scale = torch.tensor(std, device=pixels.device).view(1, 3, 1, 1)
    return (pixels.sub_(shift) if in_place else pixels - shift).div_(scale)


def send(tensor: Tensor, device: torch.device | str) -> Tensor:
    """Return `tensor` on a device, from pinned memory if it is a GPU."""
    if torch.device(device).type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)
