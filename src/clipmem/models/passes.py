"""Embeddings of a study's pairs under one model, in float32, as `.npy` arrays; and mean unit embeddings of pairs.

`image.npy` has shape (n, view, d), `text.npy` (m, d), and `text_pair.npy` (m,) has the pair of each caption. With
caption edits, `text_edits.npy` and `text_edits_pair.npy` have those of pairs with one caption; with
`evaluate.wordings`, `wordings.npy` and `wordings_pair.npy` have each pair's captions after the first `train.captions`.
Pairs are in the order of the split table.
"""

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from clipmem.base.errors import InputError, require
from clipmem.base.paths import atomic_file
from clipmem.base.sections import EmbedSection, TrainSection
from clipmem.base.tables import open_array
from clipmem.data.views import Crops, as_float, draw_views, edits_of_single, normalize_pixels, render, send
from clipmem.models.protocol import DualEncoder
from clipmem.stats.similarity import pair_means

_TEXTS = ("text", "text_edits", "wordings")  # each with the pair of every row in NAME_pair; all but the first optional
_WINDOW = 8  # batches of captions sorted by length together, which makes passes over the emoji's captions 1.3x faster


class Embeddings(NamedTuple):
    """Embeddings of a study's pairs under one model, not normalized; edits and `wordings` are None unless requested."""

    image: Float[Tensor, "n view d"]
    text: Float[Tensor, "m d"]
    text_pair: Int[Tensor, " m"]
    text_edits: Float[Tensor, "k d"] | None = None
    text_edits_pair: Int[Tensor, " k"] | None = None
    wordings: Float[Tensor, "w d"] | None = None
    wordings_pair: Int[Tensor, " w"] | None = None

    def all_wordings(self) -> "Embeddings":
        """Return these embeddings with the further captions of each pair after its captions in `text`."""
        text, pair = self.text, self.text_pair.long()
        if self.wordings is not None and self.wordings_pair is not None:
            text, pair = torch.cat([text, self.wordings]), torch.cat([pair, self.wordings_pair])
        order = torch.argsort(pair, stable=True)
        return self._replace(text=text[order], text_pair=pair[order], wordings=None, wordings_pair=None)

    def wording(self, k: int) -> tuple[Int[Tensor, " q"], "Embeddings"]:
        """Return the pairs that have caption `k`, counted from 0, and their embeddings with that caption alone."""
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


@dataclass(frozen=True)
class Inputs:
    """Images and captions to embed.

    Attributes:
        pixels: Decoded images, memory-mapped or in memory.
        rows: Row of `pixels` of each pair.
        captions: Captions of each pair.
        uids: The pairs, which determine views and edits.
        wordings: Further captions of each pair, kept apart.
        part: The part of all these to embed.
    """

    pixels: UInt8[np.ndarray, "rows size size 3"]
    rows: Int[np.ndarray, " n"]
    captions: Sequence[Sequence[str]]
    uids: Sequence[str]
    wordings: Sequence[Sequence[str]] | None = None
    part: Part = WHOLE


def embed(
    encoder: DualEncoder,
    inputs: Inputs,
    settings: EmbedSection,
    crops: TrainSection,
    *,
    device: str = "cpu",
    progress: Callable[[int], object] = lambda _: None,
) -> Embeddings:
    """Embed images and captions with one model.

    With `views = 0` a pair has one view, the unchanged image. With `views = A` it has A random crops that depend on
    (pair, view) only: the same for f and g, every seed and any batch size. With `caption_edits = K` a pair with one
    caption also has up to K edits of it, which depend on (pair, edit) only.
    """
    encoder.module.to(device).eval()
    pixels, rows, uids, part = inputs.pixels, inputs.rows, inputs.uids, inputs.part
    texts = {"text": _listed(inputs.captions)}
    if settings.caption_edits:
        texts["text_edits"] = edits_of_single(inputs.captions, uids, count=settings.caption_edits)
    if inputs.wordings is not None:
        texts["wordings"] = _listed(inputs.wordings)
    size, scale, ratio = pixels.shape[1], crops.crop_scale, crops.crop_ratio
    views = draw_views(uids, settings.views, size=size, scale=scale, ratio=ratio, flip=crops.flip) or [None]
    first, end = part.rows(len(rows), settings.batch_size)
    window = settings.batch_size * _WINDOW
    spans = {name: slice(*part.rows(len(listed), window)) for name, (listed, _) in texts.items()}
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
            batch_size = settings.batch_size
            vectors = embed_texts(encoder, listed[spans[name]], batch_size=batch_size, device=device, advance=advance)
            arrays[name] = vectors if len(vectors) or name == "text" else arrays["text"][:0]
            arrays[f"{name}_pair"] = torch.tensor(owner[spans[name]], dtype=torch.long)
    return Embeddings(**arrays)


