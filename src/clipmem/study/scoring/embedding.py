"""Embedding with models that exist, into folders of clip-retrieval's layout.

`clipmem embed` does it alone, `clipmem score --embeddings` before it scores.

All models of a call embed the same pairs: one that a model cannot embed is left out of all folders, and is listed in
`quarantine.parquet` in each of them.
"""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch

from clipmem.base.errors import InputError
from clipmem.base.progress import Quiet, Reporter
from clipmem.data.quarantine import Problem
from clipmem.embed.layout import CARD, is_layout, part_files, read_card, write_card, write_part
from clipmem.embed.means import Means
from clipmem.study.scoring.job import usable_means
from clipmem.study.scoring.pairs import Pairs
from clipmem.study.scoring.parts import QUARANTINE, cut, read_quarantine, refuse_other, write_quarantine
from clipmem.study.scoring.sides import Side, read_block

PART = 8192  # pairs in a part: as many files as clip-retrieval makes would be many small ones


def embed_into(
    sides: Sequence[Side],
    folders: Sequence[Path],
    pairs: Pairs,
    card: Mapping[str, Any],
    *,
    block: int,
    part: int = PART,
    reporter: Reporter | None = None,
) -> list[Problem]:
    """Embed pairs with several models, each into a folder of its own, and go on where an earlier call was stopped.

    Args:
        sides: The models.
        folders: A folder for each.
        pairs: The pairs.
        card: What decides the result besides the models, for `clipmem.json`.
        block: Pairs decoded at a time.
        part: Pairs in a part.
        reporter: Who is told.

    Returns:
        The records left out.

    Raises:
        InputError: A folder holds something else.
    """
    reporter = reporter or Quiet()
    parts = -(-len(pairs) // part)
    for side, folder in zip(sides, folders, strict=True):
        _claim(folder, {"model": side.content(), **card, "pairs": len(pairs), "parts": parts, "part": part})
    digits = len(str(parts))  # as clip-retrieval: floor(log10 of the number of parts) + 1
    waiting = [
        (k, rows)
        for k, (_, rows) in enumerate(cut(len(pairs), part, "part"))
        if not all(part_files(folder, k, digits)[2].is_file() for folder in folders)
    ]
    started = time.monotonic()
    reporter.begin("embed", sum(len(rows) for _, rows in waiting), "pairs")
    geometries = sorted({side.geometry for side in sides if side.geometry is not None}) if waiting else []
    for k, rows in waiting:
        problems: list[Problem] = []
        found: list[list[Means]] = []
        kept: list[np.ndarray] = []
        for start in range(rows.start, rows.stop, block):
            one, bad = read_block(pairs, np.arange(start, min(start + block, rows.stop)), geometries)
            one, means, more = usable_means(sides, one)
            problems += bad + more
            kept.append(one.rows)
            found += [means] if means else []
            reporter.advance(min(block, rows.stop - start))
        metadata = _metadata(pairs, np.concatenate(kept))
        for place, folder in enumerate(folders):
            if problems:
                write_quarantine(folder / "quarantine" / f"quarantine_{k:0{digits}d}.parquet", problems)
            write_part(folder, k, digits, _joined([means[place] for means in found]), metadata)
    every = [*pairs.problems, *_problems(folders[0])]
    for folder in folders:
        if every:
            write_quarantine(folder / QUARANTINE, every)
    reporter.end("embed", time.monotonic() - started)
    return every


def _joined(means: Sequence[Means]) -> Means:
    if not means:  # no pair of the part could be used: no model was asked, and nobody knows its width
        return Means(torch.zeros(0, 1), torch.zeros(0, 1), torch.zeros(0, dtype=torch.bool))
    return Means(*(torch.cat(values) for values in zip(*means, strict=True)))


def _problems(folder: Path) -> list[Problem]:
    files = sorted((folder / "quarantine").glob("*.parquet"))
    return [problem for file in files for problem in read_quarantine(file)]


def _metadata(pairs: Pairs, rows: np.ndarray) -> pl.DataFrame:
    table = pairs.table[rows]
    return table.select(
        pl.col("key").alias("image_path"), pl.col("captions").list.first().alias("caption"), "uid", "captions"
    )


def _claim(folder: Path, card: Mapping[str, Any]) -> None:
    """Begin a folder of embeddings, or go on in it.

    Raises:
        InputError: It holds something else.
    """
    there = read_card(folder)
    if there is None and (is_layout(folder) or (folder.is_dir() and any(folder.iterdir()))):
        raise InputError(
            f"{folder}",
            got=f"a folder that holds other files and no {CARD}",
            expected="a new folder, or one that clipmem made",
            hint="Choose another one.",
        )
    if there is not None:
        known = {key: value for key, value in there.items() if key not in {"format", "rows"}}
        refuse_other(f"{folder} was made", known, card, "Choose another folder, or delete it.")
        return
    write_card(folder, card)
