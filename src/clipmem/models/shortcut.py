"""Forward passes of plain open_clip towers through `clipmem.models.blocks`.

Training steps of the demo's model are 1.4 to 1.5 times faster with it (`python benchmarks/run.py --suite passes`). For
any other tower, and for towers with hooks, `image_pass` and `text_pass` return None and open_clip's own pass is used.
With `clipmem.models.openclip`, the only module that imports open_clip.
"""

from typing import Any, cast

import torch
from jaxtyping import Float, Int
from open_clip.model import CLIP
from open_clip.transformer import LayerNorm, QuickGELU, ResidualAttentionBlock, Transformer, VisionTransformer
from torch import Tensor, nn

from clipmem.models.blocks import Activation, BlockWeights, Packing, Shape, run_blocks

_LONGEST = 128  # tokens; for more, torch's blocked attention kernel needs less memory
_ROUND = 32


def image_pass(model: nn.Module, pixels: Float[Tensor, "n 3 size size"]) -> Float[Tensor, "n d"] | None:
    """Embed normalized images with a vision transformer with class-token pooling, or return None."""
    tower: Any = getattr(model, "visual", None)
    if type(model) is not CLIP or type(tower) is not VisionTransformer or not _on_cpu(pixels):
        return None
    if tower.pool_type != "tok" or tower.attn_pool is not None or tower.output_tokens or _watched(model, tower):
        return None
    tokens = tower.grid_size[0] * tower.grid_size[1] + 1
    shape, weights = _blocks_of(tower.transformer)
    if shape is None or tokens > _LONGEST or tuple(pixels.shape[2:]) != tuple(tower.image_size):
        return None
    if type(tower.patch_dropout) is not nn.Identity or not _plain_conv(tower.conv1):
        return None
    if not (_plain_norm(tower.ln_post) and (_plain_norm(tower.ln_pre) or type(tower.ln_pre) is nn.Identity)):
        return None
    n, width = len(pixels), tower.class_embedding.shape[0]
    patches = nn.functional.linear(_patches(pixels, tower), tower.conv1.weight.flatten(1)).float()
    first = tower.class_embedding.expand(n, 1, width)
    x = torch.cat([first, patches.view(n, tokens - 1, width)], dim=1) + tower.positional_embedding
    read = torch.arange(0, n * tokens, tokens)
    x = run_blocks(tower.ln_pre(x).view(n * tokens, width), weights, Packing(n, tokens, read), shape)
    # with one token left, `final_ln_after_pool` does not matter
    x = tower.ln_post(x)
    return x if tower.proj is None else x @ tower.proj


def text_pass(
    model: nn.Module, tokens: Int[Tensor, "n length"], rows: Int[Tensor, "n length"]
) -> Float[Tensor, "n d"] | None:
    """Embed captions with a causal text tower with argmax (end-of-text) pooling, or return None."""
    return _text_pass(model, tokens, rows) if type(model) is CLIP else None


def _text_pass(model: Any, tokens: Tensor, rows: Tensor) -> Tensor | None:
    if not _on_cpu(model.token_embedding.weight) or tokens.shape[1] > _LONGEST:
        return None
    shape, weights = _blocks_of(model.transformer)
    if shape is None or model.text_pool_type != "argmax" or not _is_causal(model.attn_mask):
        return None
    if type(model.token_embedding) is not nn.Embedding or not _plain_norm(model.ln_final):
        return None
    projection = model.text_projection
    watched = _watched(model, model.transformer) or _hooked(model.token_embedding, model.ln_final)
    if watched or not (projection is None or isinstance(projection, nn.Parameter)):
        return None
    end = tokens.argmax(dim=-1)
    n, length = len(tokens), int(end.max()) + 1
    slots, read = _packed(end, length)
    x = model.token_embedding(rows[:, :length].flatten()[slots])
    # an embedding has a deterministic backward pass
    x = x + nn.functional.embedding(slots % length, model.positional_embedding)
    x = model.ln_final(run_blocks(x, weights, Packing(n, length, read, slots, causal=True), shape))
    return x if projection is None else x @ projection


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


def _on_cpu(tensor: Tensor) -> bool:
    # other devices have fused kernels, which open_clip's pass uses
    return tensor.device.type == "cpu" and tensor.dtype == torch.float32


