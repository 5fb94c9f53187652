"""Model-free features and the closed forms on them: shapes, equations, planted mismatched captions, bad input."""

import math

import numpy as np
import pytest
import torch

from clipmem.base.errors import InputError
from clipmem.base.sections import DataSection
from clipmem.data import features
from clipmem.data.decoding import decode
from clipmem.data.features import caption_features, image_features
from clipmem.data.sources import open_source
from clipmem.functional import auroc
from clipmem.models.signals import Signals
from clipmem.scoring.pair_scores import PAIR_SCORES
from clipmem.stats.agreement import lemon, softmax_agreement
from clipmem.stats.leave_one_out import leave_one_out_scores

N, SHARE = 1500, 0.15


def images(n=30, size=64, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, size, size, 3), dtype=np.uint8)


def variance(x):
    return float(x.var(axis=0).sum())


def test_blocks_have_their_weights_and_are_centered():
    pixels = images(600)
    found = image_features(pixels.__getitem__, 600)
    assert found.shape == (600, 340)
    assert abs(found.mean(axis=0)).max() < 1e-5
    for columns, weight in ((slice(100), 1.0), (slice(100, 300), 1.0), (slice(300, 340), 0.7)):
        assert variance(found[:, columns]) == pytest.approx(weight**2, rel=1e-3)
        sizes = found[:, columns].var(axis=0)
        assert (np.diff(sizes) < 1e-6).all()  # principal components, largest first


def test_features_of_many_pairs_are_those_of_few(monkeypatch):
    pixels, rng = images(90), np.random.default_rng(1)
    captions = [[f"word{a} word{b}"] for a, b in rng.integers(0, 12, (90, 2))]
    in_memory = image_features(pixels.__getitem__, 90), caption_features(captions)
    monkeypatch.setattr(features, "HELD", 80)
    monkeypatch.setattr(features, "_TEXTS", 40)
    for stored, expected in zip(
        (image_features(pixels.__getitem__, 90), caption_features(captions)), in_memory, strict=True
    ):
        assert isinstance(stored, np.memmap)
        np.testing.assert_allclose(stored, expected, rtol=0, atol=1e-6)


