"""The stages of a study in order: decode, plan, train, embed, score, evaluate, report.

Each writes its outputs, then its marker; a finished one is not repeated. Nothing here computes a score: a stage
fetches, calls the room that knows, and writes.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from clipmem.base.pictures import Geometry
from clipmem.base.progress import Quiet, Reporter
from clipmem.base.recipes import Recipe, dump_recipe
from clipmem.data.cache import open_cache
from clipmem.data.duplicates import duplicate_groups
from clipmem.data.sources import open_source
from clipmem.data.sources.base import Source
from clipmem.embed import passes
from clipmem.mitigate.base import Preparation, prepare
from clipmem.report.page import write_report
from clipmem.score.alignments import Head, check_views, parts_of
from clipmem.score.protocol import Protocol, ScoreTables
from clipmem.score.protocols import protocol_of
from clipmem.store import manifest
from clipmem.store.folder import RunFolder
from clipmem.store.hashing import data_fingerprint
from clipmem.study import decoding, dejavu, early, execution, forecast, materials, mitigating, needs, utility
from clipmem.study.engine import Task
from clipmem.study.engines import Engine
from clipmem.study.engines.local import LocalEngine
from clipmem.study.loaded import gallery_images, seconds_of
from clipmem.study.models import StudyModels, open_models
from clipmem.train import checkpoint
from clipmem.train.objectives.supervised import Supervised
from clipmem.train.paired import TrainingSet


@dataclass
class Study:
    """A study being made.

    Attributes:
        recipe: What is to be made.
        folder: Where.
        reporter: Who is told.
        command: The command line, for the manifest.
        user_set: The settings that the user passed, for the manifest.
        device: `auto`, `cpu` or `cuda`.
        engine: Who trains and embeds.
        strict: Stop at the first record that cannot be used, instead of listing it in `quarantine.parquet`.
        allow_long: Begin also what takes more than a day, or more memory or disk space than there is.
    """

    recipe: Recipe
    folder: RunFolder
    reporter: Reporter = field(default_factory=Quiet)
    command: str = ""
    user_set: Sequence[str] = ()
    device: str = "auto"
    engine: Engine = field(default_factory=LocalEngine)
    strict: bool = False
    allow_long: bool = False

    def run(self) -> None:
        """Make every stage that is not finished (see the errors of `clipmem.run`)."""
        # before the folder is touched: names and sizes that cannot work must leave nothing behind
        models = open_models(self.recipe, self.folder)
        source = open_source(self.recipe.data)
        with early.opening(self.recipe.data):
            pairs = dejavu.prepare(source.pairs(), self.recipe)
        utility.prepare(pairs, self.recipe)
        decoding.check_source(source, pairs, self._protocol.check_pairs, strict=self.strict)
        needs.check(self.recipe, self._protocol, pairs)
        parents = mitigating.find_parents(self.recipe, self.folder, pairs["uid"])
        if not (self.folder.path / "manifest.json").is_file():
            models.describe()
            if self._protocol.trains and not self.allow_long:
                forecast.check(self.recipe, self._protocol, pairs, self._resolve(), self.folder.path)
        self.folder.claim(self.recipe, dump_recipe(self.recipe))
        with self.folder.locked():
            how = self._begin(pairs, models, mitigating.describe(parents))
            self._stage("decode", lambda: self._decode(pairs, source, models.geometries))
            if self.strict:
                decoding.check_strict(self.folder)
            self._stage("plan", lambda: self._plan(source, models.geometries[0], parents))
            if self._protocol.trains:
                # a model that has vanished is trained again as long as somebody still needs it
                complete = self.folder.is_done("embed") or not self._missing(self._sets())
                self._stage("train", lambda: self._train(how), complete=complete)
            self._stage("embed", lambda: self._embed(how))
            self._stage("score", self._score)
            self._stage("evaluate", self._evaluate)
            self._stage("report", lambda: write_summary_and_report(self.folder, source))

    def _stage(self, name: str, work: Callable[[], list[Path]], *, complete: bool = True) -> None:
        if complete and self.folder.is_done(name):
            self.reporter.end(name, self.folder.seconds()[name], skipped=True)
            return
        started = time.monotonic()
        outputs = work()
        seconds = time.monotonic() - started
        self.folder.finish(name, outputs, seconds)
        self.reporter.end(name, seconds)

    def _begin(self, pairs: pl.DataFrame, models: StudyModels, parents: dict[str, Any]) -> execution.Execution:
        """Write the manifest, or check it against data and models; return how the models are computed."""
        fingerprint = data_fingerprint(pairs["uid"])
        if (self.folder.path / "manifest.json").is_file():
            manifest.check_data(self.folder, fingerprint)
            models.check(manifest.read(self.folder))
            return execution.from_manifest(manifest.read(self.folder))
        how = self._resolve()
        described = manifest.build(
            self.recipe,
            data_sha256=fingerprint,
            command=self.command,
            user_set=self.user_set,
            execution=how.as_dict(),
        )
        self.folder.write_json("manifest.json", described | models.describe() | parents)
        return how

    def _resolve(self) -> execution.Execution:
        return self.engine.fit(execution.resolve(self.recipe, self._protocol.count, device=self.device))

    def _decode(self, pairs: pl.DataFrame, source: Source, geometries: Sequence[Geometry]) -> list[Path]:
        return decoding.decode_pairs(
            self.folder,
            pairs,
            source,
            geometries,
            reporter=self.reporter,
            check=self._protocol.check_usable,
            strict=self.strict,
        )

    def _plan(self, source: Source, geometry: Geometry, parents: mitigating.Parents) -> list[Path]:
        self.reporter.begin("plan", 1, "split")
        pairs = self.folder.read("pairs")
        groups = pairs["group"].to_list()
        if self.recipe.split.near_duplicates:
            groups = duplicate_groups(open_cache(self.folder.path / materials.CACHE), keys=groups)
        table, removed = mitigating.take_out(self.recipe, self.folder, self._protocol.split(pairs, groups), parents)
        k = self.recipe.train.captions
        captions = {uid: texts[:k] for uid, texts in zip(pairs["uid"], pairs["captions"].to_list(), strict=True)}
        check_views(self.recipe, [captions[uid] for uid in table["captions_from"]], table["uid"].to_list())
        made = prepare(Preparation(self.recipe, self.folder, pairs, table, geometry, source.read))
        return [self.folder.write("splits", table), *removed, *made]

    @property
    def _protocol(self) -> Protocol:
        return protocol_of(self.recipe)

    def _sets(self) -> list[TrainingSet]:
        return self._protocol.training_sets(self.folder.read("splits"))

    def _models(self) -> list[Task]:
        return [Task(model.side, model.seed) for model in self._sets()]

    def _missing(self, models: Sequence[TrainingSet]) -> list[Task]:
        tasks = [Task(model.side, model.seed) for model in models]
        return [task for task in tasks if not self.folder.is_done(f"train-{task.side}-seed-{task.seed}")]

    def _train(self, how: execution.Execution) -> list[Path]:
        models = self._sets()
        missing, train, pairs = self._missing(models), self.recipe.train, len(models[0].uids)
        steps = models[0].batch_count(train.batch_size)
        share = self.recipe.mitigate.early_stopping.share
        self.reporter.begin("train", round(share * pairs * train.epochs) * len(missing), "pairs")
        spent = self.engine.train(
            self.folder,
            missing,
            how,
            progress=lambda done, note: self.reporter.advance(round(done * pairs / steps), note),
        )
        if missing:
            self.reporter.note(f"train     {spent.sentence()}")
        checkpoint.sweep(self.folder.path / "models")
        self._check(models)
        return [self.folder.model_dir(one.side, one.seed) / "record.json" for one in models]

    def _check(self, models: Sequence[TrainingSet]) -> None:
        self._protocol.check(models, {(one.side, one.seed): self._record(one.side, one.seed) for one in models})

    def _record(self, side: str, seed: int) -> Mapping[str, object]:
        directory = self.folder.model_dir(side, seed).relative_to(self.folder.path)
        return self.folder.read_json(str(directory / "record.json"))

    def _embed(self, how: execution.Execution) -> list[Path]:
        models = self._models()
        self.reporter.begin("embed", self.folder.read("splits").height * len(models), "pairs")
        return self.engine.embed(self.folder, models, how, progress=self.reporter.advance)

    def _score(self) -> list[Path]:
        self.reporter.begin("score", 1, "table")
        splits = self.folder.read("splits")
        external = (splits["role"] == "external").to_numpy()
        models = self._protocol.training_sets(splits)
        if self._protocol.trains and not self._missing(models):
            self._check(models)  # they may have been trained by another version
        labels = self._labels()
        parts = [
            # one model at a time: the embeddings of all of them need not fit in memory
            parts_of(
                passes.load(self.folder.embedding_dir(model.side, model.seed)),
                external,
                self.recipe.score.alignment,
                labels=labels,
                head=self._head(model.side, model.seed),
            )
            for model in models
        ]
        made = self._protocol.score(splits, models, parts)
        return [self.folder.write("scores", made.scores), self.folder.write("seed_scores", made.seed_scores)]

    @property
    def _has_heads(self) -> bool:
        return self.recipe.train.objective == "supervised"

    def _labels(self) -> np.ndarray | None:
        """Return the pairs' classes, where models were trained on them."""
        material = materials.load(self.folder, self.recipe) if self._has_heads else None
        return material.labels if material and material.classes else None

    def _head(self, side: str, seed: int) -> Head | None:
        """Return what makes class scores of a model's image embeddings, where it was trained with such a head."""
        if not self._has_heads:
            return None
        return Supervised.load(self.folder.model_dir(side, seed)).requires_grad_(requires_grad=False).logits

    def _evaluate(self) -> list[Path]:
        self.reporter.begin("evaluate", 1, "model set")
        models = self._models()
        return [
            *utility.evaluate(self.folder, self.recipe, models),
            *dejavu.evaluate(self.folder, self.recipe, [(task.side, task.seed) for task in models]),
        ]


