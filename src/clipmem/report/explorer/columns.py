"""Column files: what the page filters, sorts and draws, as little-endian arrays, cached until their sources change.

f32: NaN = missing. i32: -2^31 = missing. bool: u8, 255 = missing. category: codes u8 or u16, the largest = missing.
text: i32 codes, -2^31 = missing, and the unique texts joined by U+0000, captions of a pair by U+001F. uid: 16 bytes.
"""

import json
import re
import shlex
import shutil
import tempfile
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple, NotRequired, TypedDict, cast

import numpy as np
import polars as pl

from clipmem._version import __version__
from clipmem.base.folder import SIDES
from clipmem.base.hashing import json_sha256
from clipmem.base.marks import MARKS, marks_file
from clipmem.base.paths import write_json
from clipmem.report.explorer.neighbors import embedded
from clipmem.report.explorer.subject import ALIGNMENTS, FORMAT, Subject
from clipmem.report.formats import visible
from clipmem.report.run import Document
from clipmem.report.templating import reasons

MISSING = -(2**31)
# characters of the captions of a pair, of all that are searched, and of a caption in its details
TEXT_LIMIT, _SEARCHED, _LONG = 1000, 4000, 20_000
_CATEGORIES, _FEW = 1000, 20
_GROUPS = {"pair": 0, "map": 0, "part": 2}  # where columns are among the others; errors are with the last
_DTYPES = {"f32": "<f4", "i32": "<i4", "bool": "u1", "text": "<i4", "uid": "V16", "u8": "u1", "u16": "<u2"}
_FILES = ("columns.toml", "columns.py", "subject.py", "neighbors.py")
# what `visible` changes
_INVISIBLE = r"[\x00-\x1f\x7f-\x9f\x{61c}\x{200e}\x{200f}\x{2028}-\x{202e}\x{2066}-\x{206f}\x{feff}\x{fff9}-\x{ffff}]"
_MAPS = (
    ("alignment with and without training", "g_alignment", "f_alignment"),
    ("PCA of image embeddings", "pca_x", "pca_y"),
    ("UMAP of image embeddings", "umap_x", "umap_y"),
)


class About(TypedDict):
    """A column's entry in the manifest, as JSON."""

    name: str
    type: str
    label: str
    about: str
    group: str
    error: str | None
    categories: list[str] | None
    missing: int
    codes: NotRequired[str]
    min: NotRequired[float]
    max: NotRequired[float]


class Why(TypedDict):
    """Why a pair is a suspect: reasons, the rows of its nearest images, and the suggested caption, as JSON."""

    reasons: list[str]
    near: list[int]
    suggested: str | None


class Column(NamedTuple):
    """A column: its entry in the manifest, its values, and the unique texts of a text column."""

    about: About
    values: np.ndarray
    strings: bytes | None = None


