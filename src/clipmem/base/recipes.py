"""Recipes: everything that decides a study's result, in one frozen, validated model that reads and writes TOML.

What does not change the result (how many processes, progress bars) is not in a recipe: a run folder refuses another
recipe, and must not refuse another number of workers.
"""

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from functools import cache, partial
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, ValidationError, create_model, model_validator

from clipmem.base.declared import declared, key_of, known, load, plugins
from clipmem.base.errors import InputError, shorten, shorten_text
from clipmem.base.evaluating import EvaluateSection
from clipmem.base.explain import explain
from clipmem.base.mitigations import MitigateSection
from clipmem.base.section import (
    MOST_PAIRS,
    Count,
    Fraction,
    NonNegative,
    OptionalViews,
    PairCount,
    Positive,
    Seed,
    Size,
    Views,
)
from clipmem.base.section import Section as _Section


class DataSection(_Section):
    """`[data]`: where the pairs come from."""

    source: str = Field(
        "auto", description="A data source; auto = what `path` holds, or the shipped emoji without one."
    )
    path: str = Field("", description="File, folder or shards of the source; empty for the shipped one.")
    image_root: str = Field("", description="Folder that picture paths start from; empty = found near `path`.")
    split: str = Field("", description="Use this split only, where the source has some; empty = all of them.")
    download: bool = Field(False, description="hub: fetch the data set if it is not on this machine.")
    image_column: str = Field("image", description="tables: bytes, a struct of bytes and path, or a path.")
    caption_column: str = Field("captions", description="tables: text, or a list of texts.")
    group_column: str = Field("", description="tables: pairs that share it never straddle roles.")
    label_column: str = Field("", description="tables: a class label, shown in reports.")
    object_column: str = Field("", description="tables: objects in the picture, a list of texts or text with commas.")


class SplitSection(_Section):
    """`[split]`: who trains on what (four-way protocol)."""

    shared: PairCount = Field(1300, description="Pairs that f and g both train on.")
    candidate: PairCount = Field(200, description="Pairs that only f trains on: the ones that are measured.")
    independent: PairCount = Field(200, description="Pairs that only g trains on: the candidates' mirror.")
    external: Annotated[int, Field(ge=2, le=MOST_PAIRS)] = Field(
        200, description="Pairs nobody trains on: bank and control."
    )
    planted: Annotated[int, Field(ge=0, le=MOST_PAIRS)] = Field(
        0, description="Candidates that get each other's captions: known wrong ones."
    )
    near_duplicates: bool = Field(True, description="Keep near-duplicate pictures in one role.")
    seed: Seed = Field(0, description="Seed of the split.")


class ModelSection(_Section):
    """`[model]`: the architecture of f and g."""

    name: str = Field("clipmem-tiny", description="open_clip model name, shipped name, or path of a JSON config.")


class TrainSection(_Section):
    """`[train]`: how f and g are trained; one section for both, since they may differ in data only."""

    seeds: Annotated[tuple[Seed, ...], Field(min_length=1, max_length=1000, strict=False)] = Field(
        (0, 1), description="One f and one g for each seed; at most 1,000: each is two trainings."
    )
    objective: Annotated[str, AfterValidator(partial(known, "objectives"))] = Field(
        "clip", description="The loss; supervised needs labels, simclr sees two views of each picture and no captions."
    )
    simclr_temperature: Positive = Field(0.1, description="simclr: t of NT-Xent; smaller looks at nearer pictures.")
    epochs: Annotated[int, Field(ge=1, le=100_000)] = Field(
        40, description="Passes over the training pairs; the published studies take 100, and 100,000 are the most."
    )
    batch_size: Annotated[int, Field(ge=2, le=1_000_000)] = Field(
        128, description="Pairs in a batch, all in memory at once; at most 1,000,000."
    )
    lr: Positive = Field(1e-3, description="Peak learning rate.")
    beta1: Fraction = Field(0.9, description="AdamW's first beta.")
    beta2: Fraction = Field(0.98, description="AdamW's second beta.")
    eps: Positive = Field(1e-6, description="AdamW's epsilon.")
    weight_decay: NonNegative = Field(0.2, description="Decay of matrices; gains, biases and the scale have none.")
    warmup: Fraction = Field(0.1, description="Share of the steps in which the rate rises linearly.")
    grad_clip: NonNegative = Field(1.0, description="Largest gradient norm; 0 = no clipping.")
    captions: Views = Field(
        1, description="Captions used of each pair, at most 1,000; a presentation draws one of them."
    )
    crop_scale: Annotated[tuple[Fraction, Fraction], Field(strict=False)] = Field(
        (0.9, 1.0), description="Area share of the random crop (RandomResizedCrop); (1, 1) = none."
    )
    crop_ratio: Annotated[tuple[Positive, Positive], Field(strict=False)] = Field(
        (0.75, 1.3333333333333333), description="Aspect ratio of the random crop."
    )
    flip: Fraction = Field(0.0, description="Probability of a horizontal flip.")
    colour: Annotated[float, Field(ge=0, le=2)] = Field(
        0.0, description="Strength of SimCLR's colour jitter (it uses 1, or 0.5 for small pictures); 0 = none."
    )
    grayscale: Fraction = Field(0.0, description="Probability of a grey picture (SimCLR: 0.2).")
    blur: Fraction = Field(0.0, description="Probability of a blurred picture (SimCLR: 0.5, small pictures 0).")
    precision: Literal["auto", "fp32", "tf32", "bf16"] = Field(
        "auto", description="bf16 autocast, or not; auto = where the device computes in bf16; tf32: GPUs only."
    )

    compile: Literal["off", "on"] = Field(
        "off", description="on: open_clip's passes by torch.compile, instead of clipmem's own; needs a C++ compiler."
    )

    @model_validator(mode="after")
    def _ordered(self) -> "TrainSection":
        if len(set(self.seeds)) != len(self.seeds):
            raise ValueError(
                f"seeds = {list(self.seeds)} has a seed twice; every seed is one pair of models: name each once"
            )
        _check_ranges(self)
        return self


