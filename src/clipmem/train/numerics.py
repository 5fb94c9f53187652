"""How numbers are computed: precision, attention kernel, compiler, denormals, threads. Each choice was measured."""

import contextlib
import os
import shutil
from collections.abc import Generator
from typing import Literal

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from clipmem.base.errors import InputError

# Up to about this many tokens, plain matrix products beat the blocked attention kernel on CPUs: at 65 tokens its
# backward pass took a third of a tiny model's step. Longer sequences were not measured and keep torch's choice.
_SHORT = 100
_COMPILERS = {"cpu": ("g++", "clang++"), "cuda": ("gcc", "clang", "cc")}


def resolve_precision(setting: Literal["auto", "fp32", "bf16"], device: str) -> Literal["fp32", "bf16"]:
    """Turn `auto` into `bf16` where the processor computes in it, else `fp32`."""
    if setting != "auto":
        return setting
    if device == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported() else "fp32"
    # emulated bf16 (no AMX, no AVX512-BF16 instructions) is slower than fp32
    supported = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    return "bf16" if supported() else "fp32"


def check_compiler(setting: Literal["off", "on"], device: str) -> None:
    """Check that `train.compile` can work here: on CPUs torch compiles C++, on GPUs its kernels' launchers.

    Raises:
        InputError: It is on, and there is no compiler.
    """
    wanted = [os.environ["CXX"]] if "CXX" in os.environ else _COMPILERS[device]
    if setting == "on" and not any(shutil.which(name) for name in wanted):
        raise InputError(
            "[train] compile = 'on'",
            got=f"no compiler here (looked for {', '.join(wanted)})",
            expected="a C++ compiler on the PATH, or named by the environment variable CXX",
            todo="Install one (Debian, Ubuntu: apt-get install g++), or set train.compile = 'off'.",
        )


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