class Columns:
    """The column files and the manifest of a subject, made unless they are there and fresh.

    Where the folder cannot be written, they are in a temporary folder.
    """

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        code = [(resources.files("clipmem.report.explorer") / name).read_bytes().hex() for name in _FILES]
        state = json_sha256([__version__, code, subject.state])
        kind = "" if subject.other is None else f"-{json_sha256(str(subject.other.path.resolve()))[:8]}"
        self.folder = subject.cache / f"columns{kind}"
        try:
            self._open()
            # links in a folder that somebody sent could name files elsewhere as columns
            links = any(path.is_symlink() for path in (self.folder, *self.folder.iterdir()))
            stale = links or self.manifest["hash"] != state
        except (OSError, ValueError, KeyError, TypeError):
            stale = True
        if stale:
            self._make(state)
            self._open()
        self.by_name: dict[str, About] = {about["name"]: about for about in self.manifest["columns"]}
        self._sorted: dict[str, np.ndarray] = {}  # scores of detectors
        self._seeds = subject.seed_scores.select("uid", "seed", *SIDES)

    def _open(self) -> None:
        self.manifest = json.loads((self.folder / "manifest.json").read_text(encoding="utf-8"))

    def _make(self, state: str) -> None:
        columns = list(_columns(self.subject))
        try:
            self.folder.parent.mkdir(parents=True, exist_ok=True)
            target = Path(tempfile.mkdtemp(prefix=".columns-", dir=self.folder.parent))
        except OSError:  # a folder that cannot be written can still be viewed
            target = self.folder = Path(tempfile.mkdtemp(prefix="clipmem-view-"))
        try:
            for about, values, strings in columns:
                values.tofile(target / f"{about['name']}.bin")
                if strings is not None:
                    (target / f"{about['name']}.strings.bin").write_bytes(strings)
            write_json(target / "manifest.json", _describe(self.subject, [column.about for column in columns], state))
            if target != self.folder:
                shutil.rmtree(self.folder, ignore_errors=True)
                target.rename(self.folder)
        except BaseException:
            shutil.rmtree(target, ignore_errors=True)
            raise

    def __len__(self) -> int:
        return int(self.manifest["rows"])

    def values(self, name: str) -> np.ndarray:
        """Open the values of a column, memory-mapped."""
        about = self.by_name[name]
        return np.memmap(self.folder / f"{name}.bin", _DTYPES[about.get("codes") or about["type"]], "r")

    @cached_property
    def uids(self) -> list[str]:
        """The uid of each row."""
        if self.by_name["uid"]["type"] != "uid":
            return self.subject.scores["uid"].to_list()
        digits = (self.folder / "uid.bin").read_bytes().hex()
        return [digits[start : start + 32] for start in range(0, len(digits), 32)]

    @cached_property
    def row_of(self) -> Mapping[str, int]:
        """The row of each uid."""
        return {uid: row for row, uid in enumerate(self.uids)}

    def picks(self, rows: Sequence[int]) -> dict[str, list[str]]:
        """Return the values that a page of some rows opens with: those that no row has would hide all of them."""
        return {
            name: values
            for name, values in self.manifest["picks"].items()
            if {(self.by_name[name]["categories"] or []).index(value) for value in values} & {*self.values(name)[rows]}
        }

    def details(self, row: int) -> dict[str, object]:
        """Return everything that is known of a pair."""
        value = self.subject.scores.row(row, named=True)
        pair = {} if self.subject.pairs is None else self.subject.pairs.row(row, named=True)
        uid, source = value["uid"], pair.get("captions_from")
        moved = source not in {None, uid}
        # the captions in training, then the pair's others
        used, data = (pair.get(name) or [] for name in ("captions", "own_captions"))
        count = len(used) if self.subject.trained_captions is None else self.subject.trained_captions
        texts = [(text, True) for text in used[:count]] + [(text, False) for text in (data if moved else used[count:])]
        parts = {
            side: {name: value.get(f"{side}_{name}") for name in ("positive", "image_bank", "text_bank")}
            for side in SIDES
        }
        detectors: list[dict[str, object]] = []
        why = self._why(value)
        for name, about in self.by_name.items():
            if about["group"] == "detector" and about["type"] == "f32" and value.get(name) is not None:
                if name not in self._sorted:
                    values = self.values(name)
                    self._sorted[name] = np.sort(values[np.isfinite(values)])
                order, score = self._sorted[name], np.float32(value[name])
                after = int(np.searchsorted(order, score, "right"))
                tied = after - int(np.searchsorted(order, score)) > 1
                if value[name] == 0 and name != "score":  # nothing was detected
                    continue
                detectors.append(
                    {
                        "name": name,
                        "label": about["label"],
                        "score": value[name],
                        # 1 = the most suspect; there is no order among pairs with one score
                        "rank": None if tied else 1 + len(order) - after,
                        "reason": "; ".join(why["reasons"]) if why and name == "score" else about["about"],
                    }
                )
        return {
            "row": row,
            "uid": visible(uid, 100),
            "captions": [{"text": visible(text, _LONG), "trained": trained} for text, trained in texts],
            "role": value.get("role"),
            "planted": value.get("planted"),
            "caption_from": source if moved else None,
            "seeds": self._seeds.filter(uid=uid).sort("seed").drop("uid").to_dicts(),
            "parts": None if parts["f"]["positive"] is None else parts,
            "detectors": detectors,
            "why": why,
            "credit": visible(pair["credit"]) if pair.get("credit") else None,
            "source": visible(pair.get("key") or pair.get("image") or "", 300),
        }

    def _why(self, value: Document) -> Why | None:
        """Return the reasons of a suspect, its nearest images and the suggested caption."""
        codes = [value[name] for name in ("reason", "second_reason") if value.get(name)]
        if not codes or not value.get("is_suspect"):
            return None
        suggested = value.get("suggested_caption")
        return {
            "reasons": [visible(reasons().get(code, code), 300) for code in dict.fromkeys(codes)],
            "near": [self.row_of[uid] for uid in value.get("neighbors") or [] if uid in self.row_of],
            "suggested": suggested and visible(suggested, _LONG),
        }


