"""CLIPMem by hand, and TracIn on the last layer against autograd and finite differences."""

import inspect

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from clipmem.base.errors import InputError
from clipmem.functional import (
    clipmem,
    range_normalize,
)
from clipmem.models.openclip import contrastive_loss
from clipmem.models.signals import Signals
from clipmem.scoring.pair_scores import PAIR_SCORES
from clipmem.stats import memorization as module
from clipmem.stats.memorization import self_influence
from tests.reference import loops_neighbors as loops

raw_clipmem, raw_range_normalize = inspect.unwrap(clipmem), inspect.unwrap(range_normalize)


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


def vectors(seed: int, n: int = 9, d: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    stream = np.random.default_rng(seed)
    u = stream.normal(size=(n, d))
    return torch.from_numpy(u), torch.from_numpy(u + stream.normal(size=(n, d)))


@given(st.integers(0, 2**32 - 1), st.floats(0.5, 40), st.integers(2, 9))
def test_autograd_of_the_training_loss(seed: int, scale: float, n: int) -> None:
    """The gradients of the pairs' shares average to that of the loss in training; their norms are the closed form."""
    u, v = (torch.nn.functional.normalize(x, dim=1) for x in vectors(seed, n))
    middle = torch.eye(u.shape[1], dtype=torch.float64, requires_grad=True)
    logits = scale * u @ middle @ v.T
    diagonal = torch.arange(n)
    shares = [(torch.nn.functional.cross_entropy(one, diagonal, reduction="none")) / 2 for one in (logits, logits.T)]
    gradients = [torch.autograd.grad(one, middle, retain_graph=True)[0] for one in sum(shares)]
    expected = torch.stack([(one * one).sum() for one in gradients])
    torch.testing.assert_close(self_influence(u, v, scale), expected, rtol=1e-9, atol=1e-9 * scale**2)
    whole = torch.autograd.grad(contrastive_loss(u @ middle, v, torch.tensor(scale, dtype=torch.float64)), middle)[0]
    torch.testing.assert_close(torch.stack(gradients).mean(dim=0), whole, rtol=1e-9, atol=1e-9 * scale)


def test_finite_differences(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BLOCK", 4)
    u, v = vectors(3, 7, 3)
    np.testing.assert_allclose(self_influence(u, v, 5.0), loops.self_influence(u.numpy(), v.numpy(), 5.0), rtol=1e-5)


@given(st.integers(0, 2**32 - 1), st.floats(0.1, 10))
def test_order_length_and_sides_do_not_matter(seed: int, factor: float) -> None:
    u, v = vectors(seed)
    found, order = self_influence(u, v, 9.0), torch.from_numpy(np.random.default_rng(seed).permutation(len(u)))
    close = {"rtol": 1e-9, "atol": 1e-9}
    torch.testing.assert_close(self_influence(factor * u[order], v[order], 9.0), found[order], **close)
    torch.testing.assert_close(self_influence(v, u, 9.0), found, **close)


def test_a_wrong_pair_comes_first() -> None:
    u, v = torch.eye(6).double(), torch.eye(6).double()[[0, 1, 2, 3, 5, 4]]
    signals = Signals([f"{k}" for k in range(6)], [["a"]] * 6, np.arange(6), image=u, text=v, logit_scale=20.0)
    score = PAIR_SCORES["tracin"]().estimate(signals).score
    assert sorted(np.argsort(-score)[:2].tolist()) == [4, 5]


@pytest.mark.parametrize(
    ("call", "what"),
    [
        (lambda: self_influence(torch.eye(3), torch.eye(3), 0.0), "logit scale"),
        (lambda: self_influence(torch.eye(3), torch.eye(3), float("nan")), "logit scale"),
        (lambda: self_influence(torch.eye(3), torch.eye(3)[:, :2], 1.0), "text embeddings"),
        (lambda: self_influence(torch.eye(3), torch.eye(3)[:2], 1.0), "image embeddings and text embeddings"),
        (lambda: self_influence(torch.zeros(3, 3), torch.eye(3), 1.0), "image embeddings"),
        (lambda: PAIR_SCORES["tracin"]().estimate(Signals(["0"], [["a"]], np.arange(1))), "logit scale"),
    ],
)
def test_bad_input(call, what: str) -> None:
    with pytest.raises(InputError) as error:
        call()
    assert error.value.what == what
