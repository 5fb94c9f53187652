"""What every other package builds on: errors, recipes, registries, random numbers, run folders. No torch."""

import importlib
from collections.abc import Callable, Iterator, Mapping
from importlib.util import find_spec
from types import MappingProxyType
from typing import Any


def slices(n: int, size: int) -> Iterator[slice]:
    """Divide n rows into consecutive slices of `size`, the last of which may be shorter.

    Example:
        >>> [(rows.start, rows.stop) for rows in slices(5, 2)]
        [(0, 2), (2, 4), (4, 5)]
    """
    yield from (slice(start, min(start + size, n)) for start in range(0, n, size))


def lazy(package: str, homes: Mapping[str, str] = MappingProxyType({})) -> Callable[[str], Any]:
    """Return the `__getattr__` of a package that imports what it has when first used: some takes seconds.

    Args:
        package: Its name.
        homes: Names and the modules that they are from; all other names are modules of the package.
    """

    def load(name: str) -> Any:
        if name in homes:
            return getattr(importlib.import_module(homes[name]), name)
        if name.startswith("_") or find_spec(f"{package}.{name}") is None:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return importlib.import_module(f"{package}.{name}")

    return load
