"""Lazy imports of optional dependencies."""

import importlib
import warnings
from typing import Any

from clipmem.base.errors import InputError


def library(package: str, subject: str) -> Any:
    """Import a package of the extra hf; if missing, raise an `InputError` with the command to install it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of its imports
            return importlib.import_module(package)
    except ImportError as error:
        hint = "Install it in the checkout: pip install '.[hf]'."
        raise InputError(subject, got=f"no package {package}", expected="the extra hf", hint=hint) from error
