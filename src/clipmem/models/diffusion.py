"""A local diffusion pipeline of diffusers that draws pictures of captions; nothing is fetched.

A drawn picture shows what the pipeline makes of the caption, whose own training pairs may be among the ones measured.
"""

import io
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from clipmem.base.errors import InputError, shorten
from clipmem.base.random import derive_seed
from clipmem.store.hashing import file_sha256, json_sha256

STEPS = 25


class DiffusionModel:
    """A text-to-image pipeline in a local folder.

    Args:
        folder: What diffusers' `save_pretrained` wrote, weights as safetensors.

    Raises:
        InputError: diffusers is not installed, or the folder does not load.
    """

    def __init__(self, folder: Path) -> None:
        library = _library()
        if not (folder / "model_index.json").is_file():
            raise InputError(
                f"diffusion pipeline {str(folder)!r}",
                got="no model_index.json in it" if folder.is_dir() else "no such folder",
                expected="a folder that diffusers' save_pretrained wrote",
                hint="Download the pipeline first; nothing is fetched here.",
            )
        try:
            self._pipeline: Any = library.DiffusionPipeline.from_pretrained(
                folder, local_files_only=True, use_safetensors=True
            )
        except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
            raise InputError(
                f"diffusion pipeline {str(folder)!r}",
                got=f"files that do not load ({shorten(str(error))})",
                expected="a text-to-image pipeline with safetensors weights",
                hint="Save it with save_pretrained(FOLDER, safe_serialization=True).",
            ) from error
        self._pipeline.set_progress_bar_config(disable=True)
        if torch.cuda.is_available():
            self._pipeline.to("cuda")
        self._folder = folder

    def content(self) -> str:
        """Hash the pipeline's files: equal ones draw equal pictures."""
        files = sorted(file for file in self._folder.rglob("*") if file.suffix in {".safetensors", ".json", ".txt"})
        return json_sha256([STEPS, *([str(file.relative_to(self._folder)), file_sha256(file)] for file in files)])

    def draw(self, caption: str, number: int, *, seed: int) -> bytes:
        """Draw picture `number` of a caption; it depends on caption, number and seed alone.

        Args:
            caption: The caption.
            number: Which picture, from 0.
            seed: Seed of the pictures.

        Returns:
            The picture as PNG.
        """
        stream = torch.Generator().manual_seed(derive_seed(seed, "draw", number, caption))
        with torch.random.fork_rng(devices=[]), torch.inference_mode():
            [drawn] = self._pipeline(caption, generator=stream, num_inference_steps=STEPS).images
        picture: Image.Image = drawn
        data = io.BytesIO()
        picture.convert("RGB").save(data, "PNG")
        return data.getvalue()


def _library() -> Any:
    # here, not at the top: the package is not a dependency, and importing it takes seconds
    try:
        import diffusers  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise InputError(
            "a diffusion pipeline",
            got="no package diffusers",
            expected="it beside the extra hf",
            hint="Install both: pip install diffusers 'clipmem[hf]'.",
        ) from error
    return diffusers
