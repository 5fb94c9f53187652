"""Find the mismatched captions of a data set or of a finished run, and write the data without them.

When not to trust it: what is rare in the data looks suspect, too. The expected number of mismatched captions is
calibrated on planted errors, and others may be easier or harder to find.
"""

import contextlib
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
import polars as pl
import pyarrow.parquet as pq

from clipmem._version import __version__
from clipmem.base import slices
from clipmem.base.errors import InputError, require
from clipmem.base.hashing import file_sha256, json_sha256
from clipmem.base.marks import Mark, latest_marks
from clipmem.base.paths import atomic_file, check_place, write_json
from clipmem.base.progress import Quiet, Reporter
from clipmem.base.tables import write_parquet
from clipmem.curation.aim import Aim
from clipmem.curation.ranking import SMALLEST
from clipmem.curation.ranking import curate as rank
from clipmem.curation.suspects import (
    DOCUMENT,
    LENGTHS,
    RANKING,
    SUSPECTS,
    Curation,
    apply_marks,
    choose,
    counted,
    expectations,
    order_of,
    read_ranking,
)
from clipmem.data.export import Written, check_output, write_cleaned
from clipmem.data.skipped import write_skipped
from clipmem.data.sources import Data, open_data, reading_data
from clipmem.data.sources.base import Source
from clipmem.models.embeddings import Embeddings, Model
from clipmem.stats.alignment import alignment
from clipmem.stats.cells import EXACT
from clipmem.study import estimating
from clipmem.study.plan import PlannedStudy
from clipmem.study.score_inputs import Settings, pairs_of
from clipmem.study.single_model import Collected, collect

SKIPPED = "skipped.parquet"
SCRATCH = "comparing"  # finished parts of comparing many pairs, until the list is written
SHOWN = 10
_ROWS = 200_000  # at a time
KINDS = ("mismatched", "vague", "duplicate", "hygiene")


@dataclass(frozen=True)
class Curating:
    """Options of `clipmem curate`; a run has its own model and captions.

    Attributes:
        suspects: How many suspects (see `Aim.parse`); by default all with a probability of .5 or more.
        reviewed: With `write`: only what people decided; other suspects stay.
        ranked: Refuse data that are not those of the ranking in `out`, instead of ranking them.
    """

    model: str = ""
    captions: int | None = None
    out: Path | None = None
    write: Path | None = None
    correct: bool = False
    device: str = "auto"
    engine: str = "local"
    part: str = ""
    suspects: str = ""
    reviewed: bool = False
    ranked: bool = False


@dataclass(frozen=True)
class Curated:
    """The output folder, the document with what is known of the list, its first pairs, and what was written."""

    folder: Path
    document: Mapping[str, Any]
    first: list[dict[str, object]]
    written: Written | None = None


def curate(
    data: Data | None = None,
    model: str | None = None,
    *,
    captions: int | None = None,
    suspects: str | int = "",
    out: str | Path | None = None,
    device: str = "auto",
) -> pl.DataFrame:
    """Rank the pairs of a data set by how likely their captions are wrong.

    Args:
        data: A path, the name of a shipped source, keys of `[data]`, or a source; or a finished run folder. Optional if
            `model` is a folder of embeddings with captions.
        model: Name or path of a model whose embeddings are used, or such a folder; by default pixels and words alone.
        captions: Maximum number of captions per pair; by default all.
        suspects: How many to call suspects: `200`, or `"precision=0.7"` (as many as there may be with this expected
            share of mismatched captions) or `"recall=0.5"` (as few as have this expected share of all of them), both
            with the pairs that a rule flags; by default those more likely wrong than right.
        out: Also keep the list in this folder, for `clipmem.view`; its marks are applied to the list.
        device: `auto`, `cpu` or `cuda`.

    Returns:
        One row per usable pair, most suspect first. As in cleanlab's Datalab, `is_label_issue` and `label_score` in
        [0, 1], lower = worse (1 - the probability that the caption is wrong); the same for each kind of issue:
        mismatched, vague, duplicate, hygiene (1 for pairs of another kind). Then `uid`, `reason`, `second_reason`,
        `neighbors`, `suggested_caption`, and each detector's score as `NAME_detector`, higher = worse.

    Raises:
        InputError: There are fewer than 100 usable pairs, no captions or one caption for all, or no such model.

    Example:
        >>> clipmem.curate("captions.csv").filter("is_label_issue")  # doctest: +SKIP
    """
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(out or Path(scratch) / "curated")
        how = Curating(model or "", captions, folder, device=device, suspects=str(suspects))
        table = pl.read_parquet(curate_and_write(data, how).folder / SUSPECTS)
    score_names = [name for name in table.columns if name.endswith("_score")]
    suspect, good = pl.col("is_suspect"), 1 - pl.col("probability")
    columns = [suspect.alias("is_label_issue"), good.alias("label_score")]
    for kind in KINDS:
        of_kind = (pl.col("kind") == kind).fill_null(value=False)
        columns += [(suspect & of_kind).alias(f"is_{kind}_issue")]
        columns += [pl.when(of_kind).then(good).otherwise(1.0).alias(f"{kind}_score")]
    about = ["uid", "reason", "second_reason", "neighbors", "suggested_caption"]
    detectors = [pl.col(name).alias(f"{name.removesuffix('_score')}_detector") for name in score_names]
    return table.select(*columns, *about, *detectors)


