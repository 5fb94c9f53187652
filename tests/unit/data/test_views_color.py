"""Color distortion: each operation is torchvision's, every image has its own draw, and 0 changes nothing."""

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional as reference

from clipmem.data import views

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
