"""Déjà Vu memorization of a study: f against g, the published two-model test.

The top gaps have a further control, `floor`: g against g of another seed on the candidates. Neither saw them, so any
gap above 0 is due to selecting the top.

When not to trust it: predictions are limited to objects of the public images, and a few hundred are few (the paper has
millions).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import torch
from jaxtyping import Bool, Float64, Int
from torch import Tensor

from clipmem.base.random import derive_seed
from clipmem.base.sections import DejavuSection
from clipmem.measure.over_seeds import Statistics
from clipmem.models.passes import Embeddings
from clipmem.stats.dejavu import DejaVu, dejavu, dejavu_intervals, nearest, predict_objects
from clipmem.stats.ranking import auroc, spearman
from clipmem.stats.similarity import normalize

MEASURED = ("candidate", "independent", "shared")
NOT_PLANTED = "candidate, not planted"
_CELLS = 4_000_000  # predicted objects counted at a time


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
        """Mark the pairs of a role, or the candidates with their own captions (`NOT_PLANTED`)."""
        return (self.role == "candidate") & ~self.planted if name == NOT_PLANTED else self.role == name


class Measured(NamedTuple):
    """The content of `evaluate/dejavu.json` without settings, and the rows of `evaluate/dejavu.parquet`."""

    document: dict[str, Any]
    pairs: pl.DataFrame


class _Guess(NamedTuple):
    """Predicted objects of the pairs of a role, and the distance from each caption to the nearest public image."""

    objects: Bool[Tensor, "n object"]
    distance: Float64[np.ndarray, " n"]

    def of(self, kept: Bool[np.ndarray, " n"]) -> "_Guess":
        """Return the predictions for some of the pairs."""
        return _Guess(self.objects[torch.from_numpy(kept)], self.distance[kept])


def object_matrix(objects: Sequence[Sequence[str]]) -> tuple[Bool[Tensor, "n object"], list[str]]:
    """Return which object is in which image, and the names of the columns in alphabetical order."""
    names = sorted({name for own in objects for name in own})
    column = {name: place for place, name in enumerate(names)}
    matrix = torch.zeros(len(objects), len(names), dtype=torch.bool)
    for row, own in enumerate(objects):
        matrix[row, [column[name] for name in own]] = True
    return matrix, names


def _captions(model: Embeddings) -> Float64[Tensor, "n d"]:
    """Return the sum of each pair's unit caption embeddings."""
    unit = normalize(model.text.double(), name="caption embeddings")
    total = torch.zeros(len(model.image), unit.shape[1], dtype=torch.float64)
    return total.index_add_(0, model.text_pair.long(), unit)


def _images(model: Embeddings, public: Bool[np.ndarray, " n"]) -> Float64[Tensor, "p d"]:
    return normalize(model.image[torch.from_numpy(public)].double(), name="image embeddings").sum(dim=1)


