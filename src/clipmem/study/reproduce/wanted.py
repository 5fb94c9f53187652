"""A run that a finding needs, as changes to the base study, and the key under which it is made once.

The key is a hash of the resolved recipe, so that two findings which ask for the same run share it. A run that removes
pairs reads the scores of a parent; the parent's key stands for the path of its folder, which is another one on every
machine.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from clipmem.base.recipes import Recipe, dump_recipe, flatten, load_recipe
from clipmem.store.hashing import json_sha256

_SCORES = "mitigate.remove.scores"
# in the hash, and too much for a name
_UNTOLD = ("split.independent=", "split.external=", "split.planted=0", "embed.")


@dataclass(frozen=True)
class Wanted:
    """A run.

    Attributes:
        settings: Changes to the base recipe, as `section.key=value`.
        parent: The run whose scores say which pairs are removed; None where none are.
        localize: Whether its layers are measured as well.
        cost: Training time of a presentation, in that of the base study: for the estimate only.
    """

    settings: tuple[str, ...] = ()
    parent: "Wanted | None" = None
    localize: bool = field(default=False, compare=False)
    cost: float = field(default=1.0, compare=False)

    def recipe(self, base: Recipe, place: Callable[["Wanted"], Path] | None = None) -> Recipe:
        """Return its whole recipe.

        Args:
            base: The recipe of the base study.
            place: Gives the folder of the parent; None leaves its key in the recipe instead.
        """
        own = [*self.settings]
        if self.parent is not None:
            where = place(self.parent).as_posix() if place else self.parent.key(base)
            own.append(f'{_SCORES}="{where}"')
        return load_recipe(dump_recipe(base), own, origin=f"run {self.slug}")

    def key(self, base: Recipe) -> str:
        """Return the name of its folder: what differs in it, and the start of the hash of its recipe."""
        return _key(self, dump_recipe(base))

    @property
    def slug(self) -> str:
        """A short name that can be read, not necessarily its own: the values that differ from the base."""
        told = [setting for setting in self.settings if not setting.startswith(_UNTOLD)]
        words = [re.sub(r"[^\w.]+", "-", setting.split(".", 1)[-1]).strip("-") for setting in told]
        return "_".join(words)[:80].strip("-_") or "base"


@cache
def _key(wanted: Wanted, base: str) -> str:
    """Return a run's key; kept, because a recipe takes some milliseconds to check and a finding asks many times."""
    own, plain = flatten(wanted.recipe(load_recipe(base))), flatten(load_recipe(base))
    # settings that change nothing name the base study itself
    slug = Wanted().slug if own == plain else wanted.slug
    return f"{slug}-{json_sha256(own)[:10]}"
