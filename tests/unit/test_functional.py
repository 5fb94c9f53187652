"""The public names of `clipmem.functional`, and the examples in its docstrings."""

import doctest
import importlib
import pkgutil

import pytest

import clipmem.functional
from clipmem import stats

MODULES = [f"clipmem.stats.{module.name}" for module in pkgutil.iter_modules(stats.__path__)]


def test_all_names_exist_and_are_documented():
    assert sorted(clipmem.functional.__all__) == list(clipmem.functional.__all__)
    for name in clipmem.functional.__all__:
        assert getattr(clipmem.functional, name).__doc__


@pytest.mark.parametrize("name", MODULES)
def test_examples(name):
    result = doctest.testmod(importlib.import_module(name), verbose=False)
    assert result.failed == 0
    assert result.attempted > 0 or name.endswith("checks")
