"""Views of a pair: random crops and flips of images, color jitter and blur, and random edits of captions.

A view depends on the pair and the stream's seed only: it is the same for f and g and any batch size. Crops follow
torchvision's RandomResizedCrop: area fraction uniform in `scale`, log of the aspect ratio uniform, ten tries, the whole
image if none fits.

Colors follow SimCLR (Chen et al. 2020, appendix A) with strength s: with probability 0.8, brightness, contrast and
saturation by factors uniform in [max(0, 1 - 0.8 s), 1 + 0.8 s] and hue by a rotation uniform in ±0.2 s; then conversion
to gray with a probability; then a Gaussian blur, sigma uniform in [0.1, 2] pixels, kernel a tenth of the side. Each
operation equals torchvision's. Unlike torchvision's transform, every image has its own draw, and the order of the
jitter is fixed.

An edit of a caption, for pairs with one caption, drops words or swaps two neighboring words; in one-word captions,
letters. It is a small perturbation, as a crop is for an image, not a paraphrase, and can change the meaning. Other
captions of a pair are better views.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from jaxtyping import Bool, Float, Float64, Int, UInt8, UInt64
from torch import Tensor

from clipmem.base.random import derive_seed, uniform

_TRIES = 10
_SCRATCH = 2**20  # bytes of a block of images between the two passes: fits a core's cache
_EDIT_TRIES = 16
_DRAWS = 3  # kind of edit, place, and the word to keep if all would be dropped
APPLIED = 0.8  # probability of the jitter
_GRAY = (0.2989, 0.587, 0.114)  # luma of ITU-R BT.601, as torchvision rounds it
_SIGMA = (0.1, 2.0)
Images = Float[Tensor, "n 3 size size"]
Pixels = UInt8[Tensor, "n side side 3"]
Amounts = Float[Tensor, "n"]
Places = Int[np.ndarray, " n"]
Keys = UInt64[np.ndarray, " n"]  # which determine draws


class Crops(NamedTuple):
    """Crop boxes in pixels, and flips; each of shape (n,)."""

    top: Places
    left: Places
    height: Places
    width: Places
    flip: Bool[np.ndarray, " n"]


def pair_keys(uids: Sequence[str]) -> Keys:
    """Return the 64-bit key of each pair, from the first 16 hexadecimal digits of its uid."""
    return np.array([int(uid[:16], 16) for uid in uids], dtype=np.uint64)


def draw_crops(
    keys: np.ndarray, *, seed: int, size: int, scale: tuple[float, float], ratio: tuple[float, float], flip: float
) -> Crops:
    """Sample the crop of each pair in the stream `seed`."""
    n = len(keys)
    draws = uniform(keys, seed, 2 * _TRIES + 3)
    area = size * size * (scale[0] + (scale[1] - scale[0]) * draws[:, :_TRIES])
    log_low, log_high = math.log(ratio[0]), math.log(ratio[1])
    aspect = np.exp(log_low + (log_high - log_low) * draws[:, _TRIES : 2 * _TRIES])
    widths = np.rint(np.sqrt(area * aspect)).astype(np.int64)
    heights = np.rint(np.sqrt(area / aspect)).astype(np.int64)
    fits = (widths > 0) & (widths <= size) & (heights > 0) & (heights <= size)
    first, rows = fits.argmax(axis=1), np.arange(n)
    some = fits.any(axis=1)
    width = np.where(some, widths[rows, first], size)
    height = np.where(some, heights[rows, first], size)
    y, x = (np.floor(draws[:, k] * (size - side + 1)).astype(np.int64) for k, side in ((-3, height), (-2, width)))
    return Crops(y, x, height, width, draws[:, -1] < flip)


def draw_views(
    uids: Sequence[str], count: int, *, size: int, scale: tuple[float, float], ratio: tuple[float, float], flip: float
) -> list[Crops]:
    """Sample the crops of the views of pairs, which depend on (pair, view) only, so that f and g see the same."""
    keys = pair_keys(uids)
    seeds = [derive_seed(0, "embed view", view) for view in range(count)]
    return [draw_crops(keys, seed=seed, size=size, scale=scale, ratio=ratio, flip=flip) for seed in seeds]


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
    start: Places, extent: Places, side: int, size: int, *, mirrored: Bool[np.ndarray, " n"] | None = None
) -> tuple[Int[np.ndarray, "n out 2"], Float64[np.ndarray, "n out 2"]]:
    """Return the two source pixels of each output pixel along one axis, and their weights."""
    position = start[:, None] + (np.arange(size) + 0.5) * (extent[:, None] / size) - 0.5
    if mirrored is not None:
        position = np.where(mirrored[:, None], position[:, ::-1], position)
    position = position.clip(0, side - 1)
    low = np.floor(position).astype(np.int64)
    share = position - low
    return np.stack([low, np.minimum(low + 1, side - 1)], axis=-1), np.stack([1 - share, share], axis=-1)


def _mix(
    table: Float[Tensor, "rows width"], taps: Int[Tensor, "n out 2"], shares: Float[Tensor, "n out 2"]
) -> Float[Tensor, "mixed width"]:
    return F.embedding_bag(taps.view(-1, 2), table, per_sample_weights=shares.view(-1, 2), mode="sum")


def as_float(pixels: UInt8[Tensor, "n size size 3"]) -> Float[Tensor, "n 3 size size"]:
    """Return images as values in [0, 1], channels first."""
    return pixels.permute(0, 3, 1, 2).to(torch.float32).div_(255.0)


def normalize_pixels(
    pixels: Images, mean: tuple[float, float, float], std: tuple[float, float, float], *, in_place: bool = False
) -> Images:
    """Apply a model's channel means and standard deviations to pixels in [0, 1]."""
    shift = torch.tensor(mean, device=pixels.device).view(1, 3, 1, 1)
    scale = torch.tensor(std, device=pixels.device).view(1, 3, 1, 1)
    return (pixels.sub_(shift) if in_place else pixels - shift).div_(scale)


