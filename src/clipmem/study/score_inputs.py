"""Inputs of `clipmem score` and `clipmem embed`: settings, models, pairs and bank."""

from collections.abc import Callable, Iterable, Mapping, Sequence, Sized
from dataclasses import dataclass, replace
from numbers import Integral, Real
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl

from clipmem.base.errors import InputError, shorten
from clipmem.base.paths import checked_path
from clipmem.base.recipes import recipe_from
from clipmem.base.require import require
from clipmem.base.sections import DataSection, EmbedSection, shipped
from clipmem.data.quarantine import source_name
from clipmem.data.sources.base import Source
from clipmem.models.layout import is_layout
from clipmem.scoring.alignments import ALIGNMENTS
from clipmem.scoring.executor import Comparison
from clipmem.scoring.pairs import Bank, Pairs, bank_of_uids, draw, listed_uids, stored_pairs
from clipmem.scoring.sides import ArraySide, ModelSide, Side, StoredSide, open_side
from clipmem.study import early, execution

Data = str | Path | DataSection | Mapping[str, Any] | Source
LISTS = ("target", "reference")
DECODED, STORED = 1024, 8192  # pairs in a block with decoded images, and without
_COLUMNS = ("uid", "key", "image", "captions", "label")


@dataclass(frozen=True)
class Settings:
    """Settings of a score."""

    alignment: str = "clip"
    views: int = 0
    caption_edits: int = 0
    captions: int | None = None
    precision: Literal["fp32", "bf16"] = "fp32"
    batch_size: int = 256
    bank_size: int = 200
    seed: int = 0
    weight: float = 1.0
    confidence: float = 0.95
    block: int | None = None
    device: str = "auto"

    def checked(self) -> "Settings":
        """Check the values, and resolve the device."""
        _ = ALIGNMENTS[self.alignment]
        whole = {"bank_size": (self.bank_size, 0), "seed": (self.seed, None)}
        whole |= {"block": (self.block, 1), "captions": (self.captions, 1)}
        for name, (value, least) in whole.items():
            right = value is None or (isinstance(value, Integral) and (least is None or value >= least))
            expected = "a whole number" if least is None else f"a whole number, {least} or more"
            require(right, name, shorten(value), expected, "Omit it for the default.")
        numbers: dict[str, object] = {"weight": self.weight, "confidence": self.confidence}
        recipe = recipe_from(
            {
                "embed": {"views": self.views, "caption_edits": self.caption_edits, "batch_size": self.batch_size},
                "train": {"captions": 1 if self.captions is None else self.captions, "precision": self.precision},
                "score": {name: float(value) if isinstance(value, Real) else value for name, value in numbers.items()},
            },
            origin="score",
        )
        return replace(self, device=execution.resolve(recipe, 1, device=self.device).device)

    @property
    def embed(self) -> EmbedSection:
        """The corresponding `[embed]` section."""
        return EmbedSection.model_validate(
            {"views": self.views, "caption_edits": self.caption_edits, "batch_size": self.batch_size}
        )

    def side(self, address: str) -> Side:
        """Open a model or a folder of embeddings."""
        return open_side(address, self.embed, device=self.device, precision=self.precision)

    def made_with(self) -> dict[str, Any]:
        """Return the settings that affect embeddings."""
        names = ("views", "captions", "precision", "batch_size", "device")
        edits = {"caption_edits": self.caption_edits} if self.caption_edits else {}
        return {name: getattr(self, name) for name in names} | edits

    def comparison(self, sides: Mapping[str, Sequence[Side]], pairs: Pairs, bank: Bank, block: int) -> Comparison:
        """Return the comparison, with the models target 0, reference 0, target 1, ..."""
        bank.check(pairs)
        if pairs.source is not None and "captions" in pairs.table.columns:
            captions, uids = pairs.table["captions"].to_list(), pairs.table["uid"].to_list()
            ALIGNMENTS[self.alignment]().check(self.embed, captions, uids)
        models = [side for couple in zip(*(sides[kind] for kind in LISTS), strict=True) for side in couple]
        return Comparison(models, pairs, bank, self.block or block, self.alignment)


def open_data(data: Data) -> Source:
    """Open a source from a path, the name of a shipped source, keys of `[data]`, or a source."""
    if isinstance(data, Source):
        return data
    if isinstance(data, str | Path):
        data = {"source": own} if (own := shipped(str(data))) else {"path": str(data)}
    if not isinstance(data, DataSection):
        keys = isinstance(data, Mapping)  # pyright: ignore[reportUnnecessaryIsInstance]
        expected, hint = "a path, a shipped source, keys of [data] or a source", 'For example {"path": "pairs.csv"}.'
        require(keys, "data", shorten(data), expected, hint)
        data = recipe_from({"data": data}, origin="data").data
    return early.check_source(data)


