"""Protocols, one file each; importing this package registers them."""

from clipmem.base.recipes import Recipe
from clipmem.score.protocols import four_way, given, halves, leave_one_out, subsample
from clipmem.score.protocols.base import PROTOCOLS, Protocol

__all__ = ["PROTOCOLS", "Protocol", "four_way", "given", "halves", "leave_one_out", "protocol_of", "subsample"]


def protocol_of(recipe: Recipe) -> Protocol:
    """Return the protocol of a recipe."""
    return PROTOCOLS[recipe.protocol](recipe)
