"""Embeddings of a study's pairs under one model, in float32, as `.npy` arrays.

`image.npy` has shape (n, view, d), `text.npy` (m, d), and `text_pair.npy` (m,) has the pair of each caption. With
caption edits, `text_edits.npy` and `text_edits_pair.npy` have those of pairs with one caption; with
`evaluate.wordings`, `wordings.npy` and `wordings_pair.npy` have each pair's captions after the first `train.captions`.
Pairs are in the order of the split table.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from clipmem.base.errors import InputError, require
from clipmem.base.paths import atomic_file
from clipmem.base.sections import EmbedSection, TrainSection
from clipmem.base.tables import open_array
from clipmem.data.views import Crops, as_float, draw_views, edits_of_single, normalize_pixels, render, send
from clipmem.models.protocol import DualEncoder

_TEXTS = ("text", "text_edits", "wordings")  # each with the pair of every row in NAME_pair; all but the first optional
_WINDOW = 8  # batches of captions sorted by length together, which makes passes over the emoji's captions 1.3x faster


class Embeddings(NamedTuple):
    """Embeddings of a study's pairs under one model, not normalized; edits and wordings are None unless requested."""

    image: Float[Tensor, "n view d"]
    text: Float[Tensor, "m d"]
    text_pair: Int[Tensor, " m"]
    text_edits: Float[Tensor, "k d"] | None = None
    text_edits_pair: Int[Tensor, " k"] | None = None
    wordings: Float[Tensor, "w d"] | None = None
    wordings_pair: Int[Tensor, " w"] | None = None

    def all_wordings(self) -> "Embeddings":
        """Return these embeddings with the further wordings of each pair after its captions in `text`."""
        text, pair = self.text, self.text_pair.long()
        if self.wordings is not None and self.wordings_pair is not None:
            text, pair = torch.cat([text, self.wordings]), torch.cat([pair, self.wordings_pair])
        order = torch.argsort(pair, stable=True)
        return self._replace(text=text[order], text_pair=pair[order], wordings=None, wordings_pair=None)

    def wording(self, k: int) -> tuple[Int[Tensor, " q"], "Embeddings"]:
        """Return the pairs that have wording `k`, counted from 0, and their embeddings with that caption alone."""
        every = self.all_wordings()
        counts = torch.bincount(every.text_pair, minlength=len(self.image))
        rows = torch.nonzero(counts > k)[:, 0]
        text = every.text[(torch.cumsum(counts, 0) - counts)[rows] + k]
        return rows, Embeddings(self.image[rows], text, torch.arange(len(rows)))


