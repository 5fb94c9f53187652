"""Alignment parts and the alignment score: exact values, exact errors."""

import pytest
import torch

from clipmem.base.errors import InputError
from clipmem.functional import (
    AlignmentParts,
    alignment,
    alignment_parts,
)
from tests.unit.stats.test_similarity import raw_alignment_parts


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
