"""The regimes of data and the scales of a reproduction: base study, seeds, levels of each sweep, primary utility.

A regime is a kind of data. In `unique` every pair is a singleton, in `redundant` others show the same thing, and in
`long-tail` a few things occur often and most once. These are drawings; `photographs` are mostly singletons. The
captions of clip art (`titles`) and of screenshots (`alt-texts`) have errors that people made. `small-vocabulary` has
the data of `unique`, and models with few tokens.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from clipmem import Recipe, dump_recipe, load_recipe
from clipmem.base.recipes import Overrides, as_settings
from clipmem_reproduce.spec import Settings

NOISE_LEVELS = (0.0, 0.01, 0.05, 0.10, 0.15, 0.20, 0.25, 0.30)
REGIMES = ("unique", "redundant", "long-tail", "photographs", "titles", "alt-texts", "small-vocabulary", "coco")
_NONE: Settings = {}
# layers are compared with those of other objectives, over views that do not depend on the objective
_ALWAYS: Settings = {
    "localize.crop": "own",
    "split.planted_share": 0,
    "split.planted_roles": ["shared", "candidate", "independent"],
}


@dataclass(frozen=True)
class Scale:
    """A scale of the reproduction in one regime.

    `settings` turn the shipped recipe `recipe` into the base study, and `utility` is the primary measure of utility,
    named before any run. `seeds` is the number of seeds, from `first` on; runs whose effects are large use `fewer`. If
    `crossed`, each seed has a split of its own. `without` are the findings that the regime does not test, and `looks`
    counts how often others were judged, each time with more or other seeds.
    Sweeps: `captions` (1 first), `noise` (standard deviations, 0 first), `images`
    (image noise, the control), `noise_from` (place of the noise and the words for its start → fraction of the training
    before it; the first curve decides), `noise_elsewhere` (levels of the places that do not decide; by default all),
    `noise_epochs` and `noise_longest` (epochs of the study of noise, and of its longest runs; 0 = those of the base
    study, and none), `lengths` (epochs, shortest first), `removed` (share of swapped captions → shares of
    candidates removed), `removal_lengths` (epochs over which scores and removals are followed), `widths` of the towers
    (including 128; empty for no grid), `epochs` of the study of one pass (1 first), `sizes` (numbers of f's pairs,
    smallest first). Settings that change the base study: `removal` for removals, and after it `removal_curve` for
    `removal_lengths` and `removal_trial` for an earlier trial (factor → its settings), `redundancy` for counting a
    pair's likes, `flaws` for what is memorized, `sized` for data size, `warmed` for the warm start of frozen towers and
    `warmed_study` for the study from it, `classes` for supervised training, `traded` for the trade-off at equal data,
    `layered` for UnitMem by layer, and by words for them `class_sets` of its supervised training, of which the first
    decides. `more_seeds` says for a finding with small effects how many times the seeds its deciding runs have.
    `converged` are the epochs of the study of layers, and `views` the image views of the run scored by SSLMem.
    """

    regime: str
    name: str
    recipe: str
    seeds: int
    utility: str
    lengths: tuple[int, ...]
    settings: Settings
    fewer: int = 4
    first: int = 0
    crossed: bool = False
    captions: tuple[int, ...] = (1, 2, 3, 4, 5)
    noise: tuple[float, ...] = NOISE_LEVELS
    images: tuple[float, ...] = (0.05, 0.15, 0.30)
    noise_from: Mapping[str, float] = field(default_factory=lambda: dict.fromkeys(("post", "pre", "post-scaled"), 0.0))
    noise_elsewhere: tuple[float, ...] = ()
    noise_epochs: int = 0
    noise_longest: int = 0
    removal: Settings = field(default_factory=dict[str, Any])
    removed: Mapping[float, tuple[float, ...]] = field(default_factory=dict[float, tuple[float, ...]])
    removal_trial: Mapping[str, Settings] = field(default_factory=dict[str, Settings])
    removal_curve: Settings = field(default_factory=dict[str, Any])
    removal_lengths: tuple[int, ...] = ()
    redundancy: Settings = field(default_factory=dict[str, Any])
    flaws: Settings = field(default_factory=dict[str, Any])
    widths: tuple[int, ...] = ()
    epochs: tuple[int, ...] = ()
    sizes: tuple[int, ...] = ()
    sized: Settings = field(default_factory=dict[str, Any])
    warmed: Settings = field(default_factory=dict[str, Any])
    warmed_study: Settings = field(default_factory=dict[str, Any])
    classes: Settings = field(default_factory=dict[str, Any])
    traded: Settings = field(default_factory=dict[str, Any])
    layered: Settings = field(default_factory=dict[str, Any])
    class_sets: Mapping[str, Settings] = field(default_factory=dict[str, Settings])
    more_seeds: Mapping[str, float] = field(default_factory=dict[str, float])
    converged: int = 40
    views: int = 5
    without: tuple[str, ...] = ()
    looks: Mapping[str, int] = field(default_factory=dict[str, int])

    def base(self, shipped: Recipe, seeds: int | None = None, settings: Overrides = ()) -> Recipe:
        """Return the recipe of the base study, with the user's seeds and settings."""
        study = {**_ALWAYS, **self.settings, "train.seeds": [self.first + k for k in range(seeds or self.seeds)]}
        changes = [*as_settings(study), *as_settings(settings)]
        return load_recipe(dump_recipe(shipped), changes, origin=f"scale {self.name!r}")


