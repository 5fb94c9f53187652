"""Embeddings of pairs under one model, and `embed`, the way from pairs and models to arrays on disk.

A part of the work is a range of consecutive pairs, or a shard of the data, under all models that lack it. For each
model it writes its arrays, then its marker with a key, the hash of pairs, model and settings (see `base.folder`). So a
stopped call resumes at the first unfinished part, and any process that sees the folders can do any part.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import polars as pl
import torch
from jaxtyping import Float, Int
from torch import Tensor

from clipmem.base import slices
from clipmem.base.errors import Unfinished, require
from clipmem.base.folder import GONE, Job, refuse_other
from clipmem.base.hashing import json_sha256
from clipmem.base.paths import is_free
from clipmem.base.progress import Advance, Quiet, Reporter
from clipmem.base.sections import EmbedSection, TrainSection
from clipmem.data.decoding import Geometry
from clipmem.data.pairs import BLOCK, Pairs, Part, ShardedPairs
from clipmem.data.skipped import Ledger, Problem, read_skipped, write_skipped
from clipmem.data.sources.records import DUPLICATE
from clipmem.models import given, layout, passes
from clipmem.models.layout import CARD, StoredPart, is_layout, open_parts, read_card, write_card, write_part
from clipmem.models.numerics import LONG, computing
from clipmem.models.passes import Means, stack, unit_means
from clipmem.models.protocol import DualEncoder, geometry_of
from clipmem.stats.similarity import pair_means

NO_DIRECTION = "zero or non-finite embedding"
SKIPPED = "skipped.parquet"
CHUNK = 1024  # pairs whose embeddings are in memory at a time
BLOCKS = 8  # of decoded images in a part
_CROPS = TrainSection()  # default crops of a study

# calls a function with the arguments of each part, by its number, and `progress`, which gets each number of pairs done;
# parts without arguments are done; returns what share of the parts it is for, such as "3/16", or "" for all
Tasks = Mapping[int, tuple[Any, ...]]
Runner = Callable[[Callable[..., object], Tasks, Advance], str]


_LOADED: dict[str, "Model"] = {}  # models of earlier parts in this process


def in_turn(function: Callable[..., object], parts: Tasks, progress: Advance) -> str:
    """Do one part after another in this process."""
    try:
        for arguments in filter(None, parts.values()):
            function(*arguments, progress=progress)
    finally:
        _LOADED.clear()
    return ""


@dataclass(eq=False)
class Model:
    """A model, loaded on first use, and how it embeds."""

    name: str  # in errors: that of an existing model
    load: Callable[[], DualEncoder]
    settings: EmbedSection  # views, caption edits and batch size
    crops: TrainSection = _CROPS  # of random views; by default those of a study
    device: str = "cpu"  # or `cuda`
    precision: str = "fp32"  # or `tf32`, or `bf16` = autocast
    files: given.GivenModel | None = None  # of an existing model

    @classmethod
    def find(cls, address: str, settings: EmbedSection, *, device: str = "cpu", precision: str = "fp32") -> "Model":
        """Find an existing model by its address (see `models.given`)."""
        files = given.find(address)
        return cls(address, partial(given.load, files), settings, device=device, precision=precision, files=files)

    @cached_property
    def encoder(self) -> DualEncoder:
        """The model."""
        return self.load()

    def __getstate__(self) -> dict[str, object]:
        """Return what another process needs; it loads the model itself."""
        return {name: value for name, value in vars(self).items() if name != "encoder"}

    @property
    def geometry(self) -> Geometry:
        """The geometry of its images."""
        return geometry_of(self.encoder)

    def content(self) -> dict[str, str]:
        """Return the hashes of its files."""
        return given.content(self.files) if self.files else {}

    def shared(self, key: str) -> "Model":
        """Return the model of an earlier part in this process, which is loaded; `key` has its files and settings."""
        return _LOADED.setdefault(key, self) if self.files else self

    def embed(
        self, pairs: Pairs | passes.Inputs, *, settings: EmbedSection | None = None, progress: Advance = lambda _: None
    ) -> passes.Embeddings:
        """Embed decoded pairs in memory.

        Args:
            pairs: Images and captions, or pairs with `pixels` in the model's geometry.
            settings: Other settings than the model's own.
            progress: Called with the number of pairs done.
        """
        if isinstance(pairs, Pairs):
            rows, uids = np.arange(len(pairs)), pairs.uids.to_list()
            pairs = passes.Inputs(pairs.pixels[self.geometry], rows, pairs.captions, uids)
        settings, device = settings or self.settings, self.device
        with computing(self.precision, device, tokens=getattr(self.encoder, "tokens", LONG)):
            return passes.embed(self.encoder, pairs, settings, self.crops, device=device, progress=progress)

    def embed_texts(self, texts: Sequence[str]) -> Float[Tensor, "m d"]:
        """Embed texts without images, such as class prompts; float32, not normalized."""
        with computing(self.precision, self.device, tokens=getattr(self.encoder, "tokens", LONG)):
            return passes.embed_texts(self.encoder, texts, batch_size=self.settings.batch_size, device=self.device)


@dataclass(frozen=True, eq=False)
class SinglePart:
    """Embeddings of single views and captions."""

    uids: pl.Series
    select: Callable[[Int[np.ndarray, " k"]], passes.Embeddings]  # reads some rows
    exact: bool = False  # average in float64; embeddings without a direction are then an error
    hashed: str = ""  # their hash

    def __len__(self) -> int:
        return len(self.uids)

    def read(self, rows: Int[np.ndarray, " k"]) -> Means:
        """Read and average the embeddings of some rows."""
        single = self.select(rows)
        if not self.exact:
            return unit_means(single.image, single.text, single.text_pair)._replace(single=single)
        image, text = pair_means(single.image.double(), single.text.double(), single.text_pair)
        return Means(image, text, torch.ones(len(rows), dtype=torch.bool), single)

    def content(self) -> str:
        """Return the hash."""
        return self.hashed


@dataclass(eq=False)
class Embeddings:
    """Embeddings of pairs under one model: parts on disk, or in memory.

    A pair may be in several parts, of which the first is read. `cards` tell how the embeddings of each folder were
    made; None for those of another writer. `problems` are pairs without embeddings.
    """

    name: str  # in errors
    parts: Sequence[StoredPart | SinglePart]
    cards: Mapping[str, Mapping[str, object] | None] = field(default_factory=dict[str, Mapping[str, object] | None])
    problems: Sequence[Problem] = ()

    @classmethod
    def open(cls, folder: Path, name: str = "") -> "Embeddings":
        """Open a folder of embeddings."""
        parts, card = open_parts(folder)
        return cls(name or str(folder), parts, {str(folder): card}, read_skipped(folder / SKIPPED))

    def joined(self, other: "Embeddings") -> "Embeddings":
        """Add the embeddings of other pairs under the same model."""
        problems, cards = [*self.problems, *other.problems], {**self.cards, **other.cards}
        return Embeddings(self.name, [*self.parts, *other.parts], cards, problems)

    def __post_init__(self) -> None:
        widths = sorted({part.width for part in self.parts if isinstance(part, StoredPart)})
        require(len(widths) < 2, f"embeddings in {self.name}", f"widths {widths}", "one width", "Use one model.")

    def __len__(self) -> int:
        return int(self._starts[-1])

    @cached_property
    def _starts(self) -> np.ndarray:
        return np.cumsum([0, *map(len, self.parts)])

    @cached_property
    def uids(self) -> pl.Series:
        """The uid of each row."""
        series = [pl.Series("uid", [], dtype=pl.String), *(part.uids.alias("uid") for part in self.parts)]
        return pl.concat(series, rechunk=True)

    def rows(self, uids: pl.Series) -> Int[np.ndarray, " n"]:
        """Return the row of each pair, -1 for none."""
        if uids.equals(self.uids) and uids.n_unique() == len(uids):
            self.uids = uids  # one copy of millions
            return np.arange(len(uids))
        indexed = self.uids.to_frame().with_row_index("row").filter(pl.col("uid").is_in(uids.implode()))
        first = indexed.unique("uid", keep="first", maintain_order=True)
        joined = uids.alias("uid").to_frame().join(first, on="uid", how="left", maintain_order="left")
        return joined["row"].cast(pl.Int64).fill_null(-1).to_numpy()

    def read(self, rows: Int[np.ndarray, " k"]) -> Means:
        """Read the embeddings of some rows, in the given order."""
        order = np.argsort(rows, kind="stable")
        means = stack([self.parts[part].read(local) for part, local in self._split(rows[order])])
        return means if (np.diff(order) == 1).all() else means.select(torch.from_numpy(np.argsort(order)))

    def chunks(self, size: int = CHUNK) -> Iterator[Means]:
        """Read the embeddings of all rows, some at a time."""
        for rows in slices(len(self), size):
            yield self.read(np.arange(rows.start, rows.stop))

    def means(self) -> Means:
        """Read the mean unit embeddings of all rows."""
        return stack([chunk._replace(single=None) for chunk in self.chunks()])

    def captions(self, rows: Int[np.ndarray, " k"]) -> list[list[str]]:
        """Return the captions of some rows, in the given order; empty if they are unknown."""
        order, texts = np.argsort(rows, kind="stable"), list[list[str]]()
        for number, local in self._split(rows[order]):
            part = self.parts[number]
            texts += part.captions[local].to_list() if isinstance(part, StoredPart) else [[] for _ in local]
        return [texts[k] for k in np.argsort(order)]

    @property
    def most_captions(self) -> int:
        """The largest number of captions of a pair."""
        return max((part.most_captions for part in self.parts if isinstance(part, StoredPart)), default=1)

    def content(self) -> dict[str, str]:
        """Return the hash of the arrays and their metadata."""
        return {"embeddings": json_sha256([part.content() for part in self.parts])}

    def _split(self, rows: Int[np.ndarray, " k"]) -> list[tuple[int, np.ndarray]]:
        part = np.searchsorted(self._starts, rows, side="right") - 1
        return [(int(k), rows[part == k] - self._starts[k]) for k in np.unique(part)]


def embed(
    models: Mapping[Path, Model],
    pairs: Pairs | ShardedPairs,
    settings: Mapping[str, object],
    *,
    block: int | None = None,
    run: Runner = in_turn,
    hashed: bool = False,
    reporter: Reporter | None = None,
) -> list[Embeddings]:
    """Embed pairs with several models, each into a folder of its own; images are decoded once for all models.

    Args:
        models: The model for each folder, new or made in part by the same call; one that is there twice is run once.
        pairs: The pairs, with images; of shards, each is a part.
        settings: What else determines the embeddings, for the folder's `clipmem.json`; with `dtype = "float16"` the
            means are stored in half the space; with `single = True` single views and captions are stored beside them.
        block: Decoded pairs in memory.
        run: Who does the parts; the same bytes whoever does them.
        hashed: Read the files of finished parts, and do those again that are not what was written.
        reporter: Progress reporter.

    Returns:
        The embeddings under each model. Pairs that do not decode or have no direction are their `problems`.

    Raises:
        InputError: A folder has other files, or embeddings of another model, data or settings.
        Unfinished: `run` is for a share of the parts, which are done.
    """
    reporter, block = reporter or Quiet(), block or BLOCK
    # not in the cards that go with every part
    listing = {"shards": pairs.listing} if isinstance(pairs, ShardedPairs) else {}
    cards: dict[Path, Mapping[str, object]] = {}
    for folder, model in models.items():
        cards[folder] = {"name": model.name, "model": model.content(), **settings, **pairs.about(BLOCKS * block)}
        _check(folder, cards[folder], listing)
    parents = {f: next(parent for parent in (f, *f.parents) if parent.is_dir()) for f in models}
    numbers = list(models.values())
    loaded = {f: json_sha256([card["model"], settings, numbers.index(models[f])]) for f, card in cards.items()}
    parts, keys, total = dict[int, tuple[Any, ...]](), dict[str, dict[Path, str]](), 0
    for number, each in enumerate(pairs.parts(BLOCKS * block)):
        name = f"part-{number:06d}"
        keys[name] = {f: json_sha256([card["model"], settings, each.content]) for f, card in cards.items()}
        tasks = [
            _Task(models[folder], loaded[folder], folder, parents[folder], cards[folder], name, number, key)
            for folder, key in keys[name].items()
            if not _is_done(folder, name, key, hashed=hashed)
        ]
        total += (size := each.size * len({task.loaded for task in tasks}))
        parts[number] = (tasks, each._replace(content=(), size=size), block) if tasks else ()
    for folder, model in models.items() if any(parts.values()) else ():
        check_device(folder, settings.get("device", model.device), model)
    stale = [file for folder in cards for file in folder.rglob(".*.tmp") if file.is_file()]  # of killed processes
    started = time.monotonic()
    reporter.begin("embed", total, pairs.unit)
    for folder, card in cards.items():  # before a shard that was repaired is done: then its old facts would be refused
        if listing and (read_card(folder) or listing).get("shards") != listing["shards"]:
            _check(folder, card)  # another call may have claimed it
            write_card(folder, {**card, **listing})
    try:
        share = run(_embed_part, parts, reporter.advance)
    finally:
        for folder, card in cards.items():
            old = read_card(folder) if listing else None
            if old and "shards" not in old and json_sha256(_made_with(old)) == json_sha256(_made_with(card)):
                write_card(folder, {**card, **listing})
    remaining = sum(not all(_is_done(f, name, key) for f, key in of_part.items()) for name, of_part in keys.items())
    got = f"{remaining} of {len(keys)} parts changed by another call"
    require(share or not remaining, "embeddings", got, "those of this call", "Run the same command again.")
    for folder, card in cards.items() if not remaining else ():
        _finish(folder, card, list(keys), pairs)
    if share:
        raise Unfinished(share, remaining, len(keys))
    for file in stale:
        file.unlink(missing_ok=True)
    reporter.end("embed", time.monotonic() - started)
    return [Embeddings.open(folder, model.name) for folder, model in models.items()]


def _check(folder: Path, card: Mapping[str, object], listing: Mapping[str, dict[str, str]] | None = None) -> None:
    """Refuse a folder with other files, or with embeddings of another model, data or settings.

    Without a `listing`, shards are not compared: each part has the facts of its own, and one may be repaired meanwhile.
    """
    old, hint = read_card(folder), "Choose another folder, or delete it."
    free = old is not None or (is_free(folder) and not is_layout(folder))
    got, expected = f"a folder with other files and no {CARD}", "a new folder, or one created by clipmem"
    require(free, f"{folder}", got, expected, "Choose another folder.")
    if old is not None:
        files = [json_sha256(maker.get("model"))[:8] for maker in (old, card)]
        made_by, now_by = f"{old.get('name', 'a model')} (files {files[0]})", f"{card['name']} (files {files[1]})"
        same = old.get("model") == card["model"]
        require(same, f"{folder}", f"embeddings by {made_by}", f"embeddings by {now_by}", hint)
        before, now = _made_with(old), _made_with(card)
        if listing is None and "part" not in card:
            before["data"] = now["data"]
        if listing and (shards := cast(dict[str, str], old.get("shards"))):
            others, done = listing["shards"], Job(folder).is_done
            repaired = {name for k, name in enumerate(shards) if name in others and not done(f"part-{k:06d}")}
            for settings, of in ((before, shards), (now, others)):
                settings.update(data="", shards={name: of[name] for name in of if name not in repaired})
        refuse_other(f"{folder} was made with other settings", before, now, hint)


def _made_with(card: Mapping[str, object]) -> dict[str, object]:
    return {key: card[key] for key in card.keys() - {"format", "rows", "name", "records", "shards"}}


def _is_done(folder: Path, name: str, key: str, *, hashed: bool = False) -> bool:
    """Return whether a part of these pairs, under this model and with these settings, is finished."""
    return (Job(folder).facts(name, hashed=hashed) or {}).get("key") == key


def check_device(folder: Path, started: object, model: Model) -> None:
    """Refuse to do the parts that are missing on another device than the others."""
    got, expected = f"missing parts, and device {model.device!r}", f"device {started!r}, as for the others"
    hint = f"Run it with --device {started}, on a machine with it."
    require(started == model.device, f"{folder}", got, expected, hint)


def _finish(folder: Path, card: Mapping[str, object], names: Sequence[str], pairs: Pairs | ShardedPairs) -> None:
    """List the problems of all parts; of shards, count their records and list pairs that an earlier one has."""
    ledger, job = Ledger(list(pairs.problems)), Job(folder)
    for facts in (job.outputs(name)[1] for name in names):
        ledger.problems += [Problem(*entry) for entry in facts["problems"]]
        if "records" in facts:
            ledger.add(facts["records"])
    if isinstance(pairs, ShardedPairs):
        ledger.require_pairs(repr(pairs.section.path))
        shards = list(pairs.shards)
        for k, key in layout.repeated(folder, len(shards)):
            ledger.drop(shards[k], key, DUPLICATE)
        pairs.ledger = ledger
        write_card(folder, {**card, "shards": pairs.listing, "records": ledger.facts()})
    write_skipped(folder / SKIPPED, ledger.problems)


class _Task(NamedTuple):
    """What a part writes for one model: into which folder, with which card, as which piece."""

    model: Model
    loaded: str  # hash of the model, its number and settings: the same model with the same settings
    folder: Path
    parent: Path  # the folder, or what there was of its parents when the call started
    card: Mapping[str, object]
    name: str
    number: int
    key: str


def _embed_part(tasks: Sequence[_Task], part: Part, block: int, *, progress: Advance) -> None:
    """Embed the pairs of a part with each model, and write its files and its marker."""
    models = {task.loaded: task.model.shared(task.loaded) for task in tasks}
    pairs, passed, reported = part.read(), 0, 0

    def advance(count: int) -> None:
        nonlocal passed, reported
        passed += count
        before, reported = reported, part.size * passed // (len(pairs) * len(models))
        progress(reported - before)

    single = bool(tasks[0].card.get("single"))
    decoded, embedded = _embed_rows(list(models.values()), pairs, block, single=single, progress=advance)
    progress(part.size - reported)  # of a shard without a pair
    if part.check:
        part.check()
    for task in tasks:
        means = embedded[models[task.loaded]]
        ok = pl.Series(means.ok.numpy(), dtype=pl.Boolean)
        without = [Problem(pairs.data, key, NO_DIRECTION) for key in decoded.keys.filter(~ok)]
        means = means if ok.all() else means.select(torch.nonzero(means.ok)[:, 0])
        if task.card.get("dtype") == "float16":
            means = means._replace(image=means.image.half(), text=means.text.half())
        require(task.parent.is_dir(), f"{task.parent}", GONE, "the folder of this call", "Run the same command again.")
        layout.claim(task.folder, task.card)  # not before: a model that fails must not claim the folder
        _check(task.folder, task.card)  # another call may have claimed it
        first = pl.col("captions").list.first().alias("caption")
        metadata = decoded.table.filter(ok).select(pl.col("key").alias("image_path"), first, "uid", "captions")
        digits = len(str(task.card["parts"]))  # as in clip-retrieval
        files = write_part(task.folder, task.number, digits, means, metadata)
        ledger = deepcopy(pairs.ledger)
        for problem in (*decoded.problems, *without):
            ledger.drop(*problem)
        facts = {"key": task.key, "problems": [list(entry) for entry in ledger.problems]}
        facts |= {"records": ledger.facts()} if pairs.ledger.read else {}
        Job(task.folder).finish(task.name, files, 0.0, facts)  # without its time: equal bytes after a stop


def _embed_rows(
    models: Sequence[Model], pairs: Pairs, block: int, *, single: bool, progress: Advance
) -> tuple[Pairs, dict[Model, Means]]:
    """Decode pairs block by block; return those that decode, and their embeddings under each model."""
    blocks, embedded = list[Pairs](), {model: list[Means]() for model in models}
    for decoded in pairs.blocks(range(len(pairs)), block, sorted({model.geometry for model in models})):
        for model in models if len(decoded) else ():
            vectors = model.embed(decoded, progress=progress)
            means = unit_means(vectors.image, vectors.text, vectors.text_pair)
            embedded[model].append(means._replace(single=vectors) if single else means)
        blocks.append(replace(decoded, pixels={}))
        progress(len(decoded.problems) * len(models))
    problems = [problem for decoded in blocks for problem in decoded.problems]
    table = pl.concat([pairs.table[:0], *(decoded.table for decoded in blocks)])
    usable = replace(pairs, table=table, problems=problems)
    return usable, {model: stack(means) for model, means in embedded.items()}
