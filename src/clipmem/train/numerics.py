"""How numbers are computed: precision, attention kernel, denormals, threads. Each choice was measured."""

import contextlib
from collections.abc import Generator
from typing import Literal

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

# Up to about this many tokens, plain matrix products beat the blocked attention kernel on CPUs: at 65 tokens its
# backward pass took a third of a tiny model's step. Longer sequences were not measured and keep torch's choice.
_SHORT = 100


def resolve_precision(setting: Literal["auto", "fp32", "bf16"], device: str) -> Literal["fp32", "bf16"]:
    """Turn `auto` into `bf16` where the processor computes in it, else `fp32`."""
    if setting != "auto":
        return setting
    if device == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported() else "fp32"
    # emulated bf16 (no AMX, no AVX512-BF16 instructions) is slower than fp32
    supported = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    return "bf16" if supported() else "fp32"


@contextlib.contextmanager
def computing(precision: str, device: str, *, tokens: int) -> Generator[None]:
    """Run a forward pass with autocast as asked and the attention kernel that is fastest for `tokens` tokens."""
    with contextlib.ExitStack() as stack:
        if precision == "bf16":
            stack.enter_context(torch.autocast(device, torch.bfloat16))
        if device == "cpu" and tokens <= _SHORT:
            stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        yield


@contextlib.contextmanager
def threads(count: int) -> Generator[None]:
    """Compute with `count` threads inside the block; the process's own setting comes back after it."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
