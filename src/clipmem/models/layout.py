"""Parts of embeddings on disk in clip-retrieval's layout.

A folder has parts: `img_emb/img_emb_K.npy` and `text_emb/text_emb_K.npy`, floating-point arrays of shape (rows, d),
and `metadata/metadata_K.parquet` with the columns `image_path` and `caption`. K may have leading zeros.

Folders written by clipmem also have the column `uid`, a file `clipmem.json`, markers of finished parts, and, for
alignments that need them, single views and captions in `single/K` (see `models.passes`). Their rows are *means* of the
unit embeddings of a pair's views, or captions, whose lengths are part of the score: they are not normalized again. Rows
of other writers are. Without `uid`, a pair is identified by `image_path` and `caption`: do not mix such folders with
data that have uids.
"""

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import torch
from jaxtyping import Int

from clipmem.base.errors import InputError, require
from clipmem.base.hashing import file_sha256, pair_uid
from clipmem.base.paths import atomic_file, parsing, write_json
from clipmem.base.tables import open_array, write_parquet
from clipmem.models.passes import Means, load, save, unit_means

CARD = "clipmem.json"
FORMAT = 1
_FOLDERS = {"image": "img_emb", "text": "text_emb"}
_HINT = "Create the folder with `clipmem export embeddings`, or with clip-retrieval's inference of images and texts."


def is_layout(path: Path) -> bool:
    """Return whether a folder has a folder of image or text embeddings."""
    return any((path / name).is_dir() for name in _FOLDERS.values())


def write_part(folder: Path, k: int, digits: int, means: Means, metadata: pl.DataFrame) -> list[Path]:
    """Write part `k`, with single views and captions if it has any; return its files."""
    number = f"{k:0{digits}d}"
    image, text = (folder / name / f"{name}_{number}.npy" for name in _FOLDERS.values())
    table = folder / "metadata" / f"metadata_{number}.parquet"
    for file, values in ((image, means.image), (text, means.text)):
        with atomic_file(file) as stream:
            np.save(stream, values.cpu().numpy(), allow_pickle=False)
    write_parquet(table, metadata)
    single = save(means.single, folder / "single" / number) if means.single is not None else []
    return [image, text, table, *single]


def write_card(folder: Path, card: Mapping[str, object], name: str = CARD) -> Path:
    """Write `clipmem.json`, which records how the folder was made."""
    return write_json(folder / name, {"format": FORMAT, "rows": "means", **card})


def claim(folder: Path, card: Mapping[str, object]) -> None:
    """Write `clipmem.json` unless there is one, also if another process does so at the same time."""
    if not (folder / CARD).is_file():
        file = write_card(folder, card, f".{CARD}.{os.urandom(4).hex()}.tmp")
        try:
            (folder / CARD).hardlink_to(file)
        except FileExistsError:
            pass
        except OSError:  # no links on this file system
            file.replace(folder / CARD)
        file.unlink(missing_ok=True)


def read_card(folder: Path) -> dict[str, object] | None:
    """Read `clipmem.json`; None if there is none."""
    file = folder / CARD
    if not file.is_file():
        return None
    try:
        card = json.loads(file.read_text(encoding="utf-8"))
        newer = card["format"] > FORMAT
    except (ValueError, KeyError, TypeError) as error:
        hint = "Delete the folder and embed the pairs again."
        raise InputError(f"{file}", got="a file not written by clipmem", hint=hint) from error
    require(not newer, f"{file}", f"format {card['format']}", f"format {FORMAT} or older", "Update clipmem.")
    return card


@dataclass(frozen=True)
class StoredPart:
    """A part of a folder; its arrays are memory-mapped whenever some rows are read."""

    image: Path  # file of ū, or of embeddings of another writer, which are not normalized
    text: Path  # the same of v̄
    metadata: Path  # file of uids and captions
    rows: int  # number of pairs
    means: bool  # whether the rows are means written by clipmem

    def __len__(self) -> int:
        return self.rows

    @property
    def width(self) -> int:
        """Width of the embeddings."""
        return _shape(self.image)[1]

    @property
    def uids(self) -> pl.Series:
        """The uid of each row's pair."""
        table = _metadata(self.metadata, "uid")
        if table.width:
            return table["uid"].cast(pl.String).fill_null("")
        table = _metadata(self.metadata, "image_path", "caption")
        got = "neither of the columns image_path and caption"
        require(table.columns, f"{self.metadata}", got, "both", _HINT)
        texts = table.select(pl.all().cast(pl.String).fill_null(""))
        keys = [pair_uid(row[0].encode("utf-8", "surrogatepass"), row[1:]) for row in texts.iter_rows()]
        return pl.Series("uid", keys, dtype=pl.String)

    @property
    def most_captions(self) -> int:
        """The largest number of captions of a pair."""
        table = _metadata(self.metadata, "captions")
        return table.select(pl.col("captions").list.len().max()).item() if table.width else 1

    @property
    def captions(self) -> pl.Series:
        """The captions of each row, a list of texts; empty if they are unknown."""
        table = _metadata(self.metadata, "captions", "caption")
        names = [name for name in ("captions", "caption") if name in table.columns]
        if not names:
            return pl.Series("captions", [[]] * self.rows, dtype=pl.List(pl.String))
        caption, none = pl.concat_list(pl.col("caption").fill_null("")), pl.lit([], pl.List(pl.String))
        first = caption if "caption" in names else none
        every = pl.col("captions") if "captions" in names else first
        return table.select(captions=pl.when(every.list.len() > 0).then(every).otherwise(first))["captions"]

    def read(self, rows: Int[np.ndarray, " k"]) -> Means:
        """Read the embeddings of some rows in ascending order."""
        together = len(rows) and bool((np.diff(rows) == 1).all())  # the usual case
        chosen_rows = slice(rows[0], rows[-1] + 1) if together else rows
        arrays = (_open(file)[chosen_rows] for file in (self.image, self.text))
        wide = [np.array(array, dtype=np.float64 if array.dtype == np.float64 else np.float32) for array in arrays]
        image, text = map(torch.from_numpy, wide)
        if not self.means:
            return unit_means(image[:, None], text, torch.arange(len(rows)))
        ok = torch.isfinite(image).all(dim=1) & torch.isfinite(text).all(dim=1)
        single = self.image.parent.parent / "single" / self.image.stem.removeprefix("img_emb_")
        return Means(image.float(), text.float(), ok, load(single, rows) if single.is_dir() else None)

    def content(self) -> list[int | str]:
        """Return its number of rows and the hashes of its files."""
        return [self.rows, *(file_sha256(file) for file in (self.image, self.text, self.metadata))]


