"""clipmem: measure, localize and mitigate memorization in CLIP-style image-text models. torch is imported lazily."""

from typing import TYPE_CHECKING

from clipmem._version import __version__
from clipmem.base import lazy

if TYPE_CHECKING:  # at run time the names below are loaded when first used
    from clipmem import functional, mitigate
    from clipmem.base.errors import ClipmemError, InputError, RunError
    from clipmem.base.recipes import Recipe, dump_recipe, load_recipe
    from clipmem.data.export import clean
    from clipmem.report.comparison import compare
    from clipmem.report.explorer.widget import view
    from clipmem.report.run import Run
    from clipmem.study.api import audit, evaluate, load_pairs, load_run, run, score
    from clipmem.study.curating import curate
    from clipmem.train.recorder import AlignmentRecorder

# public name → its module; `functional` and `mitigate` are modules of this package
_HOMES = {
    "AlignmentRecorder": "clipmem.train.recorder",
    "ClipmemError": "clipmem.base.errors",
    "InputError": "clipmem.base.errors",
    "Recipe": "clipmem.base.recipes",
    "Run": "clipmem.report.run",
    "RunError": "clipmem.base.errors",
    "audit": "clipmem.study.api",
    "clean": "clipmem.data.export",
    "compare": "clipmem.report.comparison",
    "curate": "clipmem.study.curating",
    "dump_recipe": "clipmem.base.recipes",
    "evaluate": "clipmem.study.api",
    "load_pairs": "clipmem.study.api",
    "load_recipe": "clipmem.base.recipes",
    "load_run": "clipmem.study.api",
    "run": "clipmem.study.api",
    "score": "clipmem.study.api",
    "view": "clipmem.report.explorer.widget",
}

__all__ = [
    "AlignmentRecorder", "ClipmemError", "InputError", "Recipe", "Run", "RunError", "__version__", "audit", "clean",
    "compare", "curate", "dump_recipe", "evaluate", "functional", "load_pairs", "load_recipe", "load_run", "mitigate",
    "run", "score", "view",
]  # fmt: skip

__getattr__ = lazy(__name__, _HOMES)


def __dir__() -> list[str]:
    return sorted(__all__)
