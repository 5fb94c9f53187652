"""Protocols, one file per family; importing this package registers them."""

from clipmem.base.recipes import Recipe
from clipmem.scoring.protocols import four_way, halves, leave_one_out, subsample
from clipmem.scoring.protocols.base import PROTOCOLS, Protocol

_SHIPPED = (four_way, halves, leave_one_out, subsample)
__all__ = ["PROTOCOLS", "Protocol", "protocol_of"]


def protocol_of(recipe: Recipe) -> Protocol:
    """Return the protocol of a recipe."""
    return PROTOCOLS[recipe.protocol](recipe)