def _predict(
    rows: Int[Tensor, "q k"], objects: Bool[Tensor, "p object"], settings: DejavuSection
) -> Bool[Tensor, "q object"]:
    step = max(1, _CELLS // max(1, objects.shape[1]))
    return torch.cat([predict_objects(part, objects, top=settings.top or None) for part in rows.split(step)])


def _by_model(
    model: Embeddings, labeled: Labeled, public: Bool[Tensor, "p object"], settings: DejavuSection
) -> dict[str, _Guess]:
    captions, images = _captions(model), _images(model, labeled.role == "external")
    found: dict[str, _Guess] = {}
    for role in MEASURED:
        where = torch.from_numpy(labeled.role == role)
        near = nearest(captions[where], images, settings.neighbors)
        found[role] = _Guess(_predict(near.rows, public, settings), 1 - near.similarity[:, 0].numpy())
    return found


def measure(
    models: Sequence[tuple[Callable[[], Embeddings], Callable[[], Embeddings]]],
    labeled: Labeled,
    settings: DejavuSection,
    statistics: Statistics,
) -> Measured:
    """Measure Déjà Vu memorization over the seeds of a study."""
    every, names = object_matrix(labeled.objects)
    public = every[torch.from_numpy(labeled.role == "external")]
    by_f: list[dict[str, _Guess]] = []
    by_g: list[dict[str, _Guess]] = []
    for load_f, load_g in models:
        by_f.append(_by_model(load_f(), labeled, public, settings))
        by_g.append(_by_model(load_g(), labeled, public, settings))
    by_role: dict[str, list[DejaVu]] = {}
    for name in (*MEASURED, NOT_PLANTED):
        where = labeled.where(name)
        own = every[torch.from_numpy(where)]
        planted = labeled.planted[labeled.role == "candidate"]
        if (name == NOT_PLANTED and not planted.any()) or (name != "candidate" and not bool(own.any())):
            continue  # `dejavu` raises if no candidate has an object
        role = "candidate" if name == NOT_PLANTED else name
        kept = where[labeled.role == role]
        guesses = [of_f[role].of(kept) for of_f in by_f]
        others = [of_g[role].of(kept).objects for of_g in by_g]
        by_role[name] = [_compare(own, f, g, settings) for f, g in zip(guesses, others, strict=True)]
    document = {
        "public": len(public),
        "objects": _about_objects(every, public, labeled, names),
        "two_model": _test(by_role, labeled, statistics),
        "floor": _floor(every, by_g, labeled, settings, statistics),
    }
    return Measured(document, _rows(labeled, every, by_role))


def _compare(
    own: Bool[Tensor, "n object"], target: _Guess, reference: Bool[Tensor, "n object"], settings: DejavuSection
) -> DejaVu:
    options: dict[str, Any] = {"fractions": settings.fractions, "ranking": settings.ranking}
    return dejavu(own, target.objects, reference, distance=target.distance, **options)


def _about_objects(
    every: Bool[Tensor, "n object"], public: Bool[Tensor, "p object"], labeled: Labeled, names: Sequence[str]
) -> dict[str, Any]:
    own = every[torch.from_numpy(labeled.role == "candidate")]
    return {
        "names": len(names),
        "candidate_mean": float(own.sum(dim=1).double().mean()),
        # the largest possible recall
        "in_public": float((own & public.any(dim=0)).sum() / max(1, int(own.sum()))),
    }


def _test(found: Mapping[str, Sequence[DejaVu]], labeled: Labeled, statistics: Statistics) -> dict[str, Any]:
    roles: dict[str, Any] = {}
    for role, seeds in found.items():
        where = labeled.where(role)
        rates = np.stack([np.stack([one.precision, one.recall]) for one in seeds]).mean(axis=(0, 3))
        roles[role] = {
            "n": len(seeds[0].kept),
            "without_objects": int(where.sum()) - len(seeds[0].kept),
            "precision": {"f": float(rates[0, 0]), "reference": float(rates[0, 1])},
            "recall": {"f": float(rates[1, 0]), "reference": float(rates[1, 1])},
            **_gaps(seeds, labeled.group[where], statistics, role),
        }
    return {"roles": roles, **_agreement(found["candidate"], labeled, statistics)}


def _gaps(seeds: Sequence[DejaVu], groups: np.ndarray, statistics: Statistics, name: str) -> dict[str, Any]:
    own = statistics._replace(seed=derive_seed(statistics.seed, name))
    intervals = dejavu_intervals(seeds, groups, **own._asdict())
    kinds = ("precision", "recall", "f_score")
    top = [
        {"fraction": one.fraction, "pairs": one.pairs, **{kind: getattr(one, kind)._asdict() for kind in kinds}}
        for one in intervals.top
    ]
    gaps = {gap: getattr(intervals, gap)._asdict() for gap in ("precision_gap", "recall_gap", "auc_gap")}
    return {**gaps, "top": top}


def _agreement(seeds: Sequence[DejaVu], labeled: Labeled, statistics: Statistics) -> dict[str, Any]:
    kept = np.flatnonzero(labeled.role == "candidate")[seeds[0].kept]
    extra = np.mean([one.extra for one in seeds], axis=0)
    scored = np.isfinite(labeled.clipmem[kept])
    ranks = None
    if scored.any():
        ranks = spearman(extra[scored], labeled.clipmem[kept][scored], statistics.confidence)._asdict()
    wrong = labeled.planted[kept]
    planted = None
    if wrong.any() and not wrong.all():
        found = auroc(extra, wrong, statistics.confidence)
        planted = {"n": int(wrong.sum()), "auroc": found.mean, "low": found.low, "high": found.high}
    return {"extra_mean": float(extra.mean()), "clipmem": ranks, "planted": planted}


def _floor(
    every: Bool[Tensor, "n object"],
    by_g: Sequence[Mapping[str, _Guess]],
    labeled: Labeled,
    settings: DejavuSection,
    statistics: Statistics,
) -> dict[str, Any] | None:
    """Return top gaps of g against g of the next seed on the candidates; None with one seed."""
    if len(by_g) == 1:
        return None
    where = labeled.role == "candidate"
    own = every[torch.from_numpy(where)]
    guesses = [one["candidate"] for one in by_g]
    # each model is once on each side
    others = [*guesses[1:], guesses[0]]
    couples = [_compare(own, one, other.objects, settings) for one, other in zip(guesses, others, strict=True)]
    return {"top": _gaps(couples, labeled.group[where], statistics, "floor")["top"]}


def _rows(labeled: Labeled, every: Bool[Tensor, "n object"], by_role: Mapping[str, Sequence[DejaVu]]) -> pl.DataFrame:
    """Return one row per measured pair, sorted by uid, with means over seeds; null for pairs without objects."""
    count = every.sum(dim=1).numpy()
    tables: list[pl.DataFrame] = []
    for role in (name for name in by_role if name != NOT_PLANTED):
        seeds = by_role[role]
        rows = np.flatnonzero(labeled.role == role)
        values = {"extra": np.mean([seed.extra for seed in seeds], axis=0)}
        for kind in ("precision", "recall"):
            values[f"{kind}_f"], values[f"{kind}_g"] = np.mean([getattr(seed, kind) for seed in seeds], axis=0)
        columns = {name: np.full(len(rows), np.nan) for name in values}
        for name, of_seeds in values.items():
            columns[name][seeds[0].kept] = of_seeds
        uids = [labeled.uids[row] for row in rows.tolist()]
        table = pl.DataFrame({"uid": uids, "role": [role] * len(rows), "objects": count[rows]})
        tables.append(table.with_columns(pl.Series(name, own).fill_nan(None) for name, own in columns.items()))
    return pl.concat(tables).sort("uid")
