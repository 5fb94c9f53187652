"""Residual attention blocks of open_clip's plain towers as one differentiable function.

Equals `open_clip.transformer.ResidualAttentionBlock` up to rounding, and is faster in four ways:

- the output of a tower is one token of each sequence: the last block computes its query, output projection and MLP for
  that token only;
- captions are packed: tokens after end-of-text are not computed;
- weights and activations are cast to the compute dtype once; the residual stream stays in float32;
- the backward pass is written out, without autograd's copies.

When not to trust it: dropout, layer scale, key padding masks and second derivatives are not supported. The caller
checks the tower (`clipmem.models.shortcut`).
"""

from typing import Any, Literal, NamedTuple, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

Activation = Literal["gelu", "quick_gelu"]
WEIGHTS = 12  # tensors of one block, in the order of `BlockWeights`


class BlockWeights(NamedTuple):
    """Weights of one block: two layer norms, the attention's two matrices, the MLP's two; each with its bias."""

    ln_1: Float[Tensor, " d"]
    ln_1_bias: Float[Tensor, " d"]
    qkv: Float[Tensor, "d3 d"]
    qkv_bias: Float[Tensor, " d3"]
    out: Float[Tensor, "d d"]
    out_bias: Float[Tensor, " d"]
    ln_2: Float[Tensor, " d"]
    ln_2_bias: Float[Tensor, " d"]
    up: Float[Tensor, "hidden d"]
    up_bias: Float[Tensor, " hidden"]
    down: Float[Tensor, "d hidden"]
    down_bias: Float[Tensor, " d"]


class Packing(NamedTuple):
    """Positions of the tokens of n sequences in a matrix with one row per token."""

    n: int
    length: int
    read: Int[Tensor, " n"]
    slots: Int[Tensor, " t"] | None = None
    causal: bool = False


class Shape(NamedTuple):
    """Common settings of the blocks; `dtype` is that of the matrix products."""

    heads: int
    eps: float
    activation: Activation
    dtype: torch.dtype


def run_blocks(
    x: Float[Tensor, "t d"], weights: list[BlockWeights], packing: Packing, shape: Shape
) -> Float[Tensor, "n d"]:
    """Pass tokens (one row each, float32) through residual attention blocks and return the output tokens.

    Each block computes y = x + Attention(LN(x)), then y + MLP(LN(y)).
    """
    flat = [tensor for block in weights for tensor in block]
    # gradients stop at the first block that needs any
    trained = [x.requires_grad or any(tensor.requires_grad for tensor in block) for block in weights]
    first = trained.index(True) if torch.is_grad_enabled() and any(trained) else len(weights)
    return cast(Tensor, _Blocks.apply(x, packing, shape, first, *flat))


class _Blocks(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, packing: Packing, shape: Shape, first: int, *flat: Tensor) -> Tensor:
        blocks = [BlockWeights(*flat[k : k + WEIGHTS]) for k in range(0, len(flat), WEIGHTS)]
        ctx.kept, ctx.packing, ctx.shape, ctx.tensors = [], packing, shape, len(flat)
        with torch.autocast(x.device.type, enabled=False):
            for number, block in enumerate(blocks):
                kept = _forward(x, _cast(block, shape.dtype), packing, shape, last=number == len(blocks) - 1)
                x = kept.pop("result")
                if number >= first:
                    ctx.kept.append(kept)
        return x

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        gradients: list[Tensor] = []
        grad = grad.contiguous()
        while ctx.kept:
            # frees the block's activations
            kept = ctx.kept.pop()
            grad, own = _backward(grad, kept, ctx.packing, ctx.shape)
            gradients = [*own, *gradients]
        frozen = [None] * (ctx.tensors - len(gradients))
        return (None if frozen else grad, None, None, None, *frozen, *gradients)


