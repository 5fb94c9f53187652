"""Inputs of `clipmem score` and `clipmem export embeddings`: settings, models, pairs and bank."""

import hashlib
from collections.abc import Generator, Iterable, Mapping, Sequence, Sized
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import polars as pl
import torch
from pydantic import AfterValidator, Field, PrivateAttr, ValidationError
from torch import Tensor

from clipmem.base.errors import InputError, require, shorten
from clipmem.base.paths import checked_path
from clipmem.base.recipes import recipe_from
from clipmem.base.sections import Count, EmbedSection, NonNegative, explain, known
from clipmem.data.pairs import Pairs, ShardedPairs
from clipmem.data.skipped import Problem
from clipmem.data.sources import Data, open_data
from clipmem.data.sources.records import NO_CAPTION
from clipmem.models import passes
from clipmem.models.embeddings import Embeddings, Model, Runner, SinglePart
from clipmem.models.layout import StoredPart, is_layout
from clipmem.scoring.aligning import check_alone
from clipmem.scoring.alignments import ALIGNMENTS
from clipmem.scoring.bank import draw, listed_uids
from clipmem.study import execution
from clipmem.study.engines import check_name, open_engine, share_of

Embedder = Model | Embeddings
Scorable = str | Path | tuple[Any, Any] | tuple[Any, Any, Any]  # a name, a folder, or arrays
LISTS = ("target", "reference")


class Settings(EmbedSection):
    """Settings of embeddings and scores (see `clipmem.score`)."""

    alignment: Annotated[str, AfterValidator(partial(known, "alignments"))] = "clip"
    captions: Count | None = None
    precision: Literal["fp32", "bf16"] = "fp32"  # pyright: ignore[reportIncompatibleVariableOverride]
    bank_size: Count = 200
    seed: int = 0
    weight: NonNegative = 1.0
    confidence: Annotated[float, Field(gt=0, lt=1)] = 0.95
    block: Count | None = None
    dtype: Literal["float32", "float16"] = "float32"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    engine: str = "local"
    part: str = ""
    _any_device: bool = PrivateAttr(default=False)

    def model_post_init(self, _: Any, /) -> None:
        """Remember that no device was asked for, which a copy with the device of this machine does not say."""
        self._any_device = self.device == "auto"

    @classmethod
    def of(cls, **settings: Any) -> "Settings":
        """Check settings by name, and resolve the device.

        Raises:
            InputError: A name is unknown, or a value invalid.
        """
        try:
            checked = cls.model_validate(settings)
        except ValidationError as error:
            problem = explain(error, "", cls)
            name, unknown = problem.what.removeprefix(": "), problem.got == "an unknown key"
            expected, hint = ("a setting", problem.hint) if unknown else (problem.expected, "Omit it for the default.")
            raise InputError(name, got=problem.got, expected=expected, hint=hint) from None
        check_name(checked.engine)
        share_of(checked.part)
        device = execution.resolve(recipe_from({}), 1, device=checked.device).device
        return checked.model_copy(update={"device": device})

    def open(self, address: str) -> Embedder:
        """Open a folder of embeddings, or find a model."""
        folder = checked_path(address, "model").expanduser()
        return Embeddings.open(folder, address) if folder.is_dir() and is_layout(folder) else self.model(address)

    def model(self, address: str) -> Model:
        """Find a model."""
        return Model.find(address, self, device=self.device, precision=self.precision)

    def check_work(self, *, embeds: bool) -> None:
        """Refuse a share, or an engine, of what one process does."""
        for option, default in {"part": "", "engine": "local"}.items():
            require(embeds or getattr(self, option) == default, f"--{option}", "no pairs to embed", "some", "Omit it.")

    @contextmanager
    def runner(self, folder: Path) -> Generator[Runner]:
        """Open what embeds the pairs, or a share of them; all machines see `folder`."""
        with open_engine(self.engine) as workers:
            yield workers.runner(share_of(self.part), self.device, folder)

    def run(self, folder: Path, *work: Any) -> str:
        """Do parts of some work, one at a time on a machine, by its threads (see `embeddings.Runner`)."""
        with open_engine(self.engine) as workers:
            return workers.runner(share_of(self.part), self.device, folder, processes=1)(*work)

    def made_with(self, before: Mapping[str, object] | None = None) -> dict[str, object]:
        """Return the settings that affect embeddings; with any device, the one of the work `before`."""
        names = {"views", "caption_edits", "captions", "precision", "batch_size", "dtype", "device"}
        settings = self.model_dump(include=names)
        return settings | ({"device": (before or settings).get("device", self.device)} if self._any_device else {})