@dataclass(frozen=True)
class Part:
    """One of `count` parts of an embedding, cut between batches, so that parts give the same bytes as the whole."""

    index: int
    count: int

    def rows(self, total: int, batch_size: int) -> tuple[int, int]:
        """Return the half-open range of rows of this part.

        Example:
            >>> [Part(index, 2).rows(9, 2) for index in range(2)]
            [(0, 4), (4, 9)]
        """
        count = -(-total // batch_size)
        start, end = (count * k // self.count * batch_size for k in (self.index, self.index + 1))
        return min(start, total), min(end, total)


WHOLE = Part(0, 1)


def join(parts: Sequence[Embeddings]) -> Embeddings:
    """Concatenate the parts of an embedding."""
    joined: dict[str, Tensor] = {}
    for name in Embeddings._fields:
        arrays: list[Tensor] = [array for part in parts if (array := getattr(part, name)) is not None]
        if arrays:
            # a part without captions has no width
            widest = max(arrays, key=lambda array: array.shape[-1])
            joined[name] = torch.cat([array for array in arrays if len(array)] or [widest])
    return Embeddings(**joined)


def embed(
    encoder: DualEncoder,
    pixels: UInt8[np.ndarray, "rows size size 3"],
    rows: Int[np.ndarray, " n"],
    captions: Sequence[Sequence[str]],
    uids: Sequence[str],
    settings: EmbedSection,
    crops: TrainSection,
    *,
    wordings: Sequence[Sequence[str]] | None = None,
    device: str = "cpu",
    part: Part = WHOLE,
    progress: Callable[[int], object] = lambda _: None,
) -> Embeddings:
    """Embed images and captions with one model; `wordings` are further captions of each pair, kept apart.

    With `views = 0` a pair has one view, the unchanged image. With `views = A` it has A random crops that depend on
    (pair, view) only: the same for f and g, every seed and any batch size. With `caption_edits = K` a pair with one
    caption also has up to K edits of it, which depend on (pair, edit) only.
    """
    encoder.module.to(device).eval()
    texts = {"text": _listed(captions)}
    if settings.caption_edits:
        texts["text_edits"] = edits_of_single(captions, uids, count=settings.caption_edits)
    if wordings is not None:
        texts["wordings"] = _listed(wordings)
    size, scale, ratio = pixels.shape[1], crops.crop_scale, crops.crop_ratio
    views = draw_views(uids, settings.views, size=size, scale=scale, ratio=ratio, flip=crops.flip) or [None]
    first, end = part.rows(len(rows), settings.batch_size)
    spans = {name: slice(*_text_rows(part, len(listed), settings.batch_size)) for name, (listed, _) in texts.items()}
    total = (end - first) * len(views) + sum(rows.stop - rows.start for rows in spans.values())
    passed = 0  # of the images and captions

    def advance(count: int) -> None:
        nonlocal passed
        before, passed = passed, passed + count
        progress((end - first) * passed // total - (end - first) * before // total)

    with torch.inference_mode():
        image: list[Tensor] = []
        for start in range(first, end, settings.batch_size):
            block = np.arange(start, min(start + settings.batch_size, len(rows)))
            batch = send(torch.from_numpy(pixels[rows[block]]), device)
            seen = [encoder.encode_image(view_pixels(encoder, batch, view, block)).float().cpu() for view in views]
            image.append(torch.stack(seen, dim=1))
            advance(len(block) * len(views))
        arrays = {"image": torch.cat(image)}
        for name, (listed, owner) in texts.items():
            vectors = _text_passes(encoder, listed[spans[name]], settings.batch_size, device, advance)
            arrays[name] = vectors if len(vectors) or name == "text" else arrays["text"][:0]
            arrays[f"{name}_pair"] = torch.tensor(owner[spans[name]], dtype=torch.long)
    return Embeddings(**arrays)


def _listed(captions: Sequence[Sequence[str]]) -> tuple[list[str], list[int]]:
    """Return the captions of all pairs, and the pair of each."""
    return [text for texts in captions for text in texts], [pair for pair, texts in enumerate(captions) for _ in texts]


def embed_texts(
    encoder: DualEncoder, texts: Sequence[str], *, batch_size: int, device: str = "cpu"
) -> Float[Tensor, "m d"]:
    """Embed texts without images, such as class prompts; float32, not normalized."""
    encoder.module.to(device).eval()
    with torch.inference_mode():
        return _text_passes(encoder, texts, batch_size, device)


def _text_passes(
    encoder: DualEncoder,
    texts: Sequence[str],
    batch_size: int,
    device: str,
    advance: Callable[[int], object] = lambda _: None,
) -> Float[Tensor, "m d"]:
    """Embed texts, batched by length, and return them in the given order."""
    vectors: list[Tensor] = []
    for window in range(0, len(texts), batch_size * _WINDOW):
        rows = sorted(range(window, min(window + batch_size * _WINDOW, len(texts))), key=lambda row: len(texts[row]))
        passed: list[Tensor] = []
        for start in range(0, len(rows), batch_size):
            tokens = send(encoder.tokenize([texts[row] for row in rows[start : start + batch_size]]), device)
            passed.append(encoder.encode_text(tokens).float().cpu())
            advance(len(tokens))
        vectors.append(torch.cat(passed)[torch.from_numpy(np.argsort(rows))])
    return torch.cat(vectors) if vectors else torch.empty(0, 0)


def _text_rows(part: Part, total: int, batch_size: int) -> tuple[int, int]:
    return part.rows(total, batch_size * _WINDOW)


def view_pixels(
    encoder: DualEncoder, batch: UInt8[Tensor, "n size size 3"], view: Crops | None, block: Int[np.ndarray, " n"]
) -> Float[Tensor, "n 3 out out"]:
    """Return a view of the pairs `block`, or their unchanged images, as the model's normalized input."""
    if view is None:
        values = as_float(batch)
    else:
        values = render(batch, Crops(*(field[block] for field in view)), size=encoder.image_size)
    return normalize_pixels(values, encoder.mean, encoder.std, in_place=True)


def save(embeddings: Embeddings, folder: Path) -> list[Path]:
    """Write the arrays into `folder`, each atomically; return the files."""
    files: list[Path] = []
    for name, values in embeddings._asdict().items():
        if values is None:
            continue
        files.append(folder / f"{name}.npy")
        with atomic_file(files[-1]) as stream:
            np.save(stream, values.numpy(), allow_pickle=False)
    return files


def files_of(folder: Path) -> list[Path]:
    """Return the files written by `save`."""
    return [file for name in Embeddings._fields if (file := folder / f"{name}.npy").is_file()]


def load(folder: Path, rows: Int[np.ndarray, " k"] | None = None) -> Embeddings:
    """Read embeddings written by `save`, of all pairs or of some rows."""
    try:
        stems = {file.stem.removesuffix("_pair") for file in files_of(folder)} | {"text"}
        texts = [name for name in _TEXTS if name in stems]
        names = ("image", *(array for name in texts for array in (name, f"{name}_pair")))
        mode = None if rows is None else "r"
        arrays = {name: open_array(folder / f"{name}.npy", mode) for name in names}
    except (OSError, ValueError, EOFError) as error:
        hint = "Delete the folder and run the study again."
        raise InputError(f"embeddings in {folder}", got=str(error), hint=hint) from error
    paired = all(len(arrays[name]) == len(arrays[f"{name}_pair"]) for name in texts)
    got = f"shapes {[array.shape for array in arrays.values()]}"
    expected = "(n, view, d), (m, d) and (m,); for edits and wordings (k, d) and (k,)"
    usable, hint = arrays["image"].ndim == 3 and paired, "Delete the folder and run the study again."
    require(usable, f"embeddings in {folder}", got, expected, hint)
    if rows is not None:
        return _selected(arrays, rows)
    return Embeddings(**{name: torch.from_numpy(array) for name, array in arrays.items()})


def chosen(embeddings: Embeddings, rows: Int[Tensor, " k"]) -> Embeddings:
    """Return copies of the embeddings of some pairs, in the order of `rows`."""
    arrays = {name: array.numpy() for name, array in embeddings._asdict().items() if array is not None}
    return _selected(arrays, rows.numpy())


def _selected(arrays: Mapping[str, np.ndarray], rows: Int[np.ndarray, " k"]) -> Embeddings:
    subset = {"image": np.array(arrays["image"][rows])}
    for name in _TEXTS:
        if name in arrays:
            where, subset[f"{name}_pair"] = _rows_of(arrays[f"{name}_pair"], rows, len(arrays["image"]))
            subset[name] = np.array(arrays[name][where])
    return Embeddings(**{name: torch.from_numpy(array) for name, array in subset.items()})


def _rows_of(owner: np.ndarray, rows: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    index = np.full(n, -1)
    index[rows] = np.arange(len(rows))
    pair = index[owner]
    where = np.flatnonzero(pair >= 0)
    where = where[np.argsort(pair[where], kind="stable")]
    return where, pair[where]
