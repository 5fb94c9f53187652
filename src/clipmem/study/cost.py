"""What a training cost: its largest memory. Kept in the markers of a run folder, never in files that must be the same.

When not to trust it: the memory is that of the whole process, interpreter and libraries (some 500 MB) included. Pages
of the pixel cache that the system keeps for several processes count in each of them.
"""

import resource
import sys
from pathlib import Path

import torch

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_RESET_PEAK = "5"


class PeakMemory:
    """Measures the largest memory of this process, and of its device, from now on.

    Args:
        device: `cpu` or `cuda`.
    """

    def __init__(self, device: str) -> None:
        self._cuda = device == "cuda"
        # Linux forgets the peak when asked to; elsewhere a process that trains several models keeps the largest of all
        try:
            _CLEAR.write_text(_RESET_PEAK)
        except OSError:
            self._forgets = False
        else:
            self._forgets = True
        if self._cuda:
            torch.cuda.reset_peak_memory_stats()

    def measured(self) -> dict[str, float]:
        """Return `peak_memory_bytes`, and `peak_device_bytes` (allocated by torch) where the device is cuda."""
        found: dict[str, float] = {"peak_memory_bytes": float(self._resident())}
        if self._cuda:
            found["peak_device_bytes"] = float(torch.cuda.max_memory_allocated())
        return found

    def _resident(self) -> int:
        if self._forgets:
            for line in _STATUS.read_text(encoding="utf-8").splitlines():
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) * 1024
        # macOS counts bytes, the others kilobytes
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
