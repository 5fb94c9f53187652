"""The built-in sections of a recipe except mitigations, their base class, number types, and errors in four parts.

Sections are frozen and strict, without unknown keys. Every number has an upper bound far above any use, so that a slip
such as `epochs = 1e26` is refused at once.
"""

import os
import re
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic_core import PydanticCustomError

from clipmem.base.declared import BUILT_IN, plugins
from clipmem.base.errors import InputError, did_you_mean, near_names, require, shorten, shorten_text
from clipmem.base.paths import checked_path
from clipmem.base.remote import DOWNLOAD, RemotePath, check_remote, data_path, is_remote, may_download

Positive = Annotated[float, Field(gt=0, le=1e6)]
NonNegative = Annotated[float, Field(ge=0, le=1e6)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Below1 = Annotated[float, Field(ge=0, lt=1)]
Above0 = Annotated[float, Field(gt=0, le=1)]
Inside = Annotated[float, Field(gt=0, lt=1)]
Count = Annotated[int, Field(ge=1, le=1_000_000)]
Size = Annotated[int, Field(ge=0, le=1_000_000)]
# the largest published data set has 5.85 billion pairs
MOST_PAIRS = 10_000_000_000
PairCount = Annotated[int, Field(ge=1, le=MOST_PAIRS)]
# each is one more forward pass, or one more stored text, per pair
Views = Annotated[int, Field(ge=1, le=1000)]
OptionalViews = Annotated[int, Field(ge=0, le=1000)]
# tables store seeds as int64
Seed = Annotated[int, Field(ge=0, le=2**63 - 1)]
# TOML has lists, recipes are immutable
T = TypeVar("T")
Listed = Annotated[tuple[T, ...], Field(strict=False)]
Range = Annotated[tuple[T, T], Field(strict=False)]


def known(kind: str, name: str) -> str:
    """Validate a name in a recipe."""
    names = [*BUILT_IN[kind], *(plugin for plugin in plugins(kind) if plugin not in BUILT_IN[kind])]
    if name not in names:
        expected = f"{', '.join(map(repr, names[:-1]))} or {names[-1]!r}"
        raise PydanticCustomError("literal_error", "an unknown name", {"expected": expected})
    return name


def key(default: Any, meaning: str) -> Any:
    """Return a key of a section with its default and its meaning, which `clipmem init` prints."""
    return Field(default, description=meaning)


class Section(BaseModel):
    """A table of a recipe."""

    # strict: `epochs = "40"` and `epochs = 40.5` are errors
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _storable(cls, value: Any) -> Any:
        """Refuse integers beyond TOML's 64 bits and the character NUL."""
        for element in value if isinstance(value, list | tuple) else (value,):
            if isinstance(element, int) and not -(2**63) <= element < 2**63:
                raise PydanticCustomError("int_too_large", "more than 64 bits")
            if isinstance(element, str) and "\0" in element:
                raise PydanticCustomError("nul", "the character NUL")
        return value


def _table_at(root: type[BaseModel], location: Sequence[str | int]) -> tuple[int, type[BaseModel]]:
    """Follow a location in a recipe through its tables; return the number of tables and the last one."""
    table = root
    for depth, name in enumerate(location):
        field = table.model_fields.get(str(name))
        inner = field.annotation if field else None
        if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
            return depth, table
        table = inner
    return len(location), table


# pydantic's error type → expected value
_EXPECTED = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "int_too_large": "a whole number of at most 64 bits",
    "float_type": "a number",
    "finite_number": "a finite number",
    "string_type": "text",
    "nul": "text without the character NUL",
    "bool_type": "true or false",
    "tuple_type": "a list",
    "model_type": "a table of keys",
    "dict_type": "a table of keys",
    "greater_than": "more than {gt:g}",
    "greater_than_equal": "{ge:g} or more",
    "less_than": "less than {lt:g}",
    "less_than_equal": "at most {le:g}",
    "string_too_short": "text of {min_length} or more characters",
    "too_short": "a list of {min_length} or more values",
    "too_long": "a list of at most {max_length} values",
    "missing": "a list of more values",
    "literal_error": "{expected}",
}