def _sizes(shared: int, candidate: int, external: int) -> Settings:
    return {
        "split.shared": shared,
        "split.candidate": candidate,
        "split.independent": candidate,
        "split.external": external,
        "split.planted": 0,
    }


def _nested(artists: Sequence[str], shared: int, candidate: int, external: int) -> Settings:
    """Return the settings of drawings whose candidates are the same for any number of shared pairs."""
    sizes = {"shared": shared, "candidate": candidate, "external": external}
    return {
        **_sizes(shared, candidate, external),
        **_ROLES_OF_DATA,
        "data.source": "emoji-nested",
        "data.emoji_nested.seed": 0,
        "data.emoji_nested.artists": list(artists),
        **{f"data.emoji_nested.{role}": size for role, size in sizes.items()},
    }


def _randomized(candidate: int, external: int, others: Sequence[int]) -> Settings:
    """Return the settings of drawings with a random number of others of the same emoji among the shared pairs."""
    return {
        **_sizes(2 * candidate * sum(others) // len(others), candidate, external),
        **_ROLES_OF_DATA,
        "data.source": "emoji-randomized",
        "data.emoji_randomized.seed": 0,
        "data.emoji_randomized.candidate": candidate,
        "data.emoji_randomized.external": external,
        "data.emoji_randomized.others": list(others),
    }


def _drawings(*artists: str) -> Settings:
    """Return the settings of emoji as some artists drew them; the drawings of the others are image variants."""
    return {"data.source": "emoji-artists", "data.emoji_artists.artists": list(artists)}


def _flaws(share: float) -> Settings:
    return {"data.flaws.vague": share, "data.flaws.distorted": share, "split.planted_share": share}


def _four_flaws(share: float) -> Settings:
    return {**_flaws(share), "data.source": "emoji-vague", "data.emoji_vague.share": share}


# a quarter of the held-out pairs chooses the length of training; one C fits a probe in a fifth of the time
_HELD_OUT: Settings = {"evaluate.validation": 0.25, "evaluate.probe_c": [0.1]}
_LONG: Settings = {"localize.pairs": 200, **_HELD_OUT}
_BRIEF: Settings = {
    **_sizes(160, 60, 120),
    **_HELD_OUT,
    "model.name": "clipmem-micro",
    "train.batch_size": 32,
    "train.lr": 2e-3,
    "train.epochs": 10,
    "score.draws": 400,
    "localize.views": 3,
    "localize.pairs": 30,
}
_ALL: Settings = {"data.emoji_artists.artists": []}
# near-duplicates by two artists may have different roles, as other drawings of an emoji do
_ROLES_OF_DATA: Settings = {**_ALL, "data.role_column": "role", "split.near_duplicates": False}
_TWO = _drawings("emojione", "fxemoji")
_FOUR_ARTISTS = ("twemoji", "fluent-flat", "emojione", "fxemoji")
_FOUR = _drawings(*_FOUR_ARTISTS)
_OTHERS = _drawings("noto", "noto-v1")
_CONCEPTS = {"data.emoji_artists.label": "emoji"}
_UNIQUE = {"data.source": "emoji"}
_ICONS = {
    "data.source": "parquet",
    "data.caption_column": "captions",
    "data.label_column": "category",
    "evaluate.labels": "none",
}
_PHOTOGRAPHS: Settings = {
    "data.source": "parquet",
    "data.caption_column": "captions",
    "data.label_column": "label",
    "data.group_column": "group",
}
_ALT_TEXTS: Settings = {**_PHOTOGRAPHS, "evaluate.labels": "none"}
_OF_ALL = (
    "roles", "memorized", "planted", "redundancy", "layers", "tradeoff", "paradigms", "model-size", "one-pass",
    "data-size",
)  # fmt: skip
_NOT_OF_PHOTOGRAPHS = (*_OF_ALL, "removal")
_REMOVAL_ALONE = (*_OF_ALL, "captions", "text-noise", "encoders")
_ENCODERS_ALONE = (*_NOT_OF_PHOTOGRAPHS, "captions", "text-noise")
_FEW_TOKENS: Settings = {"model.name": "vocabulary.json"}
_ONE_CAPTION = ("captions", "encoders", "layers", "paradigms", "model-size")
_LAPTOP = Scale(
    regime="redundant",
    name="laptop",
    recipe="demo",
    seeds=8,
    utility="retrieval_wordings_recall@5",
    settings={**_FOUR, **_sizes(1500, 1000, 1100), "train.epochs": 16, "evaluate.wordings": 5, **_LONG},
    lengths=(5, 16, 45),
    removal={**_ALL, **_sizes(500, 2500, 900), "train.epochs": 12},
    # most swapped captions go when as many pairs are removed as are wrong
    removed={
        0.0: (0.02, 0.05, 0.1, 0.2, 0.4),
        0.1: (0.05, 0.1, 0.2),
        0.2: (0.05, 0.1, 0.2, 0.3, 0.4),
        0.4: (0.2, 0.4, 0.6),
    },
    redundancy={**_ALL, **_sizes(3000, 1500, 900)},
    flaws=_flaws(0.04),
    widths=(64, 128, 192),
    epochs=(1, 2, 5, 12),
    sizes=(600, 1250, 2500),
    sized=_sizes(300, 300, 900),
    warmed={**_OTHERS, **_sizes(2000, 50, 50), "train.epochs": 10},
    classes=_CONCEPTS,
)
_LAPTOP_UNIQUE = replace(
    _LAPTOP,
    regime="unique",
    settings={**_UNIQUE, **_sizes(500, 280, 450), "train.epochs": 30, "evaluate.wordings": 5, **_LONG},
    lengths=(10, 30, 80),
    noise=(0.0, 0.05, 0.15, 0.30),
    removal={**_sizes(100, 600, 400), "train.epochs": 30},
    removed={0.0: (0.05, 0.1, 0.2), 0.2: (0.1, 0.2, 0.4)},
    redundancy=_NONE,
    classes=_NONE,
    warmed={**_TWO, **_sizes(1500, 50, 50), "train.epochs": 10},
    sizes=(200, 400, 800),
    sized=_sizes(100, 100, 400),
    without=("redundancy", "model-size", "one-pass"),
)
_TINY = Scale(
    regime="redundant",
    name="tiny",
    recipe="demo",
    seeds=2,
    utility="retrieval_wordings_recall@5",
    settings={**_TWO, **_BRIEF, "evaluate.wordings": 2},
    fewer=2,
    lengths=(5, 10),
    captions=(1, 5),
    noise=(0.0, 0.15, 0.30),
    images=(0.15,),
    removal=_sizes(60, 160, 100),
    removed={0.2: (0.2, 0.6)},
    redundancy={**_ALL, **_sizes(300, 60, 100)},
    flaws=_flaws(0.1),
    widths=(64, 128),
    epochs=(1, 5),
    sizes=(100, 220),
    warmed={**_OTHERS, **_sizes(200, 20, 20), "train.epochs": 3},
    classes=_CONCEPTS,
    converged=10,
    views=2,
)
# what PLAN.md plans: seeds that no earlier run used, each with a split of its own
_FROM_A_THIRD = {f"{place}, from a third": 0.33 for place in ("post", "pre", "post-scaled")}
_PLANNED: dict[str, Any] = {
    "name": "planned",
    "first": 100,
    "crossed": True,
    "fewer": 6,
    "images": (),
    "warmed": {**_ALL, **_sizes(2800, 50, 50), "data.source": "emoji-start", "train.epochs": 10, "protocol": "f-only"},
    "noise_from": {"post, from a third": 0.33, "post, from the first step": 0.0, **_FROM_A_THIRD},
    "noise_elsewhere": (0.0, 0.15),
    "removed": {0.2: (0.2,)},
    "removal_lengths": (5, 16, 45, 130),
}
# errors that people made: none is swapped, and more than one share of the candidates is removed
_PLANNED_ERRORS: dict[str, Any] = {
    "seeds": 12,
    "utility": "retrieval_recall@5",
    "removal": _NONE,
    "removed": {0.0: (0.1, 0.02, 0.05, 0.2, 0.4)},
    "removal_lengths": (),
    "more_seeds": {"removal": 2.0},
    "without": _REMOVAL_ALONE,
}
# one drawing of each emoji
_STUDY_UNIQUE: Settings = {**_drawings("twemoji"), **_sizes(350, 200, 300), "data.source": "emoji-study"}
_EMOJI = dict.fromkeys(("data.path", "data.label_column", "data.group_column"), "")  # of a warm start on emoji
# kinds of flaws, trade-off at equal data, nested sizes, random redundancy
_PLANNED_PAIRS: dict[str, Any] = {
    "flaws": _four_flaws(0.04),
    "lengths": (20, 60, 150),
    "traded": {
        **_nested(_FOUR_ARTISTS, 400, 200, 900),
        "data.emoji_nested.more_shared": 590,
        "data.emoji_nested.more_candidate": 220,
    },
    "sized": _nested(_FOUR_ARTISTS, 2200, 300, 900),
    "redundancy": _randomized(570, 600, (0, 1, 3)),
    "epochs": (1, 2, 12),
}
_PLANNED_PAIRS_UNIQUE: dict[str, Any] = {
    "flaws": {**_drawings("twemoji"), **_four_flaws(0.06)},
    "sized": _nested(("twemoji",), 700, 100, 400),
    "layered": _drawings("twemoji"),
    "class_sets": {
        "98 classes": {"data.source": "emoji-subgroups"},
        "9 classes": _drawings("twemoji"),
        "a class per emoji": {**_drawings("twemoji"), **_CONCEPTS},
    },
    "more_seeds": {"paradigms": 4 / 3},
}
_PLANNED_REDUNDANT = replace(
    _LAPTOP,
    **_PLANNED,
    seeds=12,
    noise=(0.0, 0.05, 0.10, 0.15, 0.20),
    noise_epochs=45,
    **_PLANNED_PAIRS,
    without=("layers", "paradigms"),
    warmed_study={**_sizes(900, 600, 800), "data.source": "emoji-study"},
    more_seeds={"removal": 2.0},
    removal_trial={
        "share": {"split.planted_share": 0.32, "mitigate.remove.count": 700},
        "role": {"split.planted_roles": ["candidate"]},
        "length": {"train.epochs": 15},
        "size": {"split.shared": 1500},
    },
    removal_curve=_sizes(250, 1250, 900),
)
SCALES: Mapping[tuple[str, str], Scale] = {
    (scale.regime, scale.name): scale
    for scale in (
        _TINY,
        replace(
            _TINY,
            regime="unique",
            settings={**_UNIQUE, **_BRIEF, "evaluate.wordings": 2},
            redundancy=_NONE,
            classes=_NONE,
            without=("redundancy",),
        ),
        replace(
            _TINY,
            regime="long-tail",
            utility="retrieval_recall@5",
            settings={**_ICONS, **_BRIEF},
            redundancy=_sizes(300, 60, 100),
            without=_ONE_CAPTION,
        ),
        replace(
            _TINY,
            regime="small-vocabulary",
            settings={**_UNIQUE, **_BRIEF, "evaluate.wordings": 2, **_FEW_TOKENS},
            without=_ENCODERS_ALONE,
        ),
        replace(
            _TINY,
            regime="photographs",
            settings={**_PHOTOGRAPHS, **_BRIEF, "evaluate.wordings": 2},
            warmed={**_EMOJI, **_TINY.warmed},
            without=_NOT_OF_PHOTOGRAPHS,
        ),
        *(
            replace(
                _TINY,
                regime=regime,
                utility="retrieval_recall@5",
                settings={**settings, **_BRIEF},
                without=_REMOVAL_ALONE,
            )
            for regime, settings in (("titles", _ICONS), ("alt-texts", _ALT_TEXTS))
        ),
        replace(_LAPTOP, looks={"removal": 2, "model-size": 2, "one-pass": 2}),  # with four seeds, then with eight
        _LAPTOP_UNIQUE,
        replace(
            _LAPTOP,
            regime="long-tail",
            utility="retrieval_recall@5",
            settings={
                **_ICONS,
                **_sizes(3000, 1000, 1500),
                "train.epochs": 15,
                "localize.pairs": 200,
                "evaluate.validation": 0.25,
            },
            lengths=(5, 15, 40),
            noise=(0.0, 0.05, 0.15, 0.30),
            removal={**_sizes(500, 2500, 1500), "train.epochs": 12},
            removed={0.2: (0.1, 0.2, 0.4)},
            redundancy=_sizes(15000, 3000, 1500),
            sizes=(1000, 3000, 10000, 30000, 50000),
            sized={**_sizes(500, 500, 1500), "train.epochs": 10},
            without=_ONE_CAPTION,
        ),
        _PLANNED_REDUNDANT,
        replace(
            _PLANNED_REDUNDANT,
            name="repeated",  # the seeds that follow, judged for a second time
            first=200,
            looks=dict.fromkeys((*_REMOVAL_ALONE, "removal"), 2),
            removal_trial=_NONE,
            removal_lengths=(),
            more_seeds={"removal": 5.0},
        ),
        replace(
            _LAPTOP_UNIQUE,
            **_PLANNED,
            seeds=12,
            noise=(0.0, 0.15),
            noise_epochs=80,
            **_PLANNED_PAIRS_UNIQUE,
            without=("redundancy", "tradeoff", "model-size", "one-pass"),
            warmed_study=_STUDY_UNIQUE,
        ),
        replace(
            _LAPTOP_UNIQUE,
            **_PLANNED,
            regime="small-vocabulary",
            seeds=12,
            settings={**_LAPTOP_UNIQUE.settings, **_FEW_TOKENS},
            without=_ENCODERS_ALONE,
            warmed_study=_STUDY_UNIQUE,
        ),
        replace(
            _LAPTOP_UNIQUE,
            **{**_PLANNED, "warmed": {**_EMOJI, **_PLANNED["warmed"]}},
            regime="photographs",
            seeds=12,
            settings={**_LAPTOP_UNIQUE.settings, **_PHOTOGRAPHS, **_sizes(400, 220, 330)},
            noise=(0.0, 0.15),
            noise_epochs=80,
            without=_NOT_OF_PHOTOGRAPHS,
        ),
        *(
            replace(
                _LAPTOP,
                **{**_PLANNED, **_PLANNED_ERRORS},
                regime=regime,
                settings={**settings, **sizes, **_LONG, "train.epochs": epochs},
            )
            for regime, settings, sizes, epochs in (
                ("titles", _ICONS, _sizes(500, 1900, 900), 20),
                ("alt-texts", _ALT_TEXTS, _sizes(100, 400, 400), 30),
            )
        ),
        Scale(
            regime="coco",
            name="published",
            recipe="coco-vit-b-32",
            seeds=3,
            fewer=3,
            utility="retrieval_recall@5",
            lengths=(30, 100, 200),
            settings={"evaluate.validation": 0.25},
            removed={0.0: (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64), 0.2: (0.1, 0.2, 0.4)},
            flaws={"data.flaws.distorted": 0.04, "split.planted_share": 0.04},
            epochs=(1, 10),
            sizes=(13_000, 21_000, 37_000, 70_000),
            without=("encoders", "layers", "redundancy", "paradigms", "model-size"),  # no labels, one image a pair
        ),
    )
}