def _check_ranges(section: "TrainSection | LocalizeSection") -> None:
    for name, (low, high) in (("crop_scale", section.crop_scale), ("crop_ratio", section.crop_ratio)):
        if not 0 < low <= high:
            raise ValueError(f"{name} = {[low, high]} is not a range; use [low, high] with 0 < low <= high")


class SubsampleSection(_Section):
    """`[subsample]`: the models of the subsample protocol."""

    models: Annotated[int, Field(ge=4, le=10_000)] = Field(
        16, description="How many models, at most 10,000; each costs one training."
    )
    fraction: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.7,
        description="Share of the models that train on each pair of the pool (all pairs but the external ones), to the "
        "nearest whole model; each model trains on the same share of the pool.",
    )


class LeaveOneOutSection(_Section):
    """`[leave_one_out]`: the pairs that are left out, one a model and seed."""

    pairs: Annotated[int, Field(ge=1, le=10_000)] = Field(
        30, description="How many candidates, a third of them planted ones where there are any; each is a training."
    )
    uids: Annotated[tuple[str, ...], Field(max_length=10_000, strict=False)] = Field(
        (), description="Exactly these, instead."
    )


class GivenSection(_Section):
    """`[given]`: two models, or several pairs of models, that exist already; nothing is trained."""

    target: Annotated[tuple[str, ...], Field(strict=False)] = Field(
        (), description="Models that saw the candidates, by their addresses (docs/models.md), such as FOLDER."
    )
    reference: Annotated[tuple[str, ...], Field(strict=False)] = Field(
        (), description="Models that did not, each to be compared with the target in its place."
    )
    roles: str = Field(
        "", description="Parquet or CSV: uid, role[, planted, captions_from]; none: split.external are drawn."
    )


class EmbedSection(_Section):
    """`[embed]`: what of each pair is embedded."""

    views: OptionalViews = Field(
        0, description="Random image views of a pair, each one more pass; 0 = the picture as it is; at most 1,000."
    )
    caption_edits: OptionalViews = Field(
        0, description="Seeded edits of the caption of a pair that has one, for sslmem-text; at most 1,000."
    )
    batch_size: Count = Field(256, description="Images or captions in a forward pass.")
    precision: Literal["train", "fp32", "bf16"] = Field(
        "train", description="fp32, or bf16 autocast; train = as the models were trained, and fp32 for given ones."
    )


