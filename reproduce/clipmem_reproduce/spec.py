"""The runs that findings need, as changes to a base study."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from clipmem import Recipe, dump_recipe, load_recipe
from clipmem.base.manifest import recipe_hash

Settings = Mapping[str, Any]  # section.key → value
PRETRAINED = ("model.pretrained", "models/f/seed-0")


@dataclass(frozen=True)
class RunSpec:
    """A run: a base study with some settings changed.

    Attributes:
        settings: What is varied; it names the folder.
        study: Settings of the study in which it is varied: sizes of the roles, seeds, evaluation.
        parent: A run that this one reads.
        reads: The setting that names what is read, and its place in the parent's folder.
        localize: Whether the run is localized.
        cost: Relative cost of a sample, for the estimate.
    """

    settings: Settings = field(default_factory=dict[str, Any])
    study: Settings = field(default_factory=dict[str, Any])
    parent: "RunSpec | None" = None
    reads: tuple[str, str] = ("mitigate.remove.scores", "")
    localize: bool = field(default=False, compare=False)
    cost: float = field(default=1.0, compare=False)

    def __hash__(self) -> int:
        return hash((json.dumps([self.settings, self.study], sort_keys=True), self.parent, self.reads))

    def with_settings(self, settings: Settings, study: Settings | None = None) -> "RunSpec":
        """Return the run with further settings; its parent stays."""
        return replace(self, settings={**self.settings, **settings}, study={**self.study, **(study or {})})

    def seeded(self, seeds: Sequence[int]) -> "RunSpec":
        """Return the run with its own seeds; its parent stays."""
        return self.with_settings({}, {"train.seeds": list(seeds)})

    def replicate(self, seed: int) -> "RunSpec":
        """Return the run of one seed, on a split of its own; so is its parent, but it keeps seeds that it has.

        Where the data draw the roles, their seed is that of the split.
        """
        parent = self.parent
        if parent is not None and "train.seeds" in parent.study:
            parent = parent.with_settings({}, {"split.seed": seed})
        elif parent is not None:
            parent = parent.replicate(seed)
        of_data = {key: seed for key in self.study if re.fullmatch(r"data\.\w+\.seed", key)}
        study = {**of_data, "split.seed": seed, "train.seeds": [seed]}
        return replace(self.with_settings({}, study), parent=parent)

    @property
    def recorded(self) -> Settings:
        """Its settings as they are recorded; of a start from a parent's weights only that there is one."""
        start = {PRETRAINED[0]: "parent"} if self.parent is not None and self.reads == PRETRAINED else {}
        return {**self.study, **self.settings, **start}

    @property
    def of_seed(self) -> str:
        """Words for the seed of a replicate; "" for a run that is none."""
        return f", seed {self.study['split.seed']}" if "split.seed" in self.study else ""

    def changes(self, base: Recipe, folder_of: Callable[["RunSpec"], Path] | None = None) -> dict[str, Any]:
        """Return all its changes to the base; `folder_of` maps the parent to its folder (default: its key)."""
        changes = {**self.study, **self.settings}
        if self.parent is not None:
            key, file = self.reads
            folder = folder_of(self.parent) if folder_of else Path(self.parent.key(base))
            changes[key] = (folder / file).as_posix()
        return changes

    def recipe(self, base: Recipe, folder_of: Callable[["RunSpec"], Path] | None = None) -> Recipe:
        """Return its whole recipe (see `changes`)."""
        return load_recipe(dump_recipe(base), self.changes(base, folder_of), origin=f"run {self.slug}")

    def key(self, base: Recipe) -> str:
        """Return the name of its folder: its slug and the start of the hash of its recipe."""
        return _key(self, dump_recipe(base))

    @property
    def slug(self) -> str:
        """A short readable name, not necessarily unique: what is varied."""
        words = [f"{key.partition('.')[2] or key}-{value}" for key, value in self.settings.items()]
        return "_".join(re.sub(r"[^\w.]+", "-", word).strip("-") for word in words)[:80].strip("-_") or "study"


@cache
def _key(spec: RunSpec, base: str) -> str:
    """Return a run's key; cached, because checking a recipe takes milliseconds and findings ask many times."""
    plain = load_recipe(base)
    digest = recipe_hash(spec.recipe(plain))
    # settings without effect are the base study itself
    return f"{'base' if digest == recipe_hash(plain) else spec.slug}-{digest[:10]}"
