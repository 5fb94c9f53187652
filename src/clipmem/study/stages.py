"""The stages of a study in order: decode, plan, train, embed, score, evaluate, report."""

import contextlib
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any, cast

import polars as pl

from clipmem.base import manifest
from clipmem.base.errors import require, shorten
from clipmem.base.folder import RunFolder, refuse_other
from clipmem.base.hashing import data_fingerprint
from clipmem.base.paths import checked_path
from clipmem.base.progress import Quiet, Reporter
from clipmem.base.recipes import Recipe, dump_recipe, recipe_from
from clipmem.base.summary import FILE, FORMAT, Summary
from clipmem.data import skipped
from clipmem.data.cache import open_cache
from clipmem.data.decoding import Geometry
from clipmem.data.duplicates import duplicate_groups
from clipmem.data.inspection import regime_of
from clipmem.data.skipped import Problem, stop_at
from clipmem.data.sources import files_state, open_source
from clipmem.data.sources.base import Source
from clipmem.data.user_tables import with_objects
from clipmem.mitigate.base import Parent, Preparation, captions_in_training, check_known, edit, parents_of, prepare
from clipmem.report.gallery import gallery_uids
from clipmem.report.page import write_report
from clipmem.report.run import Run
from clipmem.scoring.alignments import alignment_of
from clipmem.scoring.design import ScoreTables, combine
from clipmem.scoring.protocols import Protocol, protocol_of
from clipmem.scoring.summary import Scored, learned, over_wordings, summarize
from clipmem.study import api, decode_stage, estimating, evaluating, execution, forecast, pool, utility
from clipmem.study.child import BOARDS
from clipmem.study.models import StudyModels, TrainedModels, open_models
from clipmem.study.plan import CACHE, PlannedStudy, check_needs
from clipmem.study.pool import LocalEngine
from clipmem.train import checkpoint
from clipmem.train.paired import TrainingSet

Parents = Mapping[str, Parent]
_FIXED = ("role", "group", "label", "sublabel", "objects")  # columns of the data that stages read
_FILES = "cache/data-files.json"  # names, sizes and times of the data's files when the study ended