@dataclass(frozen=True)
class Comparison:
    """Target and reference models, the pairs to score, and the bank: held-out pairs, or a `sample` of the pairs.

    Pairs that are not listed yet have `shards`. These are embedded, and then the sample is drawn (see `listed`).
    """

    target: Sequence[Embedder]
    reference: Sequence[Embedder]
    pairs: Pairs
    bank: Pairs
    sample: bool
    settings: Settings

    def __post_init__(self) -> None:
        pairs, bank, settings = self.pairs, self.bank, self.settings
        _check_made(self.models, pairs, settings)
        drawn_later = pairs.shards is not None and self.sample
        require(len(bank) or drawn_later, f"--bank {bank.name}", "no pair", "at least one pair", "Check the path.")
        if pairs.shards:
            return
        check_alone(bank, len(bank), bank.uids[0] in pairs.uids, "one pair, which is scored itself")
        if pairs.source is not None and "captions" in pairs.table.columns:
            ALIGNMENTS[settings.alignment]().check(settings, pairs.captions, pairs.uids.to_list())

    def listed(self, stored: Embeddings) -> "Comparison":
        """Return the comparison of the pairs in all shards, which are stored as one of the models embeds them."""
        pairs, settings = replace(_stored_pairs(stored), name=self.pairs.name), self.settings
        uids = draw(pairs.uids, settings.bank_size, settings.seed) if self.sample else []
        bank = pairs.select(uids, "drawn") if self.sample else self.bank
        return replace(self, pairs=pairs, bank=bank)

    @property
    def models(self) -> list[Embedder]:
        """All models: target 0, reference 0, target 1, ..."""
        return [model for couple in zip(self.target, self.reference, strict=True) for model in couple]

    @property
    def names(self) -> list[str]:
        """The name of each model's folder of embeddings."""
        return [f"{kind}-{k}" for k in range(len(self.target)) for kind in LISTS]


def read_pairs(data: Data, captions: int | None, argument: str) -> Pairs:
    """Read the pairs of a data set, in storage order."""
    pairs = Pairs.listed(open_data(data), captions)
    require(len(pairs), f"{argument} {pairs.name}", "no pair", "at least one pair", "Check the path.")
    return pairs


def compare(
    target: Any, reference: Any, data: Any, bank: Any, settings: Settings, *, embeddings: Path | None = None
) -> Comparison:
    """Return the comparison of models, pairs and bank (see `clipmem.score`); without models, of stored `embeddings`."""
    lists: list[list[Scorable]] = [x if isinstance(x, list) else [x][: x is not None] for x in (target, reference)]
    target, reference = lists
    if any(isinstance(model, tuple) for model in (*target, *reference)):
        return _compare_arrays(target, reference, data, bank, settings)
    if embeddings is not None and not (target or reference):
        target, reference = _stored(embeddings)
        stored_bank = embeddings / "bank" / "target-0"
        bank = str(stored_bank) if bank is None and is_layout(stored_bank) else bank
        embeddings = None
    sides = zip(LISTS, (target, reference), strict=True)
    addresses = [[_address(kind, model) for model in models] for kind, models in sides]
    opened = {address: settings.open(address) for address in dict.fromkeys(addresses[0] + addresses[1])}
    _check_lists(*map(len, addresses))
    stored = [model for model in opened.values() if isinstance(model, Embeddings)]
    uids = _uids_in(bank)
    listed = not stored and (uids is not None or not ALIGNMENTS[settings.alignment].means)
    pairs = pairs_of(list(opened.values()), data, settings, "--data", listed=listed)
    pairs.shards = None if listed else pairs.shards
    if (is_random := bank is None) and pairs.shards:
        bank_pairs = pairs
    elif is_random:
        # pairs without embeddings under some model cannot be in the bank
        common = pairs.uids
        for model in stored:
            common = common.filter(common.is_in(model.uids.implode()))
        hint = "Embed the same records with every model; folders without a column uid match only each other."
        require(len(common), "embeddings", f"no pair of {pairs.name} in all folders", "the same pairs in all", hint)
        bank_pairs = pairs.select(draw(common, settings.bank_size, settings.seed), "drawn")
    elif isinstance(bank, str | Path) and is_layout(checked_path(bank, "--bank")):
        subject, expected = f"--bank {bank}", "pairs with images, for the models in --target and --reference"
        hint = "Give the bank's data, or folders of embeddings for all models."
        require(len(stored) == len(opened), subject, "a folder of embeddings", expected, hint)
        opened = {model.name: model.joined(_sibling(model, Path(bank))) for model in stored}
        bank_pairs = _stored_pairs(Embeddings.open(Path(bank)))
    elif uids is None:
        bank_pairs = read_pairs(bank, settings.captions, "--bank")
    else:
        bank_pairs = _bank_of_uids(uids, pairs, str(bank) if isinstance(bank, str | Path) else "of uids")
    pairs.refuse("--embeddings", embeddings)
    models = [[opened[address] for address in side] for side in addresses]
    return Comparison(models[0], models[1], pairs, bank_pairs, is_random, settings)