def explain(error: ValidationError, origin: str, root: type[BaseModel]) -> InputError:
    """Convert the first validation error, with the number of further ones."""
    problem = error.errors()[0]
    location = [str(part) for part in problem["loc"]]
    depth, table = _table_at(root, location[:-1])
    section = f"[{'.'.join(location[:depth])}] " if depth else ""
    key = ".".join(shorten_text(part) for part in location[depth:])
    more = f" ({error.error_count() - 1} more)" if error.error_count() > 1 else ""
    subject, context = f"{origin}: {section}{key}{more}", problem.get("ctx", {})
    if problem["type"] == "extra_forbidden":
        hint = did_you_mean(location[-1], table.model_fields, kind="key")
        expected = f"a key of {section.strip() or 'the recipe'}"
        return InputError(subject, got="an unknown key", expected=expected, hint=hint)
    if problem["type"] == "value_error":  # raised by the recipe's own validators
        where = f"[{'.'.join(location)}] " if location else ""
        cause = context.get("error")
        if isinstance(cause, InputError):
            subject = f"{origin}: {where}{cause.what}{more}"
            return InputError(subject, got=cause.got, expected=cause.expected, hint=cause.hint)
        return InputError(f"{origin}: {where}{problem['msg'].removeprefix('Value error, ')}{more}.")
    value, hint = problem["input"], "`clipmem init` prints every key with its meaning."
    if problem["type"] == "literal_error" and isinstance(value, str):
        near = near_names(value, re.findall("'([^']*)'", str(context["expected"])))
        hint = f"Did you mean {' or '.join(map(repr, near))}?" if near else hint
    expected = _EXPECTED.get(problem["type"], "another value").format_map(context)
    return InputError(subject, got=shorten(value), expected=expected, hint=hint)


_Template = Annotated[str, Field(min_length=1)]
SHIPPED = ("emoji", "emoji-artists")
_NO_PATH = re.compile(r"::|\{|^[\w-]+:")  # lists of shards, and names on the hub


def shipped(path: str) -> str:
    """Return the shipped source that a path names, unless a file has that name; else "". Refuse an empty path."""
    hint = "Check the path: a shell variable that is not set is empty."
    require(path, "data", "an empty path", "a file, a folder, or emoji for the shipped pairs", hint)
    return path if path in SHIPPED and not os.path.exists(path) else ""  # noqa: PTH110  Path is slow and may raise


class EmojiArtistsSection(Section):
    """`[data.emoji_artists]`: which drawings are pairs, and their captions."""

    artists: Listed[str] = key(
        (), "Artists whose drawings are pairs; those of the others are their image variants; empty = all six."
    )
    order: Literal["name first", "own"] = key(
        "name first", "Order of an emoji's captions: the name first, or an order of its own per drawing."
    )
    label: Literal["group", "emoji"] = key("group", "Class: the Unicode group, or the emoji.")


class FlawsSection(Section):
    """`[data.flaws]`: known flaws, planted in pairs chosen by their image."""

    vague: Fraction = key(0.0, "Share of pairs whose caption becomes the name of their class.")
    distorted: Fraction = key(
        0.0, "Share of pairs whose image is turned upside down or on its side, or cropped to a corner."
    )


