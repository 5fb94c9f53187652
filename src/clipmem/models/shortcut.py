"""Forward passes of open_clip's plain towers on CPUs that compute no more than the output needs.

The output of a tower is one token of each sequence: the last block computes query, output projection and MLP for that
token only. Captions are packed: tokens after end-of-text are not computed. Attention and the patches' convolution are
matrix products. All else is open_clip's modules, so that the result equals theirs up to rounding. A training step of
the demo's model is 1.3 to 1.6 times as fast (`python benchmarks/run.py --suite passes`).

For other towers, and for towers with hooks, `image_pass` and `text_pass` return None, and open_clip's own pass is used.
With `clipmem.models.openclip` and `tokenizers`, the only module that imports open_clip.
"""

from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from open_clip.model import CLIP
from open_clip.transformer import ResidualAttentionBlock, Transformer, VisionTransformer
from torch import Tensor, nn

from clipmem.models.protocol import Rows, Tokens

_LONGEST = 128  # tokens; for more, torch's blocked attention kernel needs less memory
_ROUND = 32


class Packing(NamedTuple):
    """Positions of the tokens of n sequences in a matrix with one row per token; `read` are the output tokens."""

    n: int
    length: int
    read: Int[Tensor, " n"]
    slots: Int[Tensor, " t"] | None = None
    causal: bool = False


def image_pass(model: nn.Module, pixels: Float[Tensor, "n 3 size size"]) -> Rows | None:
    """Embed normalized images with a vision transformer with class-token pooling, or return None."""
    tower: Any = getattr(model, "visual", None)
    if type(model) is not CLIP or not _is_exactly(tower, VisionTransformer) or pixels.device.type != "cpu":
        return None
    tokens, conv = tower.grid_size[0] * tower.grid_size[1] + 1, tower.conv1
    if tower.pool_type != "tok" or tower.attn_pool is not None or tower.output_tokens or tokens > _LONGEST:
        return None
    if type(tower.patch_dropout) is not nn.Identity or tuple(pixels.shape[2:]) != tuple(tower.image_size):
        return None
    if not _is_exactly(conv, nn.Conv2d) or conv.bias is not None or conv.stride != conv.kernel_size:
        return None
    if not _is_plain(tower.transformer, [model, *tower.modules()]):
        return None
    (rows, columns), (height, width), n = tower.grid_size, tower.patch_size, len(pixels)
    cut = pixels.view(n, 3, rows, height, columns, width).permute(0, 2, 4, 1, 3, 5).reshape(n, tokens - 1, -1)
    patches = nn.functional.linear(cut, conv.weight.flatten(1)).float()  # 6 times as fast as the convolution
    x = torch.cat([tower.class_embedding.expand(n, 1, -1), patches], dim=1) + tower.positional_embedding
    packing = Packing(n, tokens, torch.arange(0, n * tokens, tokens))
    # with one token left, `final_ln_after_pool` does not matter
    x = tower.ln_post(_blocks(tower.ln_pre(x).flatten(0, 1), tower.transformer, packing))
    return x if tower.proj is None else x @ tower.proj


def text_pass(model: Any, tokens: Tokens, rows: Tokens) -> Rows | None:
    """Embed captions with a causal text tower with argmax (end-of-text) pooling, or return None."""
    if not _is_exactly(model, CLIP) or tokens.device.type != "cpu" or tokens.shape[1] > _LONGEST:
        return None
    modules = [model, model.token_embedding, model.ln_final, *model.transformer.modules()]
    mask = model.attn_mask
    causal = isinstance(mask, Tensor) and mask.ndim == 2 and mask.equal(torch.full_like(mask, -torch.inf).triu_(1))
    if model.text_pool_type != "argmax" or not causal or not _is_plain(model.transformer, modules):
        return None
    end = tokens.argmax(dim=-1)
    n, length = len(tokens), int(end.max()) + 1
    slots, read = _packed(end, length)
    x = model.token_embedding(rows[:, :length].flatten()[slots])
    # an embedding has a deterministic backward pass
    x = x + nn.functional.embedding(slots % length, model.positional_embedding)
    x = model.ln_final(_blocks(x, model.transformer, Packing(n, length, read, slots, causal=True)))
    return project(model, x)


def project(model: Any, x: Rows) -> Float[Tensor, "n out"]:
    """Apply the projection of the text tower: a matrix, a module, or none."""
    projection = model.text_projection
    if projection is None:
        return x
    return projection(x) if isinstance(projection, nn.Module) else x @ projection