def _address(kind: str, model: Any) -> str:
    expected = "an address, (image, text) or (image, text, pair), or a list of such"
    hint = "Give the arrays of one model as a tuple."
    require(isinstance(model, str | Path), kind, shorten(model), expected, hint)
    return str(model)


def _check_lists(target: int, reference: int) -> None:
    hint = "Give one reference for each target, in the same order."
    got, expected = f"{target} and {reference}", "the same number, at least one"
    require(target and target == reference, "--target and --reference", got, expected, hint)


def _check_made(models: Sequence[Embedder], pairs: Pairs, settings: Settings) -> None:
    """Check that all embeddings are made with the same settings, and stored ones with those that the call names."""
    opened = [model for model in models if isinstance(model, Embeddings)]
    stored = {folder: (card, model) for model in opened for folder, card in model.cards.items() if card is not None}
    live = any(isinstance(model, Model) for model in models)
    for key, usual in {"views": 0, "caption_edits": 0, "captions": None, "precision": "fp32"}.items():
        values: dict[str, object] = {folder: card.get(key, usual) for folder, (card, _) in stored.items()}
        values |= {"this call": getattr(settings, key)} if live else {}
        if key == "captions" and len(set(values.values())) > 1:  # the same if each pair has one
            values = {folder: model.most_captions for folder, (_, model) in stored.items()}
            values |= {"this call": pairs.table["captions"].list.len().max()} if live else {}
        hint = "Use the same for all models."
        if not live and getattr(settings, key) != usual:
            values = {"this call": getattr(settings, key), **(values or {"the embeddings": "unknown"})}
            hint = "Omit it: stored embeddings stay as they are."
        got = ", ".join(f"{value} in {name}" for name, value in values.items())
        require(len(set(values.values())) < 2, f"--{key.replace('_', '-')}", got, "the same in all", hint)


def _stored(folder: Path) -> list[list[str]]:
    """Return the folders of the targets and of the references in a folder of `clipmem score --embeddings`."""
    stored = list[list[str]]()
    for kind in LISTS:
        count = 0
        while is_layout(folder / f"{kind}-{count}"):
            count += 1
        stored.append([str(folder / f"{kind}-{k}") for k in range(count)])
    expected, hint = "a folder written by `clipmem score --embeddings`", "Give models with --target and --reference."
    require(all(stored), f"--embeddings {folder}", "no target-0 and reference-0 in it", expected, hint)
    return stored


def pairs_of(models: Sequence[Embedder], data: Any, settings: Settings, argument: str, *, listed: bool = True) -> Pairs:
    """Read the pairs of a data set; they have its shards if models alone are to embed several.

    Unless `listed`, there are no pairs then, as each shard is listed where it is embedded. Without data, the pairs are
    those of the first folder of embeddings, with captions if `listed`.

    Raises:
        InputError: There are neither data nor embeddings.
    """
    stored = [model for model in models if isinstance(model, Embeddings)]
    if data is None:
        hint = f"Add {argument}; only folders of embeddings do not need it."
        require(models and len(stored) == len(models), argument, "no data", "the pairs to score", hint)
        return _stored_pairs(stored[0], settings.captions if listed else 0)
    embeds = bool(models) and not stored
    source = open_data(data, shard=None if listed or not embeds else "")
    shards = ShardedPairs(source, settings.captions) if embeds else None
    shards = shards if shards and len(shards.shards) > 1 else None
    if listed or not shards:
        return replace(read_pairs(source, settings.captions, argument), shards=shards)
    return Pairs(source.title, pl.DataFrame(schema={"uid": pl.String}), source, shards.problems, shards=shards)