def read_pairs(data: Data, captions: int | None, argument: str, *outputs: tuple[str, Path | None]) -> Pairs:
    """Read the pairs of a data set, in storage order; `outputs`, by option, must not be inside the data."""
    source = open_data(data)
    with early.opening(source.section):
        table = source.pairs()
    for option, out in outputs:
        source.check_outside(out, option)
    name = str(data) if isinstance(data, str | Path) else source_name(source.section)
    require(table.height, f"{argument} {name}", "no pair", "at least one pair", "Check the path.")
    table = table[source.storage_order(table["image"].to_list())].select(_COLUMNS)
    if captions is not None:
        table = table.with_columns(pl.col("captions").list.head(captions))
    named = "" not in set(table["label"])
    labels = table["label"].rank("dense").cast(pl.Int64).to_numpy() - 1 if named else None
    return Pairs(name, table, source, labels=labels, problems=list(source.problems))


def compare(
    addresses: Mapping[str, Sequence[str]],
    data: Data | None,
    bank: Data | Sequence[str] | None,
    settings: Settings,
    *,
    embeddings: str | Path | None = None,
    keep: Callable[[Path, dict[str, list[Side]], Pairs, Bank], dict[str, list[Side]]] | None = None,
) -> Comparison:
    """Return the comparison of models, pairs and bank; `keep` stores embeddings in the folder `embeddings`."""
    folder = None if embeddings is None else checked_path(embeddings, "--embeddings")
    if folder is not None and not any(addresses.values()):
        addresses, bank = _stored(folder), bank if bank is not None else _stored_bank(folder)
        folder = None
    opened = {address: settings.side(address) for kind in LISTS for address in addresses[kind]}
    sides = {kind: [opened[address] for address in addresses[kind]] for kind in LISTS}
    check_lists({kind: len(models) for kind, models in sides.items()})
    pairs, chosen = _pairs_and_bank(list(opened.values()), data, bank, settings)
    _check_made(list(opened.values()), pairs, settings)
    chosen.check(pairs)
    if pairs.source is not None:
        pairs.source.check_outside(folder, "--embeddings")
    if folder is not None and keep is not None:
        sides = keep(folder, sides, pairs, chosen)
    decodes = any(side.geometry for kind in LISTS for side in sides[kind])
    return settings.comparison(sides, pairs, chosen, DECODED if decodes else STORED)


def check_lists(counts: Mapping[str, int]) -> None:
    """Check that there is a reference for each target."""
    target, reference = counts["target"], counts["reference"]
    hint = "Give one reference for each target, in the same order."
    got, expected = f"{target} and {reference}", "the same number, at least one"
    require(target and target == reference, "--target and --reference", got, expected, hint)


def _check_made(sides: Sequence[Side], pairs: Pairs, settings: Settings) -> None:
    """Check that all embeddings are made with the same settings, and stored ones with those that the call names."""
    layouts = [layout for side in sides if isinstance(side, StoredSide) for layout in side.layouts]
    live = any(isinstance(side, ModelSide) for side in sides)
    for key, usual in {"views": 0, "caption_edits": 0, "captions": None, "precision": "fp32"}.items():
        found: dict[str, Any] = {str(one.folder): one.card.get(key, usual) for one in layouts if one.card is not None}
        found |= {"this call": getattr(settings, key)} if live else {}
        if key == "captions" and len(set(found.values())) > 1:  # the same if each pair has one
            found = {str(one.folder): one.most_captions for one in layouts if one.card is not None}
            found |= {"this call": pairs.table["captions"].list.len().max()} if live else {}
        hint = "Use the same for all models."
        if not live and getattr(settings, key) != usual:
            found = {"this call": getattr(settings, key), **(found or {"the embeddings": "unknown"})}
            hint = "Omit it: stored embeddings stay as they are."
        got = ", ".join(f"{value} in {name}" for name, value in found.items())
        require(len(set(found.values())) < 2, f"--{key.replace('_', '-')}", got, "the same in all", hint)


def _stored(folder: Path) -> dict[str, list[str]]:
    found = {kind: [str(folder / f"{kind}-{k}") for k in range(_count(folder, kind))] for kind in LISTS}
    expected, hint = "a folder written by `clipmem score --embeddings`", "Give models with --target and --reference."
    require(all(found.values()), f"--embeddings {folder}", "no target-0 and reference-0 in it", expected, hint)
    return found


def _count(folder: Path, kind: str) -> int:
    k = 0
    while is_layout(folder / f"{kind}-{k}"):
        k += 1
    return k


def _stored_bank(folder: Path) -> str | None:
    return str(folder / "bank" / "target-0") if is_layout(folder / "bank" / "target-0") else None


