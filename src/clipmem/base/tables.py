"""Schemas of a run folder's tables, checked on reading and writing."""

import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl

from clipmem.base import slices
from clipmem.base.errors import require
from clipmem.base.paths import atomic_file, explain_write_errors, parsing

_UID = {"uid": pl.String}
_BLOCK = 8192  # values at a time
SCHEMAS: Mapping[str, Mapping[str, pl.DataType | type[pl.DataType]]] = {
    "pairs": {
        **dict.fromkeys(("uid", "key", "image"), pl.String),
        **dict.fromkeys(("captions", "variants"), pl.List(pl.String)),
        **dict.fromkeys(("group", "label", "sublabel", "credit"), pl.String),
        "objects": pl.List(pl.String),
        "role": pl.String,
    },
    # unusable records, which may have no uid
    "skipped": {"source": pl.String, "key": pl.String, "reason": pl.String},
    "splits": {**_UID, "role": pl.String, "group": pl.String, "planted": pl.Boolean, "captions_from": pl.String},
    "scores": {
        **dict.fromkeys(("uid", "role"), pl.String),
        "planted": pl.Boolean,
        # centered: minus the trimmed mean of the external pairs; null for protocols whose models are not paired
        **dict.fromkeys(("clipmem", "clipmem_norm", "clipmem_centered", "stderr", "low", "high"), pl.Float64),
        **dict.fromkeys(("f_positive", "f_image_bank", "f_text_bank"), pl.Float64),
        **dict.fromkeys(("g_positive", "g_image_bank", "g_text_bank"), pl.Float64),
        # alignment under the pretrained model, and what training on other pairs added; null from scratch
        **dict.fromkeys(("a_base", "learned"), pl.Float64),
        # over all captions up to `evaluate.wordings`; null if they are those of `train.captions`
        "clipmem_wordings": pl.Float64,
    },
    # of every estimator that the signals allow; stderr is null if it gives none
    "estimates": {**_UID, "estimator": pl.String, "score": pl.Float64, "stderr": pl.Float64},
    "seed_scores": {**_UID, "seed": pl.Int64, **dict.fromkeys(("f", "g", "f_wordings", "g_wordings"), pl.Float64)},
    # pairs removed before training; rank is null for one removed along with another
    "removed": {**_UID, "role": pl.String, "rank": pl.Int64, "removal_score": pl.Float64, "went_with": pl.String},
    "mitigate/regroup": {**_UID, "removal_score": pl.Float64},
    # how far captions of images that look alike agree with the pair's own, and the reverse
    "mitigate/reweight": {**_UID, "by_image": pl.Float64, "by_caption": pl.Float64},
    "mitigate/caption_variants": {**_UID, "caption": pl.String, "kind": pl.String, "variant": pl.String},
    # row of each other image of a pair in `cache/variants.npy`; null if it does not decode
    "mitigate/image_variants": {**_UID, "row": pl.Int64, "reference": pl.String, "problem": pl.String},
    # means over seeds, null for pairs without objects
    "evaluate/dejavu": {
        **dict.fromkeys(("uid", "role"), pl.String),
        "objects": pl.Int64,
        "extra": pl.Float64,
        **dict.fromkeys(("precision_f", "precision_g", "recall_f", "recall_g"), pl.Float64),
    },
    "audit/pairs": {**_UID, "planted": pl.Boolean, **dict.fromkeys(("risk", "false_alarm", "percentile"), pl.Float64)},
    "localize/units": {
        "side": pl.String,
        "seed": pl.Int64,
        "tower": pl.String,
        "layer": pl.Int64,
        "kind": pl.String,
        "unit": pl.Int64,
        **dict.fromkeys(("unitmem", "unitmem_median", "classmem", "mu_max", "mu_rest", "median_error"), pl.Float64),
        **dict.fromkeys(("uid", "label"), pl.String),
    },
    "localize/layers": {
        **dict.fromkeys(("role", "tower"), pl.String),
        "layer": pl.Int64,
        "kind": pl.String,
        "n": pl.Int64,
        **dict.fromkeys(("layermem", "low", "high", "delta", "delta_low", "delta_high"), pl.Float64),
        "n_units": pl.Int64,
        **dict.fromkeys(("unitmem_mean", "unitmem_low", "unitmem_high"), pl.Float64),
        **dict.fromkeys(("reference_unitmem_mean", "reference_unitmem_low", "reference_unitmem_high"), pl.Float64),
        **dict.fromkeys(("control_difference", "control_p", "control_p_holm"), pl.Float64),
    },
    "localize/towers": {
        **dict.fromkeys(("uid", "role"), pl.String),
        "clipmem": pl.Float64,
        **dict.fromkeys(("image_share", "image_low", "image_high", "text_share", "text_low", "text_high"), pl.Float64),
        **dict.fromkeys(("image_sslmem", "text_sslmem"), pl.Float64),
        "reliable": pl.Boolean,
    },
}


