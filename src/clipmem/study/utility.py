"""Utility in a study: its part of the stage `evaluate`, on the external pairs, which no model trained on.

A probe is trained on the shared pairs, which every model of a four-way study trained on; where there are none it is
trained on all pairs that are not external, and the document says so. Pairs without a label take no part in
classification; where none has one, retrieval alone is measured, and the document says why.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from clipmem.base.recipes import Recipe
from clipmem.data.sources import class_prompts
from clipmem.embed import passes
from clipmem.evaluate.over_seeds import Statistics
from clipmem.evaluate.prompts import TEMPLATES, Prompts, make_prompts, read_classnames
from clipmem.evaluate.utility import TestPairs, Utility, class_numbers, why_not
from clipmem.store import manifest
from clipmem.store.folder import RunFolder
from clipmem.study import execution
from clipmem.study.models import open_models
from clipmem.study.workers import Task
from clipmem.train.numerics import threads
from clipmem.train.objectives import OBJECTIVES

DOCUMENT, RETRIEVAL = "evaluate/utility.json", "evaluate/retrieval.json"
# models of a kind that stand for all of them, where they are not twins: the mean of more says no more
_EVALUATED = 8


def prepare(pairs: pl.DataFrame, recipe: Recipe) -> None:
    """Check the names of classes that `[evaluate]` gives, before models are trained.

    Raises:
        InputError: The file cannot be used, or a label has no name in it.
    """
    prompts_of(pairs, recipe)


def prompts_of(pairs: pl.DataFrame, recipe: Recipe) -> Prompts | None:
    """Return the classes of a study's pairs with their prompts; None where pairs have no labels, or are to have none.

    Raises:
        InputError: The file of class names cannot be used, or a label has no name in it.
    """
    settings = recipe.evaluate
    if settings.labels == "none":
        return None
    names, templates = class_prompts(recipe.data, settings.labels) or (None, TEMPLATES)
    if settings.classnames:
        names = read_classnames(Path(settings.classnames))
    labels: list[str] = pairs[settings.labels].fill_null("").to_list()
    if not any(labels):
        return None
    return make_prompts(labels, names, settings.templates or templates)


def evaluate(folder: RunFolder, recipe: Recipe, tasks: Sequence[Task]) -> list[Path]:
    """Measure retrieval, zero-shot classification and the linear probe of a scored study, and write them.

    Args:
        folder: The run folder, up to its embeddings.
        recipe: Its recipe.
        tasks: Side and seed of every model.

    Returns:
        The files written.
    """
    document, retrieval = measure(folder, recipe, tasks)
    return [folder.write_json(RETRIEVAL, retrieval), folder.write_json(DOCUMENT, document)]


def measure(folder: RunFolder, recipe: Recipe, tasks: Sequence[Task]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Measure the models of a study on its external pairs, and write nothing.

    Args:
        folder: The run folder, up to its embeddings.
        recipe: Its recipe; another `[evaluate]` section measures the same models in another way.
        tasks: Side and seed of every model.

    Returns:
        What `evaluate/utility.json` and `evaluate/retrieval.json` hold. Retrieval is there also where it means
        nothing, because no text tower was trained.
    """
    known = manifest.read(folder)
    how, models = execution.from_manifest(known), open_models(recipe, folder, known, verify=False)
    test, splits = _pairs(folder, recipe), folder.read("splits")
    utility = Utility(test, recipe.evaluate, Statistics(recipe.score.confidence, recipe.score.draws, recipe.split.seed))
    with threads(how.threads * how.workers):
        for task in chosen(tasks):
            prompts = None
            if test.prompts and "zero_shot" not in test.why:
                prompts = passes.embed_texts(
                    models.load(task.side, task.seed),
                    test.prompts.texts,
                    batch_size=recipe.embed.batch_size,
                    device=how.device,
                )
            embeddings = passes.load(folder.embedding_dir(task.side, task.seed))
            shown = presentations(folder, task)
            utility.add(kind_of(task), task.seed, embeddings, prompts, presentations=shown)
        retrieval = utility.retrieval()
        document = {
            **utility.document(None if "retrieval" in test.why else retrieval),
            "pairs": "external pairs of the study, which no model trained on",
            "labels": recipe.evaluate.labels,
            "probe_pairs": "shared pairs" if (splits["role"] == "shared").any() else "all pairs that are not external",
        }
    return document, retrieval