_KNOWN = tomllib.loads((resources.files("clipmem.report.explorer") / "columns.toml").read_text(encoding="utf-8"))


def _about(name: str, kind: str, missing: int, **more: Any) -> About:
    """Return a column's entry in the manifest; unknown columns are shown by their names."""
    group, label = "detector" if name.endswith("_score") else "score", name.removesuffix("_score").replace("_", " ")
    default = {"label": label, "about": "", "group": group, "error": f"{name}_stderr", "categories": None}
    return cast(About, {"name": name, "type": kind, **default, **_KNOWN.get(name, {}), "missing": missing, **more})


def _columns(subject: Subject) -> Iterator[Column]:
    uids = subject.scores["uid"]
    hashed = bool(uids.str.contains("^[0-9a-f]{32}$").all())
    data = np.frombuffer(bytes.fromhex(uids.str.join("").item()) if hashed else b"", dtype="V16")
    yield Column(_about("uid", "uid", 0), data) if hashed else _text(uids)
    extra = list[pl.Series]()
    if hashed:  # numbers of the images that several pairs have, which are the first half of a uid
        _, number, count = np.unique(data.view(">u8")[::2], return_inverse=True, return_counts=True)
        several = pl.select(pl.when(pl.Series(count > 1)).then(pl.Series(np.cumsum(count > 1))))[:, 0]
        extra.append(several.gather(number).cast(pl.Int32).alias("image_group"))
    if subject.pairs is not None:
        count = subject.trained_captions or 1_000_000
        trained, rest = pl.col("captions").list.head(count), pl.col("captions").list.slice(count)
        others = pl.when(pl.col("captions_from") != pl.col("uid")).then("own_captions").otherwise(rest)
        texts = subject.pairs.select(trained, others=others.fill_null(pl.lit([], dtype=pl.List(pl.String))))
        yield _text(texts["captions"])
        if texts["others"].list.len().sum():  # what the pair was not trained with is searched, too
            yield _text(texts.select(all_captions=pl.concat_list("captions", "others"))["all_captions"], _SEARCHED)
        extra.append(subject.pairs["label"])
    vectors = embedded(subject)
    maps = vectors.maps() if vectors else {}
    for series in (*extra, *subject.scores.drop("uid"), *(pl.Series(name, axis) for name, axis in maps.items())):
        if (column := _column(series)) is not None:
            yield column


