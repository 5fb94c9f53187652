"""Sources of embeddings for blocks of pairs: models, embeddings on disk, arrays, run folders."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import torch
from torch import Tensor

from clipmem.base.errors import InputError
from clipmem.base.images import Geometry
from clipmem.base.paths import checked_path
from clipmem.base.require import require
from clipmem.base.sections import EmbedSection, TrainSection
from clipmem.data.decoding import DecodeError, decode
from clipmem.data.quarantine import Problem
from clipmem.models import given, passes
from clipmem.models.layout import Layout, is_layout
from clipmem.models.means import Means, unit_means
from clipmem.models.passes import Embeddings
from clipmem.models.protocol import DualEncoder, geometry_of, softmax_scale
from clipmem.scoring.alignments import Embedded, Head
from clipmem.scoring.pairs import Pairs
from clipmem.stats.similarity import pair_means
from clipmem.train.numerics import LONG, computing
from clipmem.train.objectives import class_head

NOT_THERE = "not among the embeddings"
NO_DIRECTION = "zero or non-finite embedding"
NOT_READ = "unreadable image"
_READ = 64  # encoded images in memory at a time
_CROPS = TrainSection()  # pyright: ignore[reportCallIssue]  default crops of a study


class Block(NamedTuple):
    """A block of pairs: rows in the table of `pairs`, captions, images in each requested geometry, classes."""

    pairs: Pairs
    rows: np.ndarray
    uids: list[str]
    captions: list[list[str]]
    pixels: dict[Geometry, np.ndarray]
    labels: np.ndarray | None = None

    def kept(self, ok: np.ndarray) -> "Block":
        """Return the pairs that are `ok`."""
        if ok.all():
            return self
        where = np.flatnonzero(ok)
        captions = [self.captions[k] for k in where] if self.captions else []
        pixels = {geometry: values[where] for geometry, values in self.pixels.items()}
        labels = None if self.labels is None else self.labels[where]
        return Block(self.pairs, self.rows[where], [self.uids[k] for k in where], captions, pixels, labels)


class Side(ABC):
    """A model of the comparison."""

    name: str

    @property
    def geometry(self) -> Geometry | None:
        """The geometry of its images; None if it needs none."""
        return None

    @abstractmethod
    def content(self) -> dict[str, Any]:
        """Return hashes of everything that determines its embeddings."""

    def has(self, block: Block) -> np.ndarray:
        """Return the mask of the pairs with embeddings."""
        return np.ones(len(block.rows), dtype=bool)

    @abstractmethod
    def embedded(self, block: Block) -> Embedded:
        """Return the embeddings of a block of pairs, all of which it has."""


def _embedded(means: Means, block: Block, rows: Embeddings | None = None, head: Head | None = None) -> Embedded:
    labels = torch.from_numpy(block.labels) if block.labels is not None else None
    return Embedded(means.image, means.text, means.ok, rows, labels, head)


class ModelSide(Side):
    """A model."""

    def __init__(self, address: str, settings: EmbedSection, *, device: str, precision: str) -> None:
        self.name = address
        self._found = given.find(address)
        self._settings, self._device, self._precision = settings, device, precision

    @cached_property
    def _encoder(self) -> DualEncoder:
        return given.load(self._found)

    @property
    def geometry(self) -> Geometry | None:
        """The model's image geometry."""
        return geometry_of(self._encoder)

    def content(self) -> dict[str, Any]:
        """Hash its files."""
        return given.content(self._found)

    @property
    def logit_scale(self) -> float | None:
        """Factor of similarities in the model's softmax loss; None if its loss is another."""
        return softmax_scale(self._encoder)

    @cached_property
    def _head(self) -> Head | None:
        return class_head(self._found.folder)

    def embedded(self, block: Block) -> Embedded:
        """Embed the pairs."""
        encoder, pixels = self._encoder, block.pixels[geometry_of(self._encoder)]
        with computing(self._precision, self._device, tokens=getattr(encoder, "tokens", LONG)):
            rows = passes.embed(
                encoder,
                pixels,
                np.arange(len(block.uids)),
                block.captions,
                block.uids,
                self._settings,
                _CROPS,
                device=self._device,
            )
        return _embedded(unit_means(rows.image, rows.text, rows.text_pair), block, rows, self._head)