@dataclass
class Study:
    """A running study."""

    recipe: Recipe
    folder: RunFolder
    source: Source | None = None  # of the recipe's data, if it is open
    reporter: Reporter = field(default_factory=Quiet)
    command: str = ""
    user_set: Sequence[str] = ()
    device: str = "auto"
    engine: LocalEngine = field(default_factory=LocalEngine)
    strict: bool = False
    allow_long: bool = False

    def run(self) -> None:
        """Run all unfinished stages (see `clipmem.run`)."""
        models = open_models(self.recipe, self.folder, started=False)
        if self._is_finished():
            self._check_finished(models)
            return
        source = self.source or open_source(self.recipe.data)
        source.refuse("run folder", self.folder.path)
        pairs = with_objects(source.pairs(), self.recipe.dejavu.objects)
        utility.prompts_of(pairs, self.recipe)  # checks class names
        evaluating.retained_recipe(self.recipe, frozenset())  # checks its data
        for problem in source.problems if self.strict else ():
            raise stop_at(problem)
        decode_stage.check_pairs(source, pairs, self._protocol.check_pairs)
        check_needs(self.recipe, self._protocol, pairs)
        parents = find_parents(self.recipe, self.folder, pairs["uid"])
        if not (self.folder.path / "manifest.json").is_file():
            models.describe()
            if self._protocol.trains and not self.allow_long:
                start = cast(TrainedModels, models).start
                forecast.check_forecast(self.recipe, self._protocol, pairs, self._resolve(), start, self.folder.path)
        self.folder.claim(self.recipe, dump_recipe(self.recipe))
        with self.folder.locked():
            # what a killed command left
            for board in self.folder.path.glob(f"{BOARDS}*"):
                shutil.rmtree(board, ignore_errors=True)
            for name in ("cache", "models", "embeddings"):
                for file in (self.folder.path / name).rglob(".*.tmp"):
                    file.unlink(missing_ok=True)
            self._begin(pairs, models, parents)
            stage = partial(run_stage, self.folder, self.reporter)
            stage("decode", lambda: self._decode(pairs, source, models.geometries))
            for row in decode_stage.skipped_of(self.folder).iter_rows() if self.strict else ():
                raise stop_at(Problem(*row))
            stage("plan", lambda: self._plan(source, models.geometries[0], parents))
            work = {
                "train": self._train,
                "embed": self._embed,
                "score": self._score,
                "estimate": self._estimate,
                "evaluate": self._evaluate,
                "report": lambda: write_summary_and_report(self.folder, source),
            }
            with contextlib.ExitStack() as processes:
                processes.enter_context(pool.reused())  # training processes also embed
                for name in self._protocol.stages:
                    # a missing model is trained again if a later stage needs it
                    complete = name != "train" or self.folder.is_done("embed") or not self._missing()
                    stage(name, work[name], complete=complete)
                    if name == "embed":
                        processes.close()
            self.folder.write_json(_FILES, {"sha256": files_state(self.recipe.data)})

    def _is_finished(self) -> bool:
        """Return whether the study is complete and the files of its data are as they were, by name, size and time."""
        state = self.folder.path / _FILES
        if not (state.is_file() and all(map(self.folder.is_done, self._all_stages))):
            return False
        now = files_state(self.recipe.data)
        return bool(now) and self.folder.read_json(_FILES)["sha256"] == now

    def _check_finished(self, models: StudyModels) -> None:
        """Check what a resumed study checks, except the records of its source, which are unchanged."""
        find_parents(self.recipe, self.folder, self.folder.read("pairs")["uid"])
        self.folder.claim(self.recipe, dump_recipe(self.recipe))
        with self.folder.locked():
            manifest.check_files(self.folder, self.recipe)
            models.check()
            for stage in self._all_stages:
                self.reporter.end(stage, self.folder.seconds()[stage], skipped=True)

    @cached_property
    def _protocol(self) -> Protocol:
        return protocol_of(self.recipe)

    @property
    def _all_stages(self) -> tuple[str, ...]:
        return ("decode", "plan", *self._protocol.stages)

    @cached_property
    def _study(self) -> PlannedStudy:
        return PlannedStudy(self.folder.path)

    def _begin(self, pairs: pl.DataFrame, models: StudyModels, parents: Parents) -> None:
        fingerprint = data_fingerprint(pairs["uid"])
        if (self.folder.path / "manifest.json").is_file():
            manifest.check_data(self.folder, fingerprint)
            manifest.check_files(self.folder, self.recipe)
            models.check()
            if self.folder.is_done("decode"):
                self._check_columns(pairs)
            return
        build = partial(manifest.build, self.recipe, data_sha256=fingerprint, command=self.command)
        described = build(user_set=self.user_set, execution=asdict(self._resolve()))
        if parents:
            described["parents"] = {name: parent.described for name, parent in parents.items()}
        self.folder.write_json("manifest.json", {**described, **models.describe()})

    def _check_columns(self, pairs: pl.DataFrame) -> None:
        """Refuse data whose uids are the same, but whose other columns are not: decoded pairs keep what they had."""
        before = self.folder.read("pairs").sort("uid")
        now = pairs.join(before.select("uid"), on="uid", how="semi").sort("uid")
        other = [name for name in _FIXED if not before[name].equals(now[name])]
        subject, got = f"run folder {self.folder.path}", f"data with another {', '.join(other)}"
        require(not other, subject, got, "the data it was made with", "Choose another --out DIR, or restore the data.")

    def _resolve(self) -> execution.Execution:
        return self.engine.fit(execution.resolve(self.recipe, self._protocol.count, device=self.device))

    def _decode(self, pairs: pl.DataFrame, source: Source, geometries: Sequence[Geometry]) -> list[Path]:
        folder, reporter = self.folder, self.reporter
        decode = decode_stage.decode_images
        caches, usable = decode(folder, pairs, source, geometries, reporter=reporter, strict=self.strict)
        return [*caches, *decode_stage.write_pairs(folder, usable, source, self._protocol.check_usable, reporter)]

    def _plan(self, source: Source, geometry: Geometry, parents: Parents) -> list[Path]:
        pairs = self.folder.read("pairs")
        groups = pairs["group"].to_list()
        if self.recipe.split.near_duplicates:
            groups = duplicate_groups(open_cache(self.folder.path / CACHE), keys=groups)
        table, edits = edit(self.recipe, self._protocol.split(pairs, groups), parents, pairs)
        files = [self.folder.write(name, edited) for name, edited in edits.items()]
        trained = (model.uids for model in self._protocol.design(table).models)
        evaluating.retained_recipe(self.recipe, frozenset().union(*trained))
        k = self.recipe.train.captions
        captions = {uid: texts[:k] for uid, texts in zip(pairs["uid"], pairs["captions"].to_list(), strict=True)}
        by_row = [captions[uid] for uid in table["captions_from"]]
        alignment_of(self.recipe).check(self.recipe.embed, by_row, table["uid"].to_list())
        more = prepare(Preparation(self.recipe, self.folder, pairs, table, geometry, source.read))
        return [self.folder.write("splits", table), *files, *more]

    def _missing(self) -> list[TrainingSet]:
        is_done = self.folder.is_done
        return [model for model in self._study.trained if not is_done(f"train-{model.side}-seed-{model.seed}")]

    def _train(self) -> list[Path]:
        study, missing, train = self._study, self._missing(), self.recipe.train
        first = study.models[0]
        pairs, steps = len(first.uids), first.batch_count(train.batch_size)
        share, each = self.recipe.mitigate.early_stopping.share, (len(model.uids) for model in missing)
        self.reporter.begin("train", round(share * train.epochs * sum(each)), "pairs")
        self.engine.train(
            study, missing, progress=lambda done, note: self.reporter.advance(round(done * pairs / steps), note)
        )
        checkpoint.sweep(self.folder.path / "models")
        self._check()
        return [self.folder.model_dir(model.side, model.seed) / "record.json" for model in study.trained]

    def _check(self) -> None:
        trained = [(model.side, model.seed) for model in self._study.trained]
        self._protocol.check(self._study.design, {model: self.folder.record(*model) for model in trained})

    def _embed(self) -> list[Path]:
        study = self._study
        self.reporter.begin("embed", study.splits.height * len(study.embedded), "pairs")
        return self.engine.embed(study, study.embedded, progress=self.reporter.advance)

    def _score(self) -> list[Path]:
        study, settings = self._study, self.recipe.score
        if self._protocol.trains and not self._missing():
            self._check()  # another version may have trained them
        needs = alignment_of(self.recipe).needs
        parts = study.aligned(study.models if "class head" in needs else study.embedded)  # the base model has no head
        wordings = study.aligned(study.models, wordings=True) if study.wordings and "captions" in needs else ()
        combined = partial(combine, weight=settings.weight, confidence=settings.confidence)
        tables = combined(study.design, study.splits, parts, wordings=wordings)
        write, files = self.folder.write, list[Path]()
        if self._protocol.estimator:
            tables, files = estimating.refine(study, parts, tables, self._protocol.estimator)
        return [write("scores", tables.scores), write("seed_scores", tables.seed_scores), *files]

    def _estimate(self) -> list[Path]:
        signals = estimating.signals_of(self._study, self._study.aligned(self._study.models))
        files = estimating.estimate(self._study, signals, self._protocol.estimator)[1]
        return [*files, self._summarize([])]

    def _evaluate(self) -> list[Path]:
        study, write = self._study, self.folder.write_json
        document, retrieval = utility.measure(study, self.reporter)
        files = [write(utility.RETRIEVAL, retrieval), write(utility.DOCUMENT, document)]
        document, pairs = utility.measure_dejavu(study)
        files += [write(f"{utility.DEJAVU}.json", document)] if document else []  # none if no pair has objects
        files += [] if pairs is None else [self.folder.write(utility.DEJAVU, pairs)]
        files += evaluating.evaluate_retained(study, self.reporter)
        if self._protocol.compares:  # else nothing is left to do
            return files
        return [*files, self._summarize(list(self.recipe.train.seeds), confidence=self.recipe.score.confidence)]

    def _summarize(self, seeds: Sequence[int], **more: float) -> Path:
        """Write the summary of a study without differences of alignments."""
        about = {"format": FORMAT, "protocol": self.recipe.protocol, "roles": {}, "seeds": seeds, **more}
        summary = Summary.model_validate(about | _measured(Run(self.folder.path)))
        return self.folder.write_json(FILE, summary.document())


