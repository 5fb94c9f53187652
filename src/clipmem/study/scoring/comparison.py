"""From addresses to a comparison: models or stored embeddings, pairs and bank."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from clipmem.base.errors import InputError
from clipmem.base.paths import checked_path
from clipmem.base.progress import Reporter
from clipmem.embed.layout import is_layout
from clipmem.store.hashing import data_fingerprint
from clipmem.study.scoring.embedding import embed_into
from clipmem.study.scoring.job import Comparison
from clipmem.study.scoring.pairs import Bank, Data, Pairs, bank_of_uids, draw, listed_uids, read_pairs, stored_pairs
from clipmem.study.scoring.settings import Settings
from clipmem.study.scoring.sides import ModelSide, Side, StoredSide

LISTS = ("target", "reference")
DECODED, STORED = 1024, 8192  # pairs in a block: with their pictures in memory, and without


def compare(
    addresses: Mapping[str, Sequence[str]],
    data: Data | None,
    bank: Data | Sequence[str] | None,
    settings: Settings,
    *,
    embeddings: str | Path | None = None,
    reporter: Reporter | None = None,
) -> Comparison:
    """Find models, pairs and bank, and embed the pairs where the embeddings are to be kept.

    Args:
        addresses: `target` and `reference` → addresses of models or folders of embeddings; none: those of `embeddings`.
        data: The pairs; None where embeddings are read.
        bank: The held-out pairs; None draws them.
        settings: The settings, checked.
        embeddings: The folder that keeps embeddings.
        reporter: Who is told.

    Raises:
        InputError: Something is missing, or does not belong together.
    """
    kept = None if embeddings is None else checked_path(embeddings, "--embeddings")
    if kept is not None and not any(addresses.values()):
        addresses, bank = _kept(kept), bank if bank is not None else _kept_bank(kept)
        kept = None
    opened = {address: settings.side(address) for kind in LISTS for address in addresses[kind]}
    sides = {kind: [opened[address] for address in addresses[kind]] for kind in LISTS}
    check_lists({kind: len(models) for kind, models in sides.items()})
    pairs, chosen = _pairs_and_bank(list(opened.values()), data, bank, settings)
    chosen.check(pairs)
    if kept is not None:
        sides = _embed(sides, kept, pairs, chosen, settings, reporter)
    block = settings.block or (DECODED if any(side.geometry for kind in LISTS for side in sides[kind]) else STORED)
    return Comparison(sides["target"], sides["reference"], pairs, chosen, block, settings.weight, settings.confidence)


def check_lists(counts: Mapping[str, int]) -> None:
    """Check that there is a reference for each target.

    Raises:
        InputError: There is not, or there is no target.
    """
    if not counts["target"] or counts["target"] != counts["reference"]:
        raise InputError(
            "--target and --reference",
            got=f"{counts['target']} and {counts['reference']}",
            expected="at least one of each, and equally many",
            hint="Each target is compared with the reference in its place.",
        )


def _kept(folder: Path) -> dict[str, list[str]]:
    """Return the folders target-0, ... and reference-0, ... that a folder of embeddings holds."""
    found = {kind: [str(folder / f"{kind}-{k}") for k in range(_count(folder, kind))] for kind in LISTS}
    if not all(found.values()):
        raise InputError(
            f"--embeddings {folder}",
            got="no target-0 and reference-0 in it",
            expected="a folder that `clipmem score --embeddings` filled",
            hint="Name the models with --target and --reference.",
        )
    return found


def _count(folder: Path, kind: str) -> int:
    k = 0
    while is_layout(folder / f"{kind}-{k}"):
        k += 1
    return k


def _kept_bank(folder: Path) -> str | None:
    return str(folder / "bank" / "target-0") if is_layout(folder / "bank" / "target-0") else None


def _pairs_and_bank(sides: Sequence[Side], data: Data | None, bank: Any, settings: Settings) -> tuple[Pairs, Bank]:
    stored = [side for side in sides if isinstance(side, StoredSide)]
    if data is not None:
        pairs = read_pairs(data, settings.captions, "--data")
    elif len(stored) == len(sides):
        pairs = stored_pairs(stored[0].layouts[0])
    else:
        raise InputError(
            "--data",
            got="no data",
            expected="the pairs to score",
            hint="Only where every --target and --reference is a folder of embeddings can it be left out.",
        )
    if bank is None:
        # a pair that one of the models has no embedding of would be no use
        known = np.all([side.rows(pairs) >= 0 for side in stored], axis=0)
        there = pairs.table["uid"].filter(pl.Series(known)) if stored else pairs.table["uid"]
        return pairs, Bank(pairs.only(draw(there, settings.bank_size, settings.seed), "drawn"), drawn=True)
    if isinstance(bank, Sequence) and not isinstance(bank, str):
        return pairs, bank_of_uids([str(uid) for uid in bank], pairs, "of uids")
    path = checked_path(bank, "--bank") if isinstance(bank, str | Path) else None
    if path is not None and path.is_dir() and is_layout(path):
        if len(stored) < len(sides):
            raise InputError(
                f"--bank {path}",
                got="a folder of embeddings",
                expected="pairs with pictures, as a model is among --target and --reference",
                hint="Give the bank's data, or folders of embeddings for all models.",
            )
        _look_beside(stored, path)
        return pairs, Bank(stored_pairs(stored[0].layouts[-1]), drawn=False)
    listed = None if path is None else listed_uids(path)
    if listed is not None:
        return pairs, bank_of_uids(listed, pairs, str(path))
    return pairs, Bank(read_pairs(bank, settings.captions, "--bank"), drawn=False)


def _look_beside(stored: Sequence[StoredSide], bank: Path) -> None:
    """Let every side look for the bank's pairs in the folder of its own name beside the given one too."""
    for side in stored:
        own = bank.parent / Path(side.name).name
        if not is_layout(own):
            raise InputError(
                f"--bank {bank}",
                got=f"no embeddings of the bank by {side.name}",
                expected=f"a folder {own}",
                hint="Embed the bank with every model, in folders named as those of the data.",
            )
        side.add(own)


def _embed(
    sides: Mapping[str, list[Side]],
    kept: Path,
    pairs: Pairs,
    bank: Bank,
    settings: Settings,
    reporter: Reporter | None,
) -> dict[str, list[Side]]:
    """Embed pairs and bank with every model into `kept`, and return the sides that read them there."""
    names = {f"{kind}-{k}": side for kind in LISTS for k, side in enumerate(sides[kind])}
    models = {name: side for name, side in names.items() if isinstance(side, ModelSide)}
    if not models:
        return dict(sides)
    jobs = [(kept, pairs)]
    if not bank.drawn and not bank.pairs.table["uid"].is_in(pairs.table["uid"].implode()).all():
        jobs.append((kept / "bank", bank.pairs))
    for folder, chosen in jobs:
        chosen.problems = embed_into(
            list(models.values()),
            [folder / name for name in models],
            chosen,
            {**settings.made_with(), "data": data_fingerprint(chosen.table["uid"])},
            block=settings.block or DECODED,
            reporter=reporter,
        )
    opened = {
        name: StoredSide(side.name, [folder / name for folder, _ in jobs]) if name in models else side
        for name, side in names.items()
    }
    return {kind: [opened[f"{kind}-{k}"] for k in range(len(sides[kind]))] for kind in LISTS}