class LocalizeSection(_Section):
    """`[localize]`: the pairs and views of `clipmem localize`; runs are compared over the same ones only."""

    views: Views = Field(10, description="Image views, and at most as many text views, of each pair; at most 1,000.")
    pairs: Count = Field(1000, description="At most this many pairs of each role, drawn at random.")
    crop: Literal["train", "own"] = Field(
        "train", description="Crops as in [train], or by the three keys below: the same for runs trained otherwise."
    )
    crop_scale: Annotated[tuple[Fraction, Fraction], Field(strict=False)] = Field(
        (0.9, 1.0), description="Area share of the crop, with crop = 'own'."
    )
    crop_ratio: Annotated[tuple[Positive, Positive], Field(strict=False)] = Field(
        (0.75, 1.3333333333333333), description="Aspect ratio of the crop, with crop = 'own'."
    )
    flip: Fraction = Field(0.0, description="Probability of a horizontal flip, with crop = 'own'.")

    @model_validator(mode="after")
    def _one_crop(self) -> "LocalizeSection":
        _check_ranges(self)
        own = [
            k for k in ("crop_scale", "crop_ratio", "flip") if getattr(self, k) != type(self).model_fields[k].default
        ]
        if own and self.crop == "train":
            raise ValueError(f"{own[0]} is set and crop = 'train' does not use it; set crop = 'own', or leave it out")
        return self


class ScoreSection(_Section):
    """`[score]`: how alignment becomes a score and an interval."""

    alignment: Annotated[str, AfterValidator(partial(known, "alignments"))] = Field(
        "clip", description="What is compared between models; confidence needs train.objective = 'supervised'."
    )
    weight: NonNegative = Field(1.0, description="w of the alignment score: how much the bank's similarity counts.")
    confidence: Annotated[float, Field(gt=0, lt=1)] = Field(0.95, description="Level of every interval.")
    draws: Annotated[int, Field(ge=100, le=1_000_000)] = Field(
        2000, description="Bootstrap draws; more than 1,000,000 change no digit that is shown."
    )


class DejavuSection(_Section):
    """`[dejavu]`: Déjà Vu memorization, measured where pairs have objects."""

    objects: str = Field("", description="Parquet with uid and objects, instead of the data's own; empty = those.")
    neighbours: Count = Field(10, description="k: public pictures whose objects are the prediction.")
    top: Size = Field(0, description="Most frequent objects of the neighbours that are predicted; 0 = all of them.")
    ranking: Literal["gap", "correct", "distance"] = Field(
        "gap", description="What puts a pair at the top: objects right under f less g, under f, or the nearest picture."
    )
    fractions: Annotated[
        tuple[Annotated[float, Field(gt=0, le=1)], ...], Field(min_length=1, max_length=100, strict=False)
    ] = Field((0.001, 0.01, 0.1), description="Shares of the pairs whose gaps at the top are shown.")
    text_embeddings: str = Field(
        "", description="Text-only vectors for the one-model test: parquet (uid, embedding) or npy; empty = TF-IDF."
    )


