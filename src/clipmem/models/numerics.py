"""Numerical settings: precision, attention kernel, compiler, memory, threads."""

import contextlib
import ctypes
import os
import shutil
from collections.abc import Generator
from typing import Literal

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from clipmem.base.errors import require

# up to about this many tokens, plain matrix products are faster than the blocked attention kernel on CPUs: at 65 tokens
# its backward pass took a third of a tiny model's step; longer sequences were not measured
_SHORT = 100
LONG = 1000  # tokens of a model with unknown length: keeps torch's attention kernel
Precision = Literal["fp32", "tf32", "bf16"]
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # names of malloc.h
_COMPILERS = {"cpu": ("g++", "clang++"), "cuda": ("gcc", "clang", "cc")}


def resolve_precision(setting: Precision | Literal["auto"], device: str) -> Precision:
    """Turn `auto` into `bf16` where the device computes in it, else `fp32`."""
    available, expected = setting != "tf32" or device == "cuda", "a GPU: only its matrix units support tf32"
    require(available, "[train] precision = 'tf32'", f"device {device}", expected, "Use auto, fp32 or bf16.")
    if setting != "auto":
        return setting
    if device == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported() else "fp32"
    # emulated bf16 (no AMX, no AVX512-BF16 instructions) is slower than fp32
    supported = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    return "bf16" if supported() else "fp32"


def check_compiler(setting: Literal["off", "on"], device: str) -> None:
    """Check that torch.compile finds a compiler: for C++ on CPUs, for the kernels' launchers on GPUs."""
    wanted = [os.environ["CXX"]] if "CXX" in os.environ else _COMPILERS[device]
    available = setting != "on" or any(shutil.which(name) for name in wanted)
    got, expected = f"no compiler here (looked for {', '.join(wanted)})", "a C++ compiler on the PATH, or named by CXX"
    hint = "Install one (Debian, Ubuntu: apt-get install g++), or set train.compile = 'off'."
    require(available, "[train] compile = 'on'", got, expected, hint)


@contextlib.contextmanager
def computing(precision: str, device: str, *, tokens: int) -> Generator[None]:
    """Run forward passes with autocast for `precision` and the fastest attention kernel for `tokens` tokens."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(multiplying(precision, device))
        if precision == "bf16":
            stack.enter_context(torch.autocast(device, torch.bfloat16))
        if device == "cpu" and tokens <= _SHORT:
            stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        yield


@contextlib.contextmanager
def multiplying(precision: str, device: str) -> Generator[None]:
    """Multiply float32 matrices on a GPU in full precision inside the block, or in tf32 (10 bits of mantissa).

    The setting covers forward and backward passes. torch computes convolutions in tf32 by default, which would make a
    GPU in `fp32` disagree with a CPU. It changes nothing on CPUs.
    """
    if device != "cuda":
        yield
        return
    short = precision == "tf32"
    before, convolutions = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("high" if short else "highest")
    torch.backends.cudnn.allow_tf32 = short
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
        torch.backends.cudnn.allow_tf32 = convolutions


def keep_memory() -> bool:
    """Keep freed memory in this process; return whether the C library supports it.

    By default it returns large blocks to the system and requests them again for every batch, with a page fault per
    page: for 128 views at 224 pixels that takes as long as making them. For processes that do nothing but train.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    return bool(mallopt(_M_MMAP_MAX, 0)) and bool(mallopt(_M_TRIM_THRESHOLD, 2**31 - 1))


@contextlib.contextmanager
def threads(count: int) -> Generator[None]:
    """Compute with `count` threads inside the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
