"""The comparison itself: the bank's means first, then every block of pairs, then the table.

score(pair) = mean over targets of A(target) - mean over references of A(reference), the arithmetic of the protocol
`given`. A pair is left out when its picture does not decode or when one of the models has no usable embedding of it.
"""

import io
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import polars as pl
import torch
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors

from clipmem.base.errors import InputError
from clipmem.base.progress import Quiet, Reporter
from clipmem.data.quarantine import Problem
from clipmem.embed.means import Means
from clipmem.functional import AlignmentParts, BankMeans, alignment, alignment_parts_against, range_normalise
from clipmem.score.bank import BankSums, add, bank_alignment, bank_means, bank_sums
from clipmem.score.four_way import SIDES, score_tables
from clipmem.score.protocol import PARTS
from clipmem.study.scoring.pairs import Bank, Pairs
from clipmem.study.scoring.parts import PartsFolder, cut
from clipmem.study.scoring.sides import NO_DIRECTION, NOT_THERE, Block, Side, read_block
from clipmem.train.paired import TrainingSet

CHUNK = 1024  # pairs whose embeddings are in memory at a time
_NO_PAIR = pl.DataFrame(schema={"uid": pl.String, "inside": pl.Boolean})
_NO_PART = pl.lit(None, dtype=pl.Float64)
_Make = Callable[[range], tuple[bytes, list[Problem]]]


@dataclass
class Comparison:
    """What is compared over which pairs.

    Attributes:
        target: The models whose memorization is measured.
        reference: As many models to compare them with, each with the target in its place.
        data: The pairs.
        bank: The held-out pairs.
        block: Pairs in a block.
        weight: w of the alignment.
        confidence: Level of the intervals.
    """

    target: list[Side]
    reference: list[Side]
    data: Pairs
    bank: Bank
    block: int
    weight: float = 1.0
    confidence: float = 0.95
    sides: list[Side] = field(init=False)

    def __post_init__(self) -> None:
        # a model that stands in several places is asked once
        self.sides = list({id(side): side for side in (*self.target, *self.reference)}.values())

    def place(self, side: Side) -> int:
        """Return where a side stands among the different ones."""
        return next(k for k, one in enumerate(self.sides) if one is side)


@dataclass(frozen=True)
class Result:
    """What came out.

    Attributes:
        scores: The table `scores`.
        control: Mean CLIPMem of the bank's own pairs, each against the others; None for a bank of one pair.
        bank: How many pairs the bank had.
        problems: The records left out.
    """

    scores: pl.DataFrame
    control: float | None
    bank: int
    problems: list[Problem]


def usable_means(sides: Sequence[Side], block: Block) -> tuple[Block, list[Means], list[Problem]]:
    """Ask every side for its means; return the pairs that all have, and why the others were left out."""
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
    made = {id(side): side.means(block) for side in dict.fromkeys(sides)}  # a model in two places is asked once
    means = [made[id(side)] for side in sides]
    ok = torch.stack([one.ok for one in means]).all(dim=0)
    problems += [Problem(block.pairs.name, keys[k], NO_DIRECTION) for k in torch.nonzero(~ok)[:, 0].tolist()]
    kept = [Means(one.image[ok], one.text[ok], one.ok[ok]) for one in means]
    return block.kept(ok.numpy()), kept, problems


