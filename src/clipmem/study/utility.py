"""Utility and Déjà Vu memorization in a study: their parts of the stage `evaluate`."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from jaxtyping import Bool, Int

from clipmem.base.folder import RunFolder
from clipmem.base.progress import Reporter
from clipmem.base.random import derive_seed
from clipmem.base.recipes import Recipe
from clipmem.data.sources import class_prompts
from clipmem.measure import dejavu
from clipmem.measure.linear_probe import validation_part
from clipmem.measure.over_seeds import Statistics
from clipmem.measure.retrieval import concepts_of, identity_of
from clipmem.measure.utility import PROBES, ZERO_SHOT, Classes, TestPairs, Utility, class_numbers, why_not
from clipmem.measure.zero_shot import TEMPLATES, Prompts, make_prompts, read_classnames
from clipmem.models.numerics import threads
from clipmem.scoring.protocols import protocol_of
from clipmem.study.plan import PlannedStudy
from clipmem.train.objectives import OBJECTIVES
from clipmem.train.paired import TrainingSet

DOCUMENT, RETRIEVAL = "evaluate/utility.json", "evaluate/retrieval.json"
DEJAVU = "evaluate/dejavu"
_EVALUATED = 8  # maximum number of models per side, unless each is f or g of every pair


def prompts_of(pairs: pl.DataFrame, recipe: Recipe) -> Prompts | None:
    """Return the classes of a study's pairs with their prompts; None without labels."""
    settings = recipe.evaluate
    if settings.labels == "none":
        return None
    names, templates = _shipped(recipe)
    if settings.classnames:
        names = read_classnames(Path(settings.classnames))
    labels: list[str] = pairs[settings.labels].fill_null("").to_list()
    if not any(labels):
        return None
    return make_prompts(labels, names, settings.templates or templates)


def _shipped(recipe: Recipe) -> tuple[Mapping[str, Sequence[str]] | None, Sequence[str]]:
    """Return the names of classes and the templates that a source has, or the default templates."""
    return class_prompts(recipe.data, label_column(recipe)) or (None, TEMPLATES)


def measure(study: PlannedStudy, reporter: Reporter) -> tuple[dict[str, Any], dict[str, Any]]:
    """Measure the models of a study on its external pairs, without writing files."""
    recipe, resources = study.recipe, study.execution
    external, held = study.role == "external", _held_out(study)
    statistics = Statistics(recipe.score.confidence, recipe.score.draws, recipe.split.seed)
    test = _pairs(study, external & ~held)
    utility = Utility(test, recipe.evaluate, statistics)
    why = dict.fromkeys((*ZERO_SHOT, *PROBES), "validation pairs choose by retrieval")
    held_pairs = replace(_pairs(study, held), why=why) if held.any() else None
    validation = Utility(held_pairs, recipe.evaluate, statistics) if held_pairs else None
    with threads(resources.threads * resources.workers):
        models = evaluated(study)
        reporter.begin("evaluate", len(models), "models")
        for model in models:
            prompts = study.embedder(model).embed_texts(test.texts) if test.texts else None
            exposures, side, embeddings = samples_seen(study.folder, model), study.side(model), study.embeddings(model)
            utility.add(side, model.seed, embeddings, prompts, samples_seen=exposures)
            if validation:
                validation.add(side, model.seed, embeddings, None)
            reporter.advance(1)
        reporter.begin("evaluate")
        retrieval = utility.retrieval()
        document = {
            **utility.document(None if "retrieval" in test.why else retrieval),
            "pairs": "external pairs of the study, which no model trained on",
            "labels": recipe.evaluate.labels,
            "probe_pairs": "shared pairs" if (study.role == "shared").any() else "all pairs that are not external",
        }
        if validation and "retrieval" not in test.why:
            document["validation"] = validation.retrieval().metrics
    return document, retrieval.document()


def evaluated(study: PlannedStudy) -> list[TrainingSet]:
    """Return the models to evaluate: all that are f or g for every scored pair, or at most eight of a side."""
    signs = study.design.sign[:, study.design.scored]
    paired, counts, models = (signs == signs[:, :1]).all(axis=1).tolist(), Counter[str](), list[TrainingSet]()
    for model, side, is_paired in zip(study.models, study.design.sides, paired, strict=True):
        counts[side] += 1
        if is_paired or counts[side] <= _EVALUATED:
            models.append(model)
    return models


def samples_seen(folder: RunFolder, model: TrainingSet) -> int | None:
    """Return the number of samples seen in training; None for given models."""
    if not (folder.model_dir(model.side, model.seed) / "record.json").is_file():
        return None
    return int(folder.record(model.side, model.seed)["samples_seen"])


def _held_out(study: PlannedStudy) -> Bool[np.ndarray, " n"]:
    """Return the external pairs of `evaluate.validation`, drawn by groups."""
    held, external = np.zeros(len(study.role), dtype=np.bool_), study.role == "external"
    share = study.recipe.evaluate.validation
    if share:
        seed = derive_seed(study.recipe.split.seed, "held out")
        held[external] = validation_part(study.group[external], share, seed=seed)
    return held


