"""The planned study: a run with everything that its stages need, read once."""

from collections.abc import Callable, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import polars as pl

from clipmem.base.errors import require
from clipmem.base.folder import RunFolder
from clipmem.base.recipes import Recipe
from clipmem.data.cache import open_cache
from clipmem.data.decoding import Geometry
from clipmem.data.pairs import Pairs
from clipmem.data.user_tables import read_wrong
from clipmem.mitigate.base import captions_in_training
from clipmem.mitigate.base import check as check_mitigations
from clipmem.models import passes
from clipmem.models.embeddings import Embeddings, Model, SinglePart
from clipmem.models.passes import Head, Means, unit_means
from clipmem.models.protocol import DualEncoder
from clipmem.models.signals import Trajectory
from clipmem.models.start import Start
from clipmem.report.run import Run
from clipmem.scoring.aligning import Reader, align
from clipmem.scoring.alignments import alignment_of
from clipmem.scoring.design import Design
from clipmem.scoring.protocols import Protocol, protocol_of
from clipmem.stats.alignment import AlignmentParts
from clipmem.study import execution
from clipmem.study.models import BASE, StudyModels, TrainedModels, open_models
from clipmem.train.batches import TrainingData
from clipmem.train.objectives import OBJECTIVES, class_head
from clipmem.train.paired import TrainingSet
from clipmem.train.recorder import TRAJECTORY_FILE, read_trajectory

# images in the study's first geometry, usually the only one
CACHE = "cache/pixels.npy"


