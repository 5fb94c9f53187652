"""The protocols there are: importing this module registers them. A new one is one new file and one line here."""

from clipmem.base.recipes import Recipe
from clipmem.score.protocols import four_way, given, leave_one_out, subsample
from clipmem.score.protocols.base import PROTOCOLS, Protocol

__all__ = ["PROTOCOLS", "Protocol", "four_way", "given", "leave_one_out", "protocol_of", "subsample"]


def protocol_of(recipe: Recipe) -> Protocol:
    """Return the protocol that a recipe names."""
    return PROTOCOLS[recipe.protocol](recipe)