def loop_blocks(image):
    """Cells, gradient histogram and color histogram of one 64 x 64 image."""
    image = image.astype(float)
    cells = [
        image[4 * r : 4 * r + 4, 4 * c : 4 * c + 4, k].mean() for r in range(16) for c in range(16) for k in range(3)
    ]
    gray = image @ [0.299, 0.587, 0.114]
    votes, colors = np.zeros((8, 8, 9)), np.zeros(64)
    for y in range(64):
        for x in range(64):
            above, below, left, right = max(y - 1, 0), min(y + 1, 63), max(x - 1, 0), min(x + 1, 63)
            dy = (gray[below, x] - gray[above, x]) / (below - above)
            dx = (gray[y, right] - gray[y, left]) / (right - left)
            place = math.atan2(dy, dx) * 9 / math.pi % 9
            low = int(place)
            votes[y // 8, x // 8, low % 9] += math.hypot(dy, dx) * (1 - place + low)
            votes[y // 8, x // 8, (low + 1) % 9] += math.hypot(dy, dx) * (place - low)
            r, g, b = (int(value) // 64 for value in image[y, x])
            colors[16 * r + 4 * g + b] += 1 / 4096
    return np.array(cells), np.sqrt(votes.ravel() / votes.sum()), np.sqrt(colors)


def test_blocks_against_loops():
    pixels = images(2)
    for found, expected in zip(features._blocks(pixels), zip(*map(loop_blocks, pixels), strict=True), strict=True):
        np.testing.assert_allclose(found, np.stack(expected), rtol=1e-5, atol=1e-5)


def test_products_are_those_of_the_blocks():
    # all components kept: products of rows are those of the centered blocks, whatever the signs
    pixels = images(20)
    found = image_features(pixels.__getitem__, 20)
    expected = 0
    for block, weight in zip(zip(*map(loop_blocks, pixels), strict=True), (1, 1, 0.7), strict=True):
        x = np.stack(block)
        x = x - x.mean(axis=0)
        expected = expected + weight**2 * (x @ x.T) / ((x * x).sum() / 20)
    np.testing.assert_allclose(found @ found.T, expected, atol=1e-3)


def test_a_sample_decides_the_components_and_every_image_has_a_row(monkeypatch):
    pixels, asked = images(40), []

    def read(rows):
        asked.append(rows)
        return pixels[rows]

    whole = image_features(read, 40)
    assert sum(map(len, asked)) == 40  # each image is decoded once
    monkeypatch.setattr(features, "SAMPLE", 20)
    monkeypatch.setattr(features, "_BLOCK", 7)
    even = image_features(pixels.__getitem__, 40)
    alone = image_features(pixels[::2].__getitem__, 20)
    np.testing.assert_allclose(even[::2], alone, atol=1e-5)
    assert len(even) == len(whole)


def test_order_of_images_only_orders_the_rows():
    pixels, order = images(30), np.random.default_rng(1).permutation(30)
    found, turned = image_features(pixels.__getitem__, 30), image_features(pixels[order].__getitem__, 30)
    np.testing.assert_allclose(turned @ turned.T, (found @ found.T)[np.ix_(order, order)], atol=1e-4)


@pytest.mark.parametrize("size", [16, 48, 100])
def test_other_sizes_are_averaged(size):
    small = images(12, 4, seed=2)
    pixels = np.repeat(np.repeat(small, 16, axis=1), 16, axis=2)
    other = images(12, size)
    assert image_features(other.__getitem__, 12).shape[1] <= 33
    if 64 % size == 0:  # enlarged images keep their cells
        shrunk = pixels[:, :: 64 // size, :: 64 // size]
        np.testing.assert_allclose(features._blocks(shrunk)[0], features._blocks(pixels)[0], atol=1e-4)


def test_captions_share_words_and_bigrams():
    captions = [["red apple"], ["Red, apple!"], ["apple red"], ["blue", "car"], ["car blue"], ["blue car"], ["zebra"]]
    x = caption_features(captions)[:]
    cosine = (x @ x.T) / np.maximum(np.outer(*[np.linalg.norm(x, axis=1)] * 2), 1e-12)
    assert cosine[0, 1] == pytest.approx(1)  # case and punctuation
    assert 0.5 < cosine[0, 2] < 0.999  # the order of words
    assert cosine[3, 4] == pytest.approx(1)  # two captions are no bigram, and "car blue" occurs once
    assert abs(cosine[0, 3]) < 1e-9
    assert abs(x[6]).max() < 1e-9  # a word of one pair


def test_captions_against_tfidf_by_hand():
    captions = [["a b"], ["b c"], ["a b c a"], ["c"]]
    terms = {"a": (1, 0, 2, 0), "b": (1, 1, 1, 0), "c": (0, 1, 1, 1), "a b": (1, 0, 1, 0), "b c": (0, 1, 1, 0)}
    weights = np.array([
        [(1 + math.log(k)) * (1 + math.log(5 / (1 + sum(c > 0 for c in counts)))) if k else 0 for k in counts]
        for counts in terms.values()
    ]).T  # fmt: skip
    weights /= np.linalg.norm(weights, axis=1, keepdims=True)
    x = caption_features(captions)[:]
    assert x.shape == (4, 4)
    np.testing.assert_allclose(x @ x.T, weights @ weights.T, atol=1e-5)


@pytest.mark.parametrize(
    ("call", "what", "got"),
    [
        (lambda: caption_features([["a dog"]] * 9), "captions", "the same words in all 9 pairs"),
        (lambda: caption_features([[f"dog {k}"] for k in range(9)]), "captions", "the same words in all 9 pairs"),
        (lambda: caption_features([]), "captions", "no word in two pairs"),
        (lambda: caption_features([["one"], ["two"], ["three"]]), "captions", "no word in two pairs"),
        (lambda: caption_features([["!"], ["?"], ["..."]]), "captions", "no word in two pairs"),
        (lambda: image_features(np.zeros((9, 8, 8, 3), np.uint8).__getitem__, 9), "images", "9 images with the same"),
        (lambda: image_features(images(2).__getitem__, 2), "images", "2"),
        (lambda: PAIR_SCORES["closed-form"]().estimate(signals(image=None)), "closed form", "no embeddings"),
        (lambda: PAIR_SCORES["lemon"]().estimate(signals(image=None)), "embeddings", "none"),
        (
            lambda: PAIR_SCORES["closed-form"]().estimate(signals(image=torch.ones(9, 4))),
            "targets",
            "the same in all 9",
        ),
    ],
)
def test_bad_input(call, what, got):
    with pytest.raises(InputError) as error:
        call()
    assert error.value.what == what
    assert got in error.value.got


def signals(**changed):
    captions = [["red apple"], ["red car"], ["blue car"]] * 3
    return Signals(**{"uids": list("abcdefghi"), "captions": captions, "group": np.arange(9), **changed})


@pytest.fixture(scope="module")
def drawings():
    """Some drawings, 15% of which swapped their captions, and which these are."""
    source = open_source(DataSection(source="emoji-artists"))
    rng = np.random.default_rng(0)
    pairs = source.pairs()
    pairs = pairs[np.sort(rng.permutation(pairs.height)[:N])]
    pixels = np.stack([decode(data, 64) for data in source.read(pairs["image"].to_list())])
    captions = pairs["captions"].to_list()
    chosen = rng.permutation(N)[: round(SHARE * N)]
    shown = list(captions)
    for own, other in zip(chosen, np.roll(chosen, 1), strict=True):
        shown[own] = captions[other]
    wrong = np.array([set(one) != set(other) for one, other in zip(captions, shown, strict=True)])
    return Signals(uids=pairs["uid"].to_list(), captions=shown, group=np.arange(N), pixels=pixels.__getitem__), wrong


@pytest.fixture(scope="module")
def described(drawings):
    known, _ = drawings
    return image_features(known.pixels, N), caption_features(known.captions)


@pytest.mark.slow
def test_the_closed_form_without_a_model_finds_swapped_captions(drawings):
    known, wrong = drawings
    estimated = PAIR_SCORES["closed-form"]().estimate(known)
    assert not estimated.calibrated
    assert auroc(estimated.score, wrong).mean > 0.87


def test_neighbors_find_swapped_captions(drawings, described):
    _, wrong = drawings
    image, text = (torch.from_numpy(np.asarray(x[:], dtype=np.float64)) for x in described)
    assert auroc(-softmax_agreement(image, text).numpy(), wrong).mean > 0.88
    assert auroc(-softmax_agreement(text, image).numpy(), wrong).mean > 0.81


@pytest.mark.slow
def test_pair_scores_read_the_embeddings_of_f(drawings, described):
    known, wrong = drawings
    rng = np.random.default_rng(0)
    x, text = described[0] @ rng.normal(size=(described[0].shape[1], 16)), rng.normal(size=(N, 16))
    image = torch.from_numpy(x)
    given = Signals(known.uids, known.captions, known.group, image, torch.from_numpy(text), pixels=known.pixels)
    expected = {
        "closed-form": leave_one_out_scores(described[1], x, group=known.group),
        "lemon": lemon(image, given.text, group=known.group).numpy(),
        "similarity": 1 - torch.nn.functional.cosine_similarity(image, given.text).numpy(),
    }
    assert set(expected) <= set(PAIR_SCORES)
    for name, scores in expected.items():
        np.testing.assert_allclose(PAIR_SCORES[name]().estimate(given).score, scores, atol=1e-9)
    assert auroc(expected["closed-form"], wrong).mean > 0.75
