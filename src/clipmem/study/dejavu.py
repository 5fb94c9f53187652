"""Déjà Vu in a study: its part of the stage `evaluate`."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from clipmem.base.random import derive_seed
from clipmem.base.recipes import Recipe
from clipmem.base.tables import write_table
from clipmem.measure import dejavu
from clipmem.models import passes
from clipmem.study.plan import PlannedStudy
from clipmem.train.objectives import OBJECTIVES

DOCUMENT, TABLE = "evaluate/dejavu.json", "evaluate/dejavu"


def evaluate(study: PlannedStudy) -> list[Path]:
    """Measure Déjà Vu memorization of a scored study; return the files written, none if no pair has objects."""
    column = study.pairs["objects"].to_list()
    objects = [list(column[row] or []) for row in study.rows]
    if not any(objects):
        return []
    settings, folder = study.recipe.dejavu, study.folder
    head = {"format": 1, **settings.model_dump(include={"neighbors", "top", "ranking"})}
    models = [(model.side, model.seed) for model in study.models]
    reason = why_not(study.recipe, models, study.role, objects)
    if reason:
        return [folder.write_json(DOCUMENT, {**head, "skipped": reason})]
    seeds = couples(models)
    measured = measure_run(study, seeds, objects)
    write_table(folder.table_path(TABLE), TABLE, measured.pairs)
    document: dict[str, Any] = {**head, "seeds": seeds, **measured.document}
    return [folder.write_json(DOCUMENT, document), folder.table_path(TABLE)]


def measure_run(study: PlannedStudy, seeds: Sequence[tuple[int, int]], objects: list[list[str]]) -> dejavu.Measured:
    """Measure a scored study with the objects of its rows."""
    recipe, folder = study.recipe, study.folder
    scores = dict(study.scores.select("uid", "clipmem").iter_rows())
    clipmem = np.array([scores.get(uid) for uid in study.pair_uids], dtype=np.float64)  # None becomes NaN
    planted = study.splits["planted"].to_numpy()
    return dejavu.measure(
        [
            (partial(passes.load, folder.embedding_dir("f", f)), partial(passes.load, folder.embedding_dir("g", g)))
            for f, g in seeds
        ],
        dejavu.Labeled(study.pair_uids, study.role, study.group, objects, planted, clipmem),
        recipe.dejavu,
        dejavu.Statistics(recipe.score.confidence, recipe.score.draws, derive_seed(recipe.split.seed, "dejavu")),
    )


def why_not(recipe: Recipe, tasks: list[tuple[str, int]], role: np.ndarray, objects: list[list[str]]) -> str:
    """Return why Déjà Vu cannot be measured; "" if it can."""
    public = int((role == "external").sum())
    if {side for side, _ in tasks} != {"f", "g"}:
        return (
            f"not defined for protocol {recipe.protocol!r}: it compares an f that saw all candidates with a g that saw "
            "none"
        )
    if not OBJECTIVES[recipe.train.objective].uses_text:
        return f"objective {recipe.train.objective!r} trains no text tower, which embeds the queries"
    if recipe.dejavu.neighbors > public:
        return (
            f"dejavu.neighbors = {recipe.dejavu.neighbors} is more than the {public} public images (external "
            f"pairs); set it to {public} or less"
        )
    for name in ("candidate", "external"):
        if not any(own for own, is_role in zip(objects, role == name, strict=True) if is_role):
            return f"no {name} pair has an object"
    return ""


def couples(tasks: list[tuple[str, int]]) -> list[tuple[int, int]]:
    """Pair the seeds of f and g: equal seeds, or else in order."""
    f, g = (sorted(seed for side, seed in tasks if side == name) for name in ("f", "g"))
    common = [(seed, seed) for seed in f if seed in g]
    return common or list(zip(f, g, strict=False))
