"""The runs that findings need, as changes to a base study, and the scales of a reproduction."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from clipmem.base.recipes import Recipe, dump_recipe, flatten, load_recipe
from clipmem.store.hashing import json_sha256

_SCORES = "mitigate.remove.scores"
NOISE_LEVELS = (0.0, 0.01, 0.05, 0.10, 0.15, 0.20, 0.25, 0.30)
# layers are compared with those of other objectives, over views that do not depend on the objective
_LOCALIZED = ("localize.crop=own",)
# in the hash of a key, but not in its name
_UNNAMED = ("split.independent=", "split.external=", "split.planted=0", "embed.")


@dataclass(frozen=True)
class RunSpec:
    """A run: `settings` change the base recipe; the scores of `parent` determine which pairs are removed."""

    settings: tuple[str, ...] = ()
    parent: "RunSpec | None" = None
    localize: bool = field(default=False, compare=False)
    cost: float = field(default=1.0, compare=False)

    def recipe(self, base: Recipe, place: Callable[["RunSpec"], Path] | None = None) -> Recipe:
        """Return its whole recipe; `place` maps the parent to its folder (default: its key)."""
        own = [*self.settings]
        if self.parent is not None:
            where = place(self.parent).as_posix() if place else self.parent.key(base)
            own.append(f'{_SCORES}="{where}"')
        return load_recipe(dump_recipe(base), own, origin=f"run {self.slug}")

    def key(self, base: Recipe) -> str:
        """Return the name of its folder: its slug and the start of the hash of its recipe."""
        return _key(self, dump_recipe(base))

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


@dataclass(frozen=True)
class Scale:
    """A scale of the reproduction: the base study, its seeds, and the levels of each sweep.

    `settings` turn the shipped recipe `recipe` into the base study. Sweeps: `captions` (1 first), `noise` (standard
    deviations, 0 first), `images` (image noise, the control), `removed` (shares of the candidates, 0 first), `planted`
    (shares of candidates with wrong captions in the removal study), `widths` of the towers (including 128; empty for no
    grid), `epochs` (1 first), `shared` (numbers of shared pairs, smallest first). `removal` and `grid` change the base
    study for those two; `views` is the number of image views of the SSLMem run.
    """

    name: str
    recipe: str
    seeds: int
    removed: tuple[float, ...]
    epochs: tuple[int, ...]
    shared: tuple[int, ...]
    settings: tuple[str, ...] = ()
    captions: tuple[int, ...] = (1, 2, 3, 4, 5)
    noise: tuple[float, ...] = NOISE_LEVELS
    images: tuple[float, ...] = (0.05, 0.15, 0.30)
    removal: tuple[str, ...] = ()
    planted: tuple[float, ...] = (0.0, 0.05, 0.2)
    widths: tuple[int, ...] = ()
    grid: tuple[str, ...] = ()
    views: int = 5

    def base(self, shipped: Recipe, seeds: int | None = None, settings: Sequence[str] = ()) -> Recipe:
        """Return the recipe of the base study, with the user's seeds and settings."""
        own = [*_LOCALIZED, *self.settings, f"train.seeds={list(range(seeds or self.seeds))}", *settings]
        return load_recipe(dump_recipe(shipped), own, origin=f"scale {self.name!r}")


def _sizes(shared: int, candidate: int, external: int) -> tuple[str, ...]:
    return (
        f"split.shared={shared}",
        f"split.candidate={candidate}",
        f"split.independent={candidate}",
        f"split.external={external}",
        "split.planted=0",
    )


SCALES = {
    scale.name: scale
    for scale in (
        Scale(
            name="tiny",
            recipe="demo",
            settings=(
                *_sizes(160, 60, 100),
                "model.name=clipmem-micro",
                "train.epochs=20",
                "train.batch_size=32",
                "train.lr=2e-3",
                "score.draws=400",
                "localize.views=3",
                "localize.pairs=30",
            ),
            seeds=2,
            captions=(1, 5),
            noise=(0.0, 0.05, 0.15, 0.30),
            images=(0.15,),
            removal=_sizes(100, 120, 100),
            removed=(0.0, 0.2, 0.6),
            planted=(0.0, 0.2),
            widths=(64, 128),
            grid=("train.epochs=6", "train.lr=1e-3"),
            epochs=(1, 5),
            shared=(40, 160),
            views=2,
        ),
        Scale(
            name="laptop",
            recipe="demo",
            settings=(*_sizes(500, 150, 500), "model.name=clipmem-i64-t64", "train.epochs=24", "localize.pairs=200"),
            seeds=5,
            removal=_sizes(400, 400, 500),
            removed=(0.0, 0.02, 0.05, 0.2, 0.4),
            widths=(64, 128),
            epochs=(1, 2, 5, 12),
            shared=(60, 125, 250, 500),
        ),
        Scale(
            name="published",
            recipe="coco-vit-b-32",
            seeds=3,
            removed=(0.0, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64),
            epochs=(1, 10),
            shared=(8_000, 16_000, 32_000, 65_000),
        ),
    )
}
