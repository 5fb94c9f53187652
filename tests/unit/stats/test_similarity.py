"""Unit vectors and pair means: exact values, exact errors, dtypes."""

import inspect

import pytest
import torch

from clipmem.base.errors import InputError
from clipmem.functional import (
    alignment_parts,
    normalize,
    pair_means,
)

# A user runs without the shape checks of the test hook, so wrong shapes must reach our own errors: unwrap.
raw_pair_means, raw_alignment_parts = inspect.unwrap(pair_means), inspect.unwrap(alignment_parts)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_normalize_keeps_shape_and_dtype(dtype):
    x = torch.tensor([[[3.0, 4.0]], [[0.0, -2.0]]], dtype=dtype)
    out = normalize(x)
    assert out.dtype == dtype
    torch.testing.assert_close(out, torch.tensor([[[0.6, 0.8]], [[0.0, -1.0]]], dtype=dtype))


@pytest.mark.parametrize("scale", [1e-300, 1e-5, 1e200])
def test_normalize_neither_overflows_nor_underflows(scale):
    x = torch.tensor([[3.0, 4.0]], dtype=torch.float64) * scale
    torch.testing.assert_close(normalize(x), torch.tensor([[0.6, 0.8]], dtype=torch.float64), rtol=1e-14, atol=0)


def test_normalize_has_the_right_gradient():
    x = torch.tensor([[1.0, -2.0, 0.5], [0.1, 0.0, 3.0]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(inspect.unwrap(normalize), (x,))


def test_normalize_names_the_bad_rows():
    x = torch.ones(2, 3, 2)
    x[1, 0] = 0
    x[1, 2, 1] = float("nan")
    with pytest.raises(InputError) as error:
        normalize(x, name="image embeddings")
    assert f"{error.value.what}: got {error.value.got}" == (
        "image embeddings: got 1 zero and 1 not finite rows of 6, the first at index [1, 0]"
    )


def test_normalize_refuses_no_columns():
    with pytest.raises(InputError, match=r"^embeddings: got shape \(2, 0\)"):
        normalize(torch.ones(2, 0))


def test_pair_means_average_views_and_captions():
    image = torch.tensor([[[2.0, 0.0], [0.0, 5.0]], [[1.0, 0.0], [1.0, 0.0]]])
    text = torch.tensor([[0.0, 3.0], [4.0, 0.0], [0.0, 1.0]])
    u, v = pair_means(image, text, torch.tensor([1, 0, 1], dtype=torch.int32))
    assert u.dtype == v.dtype == torch.float64
    assert u.tolist() == [[0.5, 0.5], [1.0, 0.0]]
    assert v.tolist() == [[1.0, 0.0], [0.0, 1.0]]


def test_pair_means_of_no_pairs():
    u, v = pair_means(torch.ones(0, 2, 3), torch.ones(0, 3), torch.zeros(0, dtype=torch.long))
    assert u.shape == v.shape == (0, 3)


@pytest.mark.parametrize(
    ("shapes", "index", "message"),
    [
        (
            ((2, 1, 3), (2, 4)),
            [0, 1],
            "caption embeddings: got width 4",
        ),
        (
            ((2, 1, 3), (3, 3)),
            [0, 1],
            "text_pair: got 2 indices for 3 caption rows",
        ),
        (
            ((2, 0, 3), (2, 3)),
            [0, 1],
            "image embeddings: got no view",
        ),
        (
            ((2, 1, 3), (2, 3)),
            [0, 2],
            "text_pair: got 2 in row 1",
        ),
        (
            ((2, 1, 3), (2, 3)),
            [-1, 0],
            "text_pair: got -1 in row 0",
        ),
        (
            ((4, 1, 3), (2, 3)),
            [2, 0],
            "text_pair: got 2 of 4 pairs without a caption, the first is pair 1",
        ),
    ],
)
def test_pair_means_errors(shapes, index, message):
    with pytest.raises(InputError) as error:
        raw_pair_means(torch.ones(shapes[0]), torch.ones(shapes[1]), torch.tensor(index))
    assert f"{error.value.what}: got {error.value.got}" == message


def test_pair_means_names_the_side_of_a_bad_row():
    image, text, index = torch.ones(2, 1, 3), torch.ones(2, 3), torch.tensor([0, 1])
    with pytest.raises(InputError, match=r"^image embeddings: got 1 zero"):
        pair_means(image * torch.tensor([1.0, 0.0])[:, None, None], text, index)
    with pytest.raises(InputError, match=r"^caption embeddings: got 0 zero and 2 not finite rows of 2"):
        pair_means(image, text / 0, index)


def test_blocks_do_not_change_the_means(monkeypatch):
    torch.manual_seed(0)
    image, text, index = torch.randn(7, 2, 3), torch.randn(11, 3), torch.arange(11) % 7
    whole = pair_means(image, text, index)
    monkeypatch.setattr("clipmem.stats.similarity._BLOCK", 3)
    for one, other in zip(whole, pair_means(image, text, index), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-15)


SHAPES = "Take images and captions, pairs and bank from the same model, one row a pair."
