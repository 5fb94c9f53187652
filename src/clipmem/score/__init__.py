"""Scores: alignments, protocols and their execution. `clipmem.score(...)` calls `study.scoring.score`."""

import importlib
import inspect
import sys
from types import ModuleType
from typing import Any


class _Callable(ModuleType):
    """A package that can be called as a function."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Score pairs with existing models (see `clipmem.study.scoring.score`)."""
        return importlib.import_module("clipmem.study.scoring").score(*args, **kwargs)

    @property
    def __signature__(self) -> inspect.Signature:
        return inspect.signature(importlib.import_module("clipmem.study.scoring").score)


sys.modules[__name__].__class__ = _Callable
