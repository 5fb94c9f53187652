"""Lazy imports of optional dependencies."""

import importlib
import warnings
from typing import Any

from clipmem.base.errors import InputError


def library(package: str, what: str, *, expected: str = "the extra hf", install: str = "'.[hf]'") -> Any:
    """Import a package; if missing, raise an `InputError` with the command to install it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of its imports
            return importlib.import_module(package)
    except ImportError as error:
        hint = f"Install {'both' if ' ' in install else 'it'} in the checkout: pip install {install}."
        raise InputError(what, got=f"no package {package}", expected=expected, hint=hint) from error
