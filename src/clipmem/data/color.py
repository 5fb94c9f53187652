"""SimCLR's color jitter and blur on batches, for training.

As in Chen et al. (2020, appendix A) with strength s: with probability 0.8, brightness, contrast and saturation by
factors uniform in [max(0, 1 - 0.8 s), 1 + 0.8 s] and hue by a rotation uniform in ±0.2 s; then conversion to gray with
a probability; then a Gaussian blur, sigma uniform in [0.1, 2] pixels, kernel a tenth of the side. Each operation equals
torchvision's. Unlike torchvision's transform, every image has its own draw, which depends on the pair and the stream's
seed only (the same for f and g and any batch size), and the order of the jitter is fixed.
"""

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from jaxtyping import Bool, Float, Float64
from torch import Tensor

from clipmem.base.random import uniform

APPLIED = 0.8  # probability of the jitter
_GRAY = (0.2989, 0.587, 0.114)  # luma of ITU-R BT.601, as torchvision rounds it
_SIGMA = (0.1, 2.0)


Images = Float[Tensor, "n 3 size size"]
Amounts = Float[Tensor, "n"]


class Colors(NamedTuple):
    """Color operations per image; each of shape (n,)."""

    jitter: Bool[np.ndarray, " n"]
    brightness: Float64[np.ndarray, " n"]
    contrast: Float64[np.ndarray, " n"]
    saturation: Float64[np.ndarray, " n"]
    hue: Float64[np.ndarray, " n"]
    gray: Bool[np.ndarray, " n"]
    blur: Bool[np.ndarray, " n"]
    sigma: Float64[np.ndarray, " n"]


def draw_colors(keys: np.ndarray, *, seed: int, strength: float, gray: float, blur: float) -> Colors:
    """Sample the color operations of each pair in the stream `seed`."""
    drawn = uniform(keys, seed, 8)
    low, high = max(0.0, 1 - 0.8 * strength), 1 + 0.8 * strength
    brightness, contrast, saturation = (low + (high - low) * drawn[:, k] for k in (1, 2, 3))
    return Colors(
        jitter=(drawn[:, 0] < APPLIED) & (strength > 0),
        brightness=brightness,
        contrast=contrast,
        saturation=saturation,
        hue=0.2 * strength * (2 * drawn[:, 4] - 1),
        gray=drawn[:, 5] < gray,
        blur=drawn[:, 6] < blur,
        sigma=_SIGMA[0] + (_SIGMA[1] - _SIGMA[0]) * drawn[:, 7],
    )


def distort(pixels: Images, keys: np.ndarray, *, seed: int, strength: float, gray: float, blur: float) -> Images:
    """Sample and apply color operations; the identity if `strength`, `gray` and `blur` are 0."""
    if not (strength or gray or blur):
        return pixels
    return recolor(pixels, draw_colors(keys, seed=seed, strength=strength, gray=gray, blur=blur))


def recolor(pixels: Images, drawn: Colors) -> Images:
    """Apply color operations: jitter, then gray, then blur."""
    values = pixels.clone()
    for chosen, amount, change in (
        (drawn.jitter, drawn.brightness, adjust_brightness),
        (drawn.jitter, drawn.contrast, adjust_contrast),
        (drawn.jitter, drawn.saturation, adjust_saturation),
        (drawn.jitter, drawn.hue, adjust_hue),
        (drawn.gray, np.zeros(len(values)), adjust_saturation),
        (drawn.blur, drawn.sigma, gaussian_blur),
    ):
        if chosen.any():
            rows = torch.from_numpy(np.flatnonzero(chosen)).to(values.device)
            by = torch.from_numpy(amount[chosen].astype(np.float32)).to(values.device)
            values[rows] = change(values[rows], by)
    return values


def adjust_brightness(pixels: Images, factor: Amounts) -> Images:
    """Multiply each image by its factor, >= 0; 1 changes nothing."""
    return _blend(pixels, torch.zeros_like(pixels), factor)


def adjust_contrast(pixels: Images, factor: Amounts) -> Images:
    """Blend each image with its mean gray by its factor, >= 0; 0 is uniform gray."""
    return _blend(pixels, _gray(pixels).mean(dim=(1, 2, 3), keepdim=True), factor)


def adjust_saturation(pixels: Images, factor: Amounts) -> Images:
    """Blend each image with its gray version by its factor, >= 0; 0 is the gray version."""
    return _blend(pixels, _gray(pixels), factor)


def adjust_hue(pixels: Images, turn: Amounts) -> Images:
    """Rotate each image's hue by -0.5 to 0.5 of the color circle."""
    value, lowest = pixels.amax(dim=1), pixels.amin(dim=1)
    chroma = value - lowest
    safe = torch.where(chroma > 0, chroma, 1.0)
    red, green, blue = pixels.unbind(dim=1)
    sector = torch.where(
        value == red,
        (green - blue) / safe,
        torch.where(value == green, 2 + (blue - red) / safe, 4 + (red - green) / safe),
    )
    hue = torch.remainder(sector + 6 * _column(turn).squeeze(1), 6).unsqueeze(1)
    # a channel falls from the value to value - chroma over the third of the circle on either side of its own hue
    channel = torch.tensor([5.0, 3.0, 1.0], device=pixels.device).view(1, 3, 1, 1)
    place = torch.remainder(channel + hue, 6)
    share = torch.minimum(place, 4 - place).clamp(0, 1)
    return value.unsqueeze(1) - chroma.unsqueeze(1) * share


def gaussian_blur(pixels: Images, sigma: Amounts) -> Images:
    """Blur each image with its sigma, in pixels; borders are reflected."""
    n, channels, size, _ = pixels.shape
    half = kernel_size(size) // 2
    at = torch.arange(-half, half + 1, dtype=pixels.dtype, device=pixels.device)
    kernel = torch.exp(-0.5 * (at / sigma.to(pixels.dtype).unsqueeze(1)) ** 2)
    kernel = (kernel / kernel.sum(dim=1, keepdim=True)).repeat_interleave(channels, dim=0).unsqueeze(1)
    # one group per image and channel, as each image has its own (separable) kernel
    padded = F.pad(pixels, (half, half, half, half), mode="reflect").reshape(1, n * channels, size + 2 * half, -1)
    rows = F.conv2d(padded, kernel.unsqueeze(2), groups=n * channels)
    return F.conv2d(rows, kernel.unsqueeze(3), groups=n * channels).view(pixels.shape)


def kernel_size(size: int) -> int:
    """Return the blur's kernel size for an image side: a tenth of it, odd, at least 3."""
    return max(3, size // 10 // 2 * 2 + 1)


def _column(factor: Amounts) -> Float[Tensor, "n 1 1 1"]:
    return factor.view(-1, 1, 1, 1)


def _gray(pixels: Images) -> Float[Tensor, "n 1 size size"]:
    return (pixels * torch.tensor(_GRAY, device=pixels.device).view(1, 3, 1, 1)).sum(dim=1, keepdim=True)


def _blend(pixels: Tensor, other: Tensor, factor: Amounts) -> Tensor:
    return (other + _column(factor) * (pixels - other)).clamp(0, 1)