def _pairs_and_bank(sides: Sequence[Side], data: Data | None, bank: Any, settings: Settings) -> tuple[Pairs, Bank]:
    stored = [side for side in sides if isinstance(side, StoredSide)]
    if data is not None:
        pairs = read_pairs(data, settings.captions, "--data")
    elif len(stored) == len(sides):
        pairs = stored_pairs(stored[0].layouts[0])
    else:
        hint = "Add --data; only folders of embeddings do not need it."
        raise InputError("--data", got="no data", expected="the pairs to score", hint=hint)
    if bank is None:
        # pairs without embeddings under some model cannot be in the bank
        known = np.all([side.rows(pairs) >= 0 for side in stored], axis=0)
        there = pairs.table["uid"].filter(pl.Series(known)) if stored else pairs.table["uid"]
        hint = "Embed the same records with every model; folders without a column uid match only each other."
        require(len(there), "embeddings", f"no pair of {pairs.name} in all folders", "the same pairs in all", hint)
        return pairs, Bank(pairs.only(draw(there, settings.bank_size, settings.seed), "drawn"), drawn=True)
    if isinstance(bank, Sequence) and not isinstance(bank, str):
        return pairs, bank_of_uids([str(uid) for uid in bank], pairs, "of uids")
    path = checked_path(bank, "--bank") if isinstance(bank, str | Path) else None
    if path is not None and path.is_dir() and is_layout(path):
        what, expected = f"--bank {path}", "pairs with images, for the models in --target and --reference"
        hint = "Give the bank's data, or folders of embeddings for all models."
        require(len(stored) == len(sides), what, "a folder of embeddings", expected, hint)
        _add_bank(stored, path)
        return pairs, Bank(stored_pairs(stored[0].layouts[-1]), drawn=False)
    listed = None if path is None else listed_uids(path)
    if listed is not None:
        return pairs, bank_of_uids(listed, pairs, str(path))
    return pairs, Bank(read_pairs(bank, settings.captions, "--bank"), drawn=False)


def _add_bank(stored: Sequence[StoredSide], bank: Path) -> None:
    """Add to every side its embeddings of the bank: the sibling of `bank` with the side's name."""
    for side in stored:
        own = bank.parent / Path(side.name).name
        got = f"no embeddings of the bank by {side.name}"
        hint = "Embed the bank with every model, in folders of the same names."
        require(is_layout(own), f"--bank {bank}", got, f"a folder {own}", hint)
        side.add(own)


def compare_arrays(lists: Mapping[str, list[Any]], uids: Any, bank: Any, settings: Settings) -> Comparison:
    """Return the comparison of embeddings in memory."""
    sides: dict[str, list[Side]] = {}
    names = None if uids is None else _names(uids)
    for kind, models in lists.items():
        wrong = [one for one in models if not (isinstance(one, tuple) and len(one) in {2, 3})]
        if wrong:
            got = "an address among arrays" if isinstance(wrong[0], str | Path) else f"a {type(wrong[0]).__name__}"
            got += f" of {len(wrong[0])}" if isinstance(wrong[0], Sized) and not isinstance(wrong[0], str) else ""
            expected = "(image, text) or (image, text, pair) for each model"
            hint = "Give either arrays or addresses for all models."
            raise InputError(kind, got=got, expected=expected, hint=hint)
        sides[kind] = [ArraySide(f"{kind} {k}", names, *one) for k, one in enumerate(models)]
    check_lists({kind: len(models) for kind, models in sides.items()})
    counts = sorted({len(side) for models in sides.values() for side in models if isinstance(side, ArraySide)})
    names = [str(row) for row in range(counts[0])] if names is None else names
    got = f"arrays of {' and '.join(map(str, counts))} pairs"
    require(counts[0] == counts[-1] > 0, "embeddings", got, "the same pairs in all", "Give every model the same rows.")
    right = counts == [len(names)] and len(set(names)) == len(names)
    got = f"{len(names)} uids, {len(set(names))} of them unique, for {got}"
    require(right, "data", got, "one unique uid per pair", "Omit uids to number the pairs.")
    pairs = Pairs("arrays", pl.DataFrame({"uid": names}, schema={"uid": pl.String}))
    _check_made([], pairs, settings)
    return settings.comparison(sides, pairs, _array_bank(bank, pairs, settings), STORED)


def _names(uids: Any) -> list[str]:
    if isinstance(uids, str | bytes | Path) or not isinstance(uids, Iterable) or getattr(uids, "ndim", 1) != 1:
        expected = "a list of uids (with arrays, pairs and bank cannot be data sets)"
        raise InputError("uids", got=shorten(uids), expected=expected, hint="Omit uids to number the pairs.")
    return [str(uid) for uid in uids]


def _array_bank(bank: Any, pairs: Pairs, settings: Settings) -> Bank:
    if bank is None:
        return Bank(pairs.only(draw(pairs.table["uid"], settings.bank_size, settings.seed), "drawn"), drawn=True)
    try:
        given = np.asarray(bank)
    except ValueError:  # ragged
        given = np.zeros((1, 1))
    if given.dtype.kind in "OUS":
        return bank_of_uids(_names(bank), pairs, "of uids")
    rows = np.flatnonzero(given) if given.dtype == bool or not given.size else given
    wrong = given.ndim != 1 or rows.dtype.kind not in "iu" or (given.dtype == bool and len(given) != len(pairs))
    wrong = wrong or (len(rows) and not 0 <= rows.min() <= rows.max() < len(pairs))
    expected = f"uids, row numbers from 0 to {len(pairs) - 1}, or a mask of {len(pairs)}"
    require(rows.size and not wrong, "bank", shorten(bank), expected, "Give the pairs that no model trained on.")
    return Bank(pairs.only(pairs.table["uid"].gather(np.unique(rows)).to_list(), "of rows"), drawn=False)
