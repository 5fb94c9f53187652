"""Exact and near duplicates: planted copies are found, other images are not, nothing depends on order."""

import hashlib
import io
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance

from clipmem.base.errors import InputError
from clipmem.data import duplicates
from clipmem.data.duplicates import (
    correlation,
    difference_hash,
    duplicate_groups,
    near_pairs,
    thumbnails,
)

SIZE = 64


def photograph(seed):
    """A smooth random image: 8 x 8 random colors, enlarged."""
    colors = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return Image.fromarray(colors).resize((SIZE, SIZE), Image.BICUBIC)


def stack(images):
    return np.stack([np.asarray(image.convert("RGB")) for image in images])


def encoded(image, kind, quality):
    buffer = io.BytesIO()
    image.save(buffer, kind, quality=quality)
    return Image.open(buffer)


COPIES = {
    "exact": lambda p: p.copy(),
    "jpeg": lambda p: encoded(p, "JPEG", 70),
    "webp": lambda p: encoded(p, "WEBP", 60),
    "rescaled": lambda p: p.resize((32, 32), Image.LANCZOS).resize((SIZE, SIZE), Image.BILINEAR),
    "cropped": lambda p: p.crop((1, 1, SIZE - 1, SIZE - 1)).resize((SIZE, SIZE), Image.BICUBIC),
    "brightened": lambda p: ImageEnhance.Brightness(p).enhance(1.1),
    "darkened": lambda p: ImageEnhance.Brightness(p).enhance(0.8),
    "flatter": lambda p: ImageEnhance.Contrast(p).enhance(0.8),
}


def partition(names):
    """The set of sets of positions that share a name."""
    return {frozenset(np.flatnonzero(np.array(names) == name).tolist()) for name in names}


@pytest.mark.parametrize("kind", COPIES)
def test_planted_copies_are_found_and_others_are_not(kind):
    originals = [photograph(seed) for seed in range(20)]
    names = duplicate_groups(stack([*originals, *map(COPIES[kind], originals)]))
    assert partition(names) == {frozenset({i, i + 20}) for i in range(20)}


def test_color_alone_makes_a_image_another():
    """Two tricolors of equal gray: the hash cannot tell them apart, the thumbnails do."""
    image = np.full((2, SIZE, SIZE, 3), 255, dtype=np.uint8)
    image[0, :, :21], image[1, :, :21] = (0, 120, 0), (0, 0, 255)
    image[:, :, 43:] = (200, 0, 0)
    assert [pair.tolist() for pair in near_pairs(difference_hash(image))] == [[[0, 1]]]
    a, b = duplicate_groups(image)
    assert a != b


def test_mirrored_and_rotated_images_are_others():
    image = photograph(0)
    names = duplicate_groups(stack([image, image.transpose(Image.FLIP_LEFT_RIGHT), image.rotate(90)]))
    assert len(set(names)) == 3


def test_blank_images_are_joined_by_identity_only():
    gray = np.arange(40, dtype=np.uint8)[:, None, None, None]
    blanks = np.broadcast_to(gray, (40, SIZE, SIZE, 3))
    noisy = np.random.default_rng(0).integers(250, 253, (40, SIZE, SIZE, 3), dtype=np.uint8)
    names = duplicate_groups(np.concatenate([blanks, blanks[:1], noisy, stack([photograph(0)])]))
    assert len(set(names)) == 81
    assert names[0] == names[40]


@pytest.mark.parametrize(("amplitude", "groups"), [(3, 2), (12, 1)])
def test_faint_images_are_blank(amplitude, groups):
    """The same ramp twice, one level apart: below the contrast that counts it is no content."""
    ramp = np.broadcast_to(np.linspace(-amplitude, amplitude, SIZE)[:, None], (SIZE, SIZE, 3))
    pixels = np.stack([128 + ramp, 129 + ramp]).round().astype(np.uint8)
    assert len(set(duplicate_groups(pixels))) == groups


