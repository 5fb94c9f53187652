"""The runs that findings need, as changes to a base study."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

from clipmem.base.hashing import json_sha256
from clipmem.base.recipes import Recipe, dump_recipe, flatten, load_recipe

REMOVAL, PRETRAINED = 'mitigate.remove.scores="{}"', 'model.pretrained="{}/models/f/seed-0"'
UTILITY_ONLY = "protocol=f-only"
# in the hash of a key, but not in its name
_ROLES = ("split.independent=", "split.external=", "split.planted=0")
_UNNAMED = (UTILITY_ONLY, *_ROLES, "embed.", "train.seeds=", "data.emoji_artists")


@dataclass(frozen=True)
class RunSpec:
    """A run: `settings` change the base recipe, and `uses` is the setting that names the folder of its `parent`."""

    settings: tuple[str, ...] = ()
    parent: "RunSpec | None" = None
    uses: str = REMOVAL
    localize: bool = field(default=False, compare=False)
    cost: float = field(default=1.0, compare=False)

    def recipe(self, base: Recipe, place: Callable[["RunSpec"], Path] | None = None) -> Recipe:
        """Return its whole recipe; `place` maps the parent to its folder (default: its key)."""
        own = [*self.settings]
        if self.parent is not None:
            where = place(self.parent).as_posix() if place else self.parent.key(base)
            own.append(self.uses.format(where))
        return load_recipe(dump_recipe(base), own, origin=f"run {self.slug}")

    def key(self, base: Recipe) -> str:
        """Return the name of its folder: its slug and the start of the hash of its recipe."""
        return _key(self, dump_recipe(base))

    def seeded(self, seeds: int) -> "RunSpec":
        """Return the run with its own number of seeds; its parent stays."""
        return self.with_settings(f"train.seeds={list(range(seeds))}")

    def with_settings(self, *settings: str) -> "RunSpec":
        """Return the run with further settings; its parent stays."""
        return replace(self, settings=(*self.settings, *settings))

    @property
    def slug(self) -> str:
        """A short readable name, not necessarily unique: the values that differ from the base."""
        named = [setting for setting in self.settings if not setting.startswith(_UNNAMED)]
        words = [re.sub(r"[^\w.]+", "-", setting.split(".", 1)[-1]).strip("-") for setting in named]
        return "_".join(words)[:80].strip("-_") or "base"


@cache
def _key(spec: RunSpec, base: str) -> str:
    """Return a run's key; cached, because checking a recipe takes milliseconds and findings ask many times."""
    own, plain = flatten(spec.recipe(load_recipe(base))), flatten(load_recipe(base))
    # settings without effect are the base study itself
    slug = RunSpec().slug if own == plain else spec.slug
    return f"{slug}-{json_sha256(own)[:10]}"