def run_stage(
    folder: RunFolder, reporter: Reporter, name: str, work: Callable[[], list[Path]], *, complete: bool = True
) -> list[Path]:
    """Do a stage and write its marker, unless it is done and `complete`; return the files written."""
    if complete and folder.is_done(name):
        reporter.end(name, folder.seconds()[name], skipped=True)
        return []
    started = time.monotonic()
    reporter.begin(name)
    outputs = work()
    seconds = time.monotonic() - started
    folder.finish(name, outputs, seconds)
    reporter.end(name, seconds)
    return outputs


def find_parents(recipe: Recipe, folder: RunFolder, uids: pl.Series) -> Parents:
    """Read the parents named by the recipe that unfinished stages need, and check that they are those of the start."""
    parents, uid_set = parents_of(recipe, folder.is_done), frozenset(uids)
    before = manifest.read(folder).get("parents", {}) if (folder.path / "manifest.json").is_file() else None
    for name, parent in parents.items():
        check_known(parent, uid_set, f"[mitigate.{name}]")
        if parent.gives == "models":
            manifest.check_data(RunFolder(parent.path), data_fingerprint(uids))
        key = f"{parent.gives}_sha256"
        now = {key: parent.described[key]}
        start = now if before is None else {key: before.get(name, {}).get(key)}
        subject = f"run folder {folder.path} was made with other {parent.gives} ([mitigate.{name}])"
        refuse_other(subject, start, now, f"Choose another --out DIR, or restore the original {parent.gives}.")
    return parents


