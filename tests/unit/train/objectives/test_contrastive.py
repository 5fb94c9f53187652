"""The blocked contrastive loss against open_clip's on the whole matrix, and against the equation pair by pair."""

import math

import pytest
import torch
import torch.nn.functional as F

from clipmem.models import openclip
from clipmem.models.openclip import contrastive_loss
from clipmem.train.objectives import Towers, contrastive
from clipmem.train.objectives.contrastive import blocked_contrastive_loss


def drawn(n, d=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    u, v = (torch.randn(n, d, generator=generator).requires_grad_() for _ in range(2))
    return u, v, torch.tensor(2.0, requires_grad=True)


def with_gradients(loss, inputs):
    u, v, log_scale = inputs
    value = 3 * loss(F.normalize(u, dim=-1), F.normalize(v, dim=-1), log_scale.exp())
    return value.detach(), torch.autograd.grad(value, inputs)


@pytest.mark.parametrize(("n", "block"), [(2, 1), (7, 3), (8, 4), (9, 100), (33, 32), (33, 33)])
def test_equals_the_plain_loss_with_gradients(n, block):
    inputs = drawn(n, seed=n)
    value, gradients = with_gradients(lambda *a: blocked_contrastive_loss(*a, block=block), inputs)
    expected, theirs = with_gradients(contrastive_loss, inputs)
    torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-6)
    for a, b in zip(gradients, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_equals_the_equation():
    u, v, s = (t.detach() for t in drawn(4))
    z = [[float(s) * sum(float(a) * float(b) for a, b in zip(x, y, strict=True)) for y in v] for x in u]
    total = 0.0
    for i in range(4):
        total += math.log(sum(math.exp(z[i][j]) for j in range(4))) + math.log(sum(math.exp(z[j][i]) for j in range(4)))
        total -= 2 * z[i][i]
    assert float(blocked_contrastive_loss(u, v, s, block=3)) == pytest.approx(total / 8, rel=1e-5)


def test_large_logits_do_not_overflow():
    u = F.normalize(torch.randn(6, 4, generator=torch.Generator().manual_seed(0)), dim=-1)
    assert math.isfinite(float(blocked_contrastive_loss(u, u, torch.tensor(1e4), block=2)))


def test_used_for_large_batches_only(monkeypatch):
    encoder = openclip.create("clipmem-micro", seed=0)
    pixels = torch.randn(6, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    tokens = encoder.tokenize([f"thing {k}" for k in range(6)])

    def loss():
        return contrastive.Clip()(Towers(encoder, "fp32", "cpu"), [pixels], tokens, None)

    plain = loss()
    monkeypatch.setattr(contrastive, "LARGE", 5)
    blocked = loss()
    monkeypatch.setattr(contrastive, "LARGE", 6)
    assert type(blocked.grad_fn).__name__ == "_BlockedBackward"
    assert type(plain.grad_fn) is type(loss().grad_fn) is not type(blocked.grad_fn)
    torch.testing.assert_close(blocked, plain, rtol=1e-5, atol=1e-6)
