"""Objectives, one file each: what the same image tower is trained for, to compare paradigms on the same data.

Call `create_objective`; a new objective is one new file here, one line below, and its name in the recipe's choices.
"""

from clipmem.train.objectives import clip, siglip, simclr, supervised
from clipmem.train.objectives.base import OBJECTIVES, Objective, Towers, create_objective

__all__ = ["OBJECTIVES", "Objective", "Towers", "clip", "create_objective", "siglip", "simclr", "supervised"]