class KnownSide(Side):
    """Existing embeddings, looked up by uid."""

    def __init__(self) -> None:
        self._places: dict[int, np.ndarray] = {}

    @property
    @abstractmethod
    def uids(self) -> pl.Series:
        """The uid of each row; the first row of a pair is used."""

    def rows(self, pairs: Pairs) -> np.ndarray:
        """Return the row of each pair, -1 for none."""
        if id(pairs) not in self._places:
            there = self.uids.to_frame("uid").with_row_index("row").unique("uid", keep="first", maintain_order=True)
            found = pairs.table.select("uid").join(there, on="uid", how="left", maintain_order="left")
            self._places[id(pairs)] = found["row"].cast(pl.Int64).fill_null(-1).to_numpy()
        return self._places[id(pairs)]

    def has(self, block: Block) -> np.ndarray:
        """Return the mask of the pairs with a row."""
        return self.rows(block.pairs)[block.rows] >= 0


class StoredSide(KnownSide):
    """Embeddings on disk, in one or more folders."""

    def __init__(self, name: str, folders: Sequence[Path]) -> None:
        super().__init__()
        self.name = name
        self.layouts = [Layout(folder) for folder in folders]
        self._check()

    def _check(self) -> None:
        widths = [layout.width for layout in self.layouts]
        one, hint = len(set(widths)) < 2, "Use embeddings of one model."
        require(one, f"embeddings in {self.name}", f"widths {widths}", "one width", hint)

    def add(self, folder: Path) -> None:
        """Add another folder."""
        self.layouts.append(Layout(folder))
        self._check()

    def content(self) -> dict[str, Any]:
        """Hash the arrays and the metadata."""
        return {"embeddings": [layout.content() for layout in self.layouts]}

    @property
    def uids(self) -> pl.Series:
        """The uid of each row, over all folders."""
        return pl.concat([layout.uids for layout in self.layouts])

    def embedded(self, block: Block) -> Embedded:
        """Read the pairs' rows."""
        return _embedded(self._means(block), block)

    def _means(self, block: Block) -> Means:
        rows, start = self.rows(block.pairs)[block.rows], 0
        found: list[tuple[np.ndarray, Means]] = []
        for layout in self.layouts:
            here = np.flatnonzero((rows >= start) & (rows < start + len(layout)))
            if len(here):
                found.append((here, layout.read(rows[here] - start)))
            start += len(layout)
        if len(found) == 1:
            return found[0][1]
        back = torch.from_numpy(np.argsort(np.concatenate([here for here, _ in found])))
        return Means(*(torch.cat(values)[back] for values in zip(*(means for _, means in found), strict=True)))