def is_run(data: object) -> TypeGuard[str | Path]:
    """Return whether data are the path of a run folder."""
    return isinstance(data, str | Path) and data != "" and (Path(data) / "recipe.toml").is_file()


def curate_and_write(data: Data | None, how: Curating, reporter: Reporter | None = None) -> Curated:
    """Rank the pairs of a data set or a finished run, and write `suspects.parquet`, `curate.json` and the cleaned data.

    A ranking that the output folder has of the same data and settings is used again. Marks are applied to it each time.

    Raises:
        InputError: There are fewer than 100 usable pairs, no captions or one caption for all, no such model, or an
            output folder is inside the data.
    """
    reporter, started = reporter or Quiet(), time.monotonic()
    if is_run(data):
        for option, value in (("--model", how.model), ("--captions", how.captions)):
            require(value in {"", None}, option, f"{value} with a run folder", "that of the run", "Omit it.")
        Settings.of(engine=how.engine, part=how.part).check_work(embeds=False)
    for option, wanted in (("--correct", how.correct), ("--reviewed-only", how.reviewed)):
        require(how.write or not wanted, option, "no --write", "a folder for the data", "Add --write DIR.")
    both, got = how.correct and how.reviewed, "also --reviewed-only, which leaves others as they are"
    require(not both, "--correct", got, "one of them", "Omit --correct.")
    aim = Aim.parse(how.suspects) if how.suspects else None
    study = PlannedStudy(data) if is_run(data) else None
    source = None if data is None else open_data(study.recipe.data if study else data)
    out = how.out or (study.path / "curate" if study else Path("curated"))
    hint = "Give the data, and the folder of embeddings as model."
    require(source or not how.write, f"--write {how.write}", "embeddings without data", "data to write again", hint)
    if source and how.write is not None:
        mixed, hint = out.resolve().is_relative_to(how.write.resolve()), "Choose another folder."
        require(not mixed, f"--write {how.write}", f"the folder of --out {out}", "a folder for the data alone", hint)
        check_output(source, how.write)
    if source and not study:
        source.refuse("--out", out)
    check_place(out)
    made_with: list[Any] = [__version__, how.captions, how.device]
    opened = None
    if study:
        signals = partial(run_signals, study)
        uids, marks = study.pairs["uid"], latest_marks(study.path, out / SUSPECTS)
        made_with += [study.manifest]
    else:
        settings = Settings.of(captions=how.captions, device=how.device, engine=how.engine, part=how.part)
        models = [settings.open(how.model)] if how.model else []
        opened = next(iter(models), None)
        pairs = pairs_of(models, source, settings, "data", listed=isinstance(opened, Embeddings) or not how.part)
        uids, marks = pairs.uids, latest_marks(out / SUSPECTS)
        made_with += [opened and opened.content()]
        store = out / SCRATCH / f"embeddings-{json_sha256([*made_with, (pairs.shards or pairs).fingerprint])[:16]}"
        made_with += [pairs.fingerprint, len(pairs.problems)]

        def signals() -> Collected:
            settings.check_work(embeds=isinstance(opened, Model) or len(pairs) > EXACT)
            pair_signals, problems = collect(pairs, opened, store, settings, reporter, least=SMALLEST)
            return replace(pair_signals, unseen=opened is not None, run=partial(settings.run, out / SCRATCH)), problems

    ranking = _ranked(out, json_sha256(made_with), signals, reporter, refuse=how.ranked)
    ranking = choose(ranking, aim) if aim else ranking
    ranking = apply_marks(ranking, {uid: mark.mark for uid, mark in marks.items()}) if marks else ranking
    table = ranking.table
    order = order_of(table)
    _write_list(out / SUSPECTS, table.drop("caption"), order)
    # the study gave these mismatched captions; those of the data are right
    planted = study.planted if study else set[str]()
    others = {uid for uid, mark in marks.items() if mark.mark in {"wrong", "fine"}}
    others -= set(table.filter(pl.col("uid").is_in(list(others)))["uid"])
    refused = [uid for uid, mark in marks.items() if mark.mark == "wrong" and uid not in planted]
    decided = {uid: marks[uid] for uid in uids.filter(uids.is_in(refused))}
    marked = others & decided.keys()
    spared = table.filter("is_suspect", pl.col("uid").is_in(list(planted))).height
    section = source.section.model_dump(mode="json", exclude_defaults=True) if source else None
    name = source.title if source else how.model
    told = ranking.document["suspects"] - ranking.document["by_rule"]
    document = {
        **ranking.document,
        "format": 1,
        "data": str(data) if study else name,
        "section": section,
        "model": how.model or None,
        "captions": how.captions,
        "device": how.device,
        "aim": how.suspects,
        "expectation": [rates._asdict() for rates in expectations(ranking, [told])],
        "curve": [rates._asdict() for rates in expectations(ranking, LENGTHS)],
        "command": _command(str(data) if study else section, how, out),
        "run": study is not None,
        "not_judged": len(uids) - table.height if study else 0,
        "pairs": table.height,
        "marks_of_others": len(others),
        "written": None,
    }
    write_json(out / DOCUMENT, document)  # so that the ranking is used again if the data cannot be written
    reporter.begin("write")
    # of pairs without an embedding nobody knows whether their images decode
    usable = {*(uids if study or isinstance(opened, Embeddings) else table["uid"])} if how.write else set[str]()
    written = _write(source, table, how, planted, decided, usable) if source and how.write else None
    counts = written and {**written._asdict(), "path": str(written.path), "marked": len(marked), "planted": spared}
    document |= {"seconds_in_all": round(time.monotonic() - started, 3), "written": counts}
    write_json(out / DOCUMENT, document)
    return Curated(out, document, table[order[:SHOWN]].to_dicts(), written)