def write_summary_and_report(folder: RunFolder, source: Source) -> list[Path]:
    """Write `summary.json` and the report page from the finished tables of a run folder."""
    started = time.monotonic()
    recipe, splits = folder.recipe(), folder.read("splits")
    tables = ScoreTables(folder.read("scores"), folder.read("seed_scores"))
    # the page cannot show how long it will have taken itself
    seconds = {stage: took for stage, took in seconds_of(folder).items() if stage != "report"}
    candidates = tables.scores.filter(pl.col("role") == "candidate")["clipmem"].drop_nulls()
    document = {
        "format": 1,
        "protocol": recipe.protocol,
        "alignment": recipe.score.alignment,
        "weight": recipe.score.weight,
        "confidence": recipe.score.confidence,
        **protocol_of(recipe).summarize(splits, tables, seed=recipe.split.seed),
        "normaliser": float(candidates.to_numpy().max() - candidates.to_numpy().min()),
        "retrieval": folder.read_json("evaluate/retrieval.json"),
        **utility.summary_of(folder),
        **dejavu.summary_of(folder),
        **decoding.records_of(folder),
        "seconds": seconds,
    }
    folder.write_json("summary.json", document)
    page = write_report(folder.path, gallery_images(folder, source), credits=source.credits())
    document["seconds"] = {**seconds, "report": round(time.monotonic() - started, 3)}
    return [folder.write_json("summary.json", document), page]