def send(tensor: Tensor, device: torch.device | str) -> Tensor:
    """Return `tensor` on a device, from pinned memory if it is a GPU."""
    if torch.device(device).type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def caption_edits(caption: str, uid: str, *, count: int, dropout: float = 0.2, seed: int = 0) -> list[str]:
    """Return up to `count` different edits of a caption; fewer if it is too short."""
    words = caption.split()
    seen, edits = {" ".join(words).lower()}, list[str]()
    key = pair_keys([uid])
    for view in range(count):
        for attempt in range(2 * _EDIT_TRIES):
            stream = derive_seed(seed, "caption edit", view, attempt)
            # after half of the tries, edit letters: there may be no new edit of words
            letters = len(words) < 2 or attempt >= _EDIT_TRIES
            draws = uniform(key, stream, _DRAWS + max(len(words), 1))[0]
            edited = " ".join(_edit(words, draws, dropout, letters=letters))
            if edited and edited.lower() not in seen:
                seen.add(edited.lower())
                edits.append(edited)
                break
    return edits


def _edit(words: list[str], draws: np.ndarray, dropout: float, *, letters: bool) -> list[str]:
    if not letters and draws[0] < 0.5:
        return _swapped(words, draws[1])
    if not letters:  # drop each word with probability `dropout`, but at least one and not all
        drop = draws[_DRAWS:] < dropout
        if not drop.any():
            drop[int(draws[1] * len(words))] = True
        if drop.all():
            drop[int(draws[2] * len(words))] = False
        return [word for word, dropped in zip(words, drop, strict=True) if not dropped]
    places = [index for index, word in enumerate(words) if len(word) > 1]
    if not places:
        return []
    position = places[int(draws[1] * len(places))]
    word = list(words[position])
    if draws[0] < 0.5:
        word = _swapped(word, draws[2])
    else:
        del word[int(draws[2] * len(word))]
    return [*words[:position], "".join(word), *words[position + 1 :]]