def _column(series: pl.Series) -> Column | None:
    """Return the column of a series; None if nothing is in it that the page can show."""
    name = series.name
    if isinstance(series.dtype, pl.Categorical | pl.Enum | pl.String):
        series = series.cast(pl.String).replace("", None)
        names = series.drop_nulls().unique().sort()
        if len(names) > min(_CATEGORIES, max(_FEW, series.count() // 2)):  # to filter by, values must be shared
            return _text(series)
        kind = "u8" if len(names) < 255 else "u16"
        none = np.iinfo(_DTYPES[kind]).max
        values = series.replace_strict(names, np.arange(len(names)), default=none, return_dtype=pl.Int64).to_numpy()
        categories = [visible(category, 100) for category in names]
        about = _about(name, "category", series.null_count(), codes=kind, categories=categories)
        column = Column(about, values.astype(_DTYPES[kind]))
    elif series.dtype == pl.Boolean:
        values = series.cast(pl.UInt8).fill_null(255).to_numpy()
        column = Column(_about(name, "bool", series.null_count()), values)
    elif series.dtype.is_numeric():
        kind, fill = ("i32", MISSING) if series.dtype.is_integer() else ("f32", np.nan)
        series = series.cast(pl.Int32 if kind == "i32" else pl.Float32, strict=False)
        ends = {"min": series.min(), "max": series.max()}
        column = Column(_about(name, kind, series.null_count(), **ends), series.fill_null(fill).to_numpy())
    else:  # lists, dates, bytes: neither a number nor a name
        return None
    return column if column.about["missing"] < len(series) else None


def _text(series: pl.Series, limit: int = TEXT_LIMIT) -> Column:
    """Return a text column: equal texts have equal codes."""
    lists = isinstance(series.dtype, pl.List)
    texts = (series.explode() if lists else series).unique()
    if texts.str.contains(_INVISIBLE).any():  # rare: such characters would break pages, and the separators
        escaped = {text: visible(text) for text in texts.drop_nulls()}
        series = series.list.eval(pl.element().replace(escaped)) if lists else series.replace(escaped)
    joined = series.list.join("\x1f") if lists else series
    cut = pl.when(joined.str.len_chars() > limit).then(joined.str.head(limit) + "…").otherwise(joined)
    joined = pl.select(cut).to_series()
    unique = joined.drop_nulls().unique(maintain_order=True)
    numbers = pl.int_range(len(unique), dtype=pl.Int32, eager=True)
    codes = joined.replace_strict(unique, numbers, default=MISSING, return_dtype=pl.Int32)
    about = _about(series.name, "text", joined.null_count())
    return Column(about, codes.to_numpy(), "\0".join(unique.to_list()).encode())


def _describe(subject: Subject, columns: list[About], state: str) -> dict[str, object]:
    names = [about["name"] for about in columns]
    for about in columns:
        about["error"] = about["error"] if about["error"] in names else None
    numbers = [about["name"] for about in columns if about["type"] == "f32"]
    title, other = (each and visible(_title(each), 100) for each in (subject, subject.other))
    other = f"{other} (before)" if other == title else other
    for about in columns:
        if about["group"] == "compare":
            about["label"], about["about"] = (about[key].format(run=title, other=other) for key in ("label", "about"))
    errors, by_use = {about["error"] for about in columns}, [*_KNOWN, *names]
    columns.sort(key=lambda about: by_use.index(about["name"]))
    columns.sort(key=lambda about: 2 if about["name"] in errors else _GROUPS.get(about["group"], 1))
    compared = [[name, f"{name}_other"] for name in ("clipmem", *ALIGNMENTS) if f"{name}_other" in names]
    compare = {"change": "clipmem_change", "pairs": compared}
    vectors = embedded(subject)
    first = next(name for name in ("clipmem", "suspect_rank", "score", "risk", *numbers, *names) if name in names)
    floor = subject.about.get("noise_floor") or {}
    roles = next((about["categories"] for about in columns if about["name"] == "role"), None) or []
    return {
        "format": FORMAT,
        "clipmem": __version__,
        "title": title,
        "rows": subject.scores.height,
        "source": "run" if subject.run else "scores",
        "hash": state,
        "columns": columns,
        "sort": {"column": first, "descending": first != "suspect_rank"},
        "axes": _axes(columns, first),
        # what the page opens with; an address that is not empty says itself what is chosen
        "picks": {"role": ["candidate"]} if subject.run and len(roles) > 1 and "candidate" in roles else {},
        "noise_floor": floor.get("half_width"),
        "noise_center": floor.get("center"),
        "maps": [
            {"label": label, "x": x, "y": y, "diagonal": x in ALIGNMENTS} for label, x, y in _MAPS if {x, y} <= {*names}
        ],
        "sides": list(vectors.folders) if vectors else [],
        "neighbors": vectors is not None,
        "thumbnails": subject.pairs is not None,
        "details": True,
        "compare": subject.other and {"title": other, **compare},
        "credits": [visible(line) for line in (subject.source.credits() if subject.source else [])],
        "marks": list(MARKS),
        "review": _review(subject) if {"suspect_rank", "is_suspect"} <= {*names} else None,
    }


def _title(subject: Subject) -> str:
    data = None if subject.run else subject.curation.get("data")
    return f"Suspects of {data}" if isinstance(data, str) else subject.path.resolve().name


def _review(subject: Subject) -> dict[str, object]:
    """Say how the data without suspects are written: the command without --write, a folder, and the file of marks."""
    command, name = subject.curation.get("command"), str(subject.curation.get("data", "")).rstrip("/").split("/")[-1]
    return {
        "command": visible(shlex.join(map(str, command)), 2000) if isinstance(command, list) else None,
        "folder": "-".join([*re.findall(r"\w+", name.split(".")[0])[:5], "cleaned"]),
        "marks": marks_file(subject.path).name,
    }


def _axes(columns: list[About], first: str) -> list[str]:
    """Return two scores of which none is computed from the other."""
    errors = {first, "probability", *(about["error"] for about in columns)}
    others = {about["name"]: about for about in columns if about["type"] == "f32" and about["name"] not in errors}
    detectors = [name for name, about in others.items() if about["group"] == "detector" or name in {"risk", "extra"}]
    if first == "suspect_rank":  # its order is computed from the detectors
        return [*(name for name in detectors if name != "score"), "score", first][:2]
    if not detectors and {*ALIGNMENTS} <= {*others}:
        return [*reversed(ALIGNMENTS)]
    return [first, *(detectors or others)][:2]
