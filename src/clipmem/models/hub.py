"""Files of the Hugging Face hub, downloaded only if requested, and the packages of the extras."""

import contextlib
import importlib
import os
import warnings
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

import huggingface_hub
from huggingface_hub import constants
from huggingface_hub.errors import (
    EntryNotFoundError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
)

from clipmem.base.errors import InputError, RunError, shorten
from clipmem.base.remote import DOWNLOAD

_OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")


def library(package: str, subject: str, *, extra: str = "hf") -> Any:
    """Import a package of an extra; if missing, raise an `InputError` with the command to install it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of its imports
            return importlib.import_module(package)
    except ImportError as error:
        hint = f"Install it in the checkout: pip install '.[{extra}]'."
        raise InputError(subject, got=f"no package {package}", expected=f"the extra {extra}", hint=hint) from error


def cache_folder() -> Path:
    """Return the hub's cache folder as huggingface_hub does, from the current environment."""
    if "HF_HUB_CACHE" in os.environ:
        return Path(os.environ["HF_HUB_CACHE"]).expanduser()
    if "HF_HOME" in os.environ:
        return Path(os.environ["HF_HOME"]).expanduser() / "hub"
    return Path(constants.HF_HUB_CACHE)


@contextlib.contextmanager
def offline() -> Generator[None]:
    """Keep libraries from using the hub, temporarily."""
    before, setting = {name: os.environ[name] for name in _OFFLINE if name in os.environ}, constants.HF_HUB_OFFLINE
    os.environ.update(dict.fromkeys(_OFFLINE, "1"))
    constants.HF_HUB_OFFLINE = True  # read from the environment on import only
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = setting
        for name in _OFFLINE:
            del os.environ[name]
        os.environ.update(before)


def cached(repository: str, name: str) -> Path | None:
    """Return a cached file of a repository, or None."""
    try:
        file = huggingface_hub.try_to_load_from_cache(repository, name, cache_dir=cache_folder())
    except HFValidationError as error:
        got, hint = shorten(str(error)), "Copy the name from the repository's page."
        raise InputError(f"hub repository {shorten(repository)}", got=got, expected="OWNER/NAME", hint=hint) from error
    return Path(file) if isinstance(file, str) else None


def get(repository: str, names: Sequence[str], *, subject: str, download: bool) -> Path:
    """Return the first available of some files of a repository, cached ones first."""
    path = next((file for name in names if (file := cached(repository, name))), None)
    if path is None and download:
        path = fetch(repository, names, subject)
    if path is None:
        got = f"no {' or '.join(names)} of the hub repository {repository} in {cache_folder()}"
        hint = f"Set {DOWNLOAD}=1 to download it, or run: hf download {repository}."
        raise InputError(subject, got=got, expected="files on this machine", hint=hint)
    return path


def fetch(repository: str, names: Sequence[str], subject: str) -> Path | None:
    """Download the first of some files that a repository has."""
    for name in names:
        try:
            return Path(huggingface_hub.hf_hub_download(repository, name, cache_dir=cache_folder()))
        except LocalEntryNotFoundError as error:  # the hub was not reached
            raise _failed(name, repository, error) from error
        except EntryNotFoundError:
            continue
        except RepositoryNotFoundError as error:
            expected, hint = "an accessible repository", "Check the name; for a private one, run: hf auth login."
            got = f"no hub repository {repository}, or a private one"
            raise InputError(subject, got=got, expected=expected, hint=hint) from error
        except (HfHubHTTPError, OSError, ValueError) as error:
            raise _failed(name, repository, error) from error
    return None


def _failed(name: str, repository: str, error: Exception) -> RunError:
    reason = " ".join(str(error).split())
    return RunError(f"could not download {name} of {repository}: {shorten(reason, 200)}. Run it again to resume.")