def test_keys_join_and_joins_are_transitive():
    a, b, c, d = (photograph(seed) for seed in range(4))
    # a and its copy touch by content, the copy and b by key, b and its copy by content; c and d stay alone.
    pixels = stack([a, COPIES["jpeg"](a), b, COPIES["jpeg"](b), c, d])
    names = duplicate_groups(pixels, keys=["1", "2", "2", "3", "4", "5"])
    assert partition(names) == {frozenset({0, 1, 2, 3}), frozenset({4}), frozenset({5})}


def test_a_chain_of_small_changes_is_one_group():
    """The ends of the chain are no near-duplicates of each other, the links are."""
    a, b = np.asarray(photograph(1), dtype=float), np.asarray(photograph(2), dtype=float)
    chain = np.stack([a + (b - a) * t for t in np.linspace(0, 1, 40)]).round().astype(np.uint8)
    assert len(set(duplicate_groups(chain))) == 1
    assert len(set(duplicate_groups(chain[[0, -1]]))) == 2


def test_group_names_do_not_depend_on_order_or_on_other_images():
    originals = [photograph(seed) for seed in range(8)]
    pixels = stack([*originals, *map(COPIES["webp"], originals[:4])])
    keys = [str(i % 7) for i in range(12)]
    names = duplicate_groups(pixels, keys=keys)
    order = np.random.default_rng(3).permutation(12)
    shuffled = duplicate_groups(pixels[order], keys=[keys[i] for i in order])
    assert [names[i] for i in order] == shuffled
    alone = duplicate_groups(pixels)
    assert duplicate_groups(np.concatenate([pixels, stack([photograph(99)])]))[:12] == alone
    assert all(len(name) == 32 for name in names)


def test_a_group_is_named_by_its_smallest_pixel_hash():
    pixels = stack([photograph(seed % 10) if seed % 2 else photograph(seed) for seed in range(20)])
    keys = [str(seed % 4) for seed in range(20)]
    hashes = [hashlib.blake2b(image.tobytes(), digest_size=16).hexdigest() for image in pixels]
    names = duplicate_groups(pixels, keys=keys)
    for group in partition(names):
        assert {names[i] for i in group} == {min(hashes[i] for i in group)}


def test_blocks_do_not_change_the_result(monkeypatch):
    pixels = stack([COPIES[kind](photograph(seed)) for seed in range(5) for kind in ("exact", "jpeg", "cropped")])
    whole = duplicate_groups(pixels)
    monkeypatch.setattr(duplicates, "_BLOCK", 4)
    monkeypatch.setattr(duplicates, "_PAIRS", 3)
    assert duplicate_groups(pixels) == whole


def test_nothing_in_nothing_out():
    assert duplicate_groups(np.zeros((0, 32, 32, 3), dtype=np.uint8)) == []
    assert duplicate_groups(np.zeros((0, 32, 32, 3), dtype=np.uint8), keys=[]) == []


def slow_hash(image):
    """The equation: cell means over an 8 x 9 grid with fractional borders, a bit where gray rises by > 2."""
    size = len(image)
    gray = image.astype(float) @ [0.299, 0.587, 0.114]

    def mean(r, c):
        total = 0.0
        for y in range(size):
            for x in range(size):
                height = max(0.0, min(y + 1, (r + 1) * size / 8) - max(y, r * size / 8))
                width = max(0.0, min(x + 1, (c + 1) * size / 9) - max(x, c * size / 9))
                total += height * width * gray[y, x]
        return total * 72 / size**2

    bits = [mean(r, c + 1) - mean(r, c) > 2 for r in range(8) for c in range(8)]
    return int("".join("1" if bit else "0" for bit in bits), 2)


@pytest.mark.parametrize("size", [16, 25])
def test_hash_against_the_equation(size):
    images = np.random.default_rng(size).integers(0, 256, (3, size, size, 3), dtype=np.uint8)
    assert difference_hash(images).tolist() == [slow_hash(image) for image in images]