def _packed(end: Int[Tensor, " n"], length: int) -> tuple[Int[Tensor, " t"], Int[Tensor, " n"]]:
    """Choose the positions among n * length to compute, and the row of each caption's end-of-text among them.

    Tokens after end-of-text are skipped, except to make the number of rows a multiple of `_ROUND`: the matrix-product
    library compiles a kernel for every new number of rows, which takes longer than the product.
    """
    used = (torch.arange(length) <= end[:, None]).flatten()
    spare = (~used).nonzero().squeeze(1)
    used[spare[: -int(used.sum()) % _ROUND]] = True
    read = used.cumsum(0)[torch.arange(len(end)) * length + end] - 1
    return used.nonzero().squeeze(1), read


def _blocks(x: Float[Tensor, "t d"], transformer: Any, packing: Packing) -> Rows:
    """Pass tokens, one row each, through blocks y = x + Attention(LN(x)), y + MLP(LN(y)) to the output tokens."""
    *first, last = transformer.resblocks
    at = torch.arange(packing.length)
    hidden = at > at[:, None] if packing.causal else None
    for block in first:
        attention = block.attn
        joint = nn.functional.linear(block.ln_1(x), attention.in_proj_weight, attention.in_proj_bias)
        q, k, v = _split(joint, 3, attention.num_heads, packing)
        laid = torch.bmm(_weights(q, k, hidden), v).view(packing.n, attention.num_heads, packing.length, -1)
        rows = laid.transpose(1, 2).reshape(packing.n * packing.length, -1)
        rows = rows if packing.slots is None else rows.index_select(0, packing.slots)
        x = x + block.ls_1(attention.out_proj(rows))
        x = x + block.ls_2(block.mlp(block.ln_2(x)))
    x = x[packing.read] + last.ls_1(last.attn.out_proj(_last_attention(last.attn, last.ln_1(x), packing)))
    return x + last.ls_2(last.mlp(last.ln_2(x)))


def _last_attention(attention: Any, h: Float[Tensor, "t d"], packing: Packing) -> Rows:
    d, heads = h.shape[1], attention.num_heads
    weight, bias = attention.in_proj_weight, attention.in_proj_bias
    q = nn.functional.linear(h[packing.read], weight[:d], bias[:d]).view(packing.n * heads, 1, -1)
    k, v = _split(nn.functional.linear(h, weight[d:], bias[d:]), 2, heads, packing)
    hidden = None
    if packing.slots is not None:  # packed sequences end at the output token, followed by padding
        ends = packing.slots[packing.read] % packing.length
        hidden = (torch.arange(packing.length) > ends[:, None]).repeat_interleave(heads, 0)[:, None]
    return torch.bmm(_weights(q, k, hidden), v).view(packing.n, d)


def _split(rows: Tensor, parts: int, heads: int, packing: Packing) -> tuple[Tensor, ...]:
    """Split rows of `parts` * d values into `parts` arrays of shape (n * heads, length, d / heads)."""
    if packing.slots is not None:
        rows = rows.new_zeros((packing.n * packing.length, rows.shape[1])).index_copy(0, packing.slots, rows)
    laid = rows.view(packing.n, packing.length, parts, heads, -1).permute(2, 0, 3, 1, 4)
    return laid.reshape(parts, packing.n * heads, packing.length, -1).unbind(0)


def _weights(q: Tensor, k: Tensor, hidden: Tensor | None) -> Tensor:
    """Attention weights softmax(q kᵀ / √(d / heads)), the softmax in float32, without `hidden` positions."""
    s = torch.bmm(q, k.transpose(1, 2)).float() * q.shape[-1] ** -0.5
    return (s if hidden is None else s.masked_fill(hidden, -torch.inf)).softmax(-1).to(q.dtype)


def _is_exactly(item: object, kind: type) -> bool:
    return type(item) is kind  # a subclass may compute something else


def _is_plain(transformer: Any, modules: list[nn.Module]) -> bool:
    """Return whether all blocks are float32 ones of joint self-attention, and none of `modules` has a hook."""
    if type(transformer) is not Transformer or transformer.grad_checkpointing or not len(transformer.resblocks):
        return False
    everywhere = nn.modules.module
    if everywhere._global_forward_hooks or everywhere._global_forward_pre_hooks or everywhere._global_backward_hooks:  # pyright: ignore[reportPrivateUsage]
        return False
    return all(map(_is_plain_block, transformer.resblocks)) and not any(
        m._forward_hooks or m._forward_pre_hooks or m._backward_hooks or m._backward_pre_hooks or "forward" in vars(m)  # pyright: ignore[reportPrivateUsage]
        for m in modules
    )


def _is_plain_block(block: Any) -> bool:
    attention: Any = getattr(block, "attn", None)
    return (
        _is_exactly(block, ResidualAttentionBlock)
        and _is_exactly(attention, nn.MultiheadAttention)
        and attention.in_proj_weight is not None
        and attention.in_proj_bias is not None
        and attention.in_proj_weight.dtype == torch.float32
        and not attention.dropout
        and attention.batch_first
        and attention.bias_k is None
        and not attention.add_zero_attn
        and not hasattr(block, "ln_1_kv")
    )