def write_reviewed(folder: Path, path: Path, reporter: Reporter, *, correct: bool, reviewed: bool) -> dict[str, Any]:
    """Write the data of a folder of `clipmem curate` as people decided, without ranking; return what was written.

    Raises:
        InputError: The data changed since, or the folder for the data is not free.
    """
    about = read_ranking(folder).document
    model, device = about.get("model") or "", about.get("device", "auto")
    how = Curating(model, about.get("captions"), folder, path, correct, device, reviewed=reviewed, ranked=True)
    how = replace(how, suspects=str(about.get("aim", "")))
    return curate_and_write(about["data"] if about["run"] else about["section"], how, reporter).document["written"]


def _ranked(
    out: Path, made_with: str, signals: Callable[[], Collected], reporter: Reporter, *, refuse: bool = False
) -> Curation:
    """Read the ranking before marks that a folder has of the same data and settings; else rank, and keep it there."""
    with contextlib.suppress(InputError):  # the folder may be somebody else's
        table, document = read_ranking(out)
        if document.get("made_with") == [made_with, file_sha256(out / RANKING)]:
            return Curation(table, {**document, **counted(table), "marks": None, "reused": True})
    got, expected = "other pairs than those of its list, or another version of clipmem", "the data as they were ranked"
    require(not refuse, f"data of {out}", got, expected, "Run clipmem curate again: marks are kept.")
    pair_signals, problems = signals()
    ranking = rank(replace(pair_signals, scratch=out / SCRATCH), reporter=reporter)
    captions = pl.Series((next(iter(texts), "") for texts in pair_signals.captions), dtype=pl.String)
    table = ranking.table.with_columns(caption=captions)
    write_parquet(out / RANKING, table)
    shutil.rmtree(out / SCRATCH, ignore_errors=True)
    write_skipped(out / SKIPPED, problems)
    more = {"problems": len(problems), "made_with": [made_with, file_sha256(out / RANKING)], "reused": False}
    return Curation(table, json.loads(json.dumps({**ranking.document, **more}, default=float)))


