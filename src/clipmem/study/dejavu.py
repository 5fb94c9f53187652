"""Déjà Vu in a study: checks before it starts, and its part of the stage `evaluate`."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from clipmem.base.random import derive_seed
from clipmem.base.recipes import Recipe
from clipmem.data.objects import with_objects
from clipmem.embed import passes
from clipmem.evaluate import dejavu
from clipmem.evaluate.text_only import TFIDF, TextNeighbors, read_vectors, tfidf_neighbors, vector_neighbors
from clipmem.store.folder import RunFolder
from clipmem.store.hashing import file_sha256
from clipmem.store.tables import write_table
from clipmem.study.plan import PlannedStudy
from clipmem.train.objectives import OBJECTIVES

DOCUMENT, TABLE = "evaluate/dejavu.json", "evaluate/dejavu"


def prepare(pairs: pl.DataFrame, recipe: Recipe) -> pl.DataFrame:
    """Check the files of `[dejavu]` before models are trained; return the pairs with their objects."""
    if recipe.dejavu.text_embeddings:
        read_vectors(recipe.dejavu.text_embeddings, pairs["uid"].to_list())
    return with_objects(pairs, recipe.dejavu.objects)


def evaluate(study: PlannedStudy) -> list[Path]:
    """Measure Déjà Vu memorization of a scored study; return the files written, none if no pair has objects."""
    own = _objects(study)
    if not any(own):
        return []
    settings, folder = study.recipe.dejavu, study.folder
    head: dict[str, Any] = {
        "format": 1,
        "neighbors": settings.neighbors,
        "top": settings.top,
        "ranking": settings.ranking,
    }
    models = [(model.side, model.seed) for model in study.models]
    reason = why_not(study.recipe, models, study.role, own)
    if reason:
        return [folder.write_json(DOCUMENT, {**head, "skipped": reason})]
    seeds = couples(models)
    found = measure_run(study, seeds)
    document: dict[str, Any] = {**head, "seeds": seeds, **found.document}
    write_table(folder.table_path(TABLE), TABLE, found.pairs)
    return [folder.write_json(DOCUMENT, document), folder.table_path(TABLE)]


def measure_run(study: PlannedStudy, seeds: list[tuple[int, int]]) -> dejavu.Measured:
    """Measure a scored study, without writing files."""
    recipe, folder = study.recipe, study.folder
    labeled = dejavu.Labeled(
        study.uids, study.role, study.group, _objects(study), study.splits["planted"].to_numpy(), _clipmem(study)
    )
    neighbors, about = _text_neighbors(study)
    found = dejavu.measure(
        [
            (partial(passes.load, folder.embedding_dir("f", f)), partial(passes.load, folder.embedding_dir("g", g)))
            for f, g in seeds
        ],
        labeled,
        neighbors,
        recipe.dejavu,
        dejavu.Statistics(recipe.score.confidence, recipe.score.draws, derive_seed(recipe.split.seed, "dejavu")),
    )
    found.document["one_model"]["reference"] = about
    return found


def _objects(study: PlannedStudy) -> list[list[str]]:
    objects = study.pairs["objects"].to_list()
    return [list(objects[row] or []) for row in study.rows]


def summary_of(folder: RunFolder) -> dict[str, Any]:
    """Return the entry `dejavu` of `summary.json`; empty if not measured."""
    return {"dejavu": folder.read_json(DOCUMENT)} if (folder.path / DOCUMENT).is_file() else {}


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


def _clipmem(study: PlannedStudy) -> np.ndarray:
    scores = dict(study.folder.read("scores").select("uid", "clipmem").iter_rows())
    return np.array([np.nan if scores.get(uid) is None else scores[uid] for uid in study.uids], dtype=np.float64)


def _text_neighbors(study: PlannedStudy) -> tuple[TextNeighbors, dict[str, Any]]:
    settings, public = study.recipe.dejavu, study.role == "external"
    if settings.text_embeddings:
        row = {uid: place for place, uid in enumerate(study.pairs["uid"])}
        vectors = read_vectors(settings.text_embeddings, study.pairs["uid"].to_list())
        vectors = vectors[[row[uid] for uid in study.splits["captions_from"]]]
        file = Path(settings.text_embeddings)
        about = {"name": "text embeddings", "file": file.name, "sha256": file_sha256(file)}
        return vector_neighbors(vectors[~public], vectors[public], settings.neighbors), about
    queries = [own for own, is_public in zip(study.captions, public, strict=True) if not is_public]
    candidates = [own for own, is_public in zip(study.captions, public, strict=True) if is_public]
    return tfidf_neighbors(queries, candidates, settings.neighbors), {"name": TFIDF}
