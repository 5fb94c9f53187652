"""Alignment parts of embeddings in memory, and the four-way protocol on parts, without any training."""

from typing import NamedTuple

import polars as pl
import torch

from clipmem.functional import pair_means
from clipmem.score.alignments import ALIGNMENTS, Embedded
from clipmem.score.bank import bank_sums
from clipmem.score.design import combine
from clipmem.score.protocols.four_way import twins
from clipmem.train.paired import TrainingSet


class Scored(NamedTuple):
    scores: pl.DataFrame
    seed_scores: pl.DataFrame
    normalizer: float


def score(splits, parts, *, weight, confidence):
    """Score parts given as side → seed → AlignmentParts; `base` has one seed, if any."""
    models = [TrainingSet(side, seed, (), 0) for seed in sorted(parts["f"]) for side in "fg"]
    design = twins(models, splits.height)
    every = [parts[model.side][model.seed] for model in models] + list(parts.get("base", {}).values())
    made = combine(design, splits, every, weight=weight, confidence=confidence)
    candidates = made.scores.filter(pl.col("role") == "candidate")["clipmem"]
    return Scored(*made, candidates.max() - candidates.min())


def parts_of(embeddings, external, alignment="clip", *, labels=None, head=None):
    """Compute the alignment parts of embeddings in memory against the `external` pairs."""
    means = pair_means(embeddings.image.double(), embeddings.text.double(), embeddings.text_pair)
    own = None if labels is None else torch.from_numpy(labels)
    inside = torch.from_numpy(external)
    pairs = Embedded(*means, torch.ones_like(inside), embeddings, own, head)
    method = ALIGNMENTS[alignment]()
    sums = bank_sums(pairs.image, pairs.text, method.positive(pairs), inside)
    return method.parts_against(pairs, sums.means, inside)