class PlannedStudy(Run):
    """A run folder whose stage `plan` is finished, with what needs torch: design, models, embeddings, alignment."""

    # ---- the plan

    @cached_property
    def protocol(self) -> Protocol:
        """The protocol."""
        return protocol_of(self.recipe)

    @cached_property
    def design(self) -> Design:
        """The models, and the pairs each is used for."""
        return self.protocol.design(self.splits)

    @property
    def models(self) -> Sequence[TrainingSet]:
        """The training sets of the models, in training order."""
        return self.design.models

    @property
    def trained(self) -> list[TrainingSet]:
        """The models that the study trains."""
        return [model for model in self.models if not model.exists]

    @property
    def base(self) -> TrainingSet | None:
        """The pretrained model that f and g start from, which is not part of the design; None from scratch."""
        return TrainingSet(BASE, 0, (), 0) if self.recipe.model.pretrained else None

    @property
    def embedded(self) -> list[TrainingSet]:
        """The models that embed the pairs: those of the design, then the base model."""
        return [*self.models, *([self.base] if self.base else [])]

    def side(self, model: TrainingSet) -> str:
        """Return whether a model is `f` or `g` (see `Design.sides`) or `base`."""
        return BASE if model == self.base else self.design.sides[self.models.index(model)]

    def model(self, side: str, seed: int) -> TrainingSet:
        """Return the training set of one model."""
        return next(model for model in self.embedded if (model.side, model.seed) == (side, seed))

    @cached_property
    def execution(self) -> execution.Execution:
        """Device, precision and threads."""
        return execution.from_manifest(self.manifest)

    # ---- the pairs, one entry a row of the split table

    @property
    def pair_uids(self) -> list[str]:
        """The uid of each split row."""
        return self.splits["uid"].to_list()

    @cached_property
    def role(self) -> np.ndarray:
        """The role of each split row."""
        return self.splits["role"].to_numpy()

    @cached_property
    def group(self) -> np.ndarray:
        """The group number (of near-duplicates) of each split row."""
        return np.unique(self.splits["group"].to_numpy(), return_inverse=True)[1].astype(np.int64)

    @cached_property
    def _row(self) -> dict[str, int]:
        return {uid: index for index, uid in enumerate(self.pairs["uid"])}

    @cached_property
    def rows(self) -> np.ndarray:
        """The row of each split row in the pixel cache and in `pairs`."""
        return np.array([self._row[uid] for uid in self.splits["uid"]])

    def all_captions(self, most: int | None = None) -> list[list[str]]:
        """Return the first `most` captions of each split row; swapped pairs have those of `captions_from`."""
        captions = self.pairs["captions"].to_list()
        return [captions[self._row[uid]][:most] for uid in self.splits["captions_from"]]

    @cached_property
    def captions(self) -> list[list[str]]:
        """The captions of each split row that are scored: the first `train.captions`."""
        return self.all_captions(self.recipe.train.captions)

    @cached_property
    def wordings(self) -> list[list[str]] | None:
        """The captions of each split row after those, up to `evaluate.wordings`; None if there are none to score."""
        first, last = self.recipe.train.captions, self.recipe.evaluate.wordings
        return [texts[first:] for texts in self.all_captions(last)] if last > first else None

    @cached_property
    def _classes(self) -> list[str]:
        names = set(self.pairs["label"])
        # none unless all pairs have a label
        return [] if "" in names else sorted(names)

    @cached_property
    def labels(self) -> np.ndarray | None:
        """The class number of each split row; None unless all pairs have a label."""
        number = {name: k for k, name in enumerate(self._classes)}
        label = self.pairs["label"].to_list()
        return np.array([number[label[row]] for row in self.rows], dtype=np.int64) if number else None

    def pixels(self, geometry: Geometry | None = None) -> np.ndarray:
        """Open the pixel cache of a geometry, by default the first; rows follow `pairs`."""
        return open_cache(cache_file(self.folder, geometry, first=self.opened.geometries[0]))

    # ---- models

    @cached_property
    def opened(self) -> StudyModels:
        """The models; given ones were checked against the manifest when the study started."""
        return open_models(self.recipe, self.folder, verify=False)

    @property
    def start(self) -> Start:
        """What training starts from."""
        return cast(TrainedModels, self.opened).start

    def start_of(self, model: TrainingSet) -> Start:
        """What the training of a model starts from."""
        if not model.model:
            return self.start
        return Start(self.recipe.model.model_copy(update={"name": model.model}), self.recipe.train)

    def load(self, model: TrainingSet) -> DualEncoder:
        """Load a model."""
        return self.opened.load(model.side, model.seed)

    def head(self, model: TrainingSet) -> Head | None:
        """Return a model's class head, if it has one."""
        return class_head(self.folder.model_dir(model.side, model.seed))

    def embeddings(self, model: TrainingSet) -> passes.Embeddings:
        """Read a model's embeddings; rows follow the split table."""
        return passes.load(self.folder.embedding_dir(model.side, model.seed))

    def means(self, model: TrainingSet, rows: np.ndarray) -> Means:
        """Read a model's mean unit embeddings of some split rows."""
        arrays = passes.load(self.folder.embedding_dir(model.side, model.seed), np.flatnonzero(rows))
        return unit_means(arrays.image, arrays.text, arrays.text_pair)

    def trajectory(self, model: TrainingSet, rows: np.ndarray) -> Trajectory | None:
        """Read what a model's training recorded of some split rows; None if nothing was recorded."""
        file = self.folder.model_dir(model.side, model.seed) / TRAJECTORY_FILE
        if model.exists:
            file = Path(self.recipe.halves.trajectory)
        uids = [uid for uid, inside in zip(self.pair_uids, rows, strict=True) if inside]
        return read_trajectory(file, uids) if file.is_file() else None

    def aligned(self, models: Sequence[TrainingSet], *, wordings: bool = False) -> list[AlignmentParts]:
        """Align all pairs under each model against the external pairs, on their captions or on all captions."""
        uids, labels = self.splits.select("uid"), self.labels
        pairs = Pairs("study", uids if labels is None else uids.with_columns(pl.Series("class", labels)))
        bank = pairs.select(self.splits.filter(role="external")["uid"].to_list(), "external pairs")
        method, aligned = alignment_of(self.recipe), list[AlignmentParts]()
        for model in models:
            reader = Reader([self.stored(model, wordings=wordings)], [self.head(model)])
            aligned += align(reader, pairs, bank, method).parts
        return aligned

    def stored(self, model: TrainingSet, *, wordings: bool = False) -> Embeddings:
        """Open a model's embeddings, by pair and in chunks; means are over the captions, or over all captions."""
        folder = self.folder.embedding_dir(model.side, model.seed)

        def select(rows: np.ndarray) -> passes.Embeddings:
            single = passes.load(folder, rows)
            return single.all_wordings() if wordings else single

        return Embeddings(str(folder), [SinglePart(self.splits["uid"], select, exact=True)])

    def training_data(self, model: TrainingSet) -> TrainingData:
        """Return the images, captions and labels that a model trains on, in the order of its slots."""
        row_of = {uid: index for index, uid in enumerate(self.splits["uid"])}
        rows = np.array([row_of[uid] for uid in model.uids])
        trained = self.all_captions(captions_in_training(self.recipe))
        captions, labels = [trained[index] for index in rows], None if self.labels is None else self.labels[rows]
        return TrainingData(self.pixels(), self.rows[rows], captions, labels=labels, classes=len(self._classes))

    def embed(self, model: TrainingSet, *, part: passes.Part = passes.WHOLE, progress: Any) -> passes.Embeddings:
        """Embed all pairs, or a part, with one model; `progress` is called with the number of pairs done."""
        opened, uids = self.embedder(model), self.splits["uid"].to_list()
        inputs = passes.Inputs(self.pixels(opened.geometry), self.rows, self.captions, uids, self.wordings, part)
        return opened.embed(inputs, progress=progress)

    def embedder(self, model: TrainingSet) -> Model:
        """Return a model with the study's settings of embeddings."""
        load, recipe, device = partial(self.load, model), self.recipe, self.execution.device
        return Model(self.side(model), load, recipe.embed, recipe.train, device, self.precision)

    def text_tower(self, side: str, seed: int) -> Callable[[Sequence[str]], np.ndarray]:
        """Load a model; return what embeds texts with it, on the CPU in float32: one row each, not normalized.

        Raises:
            InputError: Its weights are not there or not those of the study, or its text tower was not trained.
        """
        self.check_text(f"model {side}", "Train with train.objective = 'clip'.")
        self.opened.check()
        model = Model(side, partial(self.opened.load, side, seed), self.recipe.embed)
        return lambda texts: model.embed_texts(texts).numpy()

    def check_text(self, subject: str, hint: str = "Use train.objective = 'clip'.") -> None:
        """Check that no text tower of the study is untrained."""
        objective = self.recipe.train.objective
        usable = not self.protocol.trains or OBJECTIVES[objective].uses_text
        require(usable, subject, f"objective {objective!r}", "one that trains both towers", hint)

    @property
    def precision(self) -> str:
        """The precision of embeddings."""
        trained = self.execution.precision if self.protocol.trains else "fp32"
        return trained if self.recipe.embed.precision == "train" else self.recipe.embed.precision


