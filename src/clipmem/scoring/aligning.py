"""Alignment parts of pairs under several models, from embeddings that are read in chunks."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
import torch

from clipmem.base.errors import require
from clipmem.base.progress import Quiet, Reporter
from clipmem.data.pairs import Pairs
from clipmem.data.skipped import Problem
from clipmem.models.embeddings import CHUNK, NO_DIRECTION, Embeddings, SinglePart
from clipmem.models.passes import Embeddings as Single
from clipmem.models.passes import Head, Means, chosen
from clipmem.scoring.alignments import ALIGNMENTS, Alignment
from clipmem.scoring.bank import BankSums, add, bank_sums
from clipmem.stats.alignment import AlignmentParts

_NO_SUMS = BankSums(*(torch.zeros(1, dtype=torch.long) for _ in BankSums._fields))


@dataclass(frozen=True)
class Aligned:
    """Alignment parts of the pairs that all models embed.

    Attributes:
        table: `uid` of each pair, and whether it is `inside` the bank.
        parts: The parts of these pairs under each model.
        control: The means over the bank's pairs under each model; None for a bank of one pair.
        bank: Number of the bank's usable pairs.
        problems: The other pairs.
    """

    table: pl.DataFrame
    parts: list[AlignmentParts]
    control: list[AlignmentParts] | None
    bank: int
    problems: list[Problem]


@dataclass(frozen=True)
class Reader:
    """Reads the embeddings of the pairs that all models embed, and lists the others.

    Attributes:
        models: The embeddings of pairs under each model.
        heads: The class head of each model.
        size: Pairs in memory at a time.
    """

    models: Sequence[Embeddings]
    heads: Sequence[Head | None]
    size: int = CHUNK

    def chunks(
        self, pairs: Pairs, problems: list[Problem], advance: Callable[[int], object] = lambda _: None
    ) -> Iterator[tuple[np.ndarray, list[Means]]]:
        """Yield some rows of the pairs and their embeddings under each model."""
        unique = list(dict.fromkeys(self.models))
        rows = {model: model.rows(pairs.uids) for model in unique}
        present, keys, labels = np.ones(len(pairs), dtype=bool), pairs.keys, pairs.labels
        for model in unique:
            reasons = {problem[:2]: problem.reason for problem in model.problems}
            for row in np.flatnonzero(present & (rows[model] < 0)).tolist():
                key = (pairs.data, str(keys[row]))
                problems.append(Problem(*key, reasons.get(key, f"not among the embeddings in {model.name}")))
            present &= rows[model] >= 0
        for start in range(0, len(pairs), self.size):
            chunk = np.flatnonzero(present[start : start + self.size]) + start
            advance(min(self.size, len(pairs) - start))
            if not len(chunk):
                continue
            means = {model: model.read(rows[model][chunk]) for model in unique}
            ok = torch.stack([of_model.ok for of_model in means.values()]).all(dim=0)
            if not bool(ok.all()):
                problems += [Problem(pairs.data, keys[row], NO_DIRECTION) for row in chunk[~ok.numpy()].tolist()]
                means = {model: of_model.select(torch.nonzero(ok)[:, 0]) for model, of_model in means.items()}
                chunk = chunk[ok.numpy()]
            classes = None if labels is None else torch.from_numpy(labels[chunk])
            if len(chunk):
                couples = zip(self.models, self.heads, strict=True)
                yield chunk, [means[model]._replace(labels=classes, head=head) for model, head in couples]


def align(
    reader: Reader, pairs: Pairs, bank: Pairs, alignment: Alignment, *, reporter: Reporter | None = None
) -> Aligned:
    """Align pairs under each model against the bank, in two passes: sums over the bank, then the pairs.

    Every result is the same, bit for bit, for any size of chunks and any order of the pairs.

    Args:
        reader: The embeddings of pairs and bank under each model.
        pairs: The pairs.
        bank: Held-out pairs; those that are also in `pairs` are left out of their own bank.
        alignment: The alignment.
        reporter: Progress reporter.

    Raises:
        InputError: No pair, or none of the bank, is usable; or the only one of the bank is scored itself.
    """
    reporter, models = reporter or Quiet(), reader.models
    started, outside, problems = time.monotonic(), list[Problem](), list[Problem]()
    reporter.begin("score", len(pairs), "pairs")
    inside = pairs.uids.is_in(bank.uids.implode())
    members = torch.from_numpy(inside.to_numpy().copy())
    sums = [list[BankSums]() for _ in models]
    for _, embedded in reader.chunks(bank, outside):
        for k, chunk in enumerate(embedded):
            sums[k].append(bank_sums(chunk.image, chunk.text, alignment.positive(chunk), chunk.ok))
    totals = [add(chunks) if chunks else _NO_SUMS for chunks in sums]
    count = int(totals[0].pairs)
    reason = outside[0].reason if outside else "the bank is empty"
    got = f"{len(bank):,} pairs, none of them usable ({reason})"
    require(count, f"bank {bank.name}", got, "at least one", "Check its images, or use another bank.")
    check_alone(bank, count, bool(inside.any()), "one usable pair, which is scored itself")
    rows, parts = list[np.ndarray](), [list[AlignmentParts]() for _ in models]
    for chunk_rows, embedded in reader.chunks(pairs, problems, reporter.advance):
        rows.append(chunk_rows)
        for k, chunk in enumerate(embedded):
            parts[k].append(alignment.parts_against(chunk, totals[k].means, members[chunk_rows]))
    got = f"{len(pairs):,} pairs, none of them usable ({problems[0].reason if problems else 'unknown reason'})"
    require(rows, f"--data {pairs.name}", got, "at least one", "Check its images.")
    reporter.end("score", time.monotonic() - started)
    return Aligned(
        pl.DataFrame({"uid": pairs.uids, "inside": inside})[np.concatenate(rows)],
        [AlignmentParts(*map(torch.cat, zip(*chunks, strict=True))) for chunks in parts],
        [alignment.control(total) for total in totals] if count > 1 else None,
        count,
        list(dict.fromkeys([*outside, *problems])),
    )


def check_alone(bank: Pairs, count: int, inside: bool, got: str) -> None:
    """Refuse a bank of one pair that is scored itself."""
    hint = "Enlarge the bank: a pair is never in its own bank."
    require(count != 1 or not inside, f"bank {bank.name}", got, "another pair in the bank", hint)


def parts_of(
    embeddings: Single,
    external: np.ndarray,
    alignment: str = "clip",
    *,
    labels: np.ndarray | None = None,
    head: Head | None = None,
) -> AlignmentParts:
    """Compute the alignment parts of embeddings in memory against the `external` pairs."""
    uids = pl.Series("uid", [str(row) for row in range(len(external))], dtype=pl.String)
    part = SinglePart(uids, lambda rows: chosen(embeddings, torch.from_numpy(rows)), exact=True)
    table = uids.to_frame()
    pairs = Pairs("embeddings", table if labels is None else table.with_columns(pl.Series("class", labels)))
    bank = Pairs("external pairs", pairs.table.filter(pl.Series(external)))
    reader = Reader([Embeddings("embeddings", [part])], [head])
    return align(reader, pairs, bank, ALIGNMENTS[alignment]()).parts[0]
