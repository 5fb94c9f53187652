"""Image views: random crop and flip of a whole batch at once, addressed by (pair, stream), not drawn in turn.

The crop follows torchvision's RandomResizedCrop: area share uniform in `scale`, log of the aspect ratio uniform, ten
tries, the whole picture when none fits. A view depends on the pair and the stream's seed alone, so that f and g, and
any batch size, see the same one.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from clipmem.base.random import uniform

_TRIES = 10


class Crops(NamedTuple):
    """Crop boxes in whole pixels, and which views are mirrored; each of shape (n,)."""

    top: Int[np.ndarray, " n"]
    left: Int[np.ndarray, " n"]
    height: Int[np.ndarray, " n"]
    width: Int[np.ndarray, " n"]
    flip: Bool[np.ndarray, " n"]


def pair_keys(uids: Sequence[str]) -> np.ndarray:
    """Return the 64-bit key of each pair, from the first 16 hexadecimal digits of its uid."""
    return np.array([int(uid[:16], 16) for uid in uids], dtype=np.uint64)


def draw_crops(
    keys: np.ndarray,
    *,
    seed: int,
    size: int,
    scale: tuple[float, float],
    ratio: tuple[float, float],
    flip: float,
) -> Crops:
    """Draw the crop of each pair in the stream `seed`.

    Args:
        keys: Keys of the pairs, shape (n,) (see `pair_keys`).
        seed: Seed of the stream, for example of one epoch.
        size: Side of the pictures, in pixels.
        scale: Range of the area share, in (0, 1].
        ratio: Range of the aspect ratio, width / height.
        flip: Probability of a mirror image.
    """
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
    """Cut the crops out of a batch and scale them to `size` (bilinear), in one pass.

    Args:
        pixels: Decoded pictures, shape (n, size, size, 3).
        crops: One crop a picture.
        size: Side of the result, in pixels.

    Returns:
        Values in [0, 1], shape (n, 3, size, size).
    """
    side = pixels.shape[1]
    # the crop's box in grid_sample's coordinates, where -1 and 1 are the picture's edges
    half_w, half_h = crops.width / side, crops.height / side
    centre_x = (2 * crops.left + crops.width) / side - 1
    centre_y = (2 * crops.top + crops.height) / side - 1
    mirrored = np.where(crops.flip, -half_w, half_w)
    # written out: torch's `affine_grid` multiplies matrices of three columns and takes longer than the sampling itself
    place = (2 * np.arange(size) + 1) / size - 1
    x, y = (
        torch.from_numpy((half[:, None] * place + centre[:, None]).astype(np.float32)).to(pixels.device)
        for half, centre in ((mirrored, centre_x), (half_h, centre_y))
    )
    shape = (len(pixels), size, size)
    grid = torch.stack([x[:, None, :].expand(shape), y[:, :, None].expand(shape)], dim=-1)
    values = as_float(pixels)
    return F.grid_sample(values, grid, mode="bilinear", padding_mode="border", align_corners=False)


def as_float(pixels: UInt8[Tensor, "n size size 3"]) -> Float[Tensor, "n 3 size size"]:
    """Return pictures as values in [0, 1], channels first: the view without crop or flip."""
    return pixels.permute(0, 3, 1, 2).to(torch.float32).div_(255.0)


def normalise_pixels(
    pixels: Float[Tensor, "n 3 size size"], mean: tuple[float, float, float], std: tuple[float, float, float]
) -> Float[Tensor, "n 3 size size"]:
    """Apply a model's channel means and standard deviations to pixels in [0, 1]."""
    shift = torch.tensor(mean, device=pixels.device).view(1, 3, 1, 1)
    scale = torch.tensor(std, device=pixels.device).view(1, 3, 1, 1)
    return (pixels - shift).div_(scale)
