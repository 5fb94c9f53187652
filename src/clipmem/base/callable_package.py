"""Packages that can be called as a function: `clipmem.score(...)`, `clipmem.curate(...)`."""

import importlib
import inspect
import sys
from types import ModuleType
from typing import Any


def make_callable(name: str, home: str) -> None:
    """Let a package be called as the function of the same name in the module `home`, imported when it is called."""
    function = name.rpartition(".")[2]

    class Callable(ModuleType):
        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            return getattr(importlib.import_module(home), function)(*args, **kwargs)

        @property
        def __signature__(self) -> inspect.Signature:
            return inspect.signature(getattr(importlib.import_module(home), function))

    Callable.__call__.__doc__ = f"See `{home}.{function}`."
    sys.modules[name].__class__ = Callable
