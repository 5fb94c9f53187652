"""Variants of images: how often they are shown, in any batch, and those that do not decode."""

import math

import numpy as np
import polars as pl
import pytest
import torch

from clipmem.base.folder import RunFolder
from clipmem.base.random import derive_seed, uniform
from clipmem.base.recipes import load_recipe
from clipmem.data.decoding import Geometry, decode
from clipmem.data.views import distort, draw_crops, render
from clipmem.mitigate import Preparation, Training
from clipmem.mitigate.image_variants import ImageVariants
from tests.tiny import encoded_image
from tests.unit.mitigate.test_captions import KEYS, hook_of, moment
from tests.unit.train.test_loop import PIXELS, N, plan_of, section, uid


def views(n, moment_, size=32):
    pixels = torch.from_numpy(PIXELS[np.arange(n) % N])
    crops = draw_crops(moment_.keys, seed=5, size=32, scale=(0.5, 1.0), ratio=(0.75, 4 / 3), flip=0.5)
    return render(pixels, crops, size=size), pixels, crops


def test_given_images_against_the_slow_loop():
    hook, others, rows = hook_of("given", 60)
    here = moment(np.arange(60), epoch=4)
    values, pixels, crops = views(60, here)
    found, before = hook.images(values, pixels, crops, here, 0), values.clone()
    replaced = 0
    for k in range(60):
        u = uniform(KEYS[k : k + 1], derive_seed(2, "image variant", 4, 0), 1)[0, 0]
        expected = before[k]
        if rows[k] and u < 0.4:
            replaced += 1
            image = torch.from_numpy(others[rows[k][int(2 * u / 0.4)]])[None]
            expected = render(image, type(crops)(*(one[k : k + 1] for one in crops)), size=32)[0]
        assert torch.allclose(found[k], expected, atol=1e-6)
    assert 5 < replaced < 30
    assert torch.equal(values, before)


def test_augmented_images_against_the_slow_loop():
    hook, _, _ = hook_of("augment", 40, crop_scale=(0.1, 0.3), color=1.0)
    here = moment(np.arange(40), epoch=1)
    values, pixels, crops = views(40, here)
    found = hook.images(values, pixels, crops, here, 1)
    for k in range(40):
        key = KEYS[k : k + 1]
        u = uniform(key, derive_seed(2, "image variant", 1, 1), 1)[0, 0]
        expected = values[k : k + 1]
        if u < 0.4:
            seed = derive_seed(2, "strong view", 1, 1)
            strong = draw_crops(key, seed=seed, size=32, scale=(0.1, 0.3), ratio=section().crop_ratio, flip=0.0)
            assert strong.height * strong.width <= 0.35 * 32 * 32
            expected = render(pixels[k : k + 1], strong, size=32)
            expected = distort(
                expected, key, seed=derive_seed(2, "strong colour", 1, 1), strength=1.0, gray=0.0, blur=0.0
            )
        assert torch.allclose(found[k : k + 1], expected, atol=1e-5)


@pytest.mark.parametrize("source", ["given", "augment"])
def test_images_are_replaced_as_often_as_they_say_in_any_batch(source):
    hook, _, rows = hook_of(source, 300)
    share, times = 0, 0
    for epoch in range(8):
        here = moment(np.arange(300), epoch)
        values, pixels, crops = views(300, here, size=8)
        found = hook.images(values, pixels, crops, here, 0)
        changed = (found != values).flatten(1).any(1).numpy()
        able = np.array([bool(own) or source == "augment" for own in rows])
        assert not changed[~able].any()
        share, times = share + changed[able].sum(), times + able.sum()
        some = np.array([3, 40, 41, 299])
        part = hook.images(
            values[some], pixels[some], type(crops)(*(one[some] for one in crops)), moment(some, epoch), 0
        )
        assert torch.allclose(part, found[some], atol=1e-6)
    assert abs(share - 0.4 * times) < 5 * math.sqrt(times * 0.4 * 0.6) + 0.01 * times


def test_images_that_do_not_decode_are_listed_and_never_shown(tmp_path):
    images = {"a": encoded_image(1), "broken": b"no image", "b": encoded_image(2), "c": encoded_image(3)}
    recipe = load_recipe("[mitigate.image_variants]\nprobability = 1.0")
    uids = [uid(0), uid(1), uid(2)]
    pairs = pl.DataFrame({"uid": uids, "captions": [["x"]] * 3, "variants": [["a", "broken"], ["b"], ["c"]]})
    splits = pl.DataFrame({"uid": uids, "role": ["shared", "candidate", "external"], "captions_from": uids})
    folder = RunFolder(tmp_path)
    given = Preparation(recipe, folder, pairs, splits, Geometry(32), lambda names: [images[name] for name in names])
    assert ImageVariants.prepare(given) == [
        tmp_path / "cache/variants.npy",
        tmp_path / "mitigate/image_variants.parquet",
    ]
    table = folder.read("mitigate/image_variants")
    assert table["reference"].to_list() == ["a", "broken", "b"]
    assert table["row"].to_list() == [0, None, 1]
    assert [bool(problem) for problem in table["problem"]] == [False, True, False]
    cache = np.load(tmp_path / "cache/variants.npy")
    assert np.array_equal(cache, np.stack([decode(images[name], 32) for name in "ab"]))
    hook = ImageVariants.hook(Training(recipe, plan_of(range(2)), folder, splits))
    values, pixels, crops = views(2, moment([0, 1]))
    shown = hook.images(values, pixels, crops, moment([0, 1]), 0)
    assert torch.allclose(shown, render(torch.from_numpy(cache), crops, size=32))
