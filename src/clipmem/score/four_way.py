"""The four-way protocol: f saw shared + candidate, g saw shared + independent, external is bank and control.

Gives the tables `scores` (one row a pair) and `seed_scores` (one row a pair and seed). Trust the order of single
pairs only as far as their errors allow: one seed gives none, two give wide ones.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import polars as pl
import torch
from jaxtyping import Float
from torch import Tensor

from clipmem.embed.passes import Embeddings
from clipmem.functional import (
    AlignmentParts,
    alignment,
    alignment_parts,
    clipmem,
    pair_means,
    range_normalise,
    seed_interval,
)

PARTS = ("positive", "image_bank", "text_bank")


class FourWayScores(NamedTuple):
    """Both tables of a study, and max - min of the candidates' scores."""

    scores: pl.DataFrame
    seed_scores: pl.DataFrame
    normaliser: float


def parts_of(embeddings: Embeddings, external: np.ndarray) -> AlignmentParts:
    """Compute the parts of the alignment score of every pair under one model.

    Args:
        embeddings: Embeddings of the study's pairs, in the order of the split table.
        external: Which pairs are the bank, shape (n,); each of them is scored against the others.
    """
    image, text = pair_means(embeddings.image.double(), embeddings.text.double(), embeddings.text_pair)
    bank = torch.from_numpy(np.flatnonzero(external))
    member = torch.full((len(image),), -1, dtype=torch.long)
    member[bank] = torch.arange(len(bank))
    return alignment_parts(image, text, image[bank], text[bank], member=member)


def score(
    splits: pl.DataFrame,
    parts: Mapping[str, Mapping[int, AlignmentParts]],
    *,
    weight: float,
    confidence: float,
) -> FourWayScores:
    """Combine the parts of all models into the score tables.

    clipmem = mean over seeds of A(f) - mean over seeds of A(g); stderr, low and high are over seeds and null when
    there is one.

    Args:
        splits: The split table; rows in the order of the parts.
        parts: side (`f`, `g`) → seed → parts of every pair.
        weight: w of the alignment score.
        confidence: Level of the intervals.
    """
    seeds = sorted(parts["f"])
    aligned: dict[str, Float[Tensor, "seed n"]] = {
        side: torch.stack([alignment(parts[side][seed], weight=weight) for seed in seeds]) for side in ("f", "g")
    }
    values = clipmem(aligned["f"], aligned["g"])
    candidates = torch.from_numpy((splits["role"] == "candidate").to_numpy())
    norm, normaliser = range_normalise(values, candidates)
    interval = seed_interval((aligned["f"] - aligned["g"]).numpy(), confidence)
    columns: dict[str, np.ndarray] = {
        "clipmem": values.numpy(),
        "clipmem_norm": norm.numpy(),
        **interval._asdict(),
    }
    for side in ("f", "g"):
        for name in PARTS:
            stacked = torch.stack([getattr(parts[side][seed], name) for seed in seeds])
            columns[f"{side}_{name}"] = stacked.mean(dim=0).numpy()
    scores = splits.select("uid", "role", "planted").with_columns(
        *(pl.Series(name, column).fill_nan(None) for name, column in columns.items())
    )
    seed_scores = pl.concat(
        [
            splits.select("uid").with_columns(
                pl.lit(seed, pl.Int64).alias("seed"),
                pl.Series("f", aligned["f"][k].numpy()),
                pl.Series("g", aligned["g"][k].numpy()),
            )
            for k, seed in enumerate(seeds)
        ]
    )
    return FourWayScores(scores, seed_scores, normaliser)
