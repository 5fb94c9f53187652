"""Views: against the equation pixel by pixel, against torch's own sampler, and each independent of its batch."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from clipmem.data import views
from clipmem.data.views import Crops, as_float, draw_crops, normalize_pixels, render


def noise(n, side, seed=0):
    """Images whose neighbors differ as much as they can."""
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (n, side, side, 3), dtype=np.uint8))


def draw(n, side, *, seed=0, scale=(0.1, 1.0), flip=0.5):
    keys = np.arange(1, n + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    return draw_crops(keys, seed=seed, size=side, scale=scale, ratio=(0.5, 2.0), flip=flip)


def one_pixel(image, crop, i, j, size):
    """One pixel of a view in double precision, from the docstring's equation."""
    top, left, height, width, flip = crop
    side = len(image)
    j = size - 1 - j if flip else j
    y = min(max(top + (i + 0.5) * height / size - 0.5, 0), side - 1)
    x = min(max(left + (j + 0.5) * width / size - 0.5, 0), side - 1)
    a, b = y - math.floor(y), x - math.floor(x)

    def at(row, column):
        return image[min(math.floor(row), side - 1)][min(math.floor(column), side - 1)].astype(float) / 255

    first = (1 - b) * at(y, x) + b * at(y, x + 1)
    second = (1 - b) * at(y + 1, x) + b * at(y + 1, x + 1)
    return (1 - a) * first + a * second


@pytest.mark.parametrize(("side", "size"), [(1, 3), (7, 7), (9, 5), (5, 12)])
def test_every_pixel_is_the_equation(side, size):
    pixels, crops = noise(6, side), draw(6, side)
    found = render(pixels, crops, size=size)
    assert found.shape == (6, 3, size, size)
    assert found.is_contiguous()
    for k in range(6):
        crop = tuple(values[k] for values in crops)
        for i in range(size):
            for j in range(size):
                expected = one_pixel(pixels[k].numpy(), crop, i, j, size)
                assert np.abs(found[k, :, i, j].double().numpy() - expected).max() < 2e-7


@pytest.mark.parametrize("side", [32, 224])
def test_the_same_as_torchs_grid_sample(side):
    pixels, crops = noise(5, side), draw(5, side)
    place = (2 * torch.arange(side, dtype=torch.float64) + 1) / side - 1
    grids = []
    for top, left, height, width, flip in zip(*crops, strict=True):
        x = place * width / side * (-1 if flip else 1) + (2 * left + width) / side - 1
        y = place * height / side + (2 * top + height) / side - 1
        grids.append(torch.stack([x.expand(side, side), y[:, None].expand(side, side)], dim=-1))
    expected = F.grid_sample(
        as_float(pixels).double(), torch.stack(grids), mode="bilinear", padding_mode="border", align_corners=False
    )
    assert (render(pixels, crops, size=side) - expected).abs().max() < 1e-6


@pytest.mark.parametrize(("side", "size"), [(32, 32), (48, 20), (224, 224)])
def test_a_view_does_not_depend_on_its_batch(side, size):
    pixels, crops = noise(30, side), draw(30, side)
    whole = render(pixels, crops, size=size)
    order = np.array([17, 3, 29, 0, 8, 16, 5])
    some = render(pixels[order], Crops(*(values[order] for values in crops)), size=size)
    assert torch.equal(whole[order], some)
    alone = [render(pixels[k : k + 1], Crops(*(values[k : k + 1] for values in crops)), size=size) for k in order]
    assert torch.equal(torch.cat(alone), some)


def test_blocks_of_any_length_give_the_same(monkeypatch):
    pixels, crops = noise(23, 24), draw(23, 24)
    expected = render(pixels, crops, size=16)
    for few in (1, 4, 23, 100):
        monkeypatch.setattr(views, "_SCRATCH", few * 12 * 24 * 24)
        assert torch.equal(render(pixels, crops, size=16), expected)


@given(st.integers(0, 2**31), st.integers(1, 40), st.integers(1, 40))
@settings(max_examples=50)
def test_values_stay_between_0_and_1(seed, side, size):
    found = render(noise(3, side, seed), draw(3, side, seed=seed), size=size)
    assert found.min() >= 0
    assert found.max() <= 1 + 2e-7


def test_the_whole_image_is_itself():
    pixels, zero, whole = noise(4, 31), np.zeros(4, dtype=np.int64), np.full(4, 31)
    crops = Crops(zero, zero, whole, whole, np.array([False, True, False, True]))
    plain, found = as_float(pixels), render(pixels, crops, size=31)
    expected = torch.where(torch.from_numpy(crops.flip)[:, None, None, None], plain.flip(-1), plain)
    # not bitwise: one divides by 255, the other multiplies by its reciprocal
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)


def test_no_images():
    none = np.zeros(0, dtype=np.int64)
    found = render(noise(0, 8), Crops(none, none, none, none, none.astype(bool)), size=8)
    assert found.shape == (0, 3, 8, 8)


def test_normalized_in_place_or_not_is_the_same():
    values = torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    kept, how = values.clone(), ((0.4, 0.5, 0.6), (0.2, 0.25, 0.3))
    apart = normalize_pixels(values, *how)
    assert torch.equal(values, kept)
    assert torch.equal(normalize_pixels(values, *how, in_place=True), apart)
    assert torch.equal(values, apart)
    torch.testing.assert_close(apart[:, 1], (kept[:, 1] - 0.5) / 0.25)