def chosen(tasks: Sequence[Task]) -> list[Task]:
    """Return the models that stand for a study: all f and g, at most eight of those that are no twins.

    Example:
        >>> [task.seed for task in chosen([Task("r", k) for k in range(20)])]
        [0, 1, 2, 3, 4, 5, 6, 7]
    """
    counts: dict[str, int] = {}
    found: list[Task] = []
    for task in tasks:
        kind = kind_of(task)
        counts[kind] = counts.get(kind, 0) + 1
        if kind == task.side or counts[kind] <= _EVALUATED:
            found.append(task)
    return found


def presentations(folder: RunFolder, task: Task) -> int | None:
    """Return how many pairs a model was shown in training; None for given models, of which nobody knows."""
    record = folder.model_dir(task.side, task.seed) / "record.json"
    if not record.is_file():
        return None
    return int(folder.read_json(str(record.relative_to(folder.path)))["presentations"])


def kind_of(task: Task) -> str:
    """Say which side a model stands for: `f`, which saw the candidates, or `g`.

    Example:
        >>> kind_of(Task("g", 0)), kind_of(Task("r", 3)), kind_of(Task("without-ab12", 0))
        ('g', 'f', 'g')
    """
    return "g" if task.side.startswith("without-") else "f" if task.side == "r" else task.side


def _pairs(folder: RunFolder, recipe: Recipe) -> TestPairs:
    """Return the test pairs of a study, with the reason for every task that is not measured."""
    splits, pairs = folder.read("splits"), folder.read("pairs")
    prompts = prompts_of(pairs, recipe)
    label = dict(zip(pairs["uid"], pairs[_column(recipe)].fill_null(""), strict=True)) if prompts else {}
    labels = class_numbers([label.get(uid, "") for uid in splits["uid"]], prompts.classes if prompts else [])
    groups = np.unique(splits["group"].to_numpy(), return_inverse=True)[1].astype(np.int64)
    role = splits["role"].to_numpy()
    test, shared = role == "external", role == "shared"
    train = shared if shared.any() else ~test
    why = why_not(
        labels,
        groups,
        test,
        train,
        len(prompts.classes) if prompts else 0,
        unlabelled=(
            "[evaluate] labels = 'none'" if recipe.evaluate.labels == "none" else "no external pair has a label"
        ),
        text=untrained_text(recipe),
    )
    return TestPairs(labels, groups, test, train, prompts, why)


def untrained_text(recipe: Recipe) -> str:
    """Say why the text tower of a study's models is of no use; "" where it was trained."""
    objective = recipe.train.objective
    if recipe.protocol == "given" or OBJECTIVES[objective].uses_text:
        return ""
    return f"objective {objective!r} trains no text tower"


def _column(recipe: Recipe) -> str:
    return "label" if recipe.evaluate.labels == "none" else recipe.evaluate.labels


def summary_of(folder: RunFolder) -> dict[str, Any]:
    """Return the entry `utility` of `summary.json`: all but the values by seed; nothing where it was not measured."""
    if not (folder.path / DOCUMENT).is_file():
        return {}
    document = folder.read_json(DOCUMENT)
    metrics = {
        side: {name: {key: value[key] for key in ("mean", "low", "high")} for name, value in own.items()}
        for side, own in document["metrics"].items()
    }
    kept = ("seeds", "presentations", "n", "chance", "skipped", "labels", "probe_pairs")
    commonest = (document["probe"] or {}).get("commonest_class_acc1")
    return {
        "utility": {
            **{key: document[key] for key in kept},
            "templates": document["templates"],
            "commonest_class_acc1": commonest,
            "metrics": metrics,
        }
    }
