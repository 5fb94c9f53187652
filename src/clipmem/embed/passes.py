"""One model's embeddings of all pairs of a study, in float32, as `.npy` arrays.

`image.npy` has shape (n, view, d), `text.npy` (m, d) with `text_pair.npy` (m,) naming the pair of each caption.
Rows follow the split table. Every score, probe and map reads these; nothing is embedded twice.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
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
from clipmem.models.openclip import OpenClipEncoder
from clipmem.store.atomic import atomic_file

ARRAYS = ("image", "text", "text_pair")


class Embeddings(NamedTuple):
    """Embeddings of a study's pairs under one model, not normalised."""

    image: Float[Tensor, "n view d"]
    text: Float[Tensor, "m d"]
    text_pair: Int[Tensor, " m"]


class Part(NamedTuple):
    """Whole forward passes of an embedding: these pictures and these captions, both from row to row."""

    pictures: tuple[int, int]
    captions: tuple[int, int]


def parts(n: int, m: int, batch_size: int, count: int) -> list[Part]:
    """Cut an embedding into parts that give the same bytes as the whole: no forward pass is cut in two.

    Args:
        n: Number of pictures, 1 or more.
        m: Number of captions, 1 or more.
        batch_size: Pictures or captions in a forward pass.
        count: How many parts; fewer when there are fewer passes.

    Example:
        >>> parts(5, 9, 2, 2)
        [Part(pictures=(0, 2), captions=(0, 4)), Part(pictures=(2, 5), captions=(4, 9))]
    """
    passes = [-(-rows // batch_size) for rows in (n, m)]
    count = min(count, *passes)
    cuts = [
        [min(rows, of * k // count * batch_size) for k in range(count + 1)]
        for rows, of in zip((n, m), passes, strict=True)
    ]
    return [
        Part(own, captions)
        for own, captions in zip(
            *(list(pairwise(places)) for places in cuts),
            strict=True,
        )
    ]


def join(embedded: Sequence[Embeddings]) -> Embeddings:
    """Put the parts of an embedding together, in their order."""
    return Embeddings(*(torch.cat(list(arrays)) for arrays in zip(*embedded, strict=True)))


def embed(
    encoder: OpenClipEncoder,
    pixels: UInt8[np.ndarray, "rows size size 3"],
    rows: Int[np.ndarray, " n"],
    captions: Sequence[Sequence[str]],
    uids: Sequence[str],
    settings: EmbedSection,
    crops: TrainSection,
    *,
    device: str = "cpu",
    part: Part | None = None,
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
        part: Embed this part only (see `parts`); by default everything.
        progress: Called with the number of pairs done since the last call.

    Returns:
        image (n, max(1, A), d), text (m, d), text_pair (m,).
    """
    encoder.module.to(device).eval()
    keys = pair_keys(uids)
    texts = [text for own in captions for text in own]
    text_pair = np.repeat(np.arange(len(captions)), [len(own) for own in captions])
    part = part or Part((0, len(rows)), (0, len(texts)))
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
        for start in range(*part.pictures, settings.batch_size):
            block = np.arange(start, min(start + settings.batch_size, part.pictures[1]))
            batch = torch.from_numpy(pixels[rows[block]]).to(device)
            image.append(torch.stack([_image_pass(encoder, batch, view, block) for view in views], dim=1))
            progress(len(block))
        text: list[Tensor] = []
        for start in range(*part.captions, settings.batch_size):
            tokens = encoder.tokenize(texts[start : min(start + settings.batch_size, part.captions[1])]).to(device)
            text.append(encoder.encode_text(tokens).float().cpu())
    return Embeddings(torch.cat(image), torch.cat(text), torch.from_numpy(text_pair[slice(*part.captions)]))


def _image_pass(
    encoder: OpenClipEncoder, batch: UInt8[Tensor, "n size size 3"], view: Crops | None, block: np.ndarray
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
