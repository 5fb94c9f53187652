"""Libraries that are no dependencies: imported where they are needed, since that takes seconds."""

import importlib
import warnings
from typing import Any

from clipmem.base.errors import InputError


def library(package: str, what: str, *, expected: str = "the extra hf", install: str = "'clipmem[hf]'") -> Any:
    """Import a package; raise an `InputError` that says how to install it where it is missing."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of what it imports
            return importlib.import_module(package)
    except ImportError as error:
        hint = f"Install {'both' if ' ' in install else 'it'}: pip install {install}."
        raise InputError(what, got=f"no package {package}", expected=expected, hint=hint) from error
