"""Registries of named classes."""

import pytest

from clipmem.base.errors import InputError
from clipmem.base.registry import Registry


class Value(ValueError):
    """Something that can be registered."""


def test_registry_rejects_duplicates_and_strangers():
    registry: Registry[Exception] = Registry("odd thing", Exception)
    registry.register("value")(Value)
    with pytest.raises(ValueError, match="'value' is registered twice"):
        registry.register("value")(KeyError)
    with pytest.raises(TypeError, match="not a subclass"):
        registry.register("int")(int)  # type: ignore[arg-type]
    assert registry["value"] is Value
    assert Value.name == "value"
    assert list(registry) == ["value"]
    with pytest.raises(InputError) as error:
        registry["valu"]
    assert (
        str(error.value)
        == "odd thing 'valu': got an unknown name, expected the name of an existing odd thing. Did you mean 'value'?"
    )
