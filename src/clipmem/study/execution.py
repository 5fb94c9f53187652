"""Device, precision and threads of a study on this machine, stored in the manifest for resuming."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from pydantic import TypeAdapter

from clipmem.base.errors import require
from clipmem.base.machine import cores
from clipmem.base.recipes import Recipe
from clipmem.models.numerics import check_compiler, resolve_precision


@dataclass(frozen=True)
class Execution:
    """Resources of a study. The number of threads is included because it changes the order of additions."""

    device: str
    precision: str
    threads: int
    workers: int
    processes: int = 1


def resolve(recipe: Recipe, models: int, *, device: str = "auto") -> Execution:
    """Choose the resources for this machine: one worker per model, up to the number of cores, which they share."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    available = device == "cpu" or (device == "cuda" and torch.cuda.is_available())
    require(available, f"device {device!r}", "an unavailable device", "cpu, or cuda with a GPU", "Use auto.")
    workers = min(models, cores()) if device == "cpu" else 1
    precision = resolve_precision(recipe.train.precision, device)
    check_compiler(recipe.train.compile, device)
    return Execution(device, precision, max(1, cores() // workers), workers)


def batches_ahead(resources: Execution, processes: int) -> int:
    """Return the number of batches that each of `processes` training processes prefetches in a thread."""
    if resources.device == "cuda":
        return 2
    return int(cores() - processes * resources.threads >= processes)


def from_manifest(manifest: Mapping[str, object]) -> Execution:
    """Read the resources that a study was started with."""
    before = TypeAdapter(Execution).validate_python(dict(manifest))
    # scores and reports need no GPU
    return before if before.device != "cuda" or torch.cuda.is_available() else replace(before, device="cpu")
