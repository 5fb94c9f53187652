"""Execution of a score: the bank's sums, then the alignment parts of every block of pairs."""

import io
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import polars as pl
import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors

from clipmem.base.atomic import atomic_write
from clipmem.base.errors import InputError
from clipmem.base.job import Job, cut
from clipmem.base.progress import Quiet, Reporter
from clipmem.base.require import require
from clipmem.data.quarantine import Problem
from clipmem.models.passes import Embeddings
from clipmem.scoring.alignments import ALIGNMENTS, Alignment, Embedded, Head
from clipmem.scoring.bank import BankSums, add, bank_sums
from clipmem.scoring.design import PARTS
from clipmem.scoring.pairs import Bank, Pairs
from clipmem.scoring.sides import Side, read_block, usable
from clipmem.stats.alignment import AlignmentParts
from clipmem.stats.similarity import pair_means

CHUNK = 1024  # pairs whose embeddings are in memory at a time
_Make = Callable[[range], tuple[bytes, list[Problem]]]


@dataclass
class Comparison:
    """The models, pairs, bank and alignment of a score."""

    models: Sequence[Side]
    data: Pairs
    bank: Bank
    block: int
    alignment: str = "clip"
    section: object = None
    sides: list[Side] = field(init=False)

    def __post_init__(self) -> None:
        self.sides = list({id(side): side for side in self.models}.values())

    def places(self) -> list[int]:
        """Return the index of each model in `sides`, the unique ones."""
        place = {id(side): k for k, side in enumerate(self.sides)}
        return [place[id(side)] for side in self.models]


@dataclass(frozen=True)
class Executed:
    """The result of a comparison."""

    rows: pl.DataFrame
    parts: list[AlignmentParts]
    control: list[AlignmentParts] | None
    bank: int
    problems: list[Problem]