def _cast(block: BlockWeights, dtype: torch.dtype) -> BlockWeights:
    """Cast the matrices and their biases; layer norms stay in float32."""
    if dtype == torch.float32:
        return block
    return BlockWeights(*(t if k in {0, 1, 6, 7} else t.to(dtype) for k, t in enumerate(block)))


def _forward(x: Tensor, w: BlockWeights, packing: Packing, shape: Shape, *, last: bool) -> dict[str, Any]:
    """Compute one block and the inputs of its backward pass; in the last block, only the output tokens."""
    dtype, d = shape.dtype, x.shape[1]
    normed, mean_1, rstd_1 = torch.native_layer_norm(x, (d,), w.ln_1, w.ln_1_bias, shape.eps)
    h = normed.to(dtype)
    if last:
        own = h[packing.read]
        q = torch.addmm(w.qkv_bias[:d], own, w.qkv[:d].t()).view(-1, 1, d // shape.heads)
        k, v = _split(torch.addmm(w.qkv_bias[d:], h, w.qkv[d:].t()), 2, packing, shape)
    else:
        own = None
        q, k, v = _split(torch.addmm(w.qkv_bias, h, w.qkv.t()), 3, packing, shape)
    p = _attend(q, k, packing, shape, last=last)
    mixed = torch.bmm(p, v)
    o = mixed.view(packing.n, d) if last else _join([mixed], packing, shape)
    y = torch.addmm(w.out_bias, o, w.out.t()) + (x[packing.read] if last else x)
    normed, mean_2, rstd_2 = torch.native_layer_norm(y, (d,), w.ln_2, w.ln_2_bias, shape.eps)
    h_2 = normed.to(dtype)
    u = torch.addmm(w.up_bias, h_2, w.up.t())
    a = _activate(u, shape.activation)
    return {
        "result": torch.addmm(w.down_bias, a, w.down.t()) + y,
        "w": w,
        "ln_1": (x, mean_1, rstd_1),
        "ln_2": (y, mean_2, rstd_2),
        "attention": (h, own, q, k, v, p, o),
        "mlp": (h_2, u, a),
    }


def _backward(g: Tensor, kept: dict[str, Any], packing: Packing, shape: Shape) -> tuple[Tensor, list[Tensor]]:
    w: BlockWeights = kept["w"]
    h_2, u, a = kept["mlp"]
    g_mlp = g.to(shape.dtype)
    d_down, d_down_bias = g_mlp.t() @ a, g.sum(0)
    d_u = _activate_backward(g_mlp @ w.down, u, shape.activation)
    d_up, d_up_bias = d_u.t() @ h_2, d_u.sum(0)
    d_y, d_ln_2, d_ln_2_bias = _norm_backward(d_u @ w.up, kept["ln_2"], w.ln_2, w.ln_2_bias)
    g = d_y.add_(g)

    h, own, q, k, v, p, o = kept["attention"]
    g_out = g.to(shape.dtype)
    d_out, d_out_bias = g_out.t() @ o, g.sum(0)
    d_o, last = g_out @ w.out, own is not None
    d_o = d_o.view_as(q) if last else _split(d_o, 1, packing, shape)[0]
    d_v = torch.bmm(p.transpose(1, 2), d_o)
    d_q, d_k = _attend_backward(torch.bmm(d_o, v.transpose(1, 2)), q, k, p, shape)
    if last:
        d_q, d_kv, d = d_q.view(packing.n, -1), _join([d_k, d_v], packing, shape), h.shape[1]
        d_qkv = torch.cat([d_q.t() @ own, d_kv.t() @ h])
        d_qkv_bias = torch.cat([d_q.sum(0), d_kv.sum(0)])
        # each row is added once: deterministic
        d_h = (d_kv @ w.qkv[d:]).index_add_(0, packing.read, d_q @ w.qkv[:d])
    else:
        joined = _join([d_q, d_k, d_v], packing, shape)
        d_qkv, d_qkv_bias, d_h = joined.t() @ h, joined.sum(0), joined @ w.qkv
    d_x, d_ln_1, d_ln_1_bias = _norm_backward(d_h, kept["ln_1"], w.ln_1, w.ln_1_bias)
    d_x = d_x.index_add_(0, packing.read, g) if last else d_x.add_(g)
    gradients = [
        *(d_ln_1, d_ln_1_bias, d_qkv, d_qkv_bias, d_out, d_out_bias),
        *(d_ln_2, d_ln_2_bias, d_up, d_up_bias, d_down, d_down_bias),
    ]
    return d_x, [gradient.float() for gradient in gradients]


def _split(rows: Tensor, parts: int, packing: Packing, shape: Shape) -> tuple[Tensor, ...]:
    """Split rows of `parts` * d values into `parts` arrays of shape (n * heads, length, d / heads)."""
    if packing.slots is not None:
        padded = rows.new_zeros((packing.n * packing.length, rows.shape[1]))
        rows = padded.index_copy_(0, packing.slots, rows)
    laid = rows.view(packing.n, packing.length, parts, shape.heads, -1).permute(2, 0, 3, 1, 4)
    return laid.reshape(parts, packing.n * shape.heads, packing.length, -1).unbind(0)


def _join(parts: list[Tensor], packing: Packing, shape: Shape) -> Tensor:
    laid = torch.stack([part.view(packing.n, shape.heads, packing.length, -1) for part in parts])
    rows = laid.permute(1, 3, 0, 2, 4).reshape(packing.n * packing.length, -1)
    return rows if packing.slots is None else rows.index_select(0, packing.slots)


def _attend(q: Tensor, k: Tensor, packing: Packing, shape: Shape, *, last: bool) -> Tensor:
    """Attention weights softmax(q kᵀ / √(d / heads)), the softmax in float32."""
    s = torch.bmm(q, k.transpose(1, 2)).float().mul_(q.shape[-1] ** -0.5)
    if packing.causal:
        at = torch.arange(packing.length, device=s.device)
        if last and packing.slots is not None:
            # packed sequences end at the output token, followed by padding
            ends = packing.slots[packing.read] % packing.length
            hidden = (at > ends[:, None]).repeat_interleave(shape.heads, 0)[:, None]
            s.masked_fill_(hidden, -torch.inf)
        elif not last:
            s.masked_fill_(at > at[:, None], -torch.inf)
    return s.softmax(-1).to(shape.dtype)


def _attend_backward(d_p: Tensor, q: Tensor, k: Tensor, p: Tensor, shape: Shape) -> tuple[Tensor, Tensor]:
    # the backward kernel is many times slower in bf16 than in float32
    d_s = torch.ops.aten._softmax_backward_data(d_p.float(), p.float(), -1, torch.float32)
    d_s = d_s.mul_(q.shape[-1] ** -0.5).to(shape.dtype)
    return torch.bmm(d_s, k), torch.bmm(d_s.transpose(1, 2), q)


def _norm_backward(
    d_h: Tensor, kept: tuple[Tensor, Tensor, Tensor], weight: Tensor, bias: Tensor
) -> tuple[Tensor, ...]:
    x, mean, rstd = kept
    return torch.ops.aten.native_layer_norm_backward(
        d_h.float(), x, (x.shape[1],), mean, rstd, weight, bias, (True, True, True)
    )


def _activate(u: Tensor, kind: Activation) -> Tensor:
    if kind == "quick_gelu":
        return torch.sigmoid(1.702 * u).mul_(u)
    return torch.nn.functional.gelu(u)


def _activate_backward(d_a: Tensor, u: Tensor, kind: Activation) -> Tensor:
    if kind == "quick_gelu":
        s = torch.sigmoid(1.702 * u)
        return d_a * s * (1 + 1.702 * u * (1 - s))
    return torch.ops.aten.gelu_backward(d_a, u)