@pytest.mark.parametrize("size", [20, 256, 301])
def testcell_sums_are_exact(size):
    """Whole numbers, whatever the size: above 256 pixels a side 32-bit sums would round."""
    pixels = np.random.default_rng(0).integers(200, 256, (1, size, size, 3), dtype=np.uint8)

    def overlap(cells, cell, pixel):  # in units of 1 / cells of a pixel
        return max(0, min((cell + 1) * size, (pixel + 1) * cells) - max(cell * size, pixel * cells))

    down = np.array([[overlap(8, cell, pixel) for pixel in range(size)] for cell in range(8)], dtype=np.int64)
    across = np.array([[overlap(9, cell, pixel) for pixel in range(size)] for cell in range(9)], dtype=np.int64)
    expected = np.einsum("ry,yxk,cx->rck", down, pixels[0].astype(np.int64), across)
    assert (duplicates.cell_sums(pixels, 8, 9)[0] == expected).all()


def test_correlation_against_numpy():
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 256, (2, 5, 768), dtype=np.uint8)
    expected = [np.corrcoef(x.astype(float), y.astype(float))[0, 1] for x, y in zip(a, b, strict=True)]
    np.testing.assert_allclose(correlation(a, b), expected, rtol=1e-12)
    np.testing.assert_allclose(correlation(a, a), 1.0, rtol=1e-12)
    assert correlation(a, np.full_like(a, 7)).tolist() == [0.0] * 5


def test_thumbnails_are_cell_means():
    pixels = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    means = pixels.astype(float).reshape(2, 16, 4, 16, 4, 3).mean(axis=(2, 4)).reshape(2, -1)
    assert (thumbnails(pixels) == np.rint(means)).all()


hashes = st.lists(st.integers(0, 2**64 - 1), max_size=12).flatmap(
    lambda base: st.lists(
        st.tuples(st.sampled_from(base or [0]), st.sets(st.integers(0, 63), max_size=12)), max_size=25
    )
)


@settings(max_examples=80)
@given(hashes, st.integers(0, 31))
def test_bands_find_exactly_the_near_pairs(drawn, distance):
    """Against the slow reference: every pair, every bit."""
    values = [value ^ sum(1 << bit for bit in flips) for value, flips in drawn]
    found = [tuple(row) for block in near_pairs(np.array(values, dtype=np.uint64), distance=distance) for row in block]
    expected = {
        (i, j)
        for i, j in itertools.combinations(range(len(values)), 2)
        if bin(values[i] ^ values[j]).count("1") <= distance
    }
    assert len(found) == len(set(found))
    assert set(found) == expected


@settings(max_examples=30)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 3)), max_size=14))
def test_groups_against_all_pairs(drawn):
    """Against the slow reference: join every pair that the definition joins, until nothing changes."""
    palette = stack([photograph(0), COPIES["jpeg"](photograph(0)), photograph(1), photograph(2)])
    palette = np.concatenate([palette, np.full((1, SIZE, SIZE, 3), 9, dtype=np.uint8)])
    pixels = palette[[image for image, _ in drawn]]
    keys = [str(key) for _, key in drawn]
    label = list(range(len(drawn)))
    for _ in drawn:
        for i, j in itertools.combinations(range(len(drawn)), 2):
            same = {drawn[i][0], drawn[j][0]} <= {0, 1} or drawn[i][0] == drawn[j][0] or keys[i] == keys[j]
            if same:
                label[i] = label[j] = min(label[i], label[j])
    assert partition(duplicate_groups(pixels, keys=keys)) == partition(label)


@pytest.mark.parametrize(
    ("call", "what", "got"),
    [
        (lambda p: duplicate_groups(p[:, :8, :8]), "images", "8 x 8"),
        (lambda p: duplicate_groups(p, keys=["a"]), "keys", "1"),
        (lambda p: duplicate_groups(p, threshold=1.5), "threshold", "1.5"),
        (lambda p: duplicate_groups(p, distance=32), "distance", "32"),
    ],
)
def test_errors(call, what, got):
    with pytest.raises(InputError) as caught:
        call(np.zeros((2, 16, 16, 3), dtype=np.uint8))
    assert (caught.value.what, caught.value.got) == (what, got)
