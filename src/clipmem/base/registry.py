"""Registries: a name for each data source (later: score, detector, mitigation), so that a new one is one new file."""

from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar

from clipmem.base.declared import load, plugins
from clipmem.base.errors import InputError, shorten
from clipmem.base.suggest import did_you_mean

T = TypeVar("T")
Registered = TypeVar("Registered")


class Registry(Generic[T]):
    """Named things of one kind: those that modules register, then those of installed packages' entry points.

    Args:
        kind: What one such thing is called ("data source").
        base: The class that everything registered must be a subclass of.
        group: The entry-point group of installed packages, without `clipmem.`; by default KINDs.

    Raises:
        ValueError: On registering a name twice, or something that is not a subclass of `base`.
    """

    def __init__(self, kind: str, base: type[T], *, group: str = "") -> None:
        self.kind, self._base = kind, base
        self._group = group or f"{kind.replace(' ', '_')}s"
        self._items: dict[str, type[T]] = {}

    def register(self, name: str) -> Callable[[type[Registered]], type[Registered]]:
        """Return a class decorator that registers the class under `name`, which becomes its attribute `name`."""

        def add(item: type[Registered]) -> type[Registered]:
            if name in self._items:
                raise ValueError(f"{self.kind} {name!r} is registered twice: {self._items[name]} and {item}")
            plain: type[Any] = item
            if not issubclass(plain, self._base):
                raise TypeError(f"{self.kind} {name!r}: {item} is not a subclass of {self._base}")
            self._items[name] = plain
            named: Any = plain
            named.name = name
            return item

        return add

    def summary(self, name: str) -> str:
        """Return what a declaration says of itself in one line: its `summary`, else its docstring's first line."""
        said = getattr(self[name], "summary", "")
        return said if isinstance(said, str) and said else (self[name].__doc__ or "").partition("\n")[0]

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names, sorted."""
        return iter(sorted({*self._items, *plugins(self._group)}))

    def __getitem__(self, name: str) -> type[T]:
        """Return what is registered under `name`.

        Raises:
            InputError: Nothing is; the message names near ones.
        """
        if name in self._items:
            return self._items[name]
        others = plugins(self._group)
        if name in others:
            return self.register(name)(load(others[name]))
        raise InputError(
            f"{self.kind} {shorten(name)}",
            got="an unknown name",
            expected=f"the name of an existing {self.kind}",
            hint=did_you_mean(name, self, kind=self.kind),
        )
