"""Registries of named classes: protocols, alignments, objectives, mitigations, sources, report sections."""

from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar

from clipmem.base.declared import load, plugins
from clipmem.base.errors import InputError, did_you_mean, shorten

T = TypeVar("T")
Registered = TypeVar("Registered")


class Registry(Generic[T]):
    """Named classes of one kind: registered by modules or by entry points of installed packages.

    Args:
        kind: Name of the kind in messages ("data source").
        base: The class that registered classes must derive from.
        group: Entry-point group, without `clipmem.`; by default the plural of `kind`.
    """

    def __init__(self, kind: str, base: type[T], *, group: str = "") -> None:
        self.kind, self._base = kind, base
        self._group = group or f"{kind.replace(' ', '_')}s"
        self._items: dict[str, type[T]] = {}

    def register(self, name: str) -> Callable[[type[Registered]], type[Registered]]:
        """Return a class decorator that registers the class and sets its attribute `name`."""

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
        """Return the class's `summary`, else the first line of its docstring."""
        summary = getattr(self[name], "summary", "")
        return summary if isinstance(summary, str) and summary else (self[name].__doc__ or "").partition("\n")[0]

    def __iter__(self) -> Iterator[str]:
        """Iterate over the sorted names."""
        return iter(sorted({*self._items, *plugins(self._group)}))

    def __getitem__(self, name: str) -> type[T]:
        """Return a class by name; raise an `InputError` that suggests similar names if there is none."""
        if name in self._items:
            return self._items[name]
        others = plugins(self._group)
        if name in others:
            return self.register(name)(load(others[name]))
        expected, hint = f"the name of an existing {self.kind}", did_you_mean(name, self, kind=self.kind)
        raise InputError(f"{self.kind} {shorten(name)}", got="an unknown name", expected=expected, hint=hint)
