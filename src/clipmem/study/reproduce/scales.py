"""How large a reproduction is: the base study, its seeds, and how finely each sweep is cut.

`tiny` shows that every part works, in minutes; its intervals are wide and most of its verdicts are inconclusive.
`laptop` is meant to decide. `published` takes the sizes of the paper and needs a GPU machine and the user's data.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from clipmem.base.errors import InputError
from clipmem.base.recipes import Recipe, dump_recipe, load_recipe

Place = Literal["pre", "post", "post-scaled"]
NOISE_LEVELS = (0.0, 0.01, 0.05, 0.10, 0.15, 0.20, 0.25, 0.30)
# the base study's layers are laid beside those of other objectives: over views that all of them can be asked about
_LOCALIZED = ("localize.crop=own",)


@dataclass(frozen=True)
class Scale:
    """A size of the reproduction.

    Attributes:
        name: `tiny`, `laptop` or `published`.
        recipe: A shipped recipe that the base study starts from.
        settings: Changes to it that make the base study.
        seeds: How many seeds by default.
        captions: Numbers of captions of the caption sweep, 1 first.
        noise: Standard deviations of the noise sweep, 0 first.
        images: Standard deviations of the image noise, the control.
        removal: Changes to the base study that leave many candidates to remove; they replace the roles' sizes.
        removed: Numbers of pairs removed, as shares of the candidates, 0 first.
        planted: Shares of candidates with wrong captions in the removal study.
        widths: Widths of the towers in the grid of sizes, 128 among them; () where there is no grid.
        grid: Changes to the base study for the grid, whose models may need another training.
        epochs: Passes of the one-pass finding, 1 first.
        shared: Numbers of shared pairs of the data-size finding, smallest first.
        views: Image views of the SSLMem run.
    """

    name: str
    recipe: str
    settings: tuple[str, ...]
    seeds: int
    captions: tuple[int, ...]
    noise: tuple[float, ...]
    images: tuple[float, ...]
    removal: tuple[str, ...]
    removed: tuple[float, ...]
    planted: tuple[float, ...]
    widths: tuple[int, ...]
    grid: tuple[str, ...]
    epochs: tuple[int, ...]
    shared: tuple[int, ...]
    views: int = 5

    def base(self, seeds: int | None = None, settings: Sequence[str] = ()) -> Recipe:
        """Return the recipe of the base study, with another number of seeds and the user's own settings."""
        from clipmem.study.api import find_recipe

        own = [*_LOCALIZED, *self.settings, f"train.seeds={list(range(seeds or self.seeds))}", *settings]
        return load_recipe(dump_recipe(find_recipe(self.recipe)), own, origin=f"scale {self.name!r}")


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
            settings=(
                *_sizes(500, 150, 500),
                "model.name=clipmem-i64-t64",
                "train.epochs=24",
                "localize.pairs=200",
            ),
            seeds=5,
            captions=(1, 2, 3, 4, 5),
            noise=NOISE_LEVELS,
            images=(0.05, 0.15, 0.30),
            removal=_sizes(400, 400, 500),
            removed=(0.0, 0.02, 0.05, 0.2, 0.4),
            planted=(0.0, 0.05, 0.2),
            widths=(64, 128),
            grid=(),
            epochs=(1, 2, 5, 12),
            shared=(60, 125, 250, 500),
        ),
        Scale(
            name="published",
            recipe="coco-vit-b-32",
            settings=(),
            seeds=3,
            captions=(1, 2, 3, 4, 5),
            noise=NOISE_LEVELS,
            images=(0.05, 0.15, 0.30),
            removal=(),
            removed=(0.0, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64),
            planted=(0.0, 0.05, 0.2),
            widths=(),
            grid=(),
            epochs=(1, 10),
            shared=(8_000, 16_000, 32_000, 65_000),
        ),
    )
}


def scale_of(name: str) -> Scale:
    """Return the scale of a name.

    Raises:
        InputError: There is no such scale.
    """
    if name not in SCALES:
        raise InputError("--scale", got=repr(name), expected=" or ".join(SCALES), hint="Start with tiny.")
    return SCALES[name]