def _pairs(study: PlannedStudy, test: Bool[np.ndarray, " n"]) -> TestPairs:
    recipe, shared, groups = study.recipe, study.role == "shared", study.group
    train = shared if shared.any() else study.role != "external"
    unlabeled = "[evaluate] labels = 'none'" if recipe.evaluate.labels == "none" else "no external pair has a label"
    classes = classes_of(study.pairs, recipe, prompts_of(study.pairs, recipe), study.rows, study.captions, test)
    wordings, rows = study.all_captions(max(recipe.train.captions, recipe.evaluate.wordings)), np.flatnonzero(test)
    images = study.splits["uid"].gather(rows).to_list()
    same, every = (identity_of(images, [texts[row] for row in rows]) for texts in (study.captions, wordings))
    why = why_not(classes, groups, test, train, unlabeled=unlabeled, text=untrained_text(recipe))
    return TestPairs(groups, test, train, classes, same, why, every)


def classes_of(
    data: pl.DataFrame,
    recipe: Recipe,
    prompts: Prompts | None,
    rows: Int[np.ndarray, " n"],
    captions: Sequence[Sequence[str]],
    test: Bool[np.ndarray, " n"],
) -> dict[str, Classes]:
    """Return labels, sublabels and concepts of some rows of the data, of which `test` are test pairs."""
    names = prompts.classes if prompts else []
    labels = data[label_column(recipe)].fill_null("").to_list() if prompts else [""] * data.height
    first = [texts[0] for texts in captions]
    concepts, spelled = concepts_of(first, test, data["captions"].list.first().to_list())
    asked = make_prompts(concepts, spelled, recipe.evaluate.templates or _shipped(recipe)[1]) if spelled else None
    kinds = asked.classes if asked else []
    classes = {
        "label": Classes(names, class_numbers([labels[row] for row in rows], names), prompts),
        "concept": Classes([spelled[key][0] for key in kinds], class_numbers(concepts, kinds), asked),
    }
    finer = sorted(set(data["sublabel"].fill_null("")) - {""}) if recipe.evaluate.labels == "label" else []
    if finer:
        sublabels = data["sublabel"].fill_null("").to_list()
        classes["sublabel"] = Classes(finer, class_numbers([sublabels[row] for row in rows], finer))
    return classes


def untrained_text(recipe: Recipe) -> str:
    """Return why the text tower of a study's models is untrained; "" if it was trained."""
    objective = recipe.train.objective
    if not protocol_of(recipe).trains or OBJECTIVES[objective].uses_text:
        return ""
    return f"objective {objective!r} trains no text tower"


def label_column(recipe: Recipe) -> str:
    """Return the column of labels."""
    return "label" if recipe.evaluate.labels == "none" else recipe.evaluate.labels


def measure_dejavu(study: PlannedStudy) -> tuple[dict[str, Any], pl.DataFrame | None]:
    """Measure Déjà Vu memorization, without writing files; return the document and the values of each pair, if any."""
    recipe, lists = study.recipe, study.pairs["objects"].to_list()
    objects = [list(lists[row] or []) for row in study.rows]
    if not any(objects):
        return {}, None
    scores = dict(study.scores.select("uid", "clipmem").iter_rows()) if study.protocol.compares else {}
    clipmem = np.array([scores.get(uid) for uid in study.pair_uids], dtype=np.float64)  # None becomes NaN
    planted = study.splits["planted"].to_numpy()
    labeled = dejavu.Labeled(study.pair_uids, study.role, study.group, objects, planted, clipmem)
    models = [(model.side, model.seed) for model in study.models]
    document = {"format": 1, "neighbors": recipe.dejavu.neighbors}
    reason = dejavu.why_not(recipe, models, labeled)
    if reason:
        return {**document, "skipped": reason}, None
    seeds = dejavu.couples(models)
    loaders = [[partial(study.embeddings, study.model(*key)) for key in (("f", f), ("g", g))] for f, g in seeds]
    statistics = Statistics(recipe.score.confidence, recipe.score.draws, derive_seed(recipe.split.seed, "dejavu"))
    measured, pairs = dejavu.measure(loaders, labeled, recipe.dejavu, statistics)
    return {**document, "seeds": seeds, **measured}, pairs


def without_seeds(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return what `summary.json` has of the document `evaluate/utility.json` or `retained.json`; {} if not measured."""
    if not document:
        return {}
    metrics = {
        side: {name: {key: value[key] for key in value if key != "by_seed"} for name, value in entries.items()}
        for side, entries in document["metrics"].items()
    }
    keys = ("seeds", "samples_seen", "n", "chance", "skipped", "labels", "pairs", "probe_pairs", "left_out", "words")
    return {
        **{key: document[key] for key in keys if key in document},
        "templates": document["templates"],
        "commonest_class_acc1": (document["probe"] or {}).get("commonest_class_acc1"),
        "metrics": metrics,
    }
