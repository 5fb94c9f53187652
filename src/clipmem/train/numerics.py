"""How numbers are computed: precision, attention kernel, compiler, denormals, threads. Each choice was measured."""

import contextlib
import ctypes
import os
import shutil
from collections.abc import Generator
from typing import Literal

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from clipmem.base.require import require

# Up to about this many tokens, plain matrix products beat the blocked attention kernel on CPUs: at 65 tokens its
# backward pass took a third of a tiny model's step. Longer sequences were not measured and keep torch's choice.
_SHORT = 100
LONG = 1000  # tokens of a model that does not tell: the attention kernel stays torch's choice
Precision = Literal["fp32", "tf32", "bf16"]
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # names of malloc.h
_COMPILERS = {"cpu": ("g++", "clang++"), "cuda": ("gcc", "clang", "cc")}


def resolve_precision(setting: Precision | Literal["auto"], device: str) -> Precision:
    """Turn `auto` into `bf16` where the device computes in it, else `fp32`."""
    right, expected = setting != "tf32" or device == "cuda", "a GPU: tf32 is how its matrix units take float32"
    require(right, "[train] precision = 'tf32'", f"device {device}", expected, "Use auto, fp32 or bf16.")
    if setting != "auto":
        return setting
    if device == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported() else "fp32"
    # emulated bf16 (no AMX, no AVX512-BF16 instructions) is slower than fp32
    supported = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    return "bf16" if supported() else "fp32"


def check_compiler(setting: Literal["off", "on"], device: str) -> None:
    """Check that `train.compile` can work here: on CPUs torch compiles C++, on GPUs its kernels' launchers."""
    wanted = [os.environ["CXX"]] if "CXX" in os.environ else _COMPILERS[device]
    there = setting != "on" or any(shutil.which(name) for name in wanted)
    got, expected = f"no compiler here (looked for {', '.join(wanted)})", "a C++ compiler on the PATH, or named by CXX"
    hint = "Install one (Debian, Ubuntu: apt-get install g++), or set train.compile = 'off'."
    require(there, "[train] compile = 'on'", got, expected, hint)


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
def multiplying(precision: str, device: str) -> Generator[None]:
    """Multiply float32 matrices on a GPU in full inside the block, or with `tf32` at its 10 bits of mantissa.

    It holds for forward and backward passes, and comes back as it was. torch takes convolutions in tf32 unless told not
    to: with `fp32` a GPU would otherwise not agree with a CPU. On CPUs nothing is changed.
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
    """Let this process keep the memory that it frees; for processes that do nothing but train.

    The C library gives large blocks back to the system and fetches them anew for every batch; each page of them then
    costs a fault. For 128 views at 224 pixels that takes as long as making them. The process holds on to its largest
    need until it ends, which for a training is that of every step.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    return bool(mallopt(_M_MMAP_MAX, 0)) and bool(mallopt(_M_TRIM_THRESHOLD, 2**31 - 1))


@contextlib.contextmanager
def threads(count: int) -> Generator[None]:
    """Compute with `count` threads inside the block; the process's own setting comes back after it."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