def _stored_pairs(embeddings: Embeddings, captions: int | None = 0) -> Pairs:
    """Return the unique pairs of stored embeddings, with so many captions."""
    name, uids = next(iter(embeddings.cards)), embeddings.uids
    require(len(uids), f"embeddings in {name}", "no pair", "at least one pair", "Check the path.")
    twice = "duplicate pair"
    table, reason = uids.to_frame("uid"), pl.when(~uids.is_first_distinct()).then(pl.lit(twice))
    if captions != 0:
        stored = [part.captions for part in embeddings.parts if isinstance(part, StoredPart)]
        texts = pl.concat(stored, rechunk=True)
        table = table.with_columns(captions=texts.list.eval(pl.element().filter(pl.element().str.contains(r"\S"))))
        table = table.with_columns(pl.col("captions").list.head(captions)) if captions else table
        reason = reason.when(pl.col("captions").list.len() == 0).then(pl.lit(NO_CAPTION))
    table = table.with_columns(reason=reason)
    listed = table.filter(pl.col("reason").is_not_null()).select("uid", "reason")
    if any(card and "records" in card for card in embeddings.cards.values()):  # of shards, whose duplicates are listed
        listed = listed.filter(pl.col("reason") != twice)
    problems = [*embeddings.problems, *(Problem(name, *row) for row in listed.iter_rows())]
    return Pairs(name, table.filter(pl.col("reason").is_null()).drop("reason"), problems=problems)


def _uids_in(bank: Any) -> list[str] | None:
    """Return the uids in a list or a file of them; None for other data."""
    if isinstance(bank, Sequence) and not isinstance(bank, str):
        return [str(uid) for uid in bank]
    return listed_uids(checked_path(bank, "--bank")) if isinstance(bank, str | Path) else None


def _bank_of_uids(uids: Sequence[str], pairs: Pairs, name: str) -> Pairs:
    uid_set = set(pairs.uids)
    unknown = [uid for uid in uids if uid not in uid_set]
    got = f"unknown uid {', '.join(map(shorten, unknown[:1]))} ({len(unknown):,} of {len(uids):,})"
    hint = "Take uids from a table of scores of the same data."
    require(not unknown, f"--bank {name}", got, "uids of the data's pairs", hint)
    return pairs.select(uids, name)


def _sibling(model: Embeddings, bank: Path) -> Embeddings:
    """Open the model's embeddings of the bank: the sibling of `bank` with the model's name."""
    folder = bank.parent / Path(model.name).name
    got = f"no embeddings of the bank by {model.name}"
    hint = "Embed the bank with every model, in folders of the same names."
    require(is_layout(folder), f"--bank {bank}", got, f"a folder {folder}", hint)
    return Embeddings.open(folder)


# ---- arrays


def _compare_arrays(
    target: Sequence[Any], reference: Sequence[Any], data: Any, bank: Any, settings: Settings
) -> Comparison:
    names = None if data is None else _names(data)
    sides: list[list[Embeddings]] = []
    for kind, models in zip(LISTS, (target, reference), strict=True):
        foreign = [model for model in models if not (isinstance(model, tuple) and len(model) in {2, 3})]
        if foreign:
            got = "an address among arrays" if isinstance(foreign[0], str | Path) else f"a {type(foreign[0]).__name__}"
            got += f" of {len(foreign[0])}" if isinstance(foreign[0], Sized) and not isinstance(foreign[0], str) else ""
            expected = "(image, text) or (image, text, pair) for each model"
            hint = "Give either arrays or addresses for all models."
            raise InputError(kind, got=got, expected=expected, hint=hint)
        sides.append([_of_arrays(f"{kind} {k}", names, *model) for k, model in enumerate(models)])
    _check_lists(*map(len, sides))
    counts = sorted({len(model) for models in sides for model in models})
    names = [str(row) for row in range(counts[0])] if names is None else names
    got = f"arrays of {' and '.join(map(str, counts))} pairs"
    require(counts[0] == counts[-1] > 0, "embeddings", got, "the same pairs in all", "Give every model the same rows.")
    unique = counts == [len(names)] and len(set(names)) == len(names)
    got = f"{len(names)} uids, {len(set(names))} of them unique, for {got}"
    require(unique, "data", got, "one unique uid per pair", "Omit uids to number the pairs.")
    pairs = Pairs("arrays", pl.DataFrame({"uid": names}, schema={"uid": pl.String}))
    return Comparison(sides[0], sides[1], pairs, _array_bank(bank, pairs, settings), bank is None, settings)


