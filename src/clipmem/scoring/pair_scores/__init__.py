"""Scores of pairs, one file per family; importing this package registers them."""

from clipmem.scoring.pair_scores import halves, hygiene, ridge, similarity, trajectory
from clipmem.scoring.pair_scores.base import PAIR_SCORES, PairScore, usable
from clipmem.stats.reliability import Estimated

__all__ = ["PAIR_SCORES", "Estimated", "PairScore", "halves", "hygiene", "ridge", "similarity"]
__all__ += ["trajectory", "usable"]