class Column(Sequence[Any]):
    """The values of a column as Python objects, made where they are read: a list takes several times the memory."""

    def __init__(self, values: pl.Series) -> None:
        self.values = values

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, index: Any) -> Any:
        """Return a value, or a list of some."""
        value = self.values[index if isinstance(index, slice) else int(index)]
        return value.to_list() if isinstance(value, pl.Series) else value

    def __iter__(self) -> Iterator[Any]:
        """Yield the values, with some of them in memory."""
        for rows in slices(len(self.values), _BLOCK):
            yield from self[rows]


def write_parquet(path: Path, table: pl.DataFrame) -> None:
    """Write a table atomically."""
    with atomic_file(path) as stream:
        table.write_parquet(stream, compression="zstd", statistics=False)


def open_array(path: Path, mode: Literal["r", "c"] | None) -> np.ndarray:
    """Load a `.npy` file, memory-mapped unless it is empty; with "c", as torch expects it, changes stay in memory."""
    return np.load(path, mmap_mode=mode if path.stat().st_size > 1024 else None, allow_pickle=False)


def scratch_array(shape: tuple[int, ...], dtype: Any = np.float32) -> np.ndarray:
    """Return a memory map of a file without a name, which vanishes with it."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    with explain_write_errors(Path(tempfile.gettempdir(), "scratch")), tempfile.TemporaryFile() as file:
        os.posix_fallocate(file.fileno(), 0, size)  # on a full disk, a map would end the process
        return np.memmap(file, dtype=dtype, mode="r+", shape=shape)


def write_table(path: Path, name: str, table: pl.DataFrame) -> None:
    """Write a table of the run folder with exactly the columns of `SCHEMAS[name]`."""
    schema = SCHEMAS[name]
    missing, extra = sorted(set(schema) - set(table.columns)), sorted(set(table.columns) - set(schema))
    got, hint = f"columns missing {missing}, unknown {extra}", "Give exactly these columns."
    require(not missing + extra, f"table {name!r}", got, f"the columns {list(schema)}", hint)
    write_parquet(path, table.select([pl.col(column).cast(dtype) for column, dtype in schema.items()]))


def read_table(path: Path, name: str) -> pl.DataFrame:
    """Read a table of the run folder and check its columns."""
    command = "localize" if name.startswith("localize/") else "run RECIPE.toml --out"
    hint = f"Run `clipmem {command} DIR` on it first: finished stages are not repeated."
    require(path.is_file(), f"table {name!r}", f"no file {path}", "a run folder with that stage finished", hint)
    got, broken = f"{path} is not readable as Parquet", (pl.exceptions.PolarsError, OSError)
    hint = "Delete it and run the study again: only that stage is repeated."
    with parsing(f"table {name!r}", got, broken, expected="a file written by clipmem", hint=hint):
        table = pl.read_parquet(path)
    missing = [column for column in SCHEMAS[name] if column not in table.columns]
    got, hint = f"columns {table.columns}", "Create the folder again with this version of clipmem."
    require(not missing, f"table {name!r} in {path}", got, f"also {missing}", hint)
    return table