def _swapped(parts: list[str], where: float) -> list[str]:
    index = int(where * (len(parts) - 1))
    return [*parts[:index], parts[index + 1], parts[index], *parts[index + 2 :]]


def edits_of_single(
    captions: Sequence[Sequence[str]], uids: Sequence[str], *, count: int
) -> tuple[list[str], list[int]]:
    """Edit the captions of all pairs with one caption; return the edits and the index of each one's pair."""
    edits, rows = list[str](), list[int]()
    for index, (texts, uid) in enumerate(zip(captions, uids, strict=True)):
        edits += caption_edits(texts[0], uid, count=count) if len(texts) == 1 else []
        rows += [index] * (len(edits) - len(rows))
    return edits, rows


def text_views(captions: Sequence[str], uid: str, *, count: int) -> tuple[str, list[str]]:
    """Return a pair's first caption and up to `count` views of it: its other captions, else edits of the first."""
    clean = captions[0]
    others = [text for text in dict.fromkeys(captions) if text != clean][:count]
    return clean, others or caption_edits(clean, uid, count=count)


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
    draws = uniform(keys, seed, 8)
    low, high = max(0.0, 1 - 0.8 * strength), 1 + 0.8 * strength
    brightness, contrast, saturation = (low + (high - low) * draws[:, k] for k in (1, 2, 3))
    return Colors(
        jitter=(draws[:, 0] < APPLIED) & (strength > 0),
        brightness=brightness,
        contrast=contrast,
        saturation=saturation,
        hue=0.2 * strength * (2 * draws[:, 4] - 1),
        gray=draws[:, 5] < gray,
        blur=draws[:, 6] < blur,
        sigma=_SIGMA[0] + (_SIGMA[1] - _SIGMA[0]) * draws[:, 7],
    )


def distort(pixels: Images, keys: np.ndarray, *, seed: int, strength: float, gray: float, blur: float) -> Images:
    """Sample and apply color operations; the identity if `strength`, `gray` and `blur` are 0."""
    if not (strength or gray or blur):
        return pixels
    return recolor(pixels, draw_colors(keys, seed=seed, strength=strength, gray=gray, blur=blur))


def recolor(pixels: Images, colors: Colors) -> Images:
    """Apply color operations: jitter, then gray, then blur."""
    values = pixels.clone()
    for applied, amount, change in (
        (colors.jitter, colors.brightness, adjust_brightness),
        (colors.jitter, colors.contrast, adjust_contrast),
        (colors.jitter, colors.saturation, adjust_saturation),
        (colors.jitter, colors.hue, adjust_hue),
        (colors.gray, np.zeros(len(values)), adjust_saturation),
        (colors.blur, colors.sigma, gaussian_blur),
    ):
        if applied.any():
            rows = torch.from_numpy(np.flatnonzero(applied)).to(values.device)
            by = torch.from_numpy(amount[applied].astype(np.float32)).to(values.device)
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
    hue = torch.remainder(sector + 6 * turn.view(-1, 1, 1), 6).unsqueeze(1)
    # a channel falls from the value to value - chroma over the third of the circle on either side of its own hue
    channel = torch.tensor([5.0, 3.0, 1.0], device=pixels.device).view(1, 3, 1, 1)
    position = torch.remainder(channel + hue, 6)
    share = torch.minimum(position, 4 - position).clamp(0, 1)
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


def _gray(pixels: Images) -> Float[Tensor, "n 1 size size"]:
    return (pixels * torch.tensor(_GRAY, device=pixels.device).view(1, 3, 1, 1)).sum(dim=1, keepdim=True)


def _blend(pixels: Tensor, other: Tensor, factor: Amounts) -> Tensor:
    return (other + factor.view(-1, 1, 1, 1) * (pixels - other)).clamp(0, 1)