def _listed(captions: Sequence[Sequence[str]]) -> tuple[list[str], list[int]]:
    return [text for texts in captions for text in texts], [pair for pair, texts in enumerate(captions) for _ in texts]


@torch.inference_mode()
def embed_texts(
    encoder: DualEncoder,
    texts: Sequence[str],
    *,
    batch_size: int,
    device: str = "cpu",
    advance: Callable[[int], object] = lambda _: None,
) -> Float[Tensor, "m d"]:
    """Embed texts, such as class prompts, batched by length; float32, not normalized, in the order of the texts."""
    encoder.module.to(device).eval()
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


def join_in(folder: Path, count: int) -> list[Path]:
    """Join the parts of an embedding in a folder, and return its files."""
    blocks = [folder / f"part-{k}" for k in range(count)] if count > 1 else []
    if blocks:
        save(join([load(block) for block in blocks]), folder)
    for block in blocks:
        shutil.rmtree(block)
    return files_of(folder)


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
    subset, position = {"image": np.array(arrays["image"][rows])}, np.full(len(arrays["image"]), -1)
    position[rows] = np.arange(len(rows))
    for name in _TEXTS:
        if name in arrays:
            pair = position[arrays[f"{name}_pair"]]
            of_rows = np.flatnonzero(pair >= 0)
            of_rows = of_rows[np.argsort(pair[of_rows], kind="stable")]
            subset[name], subset[f"{name}_pair"] = np.array(arrays[name][of_rows]), pair[of_rows]
    return Embeddings(**{name: torch.from_numpy(array) for name, array in subset.items()})


Head = Callable[[Float[Tensor, "n d"]], Float[Tensor, "n class"]]


class Means(NamedTuple):
    """Embeddings of some pairs under one model.

    Attributes:
        image: ū, the mean unit embedding of each pair's views, shape (n, d).
        text: v̄, the mean unit embedding of its captions, shape (n, d).
        ok: Mask of the pairs whose embeddings are finite and not zero, shape (n,).
        single: Embeddings of single views and captions; None if only means are stored.
        labels: Class of each pair, shape (n,); None without labels.
        head: The model's class head on image embeddings, if it has one.
    """

    image: Float[Tensor, "n d"]
    text: Float[Tensor, "n d"]
    ok: Bool[Tensor, " n"]
    single: Embeddings | None = None
    labels: Int[Tensor, " n"] | None = None
    head: Head | None = None

    def select(self, rows: Int[Tensor, " k"]) -> "Means":
        """Return the embeddings of some pairs, in the order of `rows`."""
        single = self.single and chosen(self.single, rows)
        labels = None if self.labels is None else self.labels[rows]
        return Means(self.image[rows], self.text[rows], self.ok[rows], single, labels, self.head)


def unit_means(image: Float[Tensor, "n view d"], text: Float[Tensor, "m d"], text_pair: Int[Tensor, " m"]) -> Means:
    """Average each pair's unit embeddings over its views and over its captions.

    ū = mean_a image_a / ||image_a||, v̄ = mean_k text_k / ||text_k||, as in `pair_means`.
    """
    bad_image, bad_text = (~(_largest(rows) > 0) | torch.isinf(_largest(rows)) for rows in (image, text))
    bad = bad_image.any(dim=1)
    bad[text_pair[bad_text]] = True
    image = torch.where(bad_image.unsqueeze(-1), 1.0, image) if bad_image.any() else image
    text = torch.where(bad_text.unsqueeze(-1), 1.0, text) if bad_text.any() else text
    u, v = pair_means(image, text, text_pair)
    return Means(u.float(), v.float(), ~bad)


def stack(parts: Sequence[Means]) -> Means:
    """Return the embeddings of the pairs of one part after another; of none without parts."""
    if len(parts) == 1:
        return parts[0]
    if not parts:
        return Means(torch.zeros(0, 1), torch.zeros(0, 1), torch.zeros(0, dtype=torch.bool))
    image, text, ok = map(torch.cat, zip(*(part[:3] for part in parts), strict=True))
    start, single = 0, list[Embeddings]()
    for embedded in (part.single for part in parts if part.single is not None):
        arrays = embedded._asdict().items()
        owners = {name: array + start for name, array in arrays if name.endswith("_pair") and array is not None}
        single.append(embedded._replace(**owners))
        start += len(embedded.image)
    return Means(image, text, ok, join(single) if len(single) == len(parts) else None)


def _largest(rows: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch"]:
    """Return max |x| of each row; NaN if a value is NaN."""
    return torch.linalg.vector_norm(rows, ord=float("inf"), dim=-1)