class Executor:
    """Computes a comparison block by block; resumable."""

    def __init__(self, comparison: Comparison, job: Job, reporter: Reporter | None = None) -> None:
        self._what, self._job = comparison, job
        self._reporter = reporter or Quiet()
        self._alignment: Alignment = ALIGNMENTS[comparison.alignment](comparison.section)

    def run(self) -> Executed:
        """Compute the missing blocks and return the result; raise an `InputError` if no pair is usable."""
        data, bank = self._what.data, self._what.bank.pairs
        self._each("bank", bank, "safetensors", self._bank_block)
        sums, problems = self._sums()
        pairs = int(sums[0].pairs)
        reason = problems[0].reason if problems else "the bank is empty"
        got = f"{len(bank):,} pairs, none of them usable ({reason})"
        require(pairs, f"bank {bank.name}", got, "at least one", "Check its images, or use another bank.")
        inside = data.table["uid"].is_in(bank.table["uid"].implode()).to_numpy()
        self._what.bank.check_own(pairs, bool(inside.any()), "one usable pair, which is scored itself")
        self._each("score", data, "parquet", partial(self._score_block, bank=sums, inside=inside))
        table, more = self._joined()
        own = bank.source is data.source and bank.layout is data.layout  # a part of the data: list its pairs once
        found = [one._replace(source=data.name) if own else one for one in (*problems, *more)]
        problems = list(dict.fromkeys([*data.problems, *bank.problems, *found]))
        reason = problems[0].reason if problems else "unknown reason"
        got = f"{len(data):,} pairs, none of them usable ({reason})"
        require(table.height, f"--data {data.name}", got, "at least one", "Check its images.")
        parts = [
            AlignmentParts(*(torch.from_numpy(table[f"{k}.{name}"].to_numpy().copy()) for name in PARTS))
            for k in self._what.places()
        ]
        control = [self._alignment.control(sums[k]) for k in self._what.places()] if pairs > 1 else None
        return Executed(table.select("uid", "inside"), parts, control, pairs, problems)

    def _each(self, word: str, pairs: Pairs, ending: str, make: _Make) -> None:
        blocks = [(name, rows) for name, rows in cut(len(pairs), self._what.block, word) if not self._job.is_done(name)]
        total = sum(len(rows) for _, rows in blocks)
        self._reporter.begin(word, total, "pairs")
        started = time.monotonic()
        for name, rows in blocks:
            began = time.monotonic()
            content, problems = make(rows)
            file = self._job.path / f"{name}.{ending}"
            atomic_write(file, content)
            facts = {"problems": [list(one) for one in problems]}
            self._job.finish(name, [file], time.monotonic() - began, facts)
            self._reporter.advance(len(rows))
        if total < len(pairs):
            self._reporter.note(f"{word:<9} {len(pairs) - total:,} of {len(pairs):,} pairs were already done")
        self._reporter.end(word, time.monotonic() - started)

    def _chunks(
        self, pairs: Pairs, rows: range
    ) -> Iterator[tuple[list[str], np.ndarray, list[Embedded], list[Problem]]]:
        """Yield uids, rows and embeddings of a block in chunks that fit in memory."""
        geometries = sorted({side.geometry for side in self._what.sides if side.geometry is not None})
        for start in range(rows.start, rows.stop, CHUNK):
            block, problems = read_block(pairs, np.arange(start, min(start + CHUNK, rows.stop)), geometries)
            block, embedded, more = usable(self._what.sides, block)
            yield block.uids, block.rows, embedded, problems + more

    def _bank_block(self, rows: range) -> tuple[bytes, list[Problem]]:
        problems: list[Problem] = []
        found: list[list[BankSums]] = [[] for _ in self._what.sides]
        for _, _, embedded, more in self._chunks(self._what.bank.pairs, rows):
            problems += more
            for of_side, one in zip(found, embedded, strict=False):  # empty if no pair of the chunk is usable
                of_side.append(bank_sums(one.image, one.text, self._alignment.positive(one), one.ok))
        added = {k: add(of_side)._asdict() for k, of_side in enumerate(found) if of_side}
        return save_safetensors({f"{k}.{name}": v for k, sums in added.items() for name, v in sums.items()}), problems

    def _read(self, name: str, read: Callable[[bytes], Any]) -> tuple[Any, list[Problem]]:
        [file], facts = self._job.outputs(name)
        try:
            return read(file.read_bytes()), [Problem(*one) for one in facts["problems"]]
        except (SafetensorError, pl.exceptions.PolarsError, ValueError, KeyError, TypeError) as error:
            hint = f"Delete {self._job.path} and run the same command again."
            raise InputError(f"{file}", got="a damaged file", expected="a block of this score", hint=hint) from error

    def _sums(self) -> tuple[list[BankSums], list[Problem]]:
        found: list[list[BankSums]] = [[] for _ in self._what.sides]
        problems: list[Problem] = []
        for name, _ in cut(len(self._what.bank.pairs), self._what.block, "bank"):
            stored, more = self._read(name, load_safetensors)
            problems += more
            for k, of_side in enumerate(found):
                if f"{k}.pairs" in stored:
                    of_side.append(BankSums(*(stored[f"{k}.{name}"] for name in BankSums._fields)))
        nothing = BankSums(*(torch.zeros(1, dtype=torch.long) for _ in BankSums._fields))
        return [add(of_side) if of_side else nothing for of_side in found], problems

    def _score_block(self, rows: range, bank: Sequence[BankSums], inside: np.ndarray) -> tuple[bytes, list[Problem]]:
        problems: list[Problem] = []
        names = [f"{k}.{name}" for k in range(len(bank)) for name in PARTS]
        schema = {"uid": pl.String, "inside": pl.Boolean, **dict.fromkeys(names, pl.Float64)}
        tables, means = [pl.DataFrame(schema=schema)], [sums.means for sums in bank]
        for uids, places, embedded, more in self._chunks(self._what.data, rows):
            problems += more
            columns: dict[str, Any] = {"uid": uids, "inside": inside[places]}
            for k, (one, mean) in enumerate(zip(embedded, means, strict=False)):
                found = self._alignment.parts_against(one, mean, torch.from_numpy(inside[places]))
                columns |= {f"{k}.{name}": getattr(found, name).numpy() for name in PARTS}
            if embedded:
                tables.append(pl.DataFrame(columns, schema=schema))
        stream = io.BytesIO()
        pl.concat(tables).write_parquet(stream, compression="zstd", statistics=False)
        return stream.getvalue(), problems

    def _joined(self) -> tuple[pl.DataFrame, list[Problem]]:
        tables: list[pl.DataFrame] = []
        problems: list[Problem] = []
        for name, _ in cut(len(self._what.data), self._what.block, "score"):
            table, more = self._read(name, pl.read_parquet)
            tables.append(table)
            problems += more
        return pl.concat(tables).sort("uid"), problems


def parts_of(
    embeddings: Embeddings,
    external: np.ndarray,
    alignment: str = "clip",
    *,
    labels: np.ndarray | None = None,
    head: Head | None = None,
) -> AlignmentParts:
    """Compute the alignment parts of embeddings in memory against the `external` pairs."""
    means = pair_means(embeddings.image.double(), embeddings.text.double(), embeddings.text_pair)
    own = None if labels is None else torch.from_numpy(labels)
    inside = torch.from_numpy(external)
    pairs = Embedded(*means, torch.ones_like(inside), embeddings, own, head)
    method = ALIGNMENTS[alignment]()
    sums = bank_sums(pairs.image, pairs.text, method.positive(pairs), inside)
    return method.parts_against(pairs, sums.means, inside)
