"""What is viewed: the pairs of a run folder or of a table with uids, one row a pair, and their images as thumbnails."""

import io
import json
import re
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
import polars as pl
import polars.selectors as cs
from PIL import Image

from clipmem.base.errors import ClipmemError, InputError, require, require_columns, shorten
from clipmem.base.folder import SIDES
from clipmem.base.hashing import is_image_of, json_sha256
from clipmem.base.sections import DataSection, shipped
from clipmem.base.summary import FILE
from clipmem.base.tables import SCHEMAS
from clipmem.data.cache import open_cache
from clipmem.data.decoding import shrink
from clipmem.data.sources import files_state, open_source
from clipmem.data.sources.base import Source
from clipmem.report.run import Document, Run

FORMAT, SUSPECTS = 1, "suspects.parquet"
ALIGNMENTS = ("f_alignment", "g_alignment")
# further tables of a run folder, and their columns; None: all
_JOINED: Mapping[str, Sequence[str] | None] = {
    "estimates.parquet": None,
    "localize/towers.parquet": ("image_share", "text_share"),
    "evaluate/dejavu.parquet": ("extra",),
    "audit/pairs.parquet": ("risk", "false_alarm", "percentile"),
    "curate/suspects.parquet": None,
}
_PAIRS = ("uid", "key", "image", "captions", "label", "credit")
_REDUNDANT = ("clipmem_norm", "clipmem_centered", "low", "high")  # linear in others: exports must stay small
_NO_FILE = re.compile(r"[/\\\0]|\.strings$")  # names that no column file can have
_KEPT, _SMALL = 4000, 256  # thumbnails in memory, at most about 64 MB, and their longest side
_HINT = "Give a run folder, the folder that curate wrote, or a table written by score, estimate, curate or audit."


