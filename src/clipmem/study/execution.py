"""What a study resolves for the machine it runs on: device, precision, threads. Kept in the manifest for resuming."""

from dataclasses import asdict, dataclass
from typing import Any

import torch

from clipmem.base.machine import cores
from clipmem.base.recipes import Recipe
from clipmem.base.require import require
from clipmem.train.numerics import check_compiler, resolve_precision


@dataclass(frozen=True)
class Execution:
    """How models are computed. The number of threads is part of it because it changes the order of additions."""

    device: str
    precision: str
    threads: int
    workers: int
    processes: int = 1

    def as_dict(self) -> dict[str, Any]:
        """Return the fields for the manifest."""
        return asdict(self)


def resolve(recipe: Recipe, models: int, *, device: str = "auto") -> Execution:
    """Choose for this machine: as many models at a time as there are cores, the cores shared among them.

    Two processes of one thread are faster than one of two: a small model's operations are too short to share.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    there = device == "cpu" or (device == "cuda" and torch.cuda.is_available())
    require(there, f"device {device!r}", "no such device here", "cpu, or cuda where there is one", "Use auto.")
    workers = min(models, cores()) if device == "cpu" else 1
    precision = resolve_precision(recipe.train.precision, device)
    check_compiler(recipe.train.compile, device)
    return Execution(device, precision, max(1, cores() // workers), workers)


def batches_ahead(how: Execution, processes: int) -> int:
    """Return how many batches each of `processes` training processes makes in advance, in a thread of its own."""
    if how.device == "cuda":
        return 2
    return int(cores() - processes * how.threads >= processes)


def from_manifest(manifest: dict[str, Any]) -> Execution:
    """Read back what a run folder was begun with, so that what is left is computed alike."""
    return Execution(
        manifest["device"],
        manifest["precision"],
        manifest["threads"],
        manifest["workers"],
        manifest.get("processes", 1),
    )
