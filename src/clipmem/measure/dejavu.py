"""Déjà Vu memorization of a study: f against g, the published two-model test.

The top gaps have a further control, `floor`: g against g of another seed on the candidates. Neither saw them, so any
gap above 0 is due to selecting the top.

When not to trust it: predictions are limited to objects of the held-out images; a few hundred are few (the paper has
millions).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
import torch
from jaxtyping import Bool, Float64, Int
from torch import Tensor

from clipmem.base.random import derive_seed
from clipmem.base.recipes import Recipe
from clipmem.base.sections import DejavuSection
from clipmem.measure.over_seeds import Statistics
from clipmem.models.passes import Embeddings
from clipmem.stats.dejavu import DejaVu, dejavu, dejavu_intervals, nearest, predict_objects
from clipmem.stats.ranking import auroc, spearman
from clipmem.stats.similarity import pair_means
from clipmem.train.objectives import OBJECTIVES

MEASURED = ("candidate", "independent", "shared")
NOT_MISMATCHED = "candidate, not mismatched"
Loader = Callable[[], Embeddings]


@dataclass(frozen=True)
class Labeled:
    """The pairs of a study with the objects in their images, in the order of the split table."""

    uids: Sequence[str]
    role: np.ndarray
    group: Int[np.ndarray, " n"]
    objects: Sequence[Sequence[str]]
    planted: Bool[np.ndarray, " n"]
    clipmem: Float64[np.ndarray, " n"]

    def where(self, name: str) -> Bool[np.ndarray, " n"]:
        """Mark the pairs of a role, or the candidates with their own captions (`NOT_MISMATCHED`)."""
        return (self.role == "candidate") & ~self.planted if name == NOT_MISMATCHED else self.role == name


def why_not(recipe: Recipe, models: Sequence[tuple[str, int]], labeled: Labeled) -> str:
    """Return why Déjà Vu cannot be measured under models of some sides and seeds; "" if it can."""
    if {side for side, _ in models} != {"f", "g"}:
        compared = "it compares an f that saw all candidates with a g that saw none"
        return f"not defined for protocol {recipe.protocol!r}: {compared}"
    if not OBJECTIVES[recipe.train.objective].uses_text:
        return f"objective {recipe.train.objective!r} trains no text tower, which embeds the queries"
    neighbors, public = recipe.dejavu.neighbors, int(labeled.where("external").sum())
    if neighbors > public:
        most = f"the {public} held-out images (external pairs)"
        return f"dejavu.neighbors = {neighbors} is more than {most}; set it to {public} or less"
    with_objects = np.array([len(objects) > 0 for objects in labeled.objects])
    without = [role for role in ("candidate", "external") if not with_objects[labeled.where(role)].any()]
    return f"no {without[0]} pair has an object" if without else ""


def couples(models: Sequence[tuple[str, int]]) -> list[tuple[int, int]]:
    """Pair the seeds of f and g: equal seeds, or else in order."""
    f, g = (sorted(seed for side, seed in models if side == name) for name in ("f", "g"))
    return [(seed, seed) for seed in f if seed in g] or list(zip(f, g, strict=False))


def object_matrix(objects: Sequence[Sequence[str]]) -> Bool[Tensor, "n object"]:
    """Return which object is in which image, with the names of the objects in alphabetical order."""
    names = {name: column for column, name in enumerate(sorted({name for image in objects for name in image}))}
    matrix = torch.zeros(len(objects), len(names), dtype=torch.bool)
    for row, image in enumerate(objects):
        matrix[row, [names[name] for name in image]] = True
    return matrix


def measure(
    models: Sequence[Sequence[Loader]], labeled: Labeled, settings: DejavuSection, statistics: Statistics
) -> tuple[dict[str, object], pl.DataFrame]:
    """Measure Déjà Vu memorization over the seeds of a study; `models` load the embeddings of f, then g, of each.

    Returns the content of `evaluate/dejavu.json` without settings, and the rows of `evaluate/dejavu.parquet`.
    """
    objects, public = object_matrix(labeled.objects), torch.from_numpy(labeled.where("external"))
    candidate = labeled.where("candidate")

    def predict(load: Callable[[], Embeddings]) -> Bool[Tensor, "n object"]:
        model = load()
        image, text = pair_means(model.image.double(), model.text.double(), model.text_pair)
        return predict_objects(nearest(text, image[public], settings.neighbors).rows, objects[public])

    def compare(target: Tensor, reference: Tensor, where: Bool[np.ndarray, " n"]) -> DejaVu:
        rows = torch.from_numpy(where)
        return dejavu(objects[rows], target[rows], reference[rows], fractions=settings.fractions)

    def gaps(results: Sequence[DejaVu], where: Bool[np.ndarray, " n"], name: str) -> dict[str, object]:
        how = statistics._replace(seed=derive_seed(statistics.seed, name))
        return _as_json(dejavu_intervals(results, labeled.group[where], **how._asdict()))

    predictions = [(predict(load_f), predict(load_g)) for load_f, load_g in models]
    results: dict[str, list[DejaVu]] = {}
    roles: dict[str, dict[str, object]] = {}
    for name in (*MEASURED, NOT_MISMATCHED) if labeled.planted[candidate].any() else MEASURED:
        where = labeled.where(name)
        if name != "candidate" and not objects[torch.from_numpy(where)].any():
            continue  # `dejavu` raises if no candidate has an object
        results[name] = [compare(f, g, where) for f, g in predictions]
        n = len(results[name][0].kept)
        roles[name] = {"n": n, "without_objects": int(where.sum()) - n}
        for rate in ("precision", "recall"):
            f, g = np.mean([getattr(result, rate) for result in results[name]], axis=(0, 2)).tolist()
            roles[name][rate] = {"f": f, "reference": g}
        roles[name] |= gaps(results[name], where, name)
    floor = None
    if len(models) > 1:  # each g against the next
        others = [*predictions[1:], predictions[0]]
        couples = [compare(g, other, candidate) for (_, g), (_, other) in zip(predictions, others, strict=True)]
        floor = {"top": gaps(couples, candidate, "floor")["top"]}
    # the extra objects of the candidates, CLIPMem, and which of them are planted
    rows, extra = np.flatnonzero(candidate)[results["candidate"][0].kept], _mean(results["candidate"], "extra")
    clipmem, planted = labeled.clipmem[rows], labeled.planted[rows]
    agreement: dict[str, object] = {"extra_mean": float(extra.mean()), "clipmem": None, "planted": None}
    scored = np.isfinite(clipmem)
    if scored.any():
        agreement["clipmem"] = spearman(extra[scored], clipmem[scored], statistics.confidence)._asdict()
    if planted.any() and not planted.all():
        area = auroc(extra, planted, statistics.confidence)
        ends = {"auroc": area.mean, "low": area.low, "high": area.high}
        agreement["planted"] = {"n": int(planted.sum()), **ends}
    true = objects[torch.from_numpy(candidate)]
    document: dict[str, object] = {
        "public": int(public.sum()),
        "objects": {
            "names": objects.shape[1],
            "candidate_mean": float(true.sum(dim=1).double().mean()),
            # the largest possible recall
            "in_public": float((true & objects[public].any(dim=0)).sum() / max(1, int(true.sum()))),
        },
        "two_model": {"roles": roles, **agreement},
        "floor": floor,
    }
    return document, _by_pair(results, labeled, objects)


def _as_json(value: Any) -> Any:
    if hasattr(value, "_asdict"):
        return {name: _as_json(entry) for name, entry in value._asdict().items()}
    return [_as_json(entry) for entry in value] if isinstance(value, tuple) else value


def _mean(results: Sequence[DejaVu], field: str) -> Any:
    return np.mean([getattr(result, field) for result in results], axis=0)


def _by_pair(
    results: Mapping[str, Sequence[DejaVu]], labeled: Labeled, objects: Bool[Tensor, "n object"]
) -> pl.DataFrame:
    """Return one row per measured pair, sorted by uid, with means over seeds; null for pairs without objects."""
    names = ("extra", "precision_f", "precision_g", "recall_f", "recall_g")
    columns = {name: np.full(len(labeled.uids), np.nan) for name in names}
    measured = [role for role in MEASURED if role in results]
    for role in measured:
        rows = np.flatnonzero(labeled.where(role))[results[role][0].kept]
        means = [_mean(results[role], field) for field in ("extra", "precision", "recall")]
        for name, values in zip(names, np.vstack(means), strict=True):
            columns[name][rows] = values
    about = {"uid": labeled.uids, "role": labeled.role, "objects": objects.sum(dim=1).numpy()}
    table = pl.DataFrame(about).with_columns(pl.Series(name, column) for name, column in columns.items())
    return table.filter(pl.col("role").is_in(measured)).with_columns(pl.col(names).fill_nan(None)).sort("uid")