@dataclass(frozen=True)
class Subject:
    """Pairs to look at: a run folder or a table `path`, the `data` of a table, and another run to compare with."""

    path: Path
    run: Run | None = None
    data: DataSection | None = None
    other: "Subject | None" = None

    @property
    def cache(self) -> Path:
        """Where column files are cached: in the run folder, or next to the table."""
        return self.path / "view" if self.run else self.path.with_suffix(".view")

    @cached_property
    def about(self) -> Document:
        """The summary of a run, the document beside suspects, or the sidecar of a table; {} without one."""
        if self.run:
            return self.run.document(FILE)
        return self.curation or _document(self.path.with_name(f"{self.path.stem}.json"))

    @property
    def curated(self) -> Path:
        """The folder that `clipmem curate` wrote, or would have written, for these pairs."""
        return self.path / "curate" if self.run else self.path.parent

    @cached_property
    def curation(self) -> Document:
        """The document of `clipmem curate`, if its suspects are viewed; else {}."""
        is_viewed = (self.curated / SUSPECTS).is_file() if self.run else self.path.name == SUSPECTS
        return _document(self.curated / "curate.json") if is_viewed else {}

    @property
    def state(self) -> str:
        """Hash of names, sizes and times of all files that are shown."""
        tables = [*self.path.glob("*.parquet"), *self.path.glob("*/*.parquet")] if self.run else [self.path]
        facts = sorted((ascii(str(file)), file.stat().st_size, file.stat().st_mtime_ns) for file in tables)
        return json_sha256([facts, self.data and files_state(self.data), self.other and self.other.state])

    @cached_property
    def source(self) -> Source | None:
        """The data source of the images; None if it is not known, or gone."""
        try:
            return self.run.source if self.run else self.data and open_source(self.data)
        except (InputError, OSError):
            return None

    @cached_property
    def scores(self) -> pl.DataFrame:
        """One row a pair: uid, and everything that is known of it as numbers and names."""
        # not `run.scores`, which would stay in memory beside this table
        table = self.run.folder.read("scores") if self.run else _read(self.path)
        if self.run:
            more = [self.seed_scores.group_by("uid").agg(pl.col(SIDES).mean().name.suffix("_alignment"))]
            for name, columns in _JOINED.items():
                if (self.path / name).is_file():
                    part = _read(self.path / name)
                    more.append(part.select("uid", *(columns or part.drop("uid").columns)))
            for part in more:
                new = part.select("uid", *(name for name in part.columns if name not in table.columns))
                table = table.join(new, on="uid", how="left", maintain_order="left")
        if {f"{side}_text_bank" for side in SIDES} <= set(table.columns) and "f_alignment" not in table.columns:
            weight = float(self.about.get("job", {}).get("weight", 1.0))
            banks = {side: pl.col(f"{side}_image_bank") + pl.col(f"{side}_text_bank") for side in SIDES}
            aligned = {f"{side}_alignment": pl.col(f"{side}_positive") - weight * banks[side] for side in SIDES}
            table = table.with_columns(**aligned)
        unusable = [name for name in table.columns if _NO_FILE.search(name)]
        got, expected = f"a column {', '.join(map(shorten, unusable[:1]))}", "names that files can have"
        require(not unusable, f"{self.path}", got, expected, "Rename the column: the page keeps each in a file.")
        finite = pl.when(cs.float().cast(pl.Float32).is_finite()).then(cs.float())
        table = table.drop(_REDUNDANT, strict=False).with_columns(cs.decimal().cast(pl.Float64)).with_columns(finite)
        if self.other is None:
            return table
        other, option = self.other.scores, f"--compare-with {self.other.path}"
        scored, hint = "clipmem" in table.columns and "clipmem" in other.columns, "Compare runs on the same data."
        require(scored, option, "no column clipmem", "CLIPMem in both", hint)
        other = other.select("uid", *(name for name in ("clipmem", *ALIGNMENTS) if name in other.columns))
        joined = table.join(other, on="uid", how="left", suffix="_other", maintain_order="left")
        require(joined["clipmem_other"].is_not_null().any(), option, "no pair of this run", "pairs in common", hint)
        return joined.with_columns(clipmem_change=pl.col("clipmem") - pl.col("clipmem_other"))

    @cached_property
    def seed_scores(self) -> pl.DataFrame:
        """Alignment by seed; empty for a table."""
        return self.run.seed_scores if self.run else pl.DataFrame(schema=SCHEMAS["seed_scores"])

    @cached_property
    def pairs(self) -> pl.DataFrame | None:
        """Image, captions in training, `own_captions` and where captions are from; None for a table without data."""
        if self.run:
            originals = self.run.folder.read("pairs").select(_PAIRS)
            splits = self.run.folder.read("splits").select("uid", "captions_from")
        elif self.data and self.source:
            originals = self.source.pairs().select(_PAIRS)
            splits = originals.select("uid", captions_from="uid")
        else:
            return None
        uids = self.scores["uid"]
        rows, hint = _places(uids, originals["uid"]), "Give the data that were scored."
        require(rows.is_not_null().any(), f"{self.path}", "no uid of the data", "pairs of --data", hint)
        origin = splits["captions_from"].gather(_places(uids, splits["uid"]))
        table = originals.drop("uid").rename({"captions": "own_captions"}).select(pl.all().gather(rows))
        same = (origin.eq_missing(uids) | rows.is_null()).all()  # then captions are not copied
        captions = table["own_captions"] if same else originals["captions"].gather(_places(origin, originals["uid"]))
        return table.with_columns(uid=uids, captions_from=origin, captions=captions)

    @cached_property
    def trained_captions(self) -> int | None:
        """How many of a pair's captions were trained with; None = all."""
        return self.run.recipe.train.captions if self.run else None

    @cached_property
    def pixels(self) -> tuple[np.ndarray, Mapping[str, int]] | None:
        """A run's decoded images, and the row of each uid in them; None without."""
        caches = sorted(self.path.glob("cache/pixels*.npy"))
        if self.run is None or not caches:
            return None
        return open_cache(caches[0]), {uid: row for row, uid in enumerate(self.run.pairs["uid"])}


class Thumbnails:
    """Thumbnails by row: from the data or, where these are gone, from the run's decoded images."""

    def __init__(self, subject: Subject) -> None:
        self._subject, self._lock = subject, threading.Lock()
        self._small = lru_cache(_KEPT)(self._make)

    def get(self, row: int, size: int) -> bytes | None:
        """Return the image of a row; small ones are kept in memory."""
        return (self._small if size <= _SMALL else self._make)(row, size)

    def _make(self, row: int, size: int) -> bytes | None:
        """Return the WebP file of a row, its longest side at most `size`; None if there is no image.

        It is decoded with the checks of a study, and encoded again.
        """
        subject, uid, image = self._subject, self._subject.scores["uid"][row], None
        reference = None if subject.pairs is None else subject.pairs["image"][row]
        if subject.source is not None and reference is not None:
            with suppress(ClipmemError, OSError, KeyError):
                with self._lock:  # sources are not made for several threads
                    data = subject.source.read([reference])[0]
                # a run folder that somebody else wrote could name any file
                image = shrink(data, size) if is_image_of(uid, data) else None
        pixels, row_of = subject.pixels or (None, {})
        if image is None and pixels is not None and uid in row_of:
            image = Image.fromarray(pixels[row_of[uid]])
            image.thumbnail((size, size))
        if image is None:
            return None
        stream = io.BytesIO()
        image.save(stream, "WEBP", quality=82, method=1)
        return stream.getvalue()


