"""Models that a user has already: found by their address, known by their content, loaded by their own library.

An address is a folder that clipmem or open_clip saved, or `transformers:FOLDER`. Nothing is fetched. What a model is
trained on cannot be read off its files: that is the user's word.
"""

from pathlib import Path
from typing import NamedTuple

from clipmem.base.errors import InputError, shorten
from clipmem.models import openclip, transformers
from clipmem.models.protocol import DualEncoder
from clipmem.store.hashing import file_sha256

TRANSFORMERS = "transformers:"
_OPEN_CLIP_FILES = (openclip.CONFIG_FILE, openclip.WEIGHTS_FILE)
# beside config and weights, the files of a folder that change what the model computes
_TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.json", "merges.txt")
_EXPECTED = f"a folder with {openclip.CONFIG_FILE} and {openclip.WEIGHTS_FILE}, or {TRANSFORMERS}FOLDER"


class GivenModel(NamedTuple):
    """A model on disk.

    Attributes:
        name: The address, as the user wrote it.
        library: `open_clip` or `transformers`.
        folder: Its folder, absolute.
    """

    name: str
    library: str
    folder: Path

    @property
    def address(self) -> str:
        """The address with an absolute path, which means the same in every working directory."""
        return f"{TRANSFORMERS if self.library == 'transformers' else ''}{self.folder}"


def find(name: str) -> GivenModel:
    """Find a model by its address; only looks which files there are.

    Args:
        name: A folder, relative to the working directory or absolute, or `transformers:` and a folder.

    Raises:
        InputError: There is no such folder, or it lacks the config or safetensors weights.
    """
    library = "transformers" if name.startswith(TRANSFORMERS) else "open_clip"
    folder = Path(name.removeprefix(TRANSFORMERS)).expanduser().resolve()
    if not folder.is_dir():
        raise InputError(
            f"[given] {shorten(name)}",
            got="a file" if folder.is_file() else "no such folder",
            expected=_EXPECTED,
            todo="Check the path: a relative one starts at the working directory.",
        )
    if library == "transformers":
        missing = [] if (folder / "config.json").is_file() else ["config.json"]
        missing += [] if any(folder.glob("*.safetensors")) else ["*.safetensors"]
        todo = "Save the model with save_pretrained."
    else:
        missing = [file for file in _OPEN_CLIP_FILES if not (folder / file).is_file()]
        todo = "Weights must be safetensors: save the model in that form beside its config."
        if missing and (folder / "config.json").is_file():
            todo = f"If transformers saved it, write '{TRANSFORMERS}{name}'."
    if missing:
        raise InputError(
            f"[given] {shorten(name)}",
            got=f"a folder with no {' and no '.join(missing)}",
            expected="config.json and safetensors weights" if library == "transformers" else _EXPECTED,
            todo=todo,
        )
    return GivenModel(name, library, folder)


def content(model: GivenModel) -> dict[str, str]:
    """Hash the files that decide what a model computes: weights, config and tokenizer.

    Returns:
        File name → SHA-256, by name.
    """
    if model.library == "open_clip":
        files = [model.folder / name for name in _OPEN_CLIP_FILES]
    else:
        files = [model.folder / name for name in ("config.json", "preprocessor_config.json")]
        files += model.folder.glob("*.safetensors")
    files += [model.folder / name for name in _TOKENIZER]
    return {file.name: file_sha256(file) for file in sorted(files) if file.is_file()}


def load(model: GivenModel) -> DualEncoder:
    """Load a model with its own library.

    Raises:
        InputError: The files do not load, or the model needs the extra `hf` and it is not installed.
    """
    if model.library == "transformers":
        return transformers.load(model.folder)
    try:
        return openclip.load(model.folder)
    except InputError as error:
        # the adapter speaks of models of a run, which can be trained again: nobody should delete their own
        raise InputError(
            f"[given] {shorten(model.name)}",
            got=error.got,
            expected="a model that clipmem or open_clip saved",
            todo="Check that its files are whole.",
        ) from error
