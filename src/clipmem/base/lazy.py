"""Packages whose modules are imported when first used, because some of them take seconds."""

import importlib
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import Any


def modules_of(package: str) -> Callable[[str], Any]:
    """Return the `__getattr__` of a package that imports its modules when they are first used as attributes."""

    def load(name: str) -> Any:
        if name.startswith("_") or find_spec(f"{package}.{name}") is None:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return importlib.import_module(f"{package}.{name}")

    return load


def names_of(package: str, homes: Mapping[str, str]) -> Callable[[str], Any]:
    """Return the `__getattr__` of a package with names from other modules; "" is a module of the package itself."""

    def load(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        if not homes[name]:
            return importlib.import_module(f"{package}.{name}")
        return getattr(importlib.import_module(homes[name]), name)

    return load
