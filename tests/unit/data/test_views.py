"""Views and color distortion: against the equations, torch's sampler and torchvision; each independent of its batch."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.transforms import functional as tv
from torchvision.transforms.v2 import RandomResizedCrop
from torchvision.transforms.v2 import functional as reference

from clipmem.data import views
from clipmem.data.decoding import decode
from clipmem.data.views import Crops, as_float, draw_crops, normalize_pixels, pair_keys, render
from tests.tiny import encoded_image


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


SIDE = 24
KEYS = np.random.default_rng(0).integers(0, 2**63, size=4000).astype(np.uint64)


def images(n: int = 12) -> torch.Tensor:
    """Random images, among them a gray one, a black one, a white one and one with channels that tie."""
    # channels last in memory, as decoded images are
    values = torch.rand((n, SIDE, SIDE, 3), generator=torch.Generator().manual_seed(0)).permute(0, 3, 1, 2)
    values[0] = values[0, :1]
    values[1], values[2] = 0.0, 1.0
    values[3, 1] = values[3, 0]
    values[4, 2] = values[4, 1]
    return values


AGREE = {
    # float32: a few units in the last place; torchvision's hue goes through six cases, its blur through one 2-d kernel
    "adjust_brightness": ((0.0, 2.0), reference.adjust_brightness, 2e-6),
    "adjust_contrast": ((0.0, 2.0), reference.adjust_contrast, 2e-6),
    "adjust_saturation": ((0.0, 2.0), reference.adjust_saturation, 2e-6),
    "adjust_hue": ((-0.5, 0.5), reference.adjust_hue, 2e-6),
    "gaussian_blur": (
        (0.1, 2.0),
        lambda image, sigma: reference.gaussian_blur(image, [views.kernel_size(SIDE)] * 2, [sigma, sigma]),
        2e-6,
    ),
}


@pytest.mark.parametrize("name", AGREE)
def test_each_operation_is_torchvisions_on_single_images(name):
    (low, high), single, bound = AGREE[name]
    values = images()
    amount = torch.linspace(low, high, len(values))
    ours = getattr(views, name)(values, amount)
    theirs = torch.stack([single(image, float(by)) for image, by in zip(values, amount, strict=True)])
    assert (ours - theirs).abs().max() < bound
    assert (ours - values).abs().max() > 0.05


def test_gray_is_torchvisions():
    values = images()
    ours = views.adjust_saturation(values, torch.zeros(len(values)))
    theirs = reference.rgb_to_grayscale(values, num_output_channels=3)
    assert (ours - theirs).abs().max() < 2e-6


def test_a_batch_is_its_images_one_by_one_in_the_stated_order():
    values = images()
    drawn = views.draw_colors(KEYS[:12], seed=6, strength=1.0, gray=0.4, blur=0.5)
    assert 0 < drawn.jitter.sum() < 12
    assert 0 < drawn.gray.sum() < 12
    assert 0 < drawn.blur.sum() < 12
    kernel = [views.kernel_size(SIDE)] * 2
    expected = []
    for k, image in enumerate(values):
        if drawn.jitter[k]:
            image = reference.adjust_brightness(image, drawn.brightness[k])
            image = reference.adjust_contrast(image, drawn.contrast[k])
            image = reference.adjust_saturation(image, drawn.saturation[k])
            image = reference.adjust_hue(image, drawn.hue[k])
        if drawn.gray[k]:
            image = reference.rgb_to_grayscale(image, num_output_channels=3)
        if drawn.blur[k]:
            image = reference.gaussian_blur(image, kernel, [drawn.sigma[k]] * 2)
        expected.append(image)
    assert (views.recolor(values, drawn) - torch.stack(expected)).abs().max() < 1e-5


def test_the_draws_have_simclrs_ranges_and_rates():
    drawn = views.draw_colors(KEYS, seed=1, strength=0.5, gray=0.2, blur=0.5)
    for values in (drawn.brightness, drawn.contrast, drawn.saturation):
        assert 0.6 <= values.min() < 0.61
        assert 1.39 < values.max() < 1.4
    assert -0.1 <= drawn.hue.min() < -0.099
    assert 0.099 < drawn.hue.max() < 0.1
    assert 0.1 <= drawn.sigma.min() < 0.11
    assert 1.99 < drawn.sigma.max() < 2.0
    # five standard errors of a rate over 4,000 draws
    for chosen, rate in ((drawn.jitter, 0.8), (drawn.gray, 0.2), (drawn.blur, 0.5)):
        assert abs(chosen.mean() - rate) < 5 * (rate * (1 - rate) / len(KEYS)) ** 0.5
    columns = np.stack([np.asarray(column, dtype=float) for column in drawn])
    related = np.abs(np.corrcoef(columns) - np.eye(len(columns)))
    assert related.max() < 5 / len(KEYS) ** 0.5
    # a factor is never negative, however strong
    assert views.draw_colors(KEYS, seed=1, strength=2.0, gray=0.0, blur=0.0).brightness.min() >= 0


def test_a_pair_has_its_draw_in_any_batch():
    values = images()
    how = {"seed": 3, "strength": 0.5, "gray": 0.3, "blur": 0.5}
    together = views.distort(values, KEYS[:12], **how)
    order = np.array([7, 2, 11])
    apart = views.distort(values[order], KEYS[order], **how)
    assert (together[order] - apart).abs().max() < 1e-6
    assert not torch.equal(together, views.distort(values, KEYS[:12], **{**how, "seed": 4}))


def test_the_images_given_are_not_changed_and_zero_gives_them_back():
    values = images()
    kept = values.clone()
    changed = views.distort(values, KEYS[:12], seed=0, strength=1.0, gray=0.5, blur=0.5)
    assert torch.equal(values, kept)
    assert changed.min() >= 0
    assert changed.max() <= 1
    assert views.distort(values, KEYS[:12], seed=0, strength=0.0, gray=0.0, blur=0.0) is values


def crops_of(keys, seed=1, **changes):
    options = {"size": 48, "scale": (0.5, 0.9), "ratio": (0.75, 4 / 3), "flip": 0.5} | changes
    return draw_crops(np.asarray(keys, dtype=np.uint64), seed=seed, **options)


def test_views_depend_on_pair_and_stream_only():
    all_of_them, some = crops_of(range(50)), crops_of([40, 3])
    for ours, theirs in zip(some, all_of_them, strict=True):
        np.testing.assert_array_equal(ours, theirs[[40, 3]])
    assert (crops_of(range(50), seed=2).top != all_of_them.top).any()
    assert pair_keys(["0123456789abcdef" + "f" * 16]).tolist() == [0x0123456789ABCDEF]


@given(st.integers(0, 2**62), st.floats(0.05, 1), st.floats(0.05, 1), st.integers(1, 80))
def test_crops_lie_inside_the_image(seed, a, b, size):
    crops = crops_of(range(30), seed=seed, scale=(min(a, b), max(a, b)), size=size)
    assert (crops.top >= 0).all()
    assert (crops.left >= 0).all()
    assert (crops.height >= 1).all()
    assert (crops.width >= 1).all()
    assert (crops.top + crops.height <= size).all()
    assert (crops.left + crops.width <= size).all()


def test_crops_have_the_distribution_of_random_resized_crop():
    ours = crops_of(range(4000), size=64, scale=(0.3, 0.9))
    torch.manual_seed(0)
    theirs = RandomResizedCrop(8, scale=(0.3, 0.9))
    blank = torch.zeros(1, 64, 64)
    params = [theirs.make_params([blank]) for _ in range(4000)]
    for name, values in (
        ("height", ours.height),
        ("width", ours.width),
        ("top", ours.top),
        ("left", ours.left),
    ):
        other = np.array([one[name] for one in params])
        error = np.hypot(values.std(), other.std()) / np.sqrt(4000)
        assert abs(values.mean() - other.mean()) < 4 * error, name
        assert values.std() == pytest.approx(other.std(), rel=0.06), name
    assert abs(ours.flip.mean() - 0.5) < 4 * 0.5 / np.sqrt(4000)
    assert not crops_of(range(100), flip=0.0).flip.any()
    assert crops_of(range(100), flip=1.0).flip.all()


def test_rendered_crops_agree_with_torchvision():
    pixels = torch.from_numpy(np.stack([decode(encoded_image(seed, size=48), 48) for seed in range(20)]))
    crops = crops_of(range(20), scale=(0.4, 0.8))
    ours = render(pixels, crops, size=40)
    for k, image_ in enumerate(as_float(pixels)):
        top, left, height, width, flip = (values[k] for values in crops)
        theirs = tv.resized_crop(image_, int(top), int(left), int(height), int(width), [40, 40], antialias=False)
        if flip:
            theirs = tv.hflip(theirs)
        # at the rim torchvision repeats the crop's last pixel, grid sampling reads its neighbor outside the crop
        assert (ours[k] - theirs)[:, 1:-1, 1:-1].abs().max() < 2e-5


def test_a_whole_crop_changes_nothing():
    pixels = torch.from_numpy(decode(encoded_image(1, size=32), 32))[None]
    zero, whole = np.array([0]), np.array([32])
    crops = Crops(zero, zero, whole, whole, np.array([False]))
    assert (render(pixels, crops, size=32) - as_float(pixels)).abs().max() < 1e-5
    mirrored = render(pixels, crops._replace(flip=np.array([True])), size=32)
    assert (mirrored - as_float(pixels).flip(-1)).abs().max() < 1e-5