class Scorer:
    """Makes a comparison, block by block, and goes on where an earlier one was stopped.

    Args:
        comparison: What to compare.
        folder: Where finished blocks wait.
        reporter: Who is told.
    """

    def __init__(self, comparison: Comparison, folder: PartsFolder, reporter: Reporter | None = None) -> None:
        self._what, self._folder = comparison, folder
        self._reporter = reporter or Quiet()

    def run(self) -> Result:
        """Make what is not there yet, and return the scores.

        Raises:
            InputError: No pair, or no pair of the bank, can be used.
        """
        self._each("bank", self._what.bank.pairs, "safetensors", self._bank_block)
        sums, left_out = self._sums()
        if not int(sums[0].pairs):
            raise InputError(
                f"bank {self._what.bank.pairs.name}",
                got=f"{len(self._what.bank.pairs):,} pairs, none of which can be used ({left_out[0].reason})",
                expected="at least one",
                hint="Check its pictures, or take another bank.",
            )
        means = [bank_means(one) for one in sums]
        inside = self._what.data.table["uid"].is_in(self._what.bank.pairs.table["uid"].implode()).to_numpy()
        if means[0].pairs == 1 and inside.any():
            raise InputError(
                f"bank {self._what.bank.pairs.name}",
                got="one pair that can be used, which is itself to be scored",
                expected="another pair in the bank",
                hint="Enlarge the bank: a pair is never in its own bank.",
            )
        self._each("score", self._what.data, "parquet", partial(self._score_block, bank=means, inside=inside))
        return self._join(sums, left_out)

    def _each(self, word: str, pairs: Pairs, ending: str, make: _Make) -> None:
        """Make every block that is not finished."""
        blocks = [(name, rows) for name, rows in cut(len(pairs), self._what.block, word) if not self._folder.done(name)]
        total = sum(len(rows) for _, rows in blocks)
        self._reporter.begin(word, total, "pairs")
        started = time.monotonic()
        for name, rows in blocks:
            data, problems = make(rows)
            self._folder.finish(name, ending, data, problems)
            self._reporter.advance(len(rows))
        if total < len(pairs):
            self._reporter.note(f"{word:<9} {len(pairs) - total:,} of {len(pairs):,} pairs were done before")
        self._reporter.end(word, time.monotonic() - started)

    def _chunks(self, pairs: Pairs, rows: range) -> Iterator[tuple[Block, list[Means], list[Problem]]]:
        """Yield the pairs of a block in pieces: float64 copies of a whole one would be too large to stay in place."""
        geometries = sorted({side.geometry for side in self._what.sides if side.geometry is not None})
        for start in range(rows.start, rows.stop, CHUNK):
            block, problems = read_block(pairs, np.arange(start, min(start + CHUNK, rows.stop)), geometries)
            block, means, more = usable_means(self._what.sides, block)
            yield block, means, problems + more

    def _bank_block(self, rows: range) -> tuple[bytes, list[Problem]]:
        problems: list[Problem] = []
        found: list[list[BankSums]] = [[] for _ in self._what.sides]
        for _, means, more in self._chunks(self._what.bank.pairs, rows):
            problems += more
            for of_side, one in zip(found, means, strict=False):  # no means where no pair of the chunk can be used
                of_side.append(bank_sums(one.image, one.text, one.ok))
        added = {k: add(of_side)._asdict() for k, of_side in enumerate(found) if of_side}
        return save_safetensors({f"{k}.{name}": v for k, sums in added.items() for name, v in sums.items()}), problems

    def _sums(self) -> tuple[list[BankSums], list[Problem]]:
        """Add up the bank's blocks: one sum for every side."""
        found: list[list[BankSums]] = [[] for _ in self._what.sides]
        problems: list[Problem] = []
        for name, _ in cut(len(self._what.bank.pairs), self._what.block, "bank"):
            done = self._folder.finished(name)
            problems += done.problems
            stored = load_safetensors(done.file.read_bytes())
            for k, of_side in enumerate(found):
                if f"{k}.pairs" in stored:
                    of_side.append(BankSums(*(stored[f"{k}.{field}"] for field in BankSums._fields)))
        nothing = BankSums(*(torch.zeros(1, dtype=torch.long) for _ in BankSums._fields))
        return [add(of_side) if of_side else nothing for of_side in found], problems

    def _score_block(self, rows: range, bank: Sequence[BankMeans], inside: np.ndarray) -> tuple[bytes, list[Problem]]:
        problems: list[Problem] = []
        tables = [_NO_PAIR.with_columns(**{f"{k}.{name}": _NO_PART for k in range(len(bank)) for name in PARTS})]
        for block, means, more in self._chunks(self._what.data, rows):
            problems += more
            if len(block.rows):
                own = inside[block.rows]
                columns: dict[str, Any] = {"uid": block.uids, "inside": own}
                for k, (one, held) in enumerate(zip(means, bank, strict=True)):
                    found = alignment_parts_against(one.image, one.text, held, inside=torch.from_numpy(own))
                    columns |= {f"{k}.{name}": getattr(found, name).numpy() for name in PARTS}
                tables.append(pl.DataFrame(columns))
        stream = io.BytesIO()
        pl.concat(tables).write_parquet(stream, compression="zstd", statistics=False)
        return stream.getvalue(), problems

    def _join(self, sums: Sequence[BankSums], problems: list[Problem]) -> Result:
        """Put the blocks together and make the table."""
        what = self._what
        tables: list[pl.DataFrame] = []
        problems = [*what.data.problems, *(what.bank.pairs.problems), *problems]
        for name, _ in cut(len(what.data), what.block, "score"):
            done = self._folder.finished(name)
            problems += done.problems
            tables.append(pl.read_parquet(done.file))
        table = pl.concat(tables).sort("uid")
        problems = list(dict.fromkeys(problems))
        if not table.height:
            raise InputError(
                f"--data {what.data.name}",
                got=f"{len(what.data):,} pairs, none of which can be used ({problems[0].reason})",
                expected="at least one",
                hint="Check its pictures.",
            )
        models = [TrainingSet(side, k, (), 0) for k in range(len(what.target)) for side in SIDES]
        places = [what.place(one) for pair in zip(what.target, what.reference, strict=True) for one in pair]
        parts = [
            AlignmentParts(*(torch.from_numpy(table[f"{place}.{name}"].to_numpy().copy()) for name in PARTS))
            for place in places
        ]
        role = pl.when(table["inside"]).then(pl.lit("external")).otherwise(pl.lit("candidate"))
        splits = table.select("uid", role.alias("role"), pl.lit(value=False).alias("planted"))
        made = score_tables(splits, models, parts, weight=what.weight, confidence=what.confidence, norm=False)
        return Result(_with_norm(made.scores), self._control(sums), int(sums[0].pairs), problems)

    def _control(self, sums: Sequence[BankSums]) -> float | None:
        """Return the mean score of the bank's own pairs."""
        aligned: list[float] = []
        for sides in (self._what.target, self._what.reference):
            parts = [bank_alignment(sums[self._what.place(side)]) for side in sides]
            known = [float(alignment(one, weight=self._what.weight)) for one in parts if one is not None]
            if len(known) < len(parts):
                return None
            aligned.append(sum(known) / len(known))
        return aligned[0] - aligned[1]


def _with_norm(scores: pl.DataFrame) -> pl.DataFrame:
    """Divide by the candidates' range, where there is one."""
    values, candidates = scores["clipmem"], scores["role"] == "candidate"
    if values.filter(candidates).n_unique() < 2:
        return scores
    scaled, _ = range_normalise(torch.from_numpy(values.to_numpy().copy()), torch.from_numpy(candidates.to_numpy()))
    return scores.with_columns(pl.Series("clipmem_norm", scaled.numpy()))