class Recipe(_Section):
    r"""A whole study. `load(dump(recipe)) == recipe`.

    Example:
        >>> load_recipe('[train]\nepochs = 3').train.epochs
        3
    """

    protocol: Annotated[str, AfterValidator(partial(known, "protocols"))] = Field(
        "four-way", description="How f and g come about."
    )
    data: DataSection = DataSection()  # pyright: ignore[reportCallIssue]
    split: SplitSection = SplitSection()  # pyright: ignore[reportCallIssue]
    model: ModelSection = ModelSection()  # pyright: ignore[reportCallIssue]
    train: TrainSection = TrainSection()  # pyright: ignore[reportCallIssue]
    subsample: SubsampleSection = SubsampleSection()  # pyright: ignore[reportCallIssue]
    leave_one_out: LeaveOneOutSection = LeaveOneOutSection()  # pyright: ignore[reportCallIssue]
    given: GivenSection = GivenSection()  # pyright: ignore[reportCallIssue]
    embed: EmbedSection = EmbedSection()  # pyright: ignore[reportCallIssue]
    score: ScoreSection = ScoreSection()  # pyright: ignore[reportCallIssue]
    dejavu: DejavuSection = DejavuSection()  # pyright: ignore[reportCallIssue]
    localize: LocalizeSection = LocalizeSection()  # pyright: ignore[reportCallIssue]
    evaluate: EvaluateSection = EvaluateSection()  # pyright: ignore[reportCallIssue]
    mitigate: MitigateSection = MitigateSection()  # pyright: ignore[reportCallIssue]

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle as plain data: the class of a recipe with tables of other packages has no name to be found by."""
        return recipe_from, (self.model_dump(),)

    @property
    def _protocol(self) -> Any:
        return declared("protocols", self.protocol)

    @property
    def _objective(self) -> Any:
        return declared("objectives", self.train.objective)

    @model_validator(mode="after")
    def _mirror(self) -> "Recipe":
        split = self.split
        if not self._protocol.trains:  # of [split] it uses `external` and the seed only
            return self
        if split.candidate != split.independent:
            raise ValueError(
                f"[split] candidate = {split.candidate} and independent = {split.independent} differ; "
                "f and g must train on equally many pairs: make them equal"
            )
        if split.planted == 1 or split.planted > split.candidate:
            raise ValueError(
                f"[split] planted = {split.planted} of {split.candidate} candidates; "
                "captions are exchanged among the planted pairs: use 0, or 2 up to the number of candidates"
            )
        return self

    @model_validator(mode="after")
    def _given_models(self) -> "Recipe":
        target, reference = self.given.target, self.given.reference
        if self._protocol.trains:
            if target or reference:
                raise ValueError(
                    f"[given] names models and protocol = {self.protocol!r} trains its own; set protocol = 'given'"
                )
            return self
        if not target:
            raise ValueError(
                "[given] target names no model; give the folder of the model that saw the candidates, as "
                "target = ['FOLDER'], and of one that did not, as reference = ['FOLDER']"
            )
        if len(target) != len(reference):
            raise ValueError(
                f"[given] has {len(target)} of target and {len(reference)} of reference; "
                "each target is compared with the reference in its place: give equally many"
            )
        return self

    @model_validator(mode="after")
    def _towers_and_heads(self) -> "Recipe":
        objective, alignment = self.train.objective, self.score.alignment
        needs = declared("alignments", alignment).needs
        if "class head" in needs and not self._protocol.trains:  # the objective is not used
            raise ValueError(
                f"alignment = {alignment!r} needs class heads, and given models have none; choose another one"
            )
        if not self._protocol.trains:
            return self
        if "class head" in needs and not self._objective.class_head:
            raise ValueError(
                f"alignment = {alignment!r} needs a class head, and objective = {objective!r} trains none; "
                "set train.objective = 'supervised'"
            )
        if not self._objective.uses_text and {"captions", "caption variants"} & set(needs):
            raise ValueError(
                f"objective = {objective!r} trains no text tower, and alignment = {alignment!r} needs one; "
                "set score.alignment = 'sslmem-image' and embed.views = 6"
            )
        return self

    @model_validator(mode="after")
    def _mitigations(self) -> "Recipe":
        names = self.protocol, self.train.objective
        conflict = self.mitigate.conflict(self._protocol, self._objective, names)
        if conflict:
            raise ValueError(conflict)
        return self


def load_recipe(text: str, settings: Sequence[str] = (), *, origin: str = "recipe") -> Recipe:
    """Read a recipe from TOML text, then apply settings such as `train.lr=1e-4`.

    Args:
        text: The TOML document; what it leaves out has its default.
        settings: `section.key=value`, value in TOML (bare words are taken as text).
        origin: Where the text came from, for messages.

    Raises:
        InputError: The text is not TOML, a key is unknown (near ones are named), or a value is out of range.
    """
    try:
        document = _parsed(text)
    except tomllib.TOMLDecodeError as error:
        raise InputError(
            origin,
            got=f"text that is not TOML ({shorten_text(str(error), 160)})",
            expected="a TOML document",
            hint="Fix that line; `clipmem init` writes a correct file.",
        ) from error
    for setting in settings:
        _apply(document, setting)
    return recipe_from(document, origin=origin)


def _parsed(text: str) -> dict[str, Any]:
    """Parse TOML; what Python's parser raises on numbers of thousands of digits and on deep nesting is no TOML too."""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        raise
    except (ValueError, RecursionError) as error:
        got = "nested too deeply" if isinstance(error, RecursionError) else "a number of too many digits"
        raise tomllib.TOMLDecodeError(got) from error


def recipe_from(document: Mapping[str, Any], *, origin: str = "recipe") -> Recipe:
    """Validate plain data (parsed TOML) as a recipe; see `load_recipe` for the errors."""
    kind = _assembled(tuple(_brought(document)))
    try:
        return kind.model_validate(document)
    except ValidationError as error:
        raise explain(error, origin, kind) from None


# table of the recipe ("" = the recipe itself) → what declarations bring tables for it, and the key that names one
_DECLARED = {
    "": ("protocols", "protocol"),
    "data": ("sources", "source"),
    "train": ("objectives", "objective"),
    "score": ("alignments", "alignment"),
    "mitigate": ("mitigations", ""),
}


