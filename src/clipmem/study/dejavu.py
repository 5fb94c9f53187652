"""Déjà Vu in a study: what must be right before it begins, and its part of the stage `evaluate`.

It needs one f and one g of each seed, and pairs with objects. Where it is not defined, `evaluate/dejavu.json` says why;
where no pair has an object there is no such file.
"""

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
from clipmem.evaluate.text_only import (
    TFIDF,
    TextNeighbors,
    read_vectors,
    tfidf_neighbors,
    vector_neighbors,
)
from clipmem.store.folder import RunFolder
from clipmem.store.hashing import file_sha256
from clipmem.store.tables import write_table
from clipmem.study import materials

DOCUMENT, TABLE = "evaluate/dejavu.json", "evaluate/dejavu"


def prepare(pairs: pl.DataFrame, recipe: Recipe) -> pl.DataFrame:
    """Check the files that `[dejavu]` names, before models are trained, and return the pairs with their objects.

    Raises:
        InputError: A file cannot be used (see `with_objects` and `read_vectors`).
    """
    if recipe.dejavu.text_embeddings:
        read_vectors(recipe.dejavu.text_embeddings, pairs["uid"].to_list())
    return with_objects(pairs, recipe.dejavu.objects)


def evaluate(folder: RunFolder, recipe: Recipe, tasks: list[tuple[str, int]]) -> list[Path]:
    """Measure Déjà Vu memorization of a scored study.

    Args:
        folder: The run folder, up to its scores.
        recipe: Its recipe.
        tasks: Side and seed of every model.

    Returns:
        The files written: none where no pair has an object.
    """
    splits = folder.read("splits")
    own = _objects(folder, splits)
    if not any(own):
        return []
    settings, role = recipe.dejavu, splits["role"].to_numpy()
    head: dict[str, Any] = {
        "format": 1,
        "neighbours": settings.neighbours,
        "top": settings.top,
        "ranking": settings.ranking,
    }
    reason = why_not(recipe, tasks, role, own)
    if reason:
        return [folder.write_json(DOCUMENT, {**head, "skipped": reason})]
    seeds = couples(tasks)
    found = measure_run(folder, recipe, seeds)
    document: dict[str, Any] = {**head, "seeds": seeds, **found.document}
    write_table(folder.table_path(TABLE), TABLE, found.pairs)
    return [folder.write_json(DOCUMENT, document), folder.table_path(TABLE)]


def measure_run(folder: RunFolder, recipe: Recipe, seeds: list[tuple[int, int]]) -> dejavu.Measured:
    """Measure a scored study, and write nothing.

    Args:
        folder: The run folder, up to its scores.
        recipe: Its recipe; another `[dejavu]` section measures the same models in another way.
        seeds: Seed of f and seed of g of every comparison.
    """
    splits = folder.read("splits")
    labelled = dejavu.Labelled(
        splits["uid"].to_list(),
        splits["role"].to_numpy(),
        np.unique(splits["group"].to_numpy(), return_inverse=True)[1],
        _objects(folder, splits),
        splits["planted"].to_numpy(),
        _clipmem(folder, splits),
    )
    neighbours, about = _text_neighbours(folder, recipe)
    found = dejavu.measure(
        [
            (partial(passes.load, folder.embedding_dir("f", f)), partial(passes.load, folder.embedding_dir("g", g)))
            for f, g in seeds
        ],
        labelled,
        neighbours,
        recipe.dejavu,
        dejavu.Statistics(recipe.score.confidence, recipe.score.draws, derive_seed(recipe.split.seed, "dejavu")),
    )
    found.document["one_model"]["reference"] = about
    return found


def _objects(folder: RunFolder, splits: pl.DataFrame) -> list[list[str]]:
    """Return the objects of each split row's own picture, whatever captions it was given."""
    objects = dict(folder.read("pairs").select("uid", "objects").iter_rows())
    return [list(objects[uid] or []) for uid in splits["uid"]]


def summary_of(folder: RunFolder) -> dict[str, Any]:
    """Return the entry `dejavu` of `summary.json`; nothing where it was not measured."""
    return {"dejavu": folder.read_json(DOCUMENT)} if (folder.path / DOCUMENT).is_file() else {}


def why_not(recipe: Recipe, tasks: list[tuple[str, int]], role: np.ndarray, objects: list[list[str]]) -> str:
    """Say why a study has no Déjà Vu; an empty text where it has."""
    public = int((role == "external").sum())
    if {side for side, _ in tasks} != {"f", "g"}:
        return (
            f"not defined for protocol {recipe.protocol!r}: it compares one f, which saw all candidates, with one g, "
            "which saw none"
        )
    if recipe.train.objective in {"supervised", "simclr"}:
        return f"objective {recipe.train.objective!r} trains no text tower, and captions are the queries"
    if recipe.dejavu.neighbours > public:
        return (
            f"dejavu.neighbours = {recipe.dejavu.neighbours} is more than the {public} public pictures (external "
            f"pairs); set it to {public} or less"
        )
    for name in ("candidate", "external"):
        if not any(own for own, is_role in zip(objects, role == name, strict=True) if is_role):
            return f"no {name} pair has an object"
    return ""


def couples(tasks: list[tuple[str, int]]) -> list[tuple[int, int]]:
    """Pair the seeds of f with those of g: equal ones where there are any, else in their order.

    Example:
        >>> couples([("f", 0), ("g", 0), ("f", 1), ("g", 1)]), couples([("f", 3), ("g", 7)])
        ([(0, 0), (1, 1)], [(3, 7)])
    """
    f, g = (sorted(seed for side, seed in tasks if side == name) for name in ("f", "g"))
    common = [(seed, seed) for seed in f if seed in g]
    return common or list(zip(f, g, strict=False))


def _clipmem(folder: RunFolder, splits: pl.DataFrame) -> np.ndarray:
    scores = dict(folder.read("scores").select("uid", "clipmem").iter_rows())
    return np.array([np.nan if scores.get(uid) is None else scores[uid] for uid in splits["uid"]], dtype=np.float64)


def _text_neighbours(folder: RunFolder, recipe: Recipe) -> tuple[TextNeighbors, dict[str, Any]]:
    """Find each measured pair's nearest public captions, and say by what."""
    splits, settings = folder.read("splits"), recipe.dejavu
    public = (splits["role"] == "external").to_numpy()
    if settings.text_embeddings:
        pairs = folder.read("pairs")
        row = {uid: place for place, uid in enumerate(pairs["uid"])}
        vectors = read_vectors(settings.text_embeddings, pairs["uid"].to_list())
        vectors = vectors[[row[uid] for uid in splits["captions_from"]]]
        file = Path(settings.text_embeddings)
        about = {"name": "text embeddings", "file": file.name, "sha256": file_sha256(file)}
        return vector_neighbors(vectors[~public], vectors[public], settings.neighbours), about
    captions = materials.load(folder, recipe).captions
    asked = [own for own, is_public in zip(captions, public, strict=True) if not is_public]
    there = [own for own, is_public in zip(captions, public, strict=True) if is_public]
    return tfidf_neighbors(asked, there, settings.neighbours), {"name": TFIDF}