def run_signals(study: PlannedStudy) -> Collected:
    """Return the signals of the pairs that the first model of a finished run trained on.

    Scores are the columns `clipmem` and `g_alignment` of the study, for the pairs that it scores.
    """
    subject = f"run folder {study.path}"
    _ = study.summary  # raises if the run is not finished
    study.check_text(subject)
    f, weight = study.models[0], study.recipe.score.weight
    if study.protocol.estimator and study.protocol.compares:  # with shadow models
        signals = estimating.signals_of(study, study.aligned(study.models))
    else:
        trained = set(f.uids)
        roles = study.splits.select("uid", "role").iter_rows()
        rows = np.array([uid in trained if trained else role != "external" for uid, role in roles])
        aligned = alignment(study.aligned([f])[0], weight=weight).numpy()
        # as in `estimating.signals_of`, relative to pairs that no model trained on
        aligned = aligned[rows] - aligned[study.role == "external"].mean()
        signals = estimating.signals_under_first(study, rows, aligned)
    got, hint = f"{len(signals.uids)} pairs", "Use more pairs."
    require(len(signals.uids) >= SMALLEST, subject, got, f"{SMALLEST} or more", hint)
    if not study.protocol.compares:
        return signals, []
    g = pl.col("g_positive") - weight * (pl.col("g_image_bank") + pl.col("g_text_bank"))
    scores = study.scores.select("uid", "clipmem", g_alignment=g)
    joined = pl.DataFrame({"uid": signals.uids}).join(scores, on="uid", how="left", maintain_order="left")
    columns = {name: joined[name].fill_null(float("nan")).to_numpy() for name in ("clipmem", "g_alignment")}
    finite = {name: values for name, values in columns.items() if np.isfinite(values).any()}
    return replace(signals, scores=finite), []


def _write_list(path: Path, table: pl.DataFrame, order: pl.Series) -> None:
    """Write the rows of a table in an order, some at a time: a sorted copy takes as much memory as the table."""
    with atomic_file(path) as stream:
        schema = table.clear().to_arrow().schema
        with pq.ParquetWriter(stream, schema, compression="zstd", write_statistics=False) as writer:
            for rows in slices(table.height, _ROWS):
                writer.write_table(table[order[rows]].to_arrow())


def _command(data: str | Mapping[str, Any] | None, how: Curating, out: Path) -> list[str] | None:
    """Return the command that reads the marks and applies them; None for other data than a path or a name."""
    if data is not None and not isinstance(data, str):
        if data.keys() - {"path", "source"}:
            return None
        data = data.get("path") or data["source"]
    options = {"--model": how.model, "--out": how.out and out, "--captions": how.captions, "--suspects": how.suspects}
    words = [word for name, value in options.items() if value for word in (name, str(value))]
    return ["clipmem", "curate", *([str(data)] if data else []), *words]


def _write(
    source: Source, table: pl.DataFrame, how: Curating, planted: set[str], decided: Mapping[str, Mark], usable: set[str]
) -> Written:
    """Write the data without suspects and pairs marked wrong, or with the captions that were decided or suggested."""
    assert how.write is not None  # noqa: S101
    suspects = table.filter(pl.col("is_suspect") & ~pl.col("uid").is_in([*planted, *decided]))
    suspects = suspects.clear() if how.reviewed else suspects
    suggested = suspects.filter(pl.col("suggested_caption").is_not_null()) if how.correct else suspects.clear()
    captions = dict(suggested.select("uid", "suggested_caption").iter_rows())
    captions |= {uid: mark.caption for uid, mark in decided.items() if mark.caption is not None}
    removed = {*suspects["uid"], *decided} - captions.keys()
    with reading_data(source.section):
        written = write_cleaned(source, how.write, removed, captions)
    broken = written.read - len(usable | removed | captions.keys()) if written.same_format else 0
    return written.without(max(0, broken))  # a run may have pairs that the data no longer have