def _is_causal(mask: Any) -> bool:
    return (
        isinstance(mask, Tensor) and mask.ndim == 2 and bool((mask == torch.full_like(mask, -torch.inf).triu_(1)).all())
    )


def _patches(pixels: Tensor, tower: Any) -> Tensor:
    """Cut images into patches, one row each, so that the convolution is a matrix product."""
    (rows, columns), (height, width) = tower.grid_size, tower.patch_size
    cut = pixels.view(len(pixels), 3, rows, height, columns, width).permute(0, 2, 4, 1, 3, 5)
    dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else pixels.dtype
    laid = torch.empty(cut.shape, dtype=dtype).copy_(cut) if not pixels.requires_grad else cut.to(dtype)
    return laid.reshape(len(pixels) * rows * columns, -1)


def _plain_conv(conv: Any) -> bool:
    return (
        type(conv) is nn.Conv2d
        and conv.bias is None
        and conv.groups == 1
        and conv.stride == conv.kernel_size
        and conv.padding == (0, 0)
        and conv.dilation == (1, 1)
        and conv.weight.dtype == torch.float32
    )


def _plain_norm(norm: Any) -> bool:
    return type(norm) in {LayerNorm, nn.LayerNorm} and norm.bias is not None and norm.weight.dtype == torch.float32


def _hooked(*modules: nn.Module) -> bool:
    return any(
        m._forward_hooks or m._forward_pre_hooks or m._backward_hooks or m._backward_pre_hooks or "forward" in vars(m)  # pyright: ignore[reportPrivateUsage]
        for m in modules
    )


def _watched(model: nn.Module, tower: nn.Module) -> bool:
    everywhere = nn.modules.module
    if everywhere._global_forward_hooks or everywhere._global_forward_pre_hooks or everywhere._global_backward_hooks:  # pyright: ignore[reportPrivateUsage]
        return True
    return _hooked(model, *tower.modules())


def _blocks_of(transformer: Any) -> tuple[Shape | None, list[BlockWeights]]:
    """Return the common settings and the weights of a transformer's blocks; None if they are not plain blocks."""
    if type(transformer) is not Transformer or transformer.grad_checkpointing or not len(transformer.resblocks):
        return None, []
    kinds = {_kind(block) for block in transformer.resblocks}
    kind = kinds.pop()
    if kinds or kind is None:
        return None, []
    dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else torch.float32
    return Shape(*kind, dtype), [_weights(block) for block in transformer.resblocks]


def _kind(block: Any) -> tuple[int, float, Activation] | None:
    if type(block) is not ResidualAttentionBlock or type(block.attn) is not nn.MultiheadAttention:
        return None
    attention, mlp = cast(Any, block.attn), block.mlp
    plain_attention = (
        attention.in_proj_weight is not None
        and attention.in_proj_bias is not None
        and not attention.dropout
        and attention.batch_first
        and attention.bias_k is None
        and not attention.add_zero_attn
    )
    plain_mlp = (
        type(mlp) is nn.Sequential
        and [name for name, _ in mlp.named_children()] == ["c_fc", "gelu", "c_proj"]
        and type(mlp.c_fc) is type(mlp.c_proj) is nn.Linear
        and len(list(mlp.parameters())) == 4
    )
    unscaled = type(block.ls_1) is type(block.ls_2) is nn.Identity and not hasattr(block, "ln_1_kv")
    norms = _plain_norm(block.ln_1) and _plain_norm(block.ln_2) and block.ln_1.eps == block.ln_2.eps
    if not (plain_attention and plain_mlp and unscaled and norms):
        return None
    if any(t.dtype != torch.float32 for t in _weights(block)):
        return None
    exact = type(mlp.gelu) is nn.GELU and mlp.gelu.approximate == "none"
    activation: Activation | None = "gelu" if exact else "quick_gelu" if type(mlp.gelu) is QuickGELU else None
    return None if activation is None else (attention.num_heads, block.ln_1.eps, activation)


def _weights(block: Any) -> BlockWeights:
    attention, up, down = block.attn, block.mlp.c_fc, block.mlp.c_proj
    return BlockWeights(
        *(block.ln_1.weight, block.ln_1.bias, attention.in_proj_weight, attention.in_proj_bias),
        *(attention.out_proj.weight, attention.out_proj.bias, block.ln_2.weight, block.ln_2.bias),
        *(up.weight, up.bias, down.weight, cast(Tensor, down.bias)),
    )
