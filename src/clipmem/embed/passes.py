"""One model's embeddings of all pairs of a study, in float32, as `.npy` arrays.

`image.npy` has shape (n, view, d), `text.npy` (m, d) with `text_pair.npy` (m,) naming the pair of each caption.
Rows follow the split table. Every score, probe and map reads these; nothing is embedded twice.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from clipmem.base.errors import InputError
from clipmem.base.random import derive_seed
from clipmem.base.recipes import EmbedSection, TrainSection
from clipmem.data.views import Crops, as_float, draw_crops, normalise_pixels, pair_keys, render
from clipmem.models.protocol import DualEncoder
from clipmem.store.atomic import atomic_file

ARRAYS = ("image", "text", "text_pair")


class Embeddings(NamedTuple):
    """Embeddings of a study's pairs under one model, not normalised."""

    image: Float[Tensor, "n view d"]
    text: Float[Tensor, "m d"]
    text_pair: Int[Tensor, " m"]


@dataclass(frozen=True)
class Part:
    """One of `count` parts of an embedding. Together they give the same bytes: no forward pass is cut in two."""

    index: int
    count: int

    def rows(self, total: int, batch_size: int) -> tuple[int, int]:
        """Return the first row of this part and the row after its last.

        Args:
            total: Rows of the whole: pictures, or captions.
            batch_size: Rows of a forward pass.

        Example:
            >>> [Part(index, 2).rows(9, 2) for index in range(2)]
            [(0, 4), (4, 9)]
        """
        count = -(-total // batch_size)
        start, end = (count * k // self.count * batch_size for k in (self.index, self.index + 1))
        return min(start, total), min(end, total)


WHOLE = Part(0, 1)


def join(parts: Sequence[Embeddings]) -> Embeddings:
    """Put all parts of an embedding together, in their order."""
    # a part of few captions may have none of them, and then no width
    return Embeddings(
        *(
            torch.cat([array for array in arrays if len(array)] or list(arrays[:1]))
            for arrays in zip(*parts, strict=True)
        )
    )


def embed(
    encoder: DualEncoder,
    pixels: UInt8[np.ndarray, "rows size size 3"],
    rows: Int[np.ndarray, " n"],
    captions: Sequence[Sequence[str]],
    uids: Sequence[str],
    settings: EmbedSection,
    crops: TrainSection,
    *,
    device: str = "cpu",
    part: Part = WHOLE,
    progress: Callable[[int], object] = lambda _: None,
) -> Embeddings:
    """Embed pictures and captions with one model.

    With `views = 0` a pair has one view, the picture as it is. With `views = A` it has A random crops, drawn from
    (pair, view) alone: the same for f and g, for every seed, and for any batch size.

    Args:
        encoder: The model.
        pixels: Decoded pictures.
        rows: Row of `pixels` of each pair, shape (n,).
        captions: The captions of each pair that are to be scored.
        uids: The pairs.
        settings: The recipe's `[embed]` section.
        crops: The recipe's `[train]` section: views are cropped and flipped as in training.
        device: `cpu` or `cuda`.
        part: Embed this part only; by default everything.
        progress: Called with the number of pairs done since the last call.

    Returns:
        image (n, max(1, A), d), text (m, d), text_pair (m,).
    """
    encoder.module.to(device).eval()
    keys = pair_keys(uids)
    texts = [text for own in captions for text in own]
    text_pair = np.repeat(np.arange(len(captions)), [len(own) for own in captions])
    views: list[Crops | None] = [None]
    if settings.views:
        views = [
            draw_crops(
                keys,
                seed=derive_seed(0, "embed view", view),
                size=pixels.shape[1],
                scale=crops.crop_scale,
                ratio=crops.crop_ratio,
                flip=crops.flip,
            )
            for view in range(settings.views)
        ]
    with torch.inference_mode():
        image: list[Tensor] = []
        for start in range(*part.rows(len(rows), settings.batch_size), settings.batch_size):
            block = np.arange(start, min(start + settings.batch_size, len(rows)))
            batch = torch.from_numpy(pixels[rows[block]]).to(device)
            image.append(torch.stack([_image_pass(encoder, batch, view, block) for view in views], dim=1))
            progress(len(block))
        text = _text_passes(encoder, texts, settings.batch_size, device, part)
    own = slice(*part.rows(len(texts), settings.batch_size))
    return Embeddings(torch.cat(image), text, torch.from_numpy(text_pair[own]))


def _text_passes(
    encoder: DualEncoder, texts: Sequence[str], batch_size: int, device: str, part: Part
) -> Float[Tensor, "m d"]:
    found: list[Tensor] = []
    for start in range(*part.rows(len(texts), batch_size), batch_size):
        tokens = encoder.tokenize(texts[start : start + batch_size]).to(device)
        found.append(encoder.encode_text(tokens).float().cpu())
    return torch.cat(found)


def _image_pass(
    encoder: DualEncoder, batch: UInt8[Tensor, "n size size 3"], view: Crops | None, block: np.ndarray
) -> Float[Tensor, "n d"]:
    if view is None:
        values = as_float(batch)
    else:
        values = render(batch, Crops(*(drawn[block] for drawn in view)), size=encoder.image_size)
    return encoder.encode_image(normalise_pixels(values, encoder.mean, encoder.std)).float().cpu()


def save(embeddings: Embeddings, folder: Path) -> list[Path]:
    """Write the arrays of `embeddings` into `folder`, each atomically; return the files."""
    files = [folder / f"{name}.npy" for name in ARRAYS]
    for file, values in zip(files, embeddings, strict=True):
        with atomic_file(file) as stream:
            np.save(stream, values.numpy(), allow_pickle=False)
    return files


def load(folder: Path) -> Embeddings:
    """Read what `save` wrote.

    Raises:
        InputError: A file is missing or broken.
    """
    try:
        arrays = [torch.from_numpy(np.load(folder / f"{name}.npy", allow_pickle=False)) for name in ARRAYS]
    except (OSError, ValueError, EOFError) as error:
        raise InputError(
            f"embeddings in {folder}", got=str(error), todo="Delete the folder and run the study again."
        ) from error
    found = Embeddings(*arrays)
    if len(found.text) != len(found.text_pair) or found.image.ndim != 3:
        raise InputError(
            f"embeddings in {folder}",
            got=f"shapes {[tuple(array.shape) for array in arrays]}",
            expected="(n, view, d), (m, d) and (m,)",
            todo="Delete the folder and run the study again.",
        )
    return found