def _of_arrays(name: str, uids: Sequence[str] | None, image: Any, text: Any, text_pair: Any = None) -> Embeddings:
    image, text = _tensor(f"{name} images", image), _tensor(f"{name} captions", text)
    shapes = f"images of shape {tuple(image.shape)}, captions of shape {tuple(text.shape)}"
    image = image.unsqueeze(1) if image.ndim == 2 else image
    fits = image.ndim == 3 and text.ndim == 2 and image.shape[-1] == text.shape[1] > 0
    n, owner = len(image) if fits else 0, torch.arange(len(text) if fits else 0)
    if text_pair is not None:
        owner = _tensor(f"{name} pairs of captions", text_pair)
        shapes += f", their pairs of shape {tuple(owner.shape)}"
    whole = not owner.is_floating_point() and fits and owner.shape == text.shape[:1]
    # checked first, since `bincount` of a huge pair number allocates a huge array
    in_range = whole and (not len(owner) or 0 <= int(owner.min()) <= int(owner.max()) < n)
    expected = "(n, d) or (n, view, d), and (n, d), or (m, d) with the pair of each row as third array"
    hint = "Give every pair an image and a caption embedding of one model."
    complete = in_range and bool(torch.bincount(owner.long(), minlength=n).all())
    require(complete, f"{name} embeddings", shapes, expected, hint)
    single = passes.Embeddings(image, text, owner.long())
    digest = hashlib.sha256()
    for values in single[:3]:
        digest.update(f"{values.dtype}{tuple(values.shape)}".encode())
        digest.update(np.ascontiguousarray(values.numpy()).data)

    def select(rows: np.ndarray) -> passes.Embeddings:
        some = passes.chosen(single, torch.from_numpy(rows))
        return some._replace(image=_widened(some.image), text=_widened(some.text))

    series = pl.Series("uid", [str(row) for row in range(n)] if uids is None else uids, dtype=pl.String)
    return Embeddings(name, [SinglePart(series, select, hashed=digest.hexdigest())])


def _widened(values: Tensor) -> Tensor:
    return values.to(torch.promote_types(values.dtype, torch.float32))


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
    if isinstance(array, Tensor):
        array = array.detach().cpu()
        return array.float() if array.dtype == torch.bfloat16 else array  # which numpy lacks
    return torch.as_tensor(array.astype(array.dtype.newbyteorder("="), copy=False))  # torch has no other order


def _names(uids: Any) -> list[str]:
    if isinstance(uids, str | bytes | Path) or not isinstance(uids, Iterable) or getattr(uids, "ndim", 1) != 1:
        expected = "a list of uids (with arrays, pairs and bank cannot be data sets)"
        raise InputError("uids", got=shorten(uids), expected=expected, hint="Omit uids to number the pairs.")
    return [str(uid) for uid in uids]


def _array_bank(bank: Any, pairs: Pairs, settings: Settings) -> Pairs:
    if bank is None:
        return pairs.select(draw(pairs.uids, settings.bank_size, settings.seed), "drawn")
    try:
        listed = np.asarray(bank)
    except ValueError:  # ragged
        listed = np.zeros((1, 1))
    if listed.dtype.kind in "OUS":
        return _bank_of_uids(_names(bank), pairs, "of uids")
    rows = np.flatnonzero(listed) if listed.dtype == bool or not listed.size else listed
    invalid = listed.ndim != 1 or rows.dtype.kind not in "iu" or (listed.dtype == bool and len(listed) != len(pairs))
    invalid = invalid or (len(rows) and not 0 <= rows.min() <= rows.max() < len(pairs))
    expected = f"uids, row numbers from 0 to {len(pairs) - 1}, or a mask of {len(pairs)}"
    require(rows.size and not invalid, "bank", shorten(bank), expected, "Give the pairs that no model trained on.")
    return pairs.select(pairs.uids.gather(np.unique(rows)).to_list(), "of rows")