class DataSection(Section):
    """`[data]`: where the pairs come from."""

    source: str = key("auto", "Data source; auto = detected from `path`, or the shipped emoji without one.")
    path: str = key("", "File, folder or shards; empty for the shipped data.")
    image_root: str = key("", "Folder that image paths are relative to; empty = found near `path`.")
    split: str = key("", "Use this split only, if the source has splits; empty = all.")
    download: bool = key(False, "hub: download the data set if it is not on this machine.")
    image_column: str = key("image", "tables: bytes, a struct of bytes and path, or a path.")
    caption_column: str = key("captions", "tables: a string or a list of strings.")
    group_column: str = key("", "tables: pairs with the same value get the same role.")
    label_column: str = key("", "tables: class label, shown in reports.")
    object_column: str = key("", "tables: objects in the image, a list or comma-separated text.")
    role_column: str = key("", "tables: role of the pair, instead of a draw; an empty role = unused.")
    flaws: FlawsSection = FlawsSection()
    emoji_artists: EmojiArtistsSection = EmojiArtistsSection()

    def check_paths(self, subject: str = "[data] path") -> None:
        """Refuse paths that no file system has, and a missing one, before a source is imported (most of a second)."""
        parts = [(part, subject) for part in self.path.split("::")]  # a list of shards
        for part, key in (*parts, (self.image_root, "[data] image_root")):
            (check_remote if is_remote(part) else checked_path)(part, key)
        if isinstance(path := data_path(self.path), RemotePath):
            path.stat()
        if not self.path or self.source not in {"", "auto"} or _NO_PATH.search(self.path):
            return
        exists = os.path.exists(self.path)  # noqa: PTH110  Path.exists raises on long lists of shards
        hint = "Check the path; for a data set of the Hugging Face hub, use hf-hub:OWNER/NAME."
        got = f"{shorten(self.path)}, no such file or folder"
        require(exists, subject, got, "a file, a folder, or names of shards", hint)

    def offline(self) -> "DataSection":
        """Return the section of a folder, which somebody else may have written, without permission to download."""
        local = may_download() or not any(map(is_remote, self.path.split("::")))
        hint = f"If you trust the folder, set {DOWNLOAD}=1, or name the data."
        require(local, "[data] path", f"{shorten_text(self.path)}, a remote path", "data on this machine", hint)
        return self.model_copy(update={"download": False})


ROLES = ("shared", "candidate", "independent", "external")


class SplitSection(Section):
    """`[split]`: who trains on what (four-way protocol)."""

    shared: PairCount = key(1300, "Pairs that f and g both train on.")
    candidate: PairCount = key(200, "Pairs that only f trains on: the ones to measure.")
    independent: PairCount = key(200, "Pairs that only g trains on, as many as candidates.")
    external: Annotated[int, Field(ge=2, le=MOST_PAIRS)] = key(200, "Held-out pairs: no model trains on them.")
    planted: Annotated[int, Field(ge=0, le=MOST_PAIRS)] = key(
        0, "Candidates whose captions are swapped: known mismatched captions."
    )
    planted_share: Fraction = key(
        0.0, "Share of each of planted_roles whose captions are swapped instead, each within its role."
    )
    planted_roles: Listed[Literal["shared", "candidate", "independent"]] = key(
        ("shared", "candidate", "independent"), "Roles of planted_share."
    )
    wrong: str = key("", "File of uids whose captions are known to be wrong: .txt, .csv or .parquet.")
    near_duplicates: bool = key(True, "Keep near-duplicate images in the same role.")
    seed: Seed = key(0, "Seed of the split.")

    @property
    def sizes(self) -> dict[str, int]:
        """The size of each role."""
        return {role: getattr(self, role) for role in ROLES}


class ModelSection(Section):
    """`[model]`: what f and g start from: random weights of an architecture, or a pretrained model."""

    name: str = key(
        "clipmem-tiny", "Architecture: open_clip's name, a shipped name, or a JSON config; empty = that of pretrained."
    )
    pretrained: str = key("", "Model to fine-tune: a name or path (docs/models.md); empty = train from scratch.")

    @model_validator(mode="before")
    @classmethod
    def _architecture(cls, values: Any) -> Any:
        """Take the architecture from the pretrained model unless a name is given, which must then agree with it."""
        if isinstance(values, Mapping) and values.get("pretrained"):
            return {"name": "", **values}
        return values

    @model_validator(mode="after")
    def _named(self) -> "ModelSection":
        if not (self.name or self.pretrained):
            raise ValueError("name and pretrained are empty; set one of them")
        return self


