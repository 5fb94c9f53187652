"""Embeddings on disk in clip-retrieval's layout, written and read block by block.

A folder has parts: `img_emb/img_emb_K.npy` and `text_emb/text_emb_K.npy`, floating-point arrays of shape (rows, d),
and `metadata/metadata_K.parquet` with the columns `image_path` and `caption`. K may have leading zeros.

Folders written by clipmem also have the column `uid` and a file `clipmem.json`. Their rows are *means* of the unit
embeddings of a pair's views, or captions, whose lengths are part of the score: they are not normalized again. Rows of
other writers are. Without `uid`, a pair is identified by `image_path` and `caption`: do not mix such folders with data
that have uids.
"""

import json
import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import torch
from jaxtyping import Int

from clipmem.base.atomic import atomic_file, write_json
from clipmem.base.errors import InputError, shorten
from clipmem.base.hashing import file_sha256, json_sha256, pair_uid
from clipmem.base.require import require
from clipmem.base.tables import open_array, write_parquet
from clipmem.models.means import Means, unit_means

CARD = "clipmem.json"
FORMAT = 1
_FOLDERS = {"image": "img_emb", "text": "text_emb"}
_HINT = "Create the folder with `clipmem embed`, or with clip-retrieval's inference of images and texts."


class _Part(NamedTuple):
    image: Path
    text: Path
    metadata: Path
    rows: int


def is_layout(path: Path) -> bool:
    """Return whether a folder has a folder of image or text embeddings."""
    return any((path / name).is_dir() for name in _FOLDERS.values())


def part_files(folder: Path, k: int, digits: int) -> tuple[Path, Path, Path]:
    """Return the paths of part `k`: image embeddings, text embeddings, metadata."""
    number = f"{k:0{digits}d}"
    return (
        folder / "img_emb" / f"img_emb_{number}.npy",
        folder / "text_emb" / f"text_emb_{number}.npy",
        folder / "metadata" / f"metadata_{number}.parquet",
    )


def write_part(folder: Path, k: int, digits: int, means: Means, metadata: pl.DataFrame) -> None:
    """Write part `k`; its metadata, written last, mark it as complete."""
    image, text, table = part_files(folder, k, digits)
    for file, values in ((image, means.image), (text, means.text)):
        with atomic_file(file) as stream:
            np.save(stream, values.cpu().numpy(), allow_pickle=False)
    write_parquet(table, metadata)


def write_card(folder: Path, card: Mapping[str, Any]) -> None:
    """Write `clipmem.json`, which records how the folder was made."""
    write_json(folder / CARD, {"format": FORMAT, "rows": "means", **card})


def read_card(folder: Path) -> dict[str, Any] | None:
    """Read `clipmem.json`; None if there is none."""
    file = folder / CARD
    if not file.is_file():
        return None
    try:
        card: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        newer = card["format"] > FORMAT
    except (ValueError, KeyError, TypeError) as error:
        hint = "Delete the folder and embed the pairs again."
        raise InputError(f"{file}", got="a file not written by clipmem", hint=hint) from error
    require(not newer, f"{file}", f"format {card['format']}", f"format {FORMAT} or older", "Update clipmem.")
    return card


