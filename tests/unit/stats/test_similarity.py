"""Similarity, alignment and CLIPMem: exact values, exact errors, dtypes."""

import inspect

import pytest
import torch

from clipmem.base.errors import InputError
from clipmem.functional import (
    AlignmentParts,
    alignment,
    alignment_parts,
    clipmem,
    normalize,
    pair_means,
    range_normalize,
)

# A user runs without the shape checks of the test hook, so wrong shapes must reach our own errors: unwrap.
raw_pair_means, raw_alignment_parts = inspect.unwrap(pair_means), inspect.unwrap(alignment_parts)
raw_clipmem, raw_range_normalize = inspect.unwrap(clipmem), inspect.unwrap(range_normalize)


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


def test_alignment_parts_by_hand():
    # The bank's mean caption is (1/2, 1/2), its mean image (0, 1/2); pair 1 is bank row 0.
    image, text = torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    bank_image, bank_text = torch.tensor([[0.0, 1.0], [0.0, 0.0]]), torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    parts = alignment_parts(image, text, bank_image, bank_text, member=torch.tensor([-1, 0]))
    assert [part.tolist() for part in parts] == [[1.0, 0.0], [0.5, 1.0], [0.0, 0.0]]
    assert all(part.dtype == torch.float64 for part in parts)
    assert alignment(parts).tolist() == [0.5, -1.0]
    assert alignment(parts, weight=0.0).tolist() == [1.0, 0.0]
    assert alignment(parts, weight=0.5).tolist() == [0.75, -0.5]


def test_alignment_reaches_its_range():
    one = torch.ones(1)
    assert alignment(AlignmentParts(one, -one, -one), weight=2.0).tolist() == [5.0]
    assert alignment(AlignmentParts(-one, one, one), weight=2.0).tolist() == [-5.0]


@pytest.mark.parametrize("weight", [-0.1, float("nan"), float("inf")])
def test_alignment_refuses_a_weight(weight):
    with pytest.raises(InputError) as error:
        alignment(AlignmentParts(torch.ones(1), torch.ones(1), torch.ones(1)), weight=weight)
    assert f"{error.value.what}: got {error.value.got}" == (f"weight: got {weight}")


UNIT = torch.eye(3)
SHAPES = "Take images and captions, pairs and bank from the same model, one row a pair."


@pytest.mark.parametrize(
    ("arguments", "member", "message"),
    [
        (
            (UNIT, UNIT, UNIT[:0], UNIT[:0]),
            None,
            "bank: got no pair",
        ),
        (
            (UNIT, UNIT, UNIT[:1], UNIT[:1]),
            [-1, 0, -1],
            "bank: got one pair, which is itself to be scored",
        ),
        ((UNIT, UNIT[:2], UNIT, UNIT), None, "text: got shape (2, 3)"),
        (
            (UNIT, UNIT, UNIT[:, :2], UNIT),
            None,
            "bank_image: got shape (3, 2)",
        ),
        ((UNIT, UNIT, UNIT[:2], UNIT), None, "bank_text: got shape (3, 3)"),
        (
            (UNIT, UNIT, UNIT, UNIT),
            [0, 1],
            "member: got 2 values for 3 pairs",
        ),
        (
            (UNIT, UNIT, UNIT, UNIT),
            [0, 3, -2],
            "member: got 3 in row 1",
        ),
        (
            (2 * UNIT, UNIT, UNIT, UNIT),
            None,
            "image: got 3 of 3 rows not finite or longer than 1, the first in row 0",
        ),
        (
            (UNIT, UNIT, UNIT, UNIT * torch.tensor([[1.0], [float("nan")], [1.0]])),
            None,
            "bank_text: got 1 of 3 rows not finite or longer than 1, the first in row 1",
        ),
    ],
)
def test_alignment_parts_errors(arguments, member, message):
    with pytest.raises(InputError) as error:
        raw_alignment_parts(*arguments, member=None if member is None else torch.tensor(member))
    assert f"{error.value.what}: got {error.value.got}" == message


def test_a_bank_of_one_serves_pairs_outside_it():
    parts = alignment_parts(UNIT, UNIT, UNIT[:1], UNIT[1:2], member=torch.tensor([-1, -1, -1]))
    assert parts.image_bank.tolist() == [0.0, 1.0, 0.0]
    assert parts.text_bank.tolist() == [1.0, 0.0, 0.0]


def test_the_arguments_are_left_as_they_were():
    image = UNIT.double()
    alignment_parts(image, image, image, image, member=torch.tensor([0, 1, 2]))
    assert torch.equal(image, torch.eye(3, dtype=torch.float64))


def test_clipmem_takes_different_numbers_of_seeds():
    target, reference = torch.tensor([[0.5, 0.0], [1.0, 0.5]]), torch.tensor([[0.25, 1.0]])
    assert clipmem(target, reference).tolist() == [0.5, -0.75]
    assert clipmem(target, reference).dtype == torch.float64


@pytest.mark.parametrize(
    ("target", "reference", "message"),
    [
        (
            torch.ones(1, 2),
            torch.ones(1, 3),
            "target and reference: got 2 and 3 values",
        ),
        (
            torch.ones(1, 2),
            torch.ones(0, 2),
            "reference: got no seed",
        ),
        (
            torch.tensor([[0.0, float("nan")], [0.0, 1.0]]),
            torch.ones(1, 2),
            "target: got 1 of 2 rows not finite, the first in row 1",
        ),
    ],
)
def test_clipmem_errors(target, reference, message):
    with pytest.raises(InputError) as error:
        raw_clipmem(target, reference)
    assert f"{error.value.what}: got {error.value.got}" == message


def test_range_normalize_divides_and_never_shifts():
    values = torch.tensor([-1.0, 3.0, 0.0, 20.0])
    scores, normalizer = range_normalize(values, torch.tensor([True, True, True, False]))
    assert normalizer == 4.0
    assert scores.tolist() == [-0.25, 0.75, 0.0, 5.0]


@pytest.mark.parametrize(
    ("values", "candidates", "message"),
    [
        (
            [1.0, 2.0],
            [False, False],
            "candidates: got none",
        ),
        (
            [1.0, 2.0],
            [True, False],
            "candidates: got the same score 1 for all 1",
        ),
        (
            [1.0, 2.0],
            [True],
            "candidates and values: got 1 and 2 values",
        ),
    ],
)
def test_range_normalize_errors(values, candidates, message):
    with pytest.raises(InputError) as error:
        raw_range_normalize(torch.tensor(values), torch.tensor(candidates))
    assert f"{error.value.what}: got {error.value.got}" == message