def _brought(document: Mapping[str, Any]) -> Iterator[tuple[str, str, type[_Section]]]:
    """Yield table, key and class of the settings that declarations of other packages bring, where they are named."""
    for table, (kind, chosen) in _DECLARED.items():
        place = document.get(table) if table else document
        if not isinstance(place, Mapping):
            continue
        for name, point in plugins(kind).items():
            key = key_of(name)
            if (place.get(chosen) == name or key in place) and key not in _table(table).model_fields:
                settings = getattr(load(point), "Settings", None)
                if settings is not None:
                    yield table, key, settings


def _table(name: str) -> Any:
    return Recipe.model_fields[name].annotation if name else Recipe


@cache
def _assembled(brought: Sequence[tuple[str, str, type[_Section]]]) -> type[Recipe]:
    """Return the recipe's class with the tables that declarations bring."""
    fields: dict[str, Any] = {key: (settings, settings()) for table, key, settings in brought if not table}
    for table in dict.fromkeys(table for table, *_ in brought if table):
        base = _table(table)
        own: dict[str, Any] = {key: (settings, settings()) for there, key, settings in brought if there == table}
        section = create_model(base.__name__, __base__=base, __doc__=base.__doc__, **own)
        fields[table] = (section, section())
    return create_model("Recipe", __base__=Recipe, __doc__=Recipe.__doc__, **fields) if fields else Recipe


def dump_recipe(recipe: Recipe, *, comments: bool = False) -> str:
    """Write a recipe as TOML with every value spelled out.

    Args:
        recipe: The recipe.
        comments: Add each key's description, as `clipmem init` does.
    """
    lines = [f'protocol = "{recipe.protocol}"']
    for section_name, section in _sections(recipe):
        lines += ["", f"[{section_name}]"]
        for key, field in _own_fields(section).items():
            line = f"{key} = {_toml(getattr(section, key))}"
            lines.append(f"{line:<39} # {field.description}" if comments else line)
    return "\n".join(lines) + "\n"


def flatten(recipe: Recipe) -> dict[str, Any]:
    """Return the recipe as `section.key` → plain value, in order: what two recipes are compared by."""
    flat: dict[str, Any] = {"protocol": recipe.protocol}
    for name, section in _sections(recipe):
        for key, value in section.model_dump(mode="json", include=set(_own_fields(section))).items():
            flat[f"{name}.{key}"] = value
    return flat


def differences(left: Recipe, right: Recipe) -> list[tuple[str, Any, Any]]:
    """List the keys in which two recipes differ, with both values."""
    a, b = flatten(left), flatten(right)
    return [(key, a.get(key), b.get(key)) for key in {**a, **b} if a.get(key) != b.get(key)]


def _sections(parent: _Section, path: str = "") -> Iterator[tuple[str, _Section]]:
    """Yield all tables with their dotted names, a table before those in it; those without keys are left out."""
    for name in type(parent).model_fields:
        value = getattr(parent, name)
        if isinstance(value, _Section):
            if _own_fields(value):
                yield f"{path}{name}", value
            yield from _sections(value, f"{path}{name}.")


def _own_fields(section: _Section) -> dict[str, Any]:
    """Return the fields that are keys, not tables."""
    fields = type(section).model_fields.items()
    return {name: field for name, field in fields if not isinstance(getattr(section, name), _Section)}


def _toml(value: object) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case int() | float():
            return repr(value)
        case str():
            return _toml_text(value)
        case tuple() | list():
            return f"[{', '.join(_toml(item) for item in value)}]"  # pyright: ignore[reportUnknownVariableType]
        case _:
            raise TypeError(f"no TOML form for {type(value).__name__}")


def _toml_text(value: str) -> str:
    escapes = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\t": "\\t", "\r": "\\r"}
    # TOML allows no raw control characters in a basic string
    return '"' + "".join(escapes.get(c, c if c >= " " and c != "\x7f" else f"\\u{ord(c):04x}") for c in value) + '"'


def _apply(document: dict[str, Any], setting: str) -> None:
    path, separator, value = setting.partition("=")
    keys = path.strip().split(".")
    if not separator or not all(keys):
        raise InputError(
            f"--set {shorten(setting)}",
            got="no section.key before an =" if separator else "no =",
            expected="section.key=value",
            hint="For example: --set train.lr=1e-4.",
        )
    try:
        parsed: object = _parsed(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        parsed = value.strip()  # a bare word, as shells hand them over
    place = document
    for key in keys[:-1]:
        place = place.setdefault(key, {})
        if not isinstance(place, dict):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise InputError(
                f"--set {shorten(setting)}",
                got=f"{shorten(key)} is not a section",
                expected="section.key=value",
                hint="Use section.key=value.",
            )
    place[keys[-1]] = parsed
