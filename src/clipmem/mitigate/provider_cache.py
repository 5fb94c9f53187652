"""A cache of provider outputs by model, input and seed, shared by all runs.

It is in `$CLIPMEM_CACHE`, or else in `clipmem` below `$XDG_CACHE_HOME` or `~/.cache`. It can be deleted at any time.
"""

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from clipmem.store.atomic import atomic_write, make_folder
from clipmem.store.hashing import json_sha256


def cache_folder() -> Path:
    """Return the folder of the cache."""
    own = os.environ.get("CLIPMEM_CACHE", "")
    return Path(own) if own else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "clipmem"


def cached(kind: str, key: object, make: Callable[[], bytes], read: Callable[[bytes], Any] = bytes) -> Any:
    """Read the cached bytes for a key (plain data that determines the result); make them if they are not readable."""
    digest = json_sha256(key)
    file = cache_folder() / kind / digest[:2] / digest
    if file.is_file():
        with contextlib.suppress(ValueError):
            return read(file.read_bytes())
    made = make()
    make_folder(file.parent)
    atomic_write(file, made)
    return read(made)