class ArraySide(KnownSide):
    """Embeddings in memory."""

    def __init__(self, name: str, uids: Sequence[str] | None, image: Any, text: Any, text_pair: Any = None) -> None:
        super().__init__()
        self.name = name
        self._image, self._text = _tensor(f"{name} images", image), _tensor(f"{name} captions", text)
        if self._image.ndim == 2:
            self._image = self._image.unsqueeze(1)
        shapes = self._image.ndim == 3 and self._text.ndim == 2 and self._image.shape[-1] == self._text.shape[1] > 0
        n = len(self._image) if shapes else 0
        owner = np.arange(len(self._text) if shapes else 0)
        if text_pair is not None:
            owner = _tensor(f"{name} pairs of captions", text_pair).cpu().numpy()
        complete = shapes and owner.ndim == 1 and owner.dtype.kind in "iu" and len(owner) == len(self._text)
        # checked first, since `bincount` of a huge pair number allocates a huge array
        known = complete and (not len(owner) or 0 <= owner.min() <= owner.max() < n)
        counts = np.bincount(owner, minlength=n) if known else np.zeros(n, dtype=np.int64)
        if not known or not counts.all():
            got = f"images of shape {tuple(np.shape(image))}, captions of shape {tuple(np.shape(text))}"
            got += "" if text_pair is None else f", their pairs of shape {tuple(owner.shape)}"
            expected = "(n, d) or (n, view, d), and (n, d), or (m, d) with the pair of each row as third array"
            hint = "Give every pair an image and a caption embedding of one model."
            raise InputError(f"{name} embeddings", got=got, expected=expected, hint=hint)
        self._order, self._starts = np.argsort(owner, kind="stable"), np.concatenate([[0], np.cumsum(counts)])
        self._uids = [str(row) for row in range(n)] if uids is None else list(uids)

    def __len__(self) -> int:
        return len(self._image)

    @property
    def uids(self) -> pl.Series:
        """The uid of each row."""
        return pl.Series(self._uids, dtype=pl.String)

    def content(self) -> dict[str, Any]:
        """Hash the arrays."""
        digest = hashlib.sha256(np.ascontiguousarray(self._order).tobytes())
        for values in (self._image, self._text):
            digest.update(f"{values.dtype}{tuple(values.shape)}".encode())
            digest.update(np.ascontiguousarray(values.detach().cpu().numpy()).data)
        return {"arrays": digest.hexdigest()}

    def embedded(self, block: Block) -> Embedded:
        """Select the pairs' rows."""
        rows = self.rows(block.pairs)[block.rows]
        counts = np.diff(self._starts)[rows]
        chosen = [self._order[self._starts[row] : self._starts[row + 1]] for row in rows]
        text = self._text[torch.from_numpy(np.concatenate(chosen))] if chosen else self._text[:0]
        image = self._image[torch.from_numpy(rows)]
        image, text = (
            values.detach().cpu().to(torch.promote_types(values.dtype, torch.float32)) for values in (image, text)
        )
        found = Embeddings(image, text, torch.from_numpy(np.repeat(np.arange(len(rows)), counts)))
        return _embedded(unit_means(*found[:3]), block, found)


def _tensor(name: str, values: Any) -> Tensor:
    try:
        array = values if isinstance(values, Tensor) else np.asarray(values)
    except ValueError:
        array, reason = None, f"a ragged {type(values).__name__}"
    else:
        reason = " ".join(dict.fromkeys((str(getattr(array, "layout", "")), str(array.dtype)))).strip()
    real = isinstance(array, np.ndarray) and array.dtype.kind in "fiu" and array.dtype != np.longdouble
    if isinstance(array, Tensor):
        real = array.layout == torch.strided and array.dtype != torch.bool and not array.is_complex()
    if array is None or not real:
        expected = "an array of real numbers: numpy, torch, or nested lists of equal lengths"
        raise InputError(name, got=reason, expected=expected, hint="Give embeddings as returned by the model.")
    # torch supports native byte order only
    return (
        array if isinstance(array, Tensor) else torch.as_tensor(array.astype(array.dtype.newbyteorder("="), copy=False))
    )


def open_side(address: str, settings: EmbedSection, *, device: str, precision: str) -> Side:
    """Open the folder of embeddings, or the model, at an address."""
    folder = checked_path(address, "model").expanduser()
    if folder.is_dir() and is_layout(folder):
        return StoredSide(address, [folder])
    return ModelSide(address, settings, device=device, precision=precision)


def read_block(pairs: Pairs, rows: np.ndarray, geometries: Sequence[Geometry]) -> tuple[Block, list[Problem]]:
    """Read some rows of pairs and decode their images in each geometry."""
    table = pairs.table[rows]
    uids = table["uid"].to_list()
    labels = None if pairs.labels is None else pairs.labels[rows]
    if not geometries or pairs.source is None:
        return Block(pairs, rows, uids, [], {}, labels), []
    encoded, problems = _read(pairs, table, geometries)
    complete = [images for images in encoded if images is not None]
    pixels = {
        geometry: np.stack([images[k] for images in complete])
        if complete
        else np.zeros((0, geometry.size, geometry.size, 3), dtype=np.uint8)
        for k, geometry in enumerate(geometries)
    }
    ok = np.array([images is not None for images in encoded], dtype=bool)
    block = Block(pairs, rows, uids, table["captions"].to_list(), {}, labels).kept(ok)
    return block._replace(pixels=pixels), problems