class LoraSection(Section):
    """`[train.lora]`: the adapters of `train.adapter = "lora"` (Hu et al. 2022), as in peft's LoraConfig."""

    rank: Annotated[int, Field(ge=1, le=4096)] = key(8, "Rank r of the update (alpha / r) B A.")
    alpha: Positive = key(16.0, "Scale of the update.")
    dropout: Below1 = key(0.0, "Dropout before A; not for open_clip's attention.")
    targets: Listed[_Template] = key(
        (), "Ends of the names of layers to adapt, such as attn; empty = attention and MLP of every block."
    )


class TrainSection(Section):
    """`[train]`: training of f and g, which differ in data only."""

    seeds: Annotated[tuple[Seed, ...], Field(min_length=1, max_length=1000, strict=False)] = key(
        (0, 1), "One f and one g per seed; at most 1,000."
    )
    objective: Annotated[str, AfterValidator(partial(known, "objectives"))] = key(
        "clip", "Loss; supervised needs labels, simclr uses two views of each image and no captions."
    )
    simclr_temperature: Positive = key(0.1, "simclr: temperature of NT-Xent.")
    epochs: Annotated[int, Field(ge=1, le=100_000)] = key(
        40, "Passes over the training pairs, at most 100,000; the published studies use 100."
    )
    batch_size: Annotated[int, Field(ge=2, le=1_000_000)] = key(128, "Pairs per batch, at most 1,000,000.")
    lr: Positive = key(1e-3, "Peak learning rate.")
    beta1: Fraction = key(0.9, "AdamW's first beta.")
    beta2: Fraction = key(0.98, "AdamW's second beta.")
    eps: Positive = key(1e-6, "AdamW's epsilon.")
    weight_decay: NonNegative = key(0.2, "Weight decay of matrices; gains, biases and scale have none.")
    warmup: Fraction = key(0.1, "Fraction of the steps with linear warmup.")
    grad_clip: NonNegative = key(1.0, "Maximum gradient norm; 0 = no clipping.")
    captions: Views = key(1, "Captions used per pair, at most 1,000; each step samples one of them.")
    crop_scale: Range[Fraction] = key(
        (0.9, 1.0), "Area fraction of the random crop (RandomResizedCrop); (1, 1) = none."
    )
    crop_ratio: Range[Positive] = key((0.75, 1.3333333333333333), "Aspect ratio of the random crop.")
    flip: Fraction = key(0.0, "Probability of a horizontal flip.")
    color: Annotated[float, Field(ge=0, le=2)] = key(
        0.0, "Strength of SimCLR's color jitter (SimCLR: 1, small images 0.5); 0 = none."
    )
    grayscale: Fraction = key(0.0, "Probability of conversion to gray (SimCLR: 0.2).")
    blur: Fraction = key(0.0, "Probability of Gaussian blur (SimCLR: 0.5, small images 0).")
    freeze: Listed[_Template] = key(
        (),
        "Parts that are not trained: image, text, image.blocks.0-5, embeddings, logit_scale, or names of "
        "parameters (`clipmem inspect`). A frozen image tower sees the unchanged image.",
    )
    layer_decay: Above0 = key(1.0, "Factor of the learning rate per block, counted from the output; 1 = none.")
    adapter: Literal["none", "lora"] = key(
        "none", "lora: train low-rank adapters of a pretrained model, see [train.lora] (extra `hf`)."
    )
    lora: LoraSection = LoraSection()
    precision: Literal["auto", "fp32", "tf32", "bf16"] = key(
        "auto", "bf16 = autocast; auto = bf16 if the device supports it; tf32: GPUs only."
    )
    compile: Literal["off", "on"] = key(
        "off", "on: torch.compile of open_clip's model instead of clipmem's; needs a C++ compiler."
    )
    record: bool = key(False, "Write each pair's similarity and margin in every epoch to trajectory.npz of each model.")

    @model_validator(mode="after")
    def _ordered(self) -> "TrainSection":
        if len(set(self.seeds)) != len(self.seeds):
            raise ValueError(f"seeds = {list(self.seeds)} has duplicates; name each seed once")
        check_ranges(crop_scale=self.crop_scale, crop_ratio=self.crop_ratio)
        changed = [key for key in ("flip", "color", "grayscale", "blur") if getattr(self, key)]
        if changed and "image" in self.freeze:
            raise ValueError(f"{changed[0]} is set but freeze has 'image', which sees unchanged images; omit one")
        return self