def cache_file(folder: RunFolder, geometry: Geometry | None, *, first: Geometry) -> Path:
    """Return the pixel cache of a geometry; `first` is the study's first geometry."""
    return folder.path / (CACHE if geometry is None or geometry == first else f"cache/pixels-{geometry.name}.npy")


def check_needs(recipe: Recipe, protocol: Protocol, pairs: pl.DataFrame) -> None:
    """Check that the pairs have what the recipe's objective, alignment and mitigations need."""
    if protocol.trains and OBJECTIVES[recipe.train.objective].needs_labels:
        _check_labels(recipe, pairs["label"])
    if recipe.split.wrong:  # while pairs whose images do not decode are there
        read_wrong(recipe.split.wrong, frozenset(pairs["uid"]))
    count, wordings = recipe.train.captions, recipe.evaluate.wordings
    most = max(map(len, pairs["captions"]), default=0)
    got, expected = f"{wordings}, with at most {most} captions per pair", f"more than train.captions = {count} captions"
    require(most > count or wordings <= count, "[evaluate] wordings", got, expected, "Set evaluate.wordings to 1.")
    used = [texts[:count] for texts in pairs["captions"].to_list()]
    # roles are not assigned yet: unused pairs may lack views
    spare = pairs.height - protocol.used_pairs(pairs)
    alignment_of(recipe).check(recipe.embed, used, pairs["uid"].to_list(), spare=spare)
    check_mitigations(recipe, pairs)


def _check_labels(recipe: Recipe, labels: pl.Series) -> None:
    subject, n = f"[train] objective = {recipe.train.objective!r}", len(labels)
    unlabeled, hint = int((labels == "").sum()), "Choose another data.label_column or train.objective."
    got = f"{unlabeled:,} of {n:,} pairs without a label (data.label_column = {recipe.data.label_column!r})"
    require(not unlabeled, subject, got, "a label for every pair", hint)
    got = f"the label {labels[0]!r} for all {n:,} pairs"
    require(labels.n_unique() > 1, subject, got, "two or more labels", hint)
