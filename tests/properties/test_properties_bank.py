"""A bank as its means: the same parts as with all its rows, whatever the blocks and the order."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.reference import loops_score as reference

from clipmem.base.errors import InputError
from clipmem.functional import BankMeans, alignment_parts, alignment_parts_against, pair_means
from clipmem.models.passes import Means
from clipmem.scoring import bank
from clipmem.scoring.alignments import ALIGNMENTS

SIZES = st.tuples(st.integers(1, 7), st.integers(2, 6), st.integers(1, 5), st.integers(0, 2**32 - 1))


def means_of(stream, n, d, views=2):
    image, text = stream.normal(size=(n, views, d)), stream.normal(size=(n, d))
    return pair_means(torch.from_numpy(image), torch.from_numpy(text), torch.arange(n))


def sums_of(image, text, ok=None):
    every = torch.ones(len(image), dtype=torch.bool)
    return bank.bank_sums(image, text, (image.double() * text.double()).sum(dim=-1), every if ok is None else ok)


@given(SIZES)
@settings(max_examples=60)
def test_the_control_of_each_alignment_is_the_mean_over_the_banks_own_pairs(sizes):
    _, held, d, seed = sizes
    image, text = means_of(np.random.default_rng(seed), held, d)
    inside, sums = torch.ones(held, dtype=torch.bool), sums_of(image, text)
    for name in ("clip", "cmc"):
        method = ALIGNMENTS[name]()
        parts = method.parts_against(Means(image, text, inside), sums.means, inside)
        for expected, found in zip(parts, method.control(sums), strict=True):
            torch.testing.assert_close(found, expected.mean(dim=0, keepdim=True), rtol=0, atol=1e-9)


@given(SIZES)
@settings(max_examples=60)
def test_means_give_the_parts_of_all_rows(sizes):
    n, held, d, seed = sizes
    stream = np.random.default_rng(seed)
    image, text = means_of(stream, n + held, d)
    member = torch.full((n + held,), -1)
    member[n:] = torch.arange(held)
    whole = alignment_parts(image, text, image[n:], text[n:], member=member)
    sums = sums_of(image[n:], text[n:])
    ours = alignment_parts_against(image, text, sums.means, inside=member >= 0)
    for expected, found in zip(whole, ours, strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)
    control = ALIGNMENTS["clip"]().control(sums)
    for expected, found in zip(whole, control, strict=True):
        torch.testing.assert_close(found, expected[n:].mean(dim=0, keepdim=True), rtol=0, atol=1e-9)


def test_the_parts_are_those_of_the_equation():
    stream = np.random.default_rng(0)
    n, d = 5, 3
    image, text = stream.normal(size=(n, 2, d)), stream.normal(size=(n, 2, d))
    u, v = pair_means(
        torch.from_numpy(image), torch.from_numpy(text.reshape(-1, d)), torch.arange(n).repeat_interleave(2)
    )
    sums = sums_of(u[1:], v[1:])
    inside = torch.tensor([False, True, True, True, True])
    parts = alignment_parts_against(u, v, sums.means, inside=inside)
    for row in range(n):
        others = [k for k in range(1, n) if k != row]
        expected = reference.alignment(
            image[row].tolist(), text[row].tolist(), [image[k].tolist() for k in others],
            [text[k].tolist() for k in others], weight=1.0,
        )  # fmt: skip
        ours = float(parts.positive[row] - parts.image_bank[row] - parts.text_bank[row])
        assert ours == pytest.approx(expected, abs=1e-9)


@given(st.integers(1, 40), st.integers(1, 9), st.integers(0, 2**32 - 1))
@settings(max_examples=40)
def test_neither_blocks_nor_order_change_a_bit(n, step, seed):
    stream = np.random.default_rng(seed)
    image, text = (values.float() for values in means_of(stream, n, 17))
    order = torch.from_numpy(stream.permutation(n))
    ok = torch.ones(n, dtype=torch.bool)
    whole = sums_of(image, text, ok)
    pieces = [order[start : start + step] for start in range(0, n, step)]
    added = bank.add([sums_of(image[rows], text[rows], ok[rows]) for rows in pieces])
    assert all(torch.equal(a, b) for a, b in zip(whole, added, strict=True))
    parts = alignment_parts_against(image, text, whole.means)
    for rows in pieces:
        own = alignment_parts_against(image[rows], text[rows], whole.means)
        assert all(torch.equal(a[rows], b) for a, b in zip(parts, own, strict=True))


def test_a_bank_of_one_pair_has_no_other():
    one = torch.ones(1, 1)
    means = BankMeans(one[0], one[0], 1)
    assert alignment_parts_against(one, one, means).image_bank.tolist() == [1.0]
    with pytest.raises(InputError) as error:
        alignment_parts_against(one, one, means, inside=torch.tensor([True]))
    assert str(error.value) == (
        "bank: got one pair, which is itself to be scored, expected another pair in the bank. "
        "Enlarge the bank: a pair is never in its own bank."
    )
    with pytest.raises(InputError, match=r"^bank: got no pair, expected at least one pair\."):
        alignment_parts_against(one, one, BankMeans(one[0], one[0], 0))
    with pytest.raises(InputError, match=r"^bank means: got shape \(2, 1\), expected shape \(2, 2\)"):
        alignment_parts_against(torch.eye(2), torch.eye(2), means)