def check_ranges(**ranges: tuple[float, float]) -> None:
    """Raise a `ValueError` unless 0 < low <= high for each range of a section."""
    for name, (low, high) in ranges.items():
        if not 0 < low <= high:
            raise ValueError(f"{name} = {[low, high]} is not a range; use [low, high] with 0 < low <= high")


class SubsampleSection(Section):
    """`[subsample]`: the models of the subsample protocol."""

    models: Annotated[int, Field(ge=4, le=10_000)] = key(16, "Number of models to train, at most 10,000.")
    fraction: Inside = key(
        0.7,
        "Fraction of the models that train on each non-external pair; each model trains on the same "
        "fraction of these pairs.",
    )


class HalvesSection(Section):
    """`[halves]`: the shadow models of the halves protocol, and the estimator of single scores."""

    pairs: Annotated[int, Field(ge=0, le=1_000)] = key(
        2,
        "Number of pairs of shadow models; both of a pair together train on each non-external pair once. "
        "0 = none: estimates only.",
    )
    proxy: str = key(
        "", "Smaller architecture of the shadow models, such as clipmem-tiny-32 for clipmem-tiny; empty = f's."
    )
    model: str = key("", "Name or path of an existing f, which is not trained (docs/models.md); empty = train f.")
    trajectory: str = key("", "What its training recorded: a file of AlignmentRecorder.")
    estimator: str = key("distilled", "Estimator of single scores: raw = the difference of the halves.")


class LeaveOneOutSection(Section):
    """`[leave_one_out]`: the pairs to leave out, one per model and seed."""

    pairs: Annotated[int, Field(ge=1, le=10_000)] = key(
        30, "Number of candidates, up to a third mismatched if others suffice; each costs a training per seed."
    )
    uids: Annotated[tuple[str, ...], Field(max_length=10_000, strict=False)] = key(
        (), "Leave out exactly these pairs instead."
    )


class GivenSection(Section):
    """`[given]`: one or more pairs of existing models; nothing is trained."""

    target: Listed[str] = key((), "Models that trained on the candidates: names or paths (docs/models.md).")
    reference: Listed[str] = key((), "Models that did not, one for each target, in the same order.")
    roles: str = key("", "Parquet or CSV: uid, role[, planted, captions_from]; empty = draw split.external pairs.")


class EmbedSection(Section):
    """`[embed]`: the embeddings of each pair."""

    views: OptionalViews = key(0, "Random views per image, at most 1,000; 0 = the unchanged image.")
    caption_edits: OptionalViews = key(
        0, "Random edits of the caption of single-caption pairs, for sslmem-text; at most 1,000."
    )
    batch_size: Count = key(256, "Images or captions per forward pass.")
    precision: Literal["train", "fp32", "bf16"] = key(
        "train", "bf16 = autocast; train = as trained, fp32 for given models."
    )