def _measured(run: Run) -> dict[str, Any]:
    """Return the entries of `summary.json` on what was measured, without values by seed."""
    entries = {
        "estimate": run.document(estimating.DOCUMENT),
        "utility": utility.without_seeds(run.document("evaluate/utility.json")),
        "retained": utility.without_seeds(run.document("evaluate/retained.json")),
        "dejavu": run.document("evaluate/dejavu.json"),
    }
    return {name: entry for name, entry in entries.items() if entry}


def write_summary_and_report(folder: RunFolder, source: Source) -> list[Path]:
    """Write `summary.json` and the report from the tables of a run folder."""
    started, run = time.monotonic(), Run(folder.path, source=source)
    recipe, tables = run.recipe, ScoreTables(run.scores, run.seed_scores)
    scored, protocol, seed = Scored(run.splits, tables), protocol_of(recipe), recipe.split.seed
    seconds = {stage: took for stage, took in run.stage_seconds.items() if stage != "report"}
    candidates = scored.clipmem[scored.of("candidate")]
    with_role = run.splits.join(run.pairs.select("uid", "captions"), on="uid", maintain_order="left")
    summary = summarize(scored, recipe.score, seed=seed, estimated=bool(protocol.estimator))
    document = {
        "format": FORMAT,
        "protocol": recipe.protocol,
        "alignment": recipe.score.alignment,
        "weight": recipe.score.weight,
        "confidence": recipe.score.confidence,
        "base": recipe.model.pretrained or None,
        **dict(summary),
        "captions": {"scored": recipe.train.captions, "trained": captions_in_training(recipe)},
        "wordings": over_wordings(run.splits, tables, recipe.evaluate.wordings, recipe.score, seed=seed),
        # near images are those that the split keeps together
        "regime": regime_of(with_role["captions"].list.first(), with_role["group"].to_list()),
        "learned": learned(scored, tables.scores["a_base"], summary.roles, confidence=recipe.score.confidence),
        "normalizer": float(candidates.max() - candidates.min()),
        "retrieval": run.document(utility.RETRIEVAL) or None,
        **_measured(run),
        "words": protocol.words,
        "measure": alignment_of(recipe).words,
        "records": skipped.summarize(decode_stage.skipped_of(folder), run.pairs.height),
        "seconds": seconds,
    }
    whole = Summary.model_validate(document)
    folder.write_json(FILE, whole.document())
    page = write_report(folder.path, run.images(gallery_uids(run)), credits=source.credits())
    seconds["report"] = round(time.monotonic() - started, 3)
    return [folder.write_json(FILE, whole.model_copy(update={"seconds": seconds}).document()), page]