def _read(
    pairs: Pairs, table: pl.DataFrame, geometries: Sequence[Geometry]
) -> tuple[list[list[np.ndarray] | None], list[Problem]]:
    found: list[list[np.ndarray] | None] = []
    problems: list[Problem] = []
    references = table["image"].to_list()
    encoded = (
        one for start in range(0, len(references), _READ) for one in _bytes(pairs, references[start : start + _READ])
    )
    for key, one in zip(table["key"], encoded, strict=True):
        images: list[np.ndarray] | None = None
        if one is None:
            problems.append(Problem(pairs.name, key, NOT_READ))
        else:
            try:
                name = f"image {key!r}"
                images = [decode(one, name=name, **geometry._asdict()) for geometry in geometries]
            except DecodeError as error:
                problems.append(Problem(pairs.name, key, error.reason))
        found.append(images)
    return found, problems


def _bytes(pairs: Pairs, references: list[str]) -> list[bytes | None]:
    if pairs.source is None:
        raise TypeError("these pairs have no images")
    try:
        return list(pairs.source.read(references))
    except (InputError, OSError):
        if len(references) == 1:
            return [None]
        return [one for reference in references for one in _bytes(pairs, [reference])]


def usable(sides: Sequence[Side], block: Block) -> tuple[Block, list[Embedded], list[Problem]]:
    """Return the pairs that all sides can embed, their embeddings, and the problems of the others."""
    keys = block.pairs.keys()[block.rows]
    problems: list[Problem] = []
    there = np.ones(len(block.rows), dtype=bool)
    for side in sides:
        has = side.has(block)
        missing = np.flatnonzero(there & ~has)
        problems += [Problem(block.pairs.name, keys[int(k)], f"{NOT_THERE} in {side.name}") for k in missing]
        there &= has
    keys, block = keys.filter(pl.Series(there)), block.kept(there)
    if not len(block.rows):
        return block, [], problems
    made = {id(side): side.embedded(block) for side in dict.fromkeys(sides)}  # once per unique side
    embedded = [made[id(side)] for side in sides]
    ok = torch.stack([one.ok for one in embedded]).all(dim=0)
    if bool(ok.all()):
        return block, embedded, problems
    problems += [Problem(block.pairs.name, keys[k], NO_DIRECTION) for k in torch.nonzero(~ok)[:, 0].tolist()]
    return block.kept(ok.numpy()), [one.kept(ok) for one in embedded], problems


class StudySide(KnownSide):
    """The embeddings of a study's model, in its run folder; over all `wordings` or over the first captions."""

    def __init__(self, folder: Path, uids: pl.Series, head: Head | None, *, wordings: bool = False) -> None:
        super().__init__()
        self.name, self._folder, self._uids, self._head = str(folder), folder, uids, head
        self._wordings = wordings

    @property
    def uids(self) -> pl.Series:
        """The uid of each row."""
        return self._uids

    def content(self) -> dict[str, Any]:
        """Return the folder, whose content the study's markers record."""
        return {"folder": self.name, "wordings": self._wordings}

    def embedded(self, block: Block) -> Embedded:
        """Read the pairs' rows; means are float64."""
        rows = passes.load(self._folder, self.rows(block.pairs)[block.rows])
        rows = rows.all_wordings() if self._wordings else rows
        ok = torch.ones(len(block.rows), dtype=torch.bool)  # `pair_means` refuses rows without a direction
        means = pair_means(rows.image.double(), rows.text.double(), rows.text_pair)
        return _embedded(Means(*means, ok), block, rows, self._head)