class LocalizeSection(Section):
    """`[localize]`: the pairs and views of `clipmem localize`; only runs with the same ones are compared."""

    views: Views = key(10, "Image views, and maximum number of text views, per pair; at most 1,000.")
    pairs: Count = key(1000, "Maximum number of pairs per role, sampled at random.")
    crop: Literal["train", "own"] = key("train", "train = crops as in [train]; own = as in the three keys below.")
    crop_scale: Range[Fraction] = key((0.9, 1.0), "Area fraction of the crop, with crop = 'own'.")
    crop_ratio: Range[Positive] = key((0.75, 1.3333333333333333), "Aspect ratio of the crop, with crop = 'own'.")
    flip: Fraction = key(0.0, "Probability of a horizontal flip, with crop = 'own'.")

    @model_validator(mode="after")
    def _one_crop(self) -> "LocalizeSection":
        check_ranges(crop_scale=self.crop_scale, crop_ratio=self.crop_ratio)
        unused = [
            k for k in ("crop_scale", "crop_ratio", "flip") if getattr(self, k) != type(self).model_fields[k].default
        ]
        if unused and self.crop == "train":
            raise ValueError(f"{unused[0]} is set but crop = 'train' does not use it; set crop = 'own', or omit it")
        return self


class ScoreSection(Section):
    """`[score]`: scores and intervals."""

    alignment: Annotated[str, AfterValidator(partial(known, "alignments"))] = key(
        "clip", "Alignment score to compare; confidence needs train.objective = 'supervised'."
    )
    weight: NonNegative = key(1.0, "Weight w of the similarity to the bank in the alignment score.")
    confidence: Inside = key(0.95, "Level of all intervals.")
    draws: Annotated[int, Field(ge=100, le=1_000_000)] = key(2000, "Bootstrap draws, at most 1,000,000.")


class DejavuSection(Section):
    """`[dejavu]`: Déjà Vu memorization, measured if pairs have objects."""

    objects: str = key("", "Parquet with uid and objects that replace the data's; empty = the data's.")
    neighbors: Count = key(10, "k: held-out images whose objects are the prediction.")
    fractions: Annotated[tuple[Above0, ...], Field(min_length=1, max_length=100, strict=False)] = key(
        (0.001, 0.01, 0.1), "Top fractions of the pairs, by correct objects under f minus g, whose gaps are shown."
    )


class EvaluateSection(Section):
    """`[evaluate]`: memorization over all captions; retrieval; zero-shot and linear probes."""

    wordings: Views = key(
        1,
        "Captions per pair on which memorization and utility are also measured, at most 1,000; 1 = only "
        "those in train.captions.",
    )
    validation: Below1 = key(
        0.0, "Share of the external pairs that choose settings, such as the length, and measure no utility."
    )
    labels: Literal["label", "sublabel", "none"] = key(
        "label", "Classes: the label, the finer sublabel (emoji have both), or none."
    )
    classnames: str = key("", "JSON or CSV: label -> class names; empty = the shipped names, else the label.")
    templates: Listed[_Template] = key(
        (), "Prompts with {} for the class name: 'a photo of a {}.'; empty = the data source's."
    )
    retained: str = key(
        "", "Data on which the pretrained model is compared with f and g: a path, or emoji; empty = none."
    )
    probe_c: Annotated[tuple[Positive, ...], Field(min_length=1, max_length=100, strict=False)] = key(
        (0.001, 0.01, 0.1, 1.0),
        "C (inverse regularization strength) of the linear probe; the best on validation is used.",
    )
    probe_validation: Inside = key(0.2, "Fraction of the probe's training pairs used to choose C.")

    @model_validator(mode="after")
    def _usable(self) -> "EvaluateSection":
        for template in self.templates:
            if "{}" not in template and "{c}" not in template:
                raise ValueError(f"templates has {template!r} without {{}}; write {{}} in place of the class name")
        if list(self.probe_c) != sorted(set(self.probe_c)):
            raise ValueError(f"probe_c = {list(self.probe_c)} is not increasing; list each value once, smallest first")
        return self