def renew_report(folder: RunFolder) -> list[Path]:
    """Write `summary.json` and the report again; the stage `report` is then done if those before it are."""
    started = time.monotonic()
    outputs = write_summary_and_report(folder, open_source(folder.recipe().data))
    if folder.is_done("evaluate"):
        folder.finish("report", outputs, time.monotonic() - started)
    return outputs


def renew_run(path: Path | str) -> Path:
    """Rebuild the summary and the report of a scored run folder from its tables; return the path of the report."""
    folder = RunFolder(path)
    _ = folder.recipe()  # raises before a folder is made
    with folder.locked():
        return renew_report(folder)[-1]


# ---- between a fine-tuned run and its pretrained model


def check_alphas(alphas: Sequence[float], *, runs: bool) -> list[float]:
    """Return weights of the fine-tuned model, increasing; 1 is left out for runs, where it is the run itself."""
    got, weights = shorten(list(alphas)), sorted(set(alphas))
    hint = "For example: --interpolate 0,0.25,0.5,0.75,1."
    require(all(0 <= alpha <= 1 for alpha in weights), "--interpolate", got, "numbers from 0 to 1", hint)
    require(not runs or weights != [1], "--interpolate", got, "a number below 1: 1 is the run itself", hint)
    return [alpha for alpha in weights if not (runs and alpha == 1)]


def interpolate_run(path: str | Path, alphas: Sequence[float], *, reporter: Reporter | None = None) -> list[Path]:
    """Make the runs `interpolate/alpha-A` in a finished fine-tuned run, without training; return their folders.

    Raises:
        InputError: The run is not finished or was trained from scratch, or a weight is not in [0, 1].
    """
    alphas, folder = check_alphas(alphas, runs=True), RunFolder(checked_path(path, "run folder").resolve())
    recipe, subject = folder.recipe(), f"run folder {path}"
    hint = "Interpolate a run with model.pretrained."
    require(bool(recipe.model.pretrained), subject, "models trained from scratch", "fine-tuned models", hint)
    hint = f"Run `clipmem run RECIPE.toml --out {path}` again: it resumes where it stopped."
    require(folder.is_done("report"), subject, "a run that is not finished", "a finished run", hint)
    device, folders = str(manifest.read(folder)["device"]), list[Path]()
    for alpha in alphas:
        document = recipe.model_dump()
        document["mitigate"]["interpolate"] = {"alpha": alpha, "run": str(folder.path)}
        folders.append(folder.path / "interpolate" / f"alpha-{alpha:g}")
        # the study itself had consent
        api.run(recipe_from(document), folders[-1], device=device, reporter=reporter, allow_long=True)
    return folders