class Layout:
    """A folder of embeddings, opened for reading; arrays are memory-mapped block by block."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.card = read_card(folder)
        self._parts = self._find()
        self._starts = np.cumsum([0, *(part.rows for part in self._parts)])
        self.width = _shape(self._parts[0].image)[1]

    def __len__(self) -> int:
        return int(self._starts[-1])

    def _find(self) -> list[_Part]:
        numbered = {kind: _numbered(self.folder / name, name, "npy") for kind, name in _FOLDERS.items()}
        tables = _numbered(self.folder / "metadata", "metadata", "parquet")
        if not numbered["image"] or not (set(numbered["image"]) == set(numbered["text"]) == set(tables)):
            counts = (len(numbered["image"]), len(numbered["text"]), len(tables))
            got = "parts {} of img_emb, {} of text_emb and {} of metadata".format(*counts)
            expected = "the same numbered parts in all three"
            raise InputError(f"embeddings in {self.folder}", got=got, expected=expected, hint=_HINT)
        stated = len(tables) if self.card is None else self.card.get("parts")
        what, got = f"embeddings in {self.folder}", f"{len(tables)} of {stated} parts"
        hint = "Run the command that created the folder again: it resumes."
        require(len(tables) == stated, what, got, "all of them", hint)
        parts = [self._part(k, numbered["image"][k], numbered["text"][k], tables[k]) for k in sorted(tables)]
        parts = [part for part in parts if part.rows]
        if not parts:
            raise InputError(f"embeddings in {self.folder}", got="no pair", expected="at least one pair", hint=_HINT)
        widths = sorted({_shape(part.image)[1] for part in parts})
        require(len(widths) < 2, f"embeddings in {self.folder}", f"widths {widths}", "one width", "Use one model.")
        return parts

    def _part(self, k: int, image: Path, text: Path, metadata: Path) -> _Part:
        rows, shapes = _rows(metadata), [_shape(file) for file in (image, text)]
        got = f"shapes {shapes[0]} and {shapes[1]}, {rows} rows of metadata"
        right = shapes[0] == shapes[1] and shapes[0][0] == rows
        require(right, f"embeddings in {self.folder}, part {k}", got, "the same number of rows and one width", _HINT)
        return _Part(image, text, metadata, rows)

    @cached_property
    def uids(self) -> pl.Series:
        """The uid of each row's pair."""
        return pl.concat([_uids(part.metadata) for part in self._parts])

    @property
    def most_captions(self) -> int:
        """The largest number of captions of a pair."""
        tables = [_metadata(part.metadata, ("captions",)) for part in self._parts]
        return max((one.select(pl.col("captions").list.len().max()).item() for one in tables if one.width), default=1)

    def captions(self, rows: Int[np.ndarray, " k"]) -> list[list[str]]:
        """Return the captions of some rows."""
        found: dict[int, list[str]] = {}
        for part, local in self._split(rows):
            table = _metadata(self._parts[part].metadata, ("captions", "caption"))
            for row in local:
                own = table["captions"][int(row)].to_list() if "captions" in table.columns else None
                alone = [table["caption"][int(row)] or ""] if "caption" in table.columns else []
                found[int(self._starts[part] + row)] = own or alone
        return [found[int(row)] for row in rows]

    def read(self, rows: Int[np.ndarray, " k"]) -> Means:
        """Read ū and v̄ of some rows, in the given order."""
        order = np.argsort(rows, kind="stable")
        back = np.empty_like(order)
        back[order] = np.arange(len(order))
        blocks = [
            [_take(getattr(self._parts[part], kind), local) for part, local in self._split(rows[order])]
            for kind in _FOLDERS
        ]
        image, text = (torch.from_numpy(np.concatenate(arrays)[back]) for arrays in blocks)
        if self.card is None:
            return unit_means(image[:, None], text, torch.arange(len(rows)))
        ok = torch.isfinite(image).all(dim=1) & torch.isfinite(text).all(dim=1)
        return Means(image.float(), text.float(), ok)

    def _split(self, rows: Int[np.ndarray, " k"]) -> list[tuple[int, np.ndarray]]:
        part = np.searchsorted(self._starts, rows, side="right") - 1
        return [(int(k), rows[part == k] - self._starts[k]) for k in np.unique(part)]

    def content(self) -> str:
        """Hash arrays and metadata of all parts."""
        return json_sha256(
            [
                [part.rows, *(file_sha256(file) for file in (part.image, part.text, part.metadata))]
                for part in self._parts
            ]
        )


def _numbered(folder: Path, name: str, ending: str) -> dict[int, Path]:
    found: dict[int, Path] = {}
    for file in sorted(folder.glob(f"{name}_*.{ending}")):
        number = re.fullmatch(rf"{name}_(\d+)\.{ending}", file.name)
        if number and int(number[1]) in found:
            got, hint = f"{found[int(number[1])].name} and {file.name}", "Keep one of the files."
            raise InputError(f"embeddings in {folder.parent}", got=got, expected="each number once", hint=hint)
        if number:
            found[int(number[1])] = file
    return found


def _shape(file: Path) -> tuple[int, ...]:
    array = _open(file)
    right = array.ndim == 2 and array.shape[1] and array.dtype.kind == "f"
    got = f"an array of {array.dtype} with shape {array.shape}"
    require(right, f"{file}", got, "a floating-point array of shape (rows, d)", _HINT)
    return array.shape


def _open(file: Path) -> np.ndarray:
    try:
        return open_array(file, "r")
    except (OSError, ValueError, EOFError) as error:
        got = f"not readable as .npy ({shorten(str(error))})"
        raise InputError(f"{file}", got=got, expected="an array", hint=_HINT) from error


def _take(file: Path, rows: np.ndarray) -> np.ndarray:
    array = _open(file)
    together = len(rows) and rows[-1] - rows[0] + 1 == len(rows)  # the usual case
    array = array[rows[0] : rows[-1] + 1] if together else array[rows]
    return np.array(array, dtype=np.float64 if array.dtype == np.float64 else np.float32)


def _rows(file: Path) -> int:
    return _scanned(file, lambda: pl.scan_parquet(file).select(pl.len()).collect().item())


def _metadata(file: Path, columns: Sequence[str]) -> pl.DataFrame:
    def read() -> pl.DataFrame:
        there = pl.read_parquet_schema(file)
        return pl.read_parquet(file, columns=[name for name in columns if name in there])

    return _scanned(file, read)


def _scanned(file: Path, read: Any) -> Any:
    try:
        return read()
    except (pl.exceptions.PolarsError, OSError) as error:
        got = f"not readable as Parquet ({shorten(str(error))})"
        raise InputError(f"{file}", got=got, expected="metadata", hint=_HINT) from error


def _uids(file: Path) -> pl.Series:
    table = _metadata(file, ("uid", "image_path", "caption"))
    if "uid" in table.columns:
        return table["uid"].cast(pl.String).fill_null("")
    if not table.columns:
        raise InputError(f"{file}", got="neither of the columns image_path and caption", expected="both", hint=_HINT)
    texts = table.select(pl.all().cast(pl.String).fill_null(""))
    keys = [pair_uid(row[0].encode("utf-8", "surrogatepass"), row[1:]) for row in texts.iter_rows()]
    return pl.Series("uid", keys, dtype=pl.String)