def open_parts(folder: Path) -> tuple[list[StoredPart], dict[str, object] | None]:
    """Return the parts of a folder that have pairs, and its card."""
    card = read_card(folder)
    numbered = {kind: _numbered(folder / name, name, "npy") for kind, name in _FOLDERS.items()}
    tables = _numbered(folder / "metadata", "metadata", "parquet")
    stated = len(tables) if card is None else card.get("parts")
    for k, file in (item for files in (*numbered.values(), tables) for item in files.items()):
        is_part = card is None or not isinstance(stated, int) or k < stated
        require(is_part, f"{file}", f"part {k}", f"parts 0 to {stated}, without the last", "Delete the file.")
    subject, together = f"embeddings in {folder}", all(of.keys() == tables.keys() for of in numbered.values())
    counts = map(len, (*numbered.values(), tables))
    got = "parts {} of img_emb, {} of text_emb and {} of metadata".format(*counts)
    require(tables and together, subject, got, "the same numbered parts in all three", _HINT)
    hint = "Run the command that created the folder again: it resumes."
    require(len(tables) == stated, subject, f"{len(tables)} of {stated} parts", "all of them", hint)
    parts = list[StoredPart]()
    for k in sorted(tables):
        image, text = numbered["image"][k], numbered["text"][k]
        rows, shapes = int(_metadata(tables[k]).item()), [_shape(file) for file in (image, text)]
        got = f"shapes {shapes[0]} and {shapes[1]}, {rows} rows of metadata"
        consistent = shapes[0] == shapes[1] and shapes[0][0] == rows
        require(consistent, f"{subject}, part {k}", got, "the same number of rows and one width", _HINT)
        parts += [StoredPart(image, text, tables[k], rows, card is not None)] if rows else []
    return parts, card


def repeated(folder: Path, parts: int) -> list[tuple[int, str]]:
    """Return part and `image_path` of the rows whose uid an earlier row has, from the column of uids alone."""
    tables = [item for item in sorted(_numbered(folder / "metadata", "metadata", "parquet").items()) if item[0] < parts]
    every = [_metadata(file, "uid")["uid"].hash().to_numpy() for _, file in tables]
    hashes = np.sort(np.concatenate(every))  # 8 bytes each
    twice = pl.Series(np.unique(hashes[1:][hashes[1:] == hashes[:-1]]))
    seen, again = set[str](), list[tuple[int, str]]()
    for (k, file), of_file in zip(tables, every, strict=True):
        rows = np.flatnonzero(pl.Series(of_file).is_in(twice.implode()))
        table = _metadata(file, "image_path", "uid")[rows] if len(rows) else pl.DataFrame()
        for key, uid in table.iter_rows():
            again += [(k, key)] if uid in seen else []
            seen.add(uid)
    return again


def _numbered(folder: Path, name: str, ending: str) -> dict[int, Path]:
    files: dict[int, Path] = {}
    for file in sorted(folder.glob(f"{name}_*.{ending}")):
        number = re.fullmatch(rf"{name}_(\d+)\.{ending}", file.name)
        if number and int(number[1]) in files:
            got, hint = f"{files[int(number[1])].name} and {file.name}", "Keep one of the files."
            raise InputError(f"embeddings in {folder.parent}", got=got, expected="each number once", hint=hint)
        if number:
            files[int(number[1])] = file
    return files


def _shape(file: Path) -> tuple[int, ...]:
    array = _open(file)
    usable = array.ndim == 2 and array.shape[1] and array.dtype.kind == "f"
    got = f"an array of {array.dtype} with shape {array.shape}"
    require(usable, f"{file}", got, "a floating-point array of shape (rows, d)", _HINT)
    return array.shape


def _open(file: Path) -> np.ndarray:
    broken = (OSError, ValueError, EOFError)
    with parsing(f"{file}", "not readable as .npy", broken, expected="an array", hint=_HINT):
        return open_array(file, "r")


def _metadata(file: Path, *columns: str) -> pl.DataFrame:
    """Read those of some columns that a file has; without columns, the number of rows."""
    broken = (pl.exceptions.PolarsError, OSError)
    with parsing(f"{file}", "not readable as Parquet", broken, expected="metadata", hint=_HINT):
        if not columns:
            return pl.scan_parquet(file).select(pl.len()).collect()
        schema = pl.read_parquet_schema(file)
        return pl.read_parquet(file, columns=[name for name in columns if name in schema])
