"""Cores, memory and GPU of this machine, on every operating system, without torch."""

import ctypes
import os
import re
import sys
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from clipmem.base.errors import require, require_one_of

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_RESET_PEAK = "5"
DEVICES = ("auto", "cpu", "cuda")


def installed(package: str) -> str:
    """Return the version of an installed package from its metadata, without importing it, or `missing`."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "missing"


def cores() -> int:
    """Count the processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def memory() -> int | None:
    """Return the machine's memory in bytes; None if unknown."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None


def reset_peak_memory() -> bool:
    """Reset the peak memory of this process; return False where the system cannot (Linux can)."""
    try:
        _CLEAR.write_text(_RESET_PEAK)
    except OSError:
        return False
    return True


def peak_memory(*, since_reset: bool) -> int | None:
    """Return the peak memory of this process in bytes, including interpreter and libraries (about 500 MB)."""
    if since_reset:
        for line in _STATUS.read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    try:
        import resource
    except ImportError:  # Windows
        return None
    # bytes on macOS, kilobytes elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def check_device(name: str) -> None:
    """Check that a device can be available.

    Raises:
        InputError: The name is not in `DEVICES`, or is `cuda` and torch could not use a GPU.
    """
    require_one_of("device", name, DEVICES)
    reason = _no_gpu() if name == "cuda" else ""
    require(not reason, f"device {name!r}", reason, "cpu, or cuda with a GPU", "Use auto.")


def _no_gpu() -> str:
    """Return why torch cannot use a GPU; "" if unknown before importing it."""
    spec = find_spec("torch")
    file = Path(spec.origin).with_name("version.py") if spec and spec.origin else None
    if file is None or not file.is_file():
        return ""
    text = file.read_text(encoding="utf-8")
    built = {name for name in ("cuda", "hip") if re.search(rf"^{name}\b[^=\n]*= *['\"]", text, re.MULTILINE)}
    if not built:
        return "a torch built without GPU support"
    if "hip" in built:
        return ""
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return "no NVIDIA driver on this machine"
    return ""