def open_subject(path: Path, data: str | None = None, compare_with: Path | None = None) -> Subject:
    """Open a run folder, a table, or a folder of `clipmem curate`, whose table has the data that `curate.json` names.

    Raises:
        InputError: It is none of them, is not scored yet, has a newer format, or its data are not there.
    """
    other = None if compare_with is None else open_subject(compare_with)
    curated = (path / "curate.json").is_file() and not (path / "recipe.toml").is_file()
    if not curated and (path.is_dir() or path.suffix != ".parquet"):
        run, hint = Run(path), f"Run `clipmem run RECIPE.toml --out {path}` again: it resumes where it stopped."
        _ = run.recipe, run.manifest
        require(data is None, "--data", f"{data}", "no data: a run folder knows its own", "Omit --data.")
        if run.has("estimates") and not run.has("scores"):
            hint = "Its budget paid for one model: see estimates.parquet, or run it with a larger --budget."
        scored = run.has("scores") and run.has("seed_scores")
        require(scored, f"run folder {path}", "a run that is not scored yet", "a scored run", hint)
        return Subject(path, run, other=other)
    path = path / SUSPECTS if curated else path
    require(path.is_file(), f"{path}", "no such file", "a table of scores, or a run folder", _HINT)
    section = DataSection.model_validate({"source" if shipped(data) else "path": data}) if data is not None else None
    subject = Subject(path, data=section, other=other)
    version = subject.about.get("format", FORMAT)
    readable = isinstance(version, int) and version <= FORMAT
    document, got = f"document of {path}", f"format {shorten(version)}"
    require(readable, document, got, f"format {FORMAT} or older", "Update clipmem.")
    if section is not None:
        open_source(section)  # names what is wrong
    if data is not None or not curated or subject.about.get("section") is None:
        return subject
    named, _ = subject.about["section"], subject.scores
    try:
        section = DataSection.model_validate(named).offline()
        subject = replace(subject, data=section)
        _ = open_source(section), subject.pairs
    except (OSError, ValueError) as error:
        got = f"{shorten(named)}: {error.got if isinstance(error, InputError) else shorten(str(error))}"
        hint = "Run this in the folder where curate ran, or name the data with --data PATH."
        raise InputError(f"data of {path}", got=got, expected="the data of its list", hint=hint) from error
    return subject


def _document(file: Path) -> Document:
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


def _places(uids: pl.Series, among: pl.Series) -> pl.Series:
    """Return the row of each uid among others; null for those that are not there."""
    rows = pl.DataFrame({"uid": among}).with_row_index("row")
    return pl.DataFrame({"uid": uids}).join(rows, on="uid", how="left", maintain_order="left")["row"]


def _read(path: Path) -> pl.DataFrame:
    """Read a table, one row a uid; estimators in rows become columns, their errors NAME_stderr."""
    try:
        table = pl.read_parquet(path)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise InputError(f"{path}", got=shorten(str(error)), expected="Parquet", hint=_HINT) from error
    require_columns(f"{path}", table.columns, ["uid"], _HINT)
    require(table.height, f"{path}", "no row", "at least one pair", _HINT)
    table = table.with_columns(pl.col("uid").cast(pl.String))
    if {"is_suspect", "probability", "score"} <= set(table.columns):  # in the order of curate
        table = table.drop("suspect_rank", strict=False).with_row_index("suspect_rank", offset=1)
    if "estimator" in table.columns:
        parts = [table.pivot("estimator", index="uid", values=value) for value in ("score", "stderr")]
        errors = parts[1].rename({name: f"{name}_stderr" for name in parts[1].columns if name != "uid"})
        return parts[0].join(errors, on="uid", how="left", maintain_order="left")
    distinct = table["uid"].n_unique() == table.height
    return table if distinct else table.unique("uid", keep="first", maintain_order=True)
