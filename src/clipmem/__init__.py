"""clipmem: measure, localize and mitigate memorization in CLIP-style image-text models. torch is imported lazily."""

import importlib
from typing import TYPE_CHECKING, Any

from clipmem._version import __version__

if TYPE_CHECKING:  # at run time the names below are loaded when first used
    from clipmem import functional, mitigate
    from clipmem.base.errors import ClipmemError, InputError, RunError
    from clipmem.base.recipes import Recipe, dump_recipe, load_recipe
    from clipmem.report.comparison_page import compare
    from clipmem.study.api import load_run, run
    from clipmem.study.curating import curate
    from clipmem.study.run import Run
    from clipmem.study.scoring import score
    from clipmem.train.recorder import AlignmentRecorder

_HOMES = {
    "AlignmentRecorder": "clipmem.train.recorder",
    "ClipmemError": "clipmem.base.errors",
    "InputError": "clipmem.base.errors",
    "RunError": "clipmem.base.errors",
    "Recipe": "clipmem.base.recipes",
    "compare": "clipmem.report.comparison_page",
    "curate": "clipmem.study.curating",
    "dump_recipe": "clipmem.base.recipes",
    "load_recipe": "clipmem.base.recipes",
    "Run": "clipmem.study.run",
    "load_run": "clipmem.study.api",
    "run": "clipmem.study.api",
    "score": "clipmem.study.scoring",
}

__all__ = [
    "AlignmentRecorder",
    "ClipmemError",
    "InputError",
    "Recipe",
    "Run",
    "RunError",
    "__version__",
    "compare",
    "curate",
    "dump_recipe",
    "functional",
    "load_recipe",
    "load_run",
    "mitigate",
    "run",
    "score",
]


def __getattr__(name: str) -> Any:
    if name in {"functional", "mitigate"}:
        return importlib.import_module(f"clipmem.{name}")
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'clipmem' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
