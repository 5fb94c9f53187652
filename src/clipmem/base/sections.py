"""The built-in sections of a recipe, except mitigations."""

import os
import re
from collections.abc import Mapping
from functools import partial
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from clipmem.base.declared import known
from clipmem.base.errors import require, shorten
from clipmem.base.paths import checked_path
from clipmem.base.section import (
    MOST_PAIRS,
    Count,
    Fraction,
    NonNegative,
    OptionalViews,
    PairCount,
    Positive,
    Section,
    Seed,
    Size,
    Views,
)

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

    artists: Annotated[tuple[str, ...], Field(strict=False)] = Field(
        (),
        description="Artists whose drawings are pairs; those of the others are their image variants; empty = all six.",
    )
    order: Literal["name first", "own"] = Field(
        "name first", description="Order of an emoji's captions: the name first, or an order of its own per drawing."
    )
    label: Literal["group", "emoji"] = Field("group", description="Class: the Unicode group, or the emoji.")


class FlawsSection(Section):
    """`[data.flaws]`: known flaws, planted in pairs chosen by their image."""

    vague: Fraction = Field(0.0, description="Share of pairs whose caption becomes the name of their class.")
    distorted: Fraction = Field(
        0.0, description="Share of pairs whose image is turned upside down or on its side, or cropped to a corner."
    )


class DataSection(Section):
    """`[data]`: where the pairs come from."""

    source: str = Field(
        "auto", description="Data source; auto = detected from `path`, or the shipped emoji without one."
    )
    path: str = Field("", description="File, folder or shards; empty for the shipped data.")
    image_root: str = Field("", description="Folder that image paths are relative to; empty = found near `path`.")
    split: str = Field("", description="Use this split only, if the source has splits; empty = all.")
    download: bool = Field(False, description="hub: download the data set if it is not on this machine.")
    image_column: str = Field("image", description="tables: bytes, a struct of bytes and path, or a path.")
    caption_column: str = Field("captions", description="tables: a string or a list of strings.")
    group_column: str = Field("", description="tables: pairs with the same value get the same role.")
    label_column: str = Field("", description="tables: class label, shown in reports.")
    object_column: str = Field("", description="tables: objects in the image, a list or comma-separated text.")
    role_column: str = Field("", description="tables: role of the pair, instead of a draw; an empty role = unused.")
    flaws: FlawsSection = FlawsSection()  # pyright: ignore[reportCallIssue]
    emoji_artists: EmojiArtistsSection = EmojiArtistsSection()  # pyright: ignore[reportCallIssue]

    def check_paths(self, what: str = "[data] path") -> None:
        """Refuse paths that no file system has, and a missing one, before a source is imported (most of a second)."""
        for part in self.path.split("::"):  # a list of shards
            checked_path(part, what)
        checked_path(self.image_root, "[data] image_root")
        if not self.path or self.source not in {"", "auto"} or _NO_PATH.search(self.path):
            return
        exists = os.path.exists(self.path)  # noqa: PTH110  Path.exists raises on long lists of shards
        hint = "Check the path; for a data set of the Hugging Face hub, use hf-hub:OWNER/NAME."
        got = f"{shorten(self.path)}, no such file or folder"
        require(exists, what, got, "a file, a folder, or names of shards", hint)


class SplitSection(Section):
    """`[split]`: who trains on what (four-way protocol)."""

    shared: PairCount = Field(1300, description="Pairs that f and g both train on.")
    candidate: PairCount = Field(200, description="Pairs that only f trains on: the ones to measure.")
    independent: PairCount = Field(200, description="Pairs that only g trains on, as many as candidates.")
    external: Annotated[int, Field(ge=2, le=MOST_PAIRS)] = Field(
        200, description="Pairs that no model trains on: bank and control."
    )
    planted: Annotated[int, Field(ge=0, le=MOST_PAIRS)] = Field(
        0, description="Candidates whose captions are swapped: known wrong captions."
    )
    planted_share: Fraction = Field(
        0.0, description="Share of each of planted_roles whose captions are swapped instead, each within its role."
    )
    planted_roles: Annotated[tuple[Literal["shared", "candidate", "independent"], ...], Field(strict=False)] = Field(
        ("shared", "candidate", "independent"), description="Roles of planted_share."
    )
    wrong: str = Field("", description="File of uids whose captions are known to be wrong: .txt, .csv or .parquet.")
    near_duplicates: bool = Field(True, description="Keep near-duplicate images in the same role.")
    seed: Seed = Field(0, description="Seed of the split.")


class ModelSection(Section):
    """`[model]`: what f and g start from: random weights of an architecture, or a pretrained model."""

    name: str = Field(
        "clipmem-tiny",
        description="Architecture: open_clip's name, a shipped name, or a JSON config; empty = that of pretrained.",
    )
    pretrained: str = Field(
        "", description="Model to fine-tune: a folder or another address (docs/models.md); empty = train from scratch."
    )

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

    rank: Annotated[int, Field(ge=1, le=4096)] = Field(8, description="Rank r of the update (alpha / r) B A.")
    alpha: Positive = Field(16.0, description="Scale of the update.")
    dropout: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.0, description="Dropout before A; not for open_clip's attention."
    )
    targets: Annotated[tuple[_Template, ...], Field(strict=False)] = Field(
        (), description="Ends of the names of layers to adapt, such as attn; empty = attention and MLP of every block."
    )


class TrainSection(Section):
    """`[train]`: training of f and g, which differ in data only."""

    seeds: Annotated[tuple[Seed, ...], Field(min_length=1, max_length=1000, strict=False)] = Field(
        (0, 1), description="One f and one g per seed; at most 1,000."
    )
    objective: Annotated[str, AfterValidator(partial(known, "objectives"))] = Field(
        "clip", description="Loss; supervised needs labels, simclr uses two views of each image and no captions."
    )
    simclr_temperature: Positive = Field(0.1, description="simclr: temperature of NT-Xent.")
    epochs: Annotated[int, Field(ge=1, le=100_000)] = Field(
        40, description="Passes over the training pairs, at most 100,000; the published studies use 100."
    )
    batch_size: Annotated[int, Field(ge=2, le=1_000_000)] = Field(
        128, description="Pairs per batch, at most 1,000,000."
    )
    lr: Positive = Field(1e-3, description="Peak learning rate.")
    beta1: Fraction = Field(0.9, description="AdamW's first beta.")
    beta2: Fraction = Field(0.98, description="AdamW's second beta.")
    eps: Positive = Field(1e-6, description="AdamW's epsilon.")
    weight_decay: NonNegative = Field(0.2, description="Weight decay of matrices; gains, biases and scale have none.")
    warmup: Fraction = Field(0.1, description="Fraction of the steps with linear warmup.")
    grad_clip: NonNegative = Field(1.0, description="Maximum gradient norm; 0 = no clipping.")
    captions: Views = Field(1, description="Captions used per pair, at most 1,000; each step samples one of them.")
    crop_scale: Annotated[tuple[Fraction, Fraction], Field(strict=False)] = Field(
        (0.9, 1.0), description="Area fraction of the random crop (RandomResizedCrop); (1, 1) = none."
    )
    crop_ratio: Annotated[tuple[Positive, Positive], Field(strict=False)] = Field(
        (0.75, 1.3333333333333333), description="Aspect ratio of the random crop."
    )
    flip: Fraction = Field(0.0, description="Probability of a horizontal flip.")
    color: Annotated[float, Field(ge=0, le=2)] = Field(
        0.0, description="Strength of SimCLR's color jitter (SimCLR: 1, small images 0.5); 0 = none."
    )
    grayscale: Fraction = Field(0.0, description="Probability of conversion to gray (SimCLR: 0.2).")
    blur: Fraction = Field(0.0, description="Probability of Gaussian blur (SimCLR: 0.5, small images 0).")
    freeze: Annotated[tuple[_Template, ...], Field(strict=False)] = Field(
        (),
        description="Parts that are not trained: image, text, image.blocks.0-5, embeddings, logit_scale, or names of "
        "parameters (`clipmem inspect`). A frozen image tower sees the unchanged image.",
    )
    layer_decay: Annotated[float, Field(gt=0, le=1)] = Field(
        1.0, description="Factor of the learning rate per block, counted from the output; 1 = none."
    )
    adapter: Literal["none", "lora"] = Field(
        "none", description="lora: train low-rank adapters of a pretrained model, see [train.lora] (extra `hf`)."
    )
    lora: LoraSection = LoraSection()  # pyright: ignore[reportCallIssue]
    precision: Literal["auto", "fp32", "tf32", "bf16"] = Field(
        "auto", description="bf16 = autocast; auto = bf16 if the device supports it; tf32: GPUs only."
    )
    compile: Literal["off", "on"] = Field(
        "off", description="on: torch.compile of open_clip's model instead of clipmem's; needs a C++ compiler."
    )
    record: bool = Field(
        False, description="Write each pair's similarity and margin in every epoch to trajectory.npz of each model."
    )

    @model_validator(mode="after")
    def _ordered(self) -> "TrainSection":
        if len(set(self.seeds)) != len(self.seeds):
            raise ValueError(f"seeds = {list(self.seeds)} has duplicates; name each seed once")
        _check_ranges(self)
        changed = [key for key in ("flip", "color", "grayscale", "blur") if getattr(self, key)]
        if changed and "image" in self.freeze:
            raise ValueError(f"{changed[0]} is set but freeze has 'image', which sees unchanged images; omit one")
        return self


def _check_ranges(section: "TrainSection | LocalizeSection") -> None:
    for name, (low, high) in (("crop_scale", section.crop_scale), ("crop_ratio", section.crop_ratio)):
        if not 0 < low <= high:
            raise ValueError(f"{name} = {[low, high]} is not a range; use [low, high] with 0 < low <= high")


class SubsampleSection(Section):
    """`[subsample]`: the models of the subsample protocol."""

    models: Annotated[int, Field(ge=4, le=10_000)] = Field(16, description="Number of models to train, at most 10,000.")
    fraction: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.7,
        description="Fraction of the models that train on each non-external pair; each model trains on the same "
        "fraction of these pairs.",
    )


class HalvesSection(Section):
    """`[halves]`: the half-models of the halves protocol, and the estimator of single scores."""

    pairs: Annotated[int, Field(ge=0, le=1_000)] = Field(
        2,
        description="Number of pairs of half-models; both of a pair together train on each non-external pair once. "
        "0 = none: estimates only.",
    )
    proxy: str = Field(
        "",
        description="Smaller architecture of the half-models, such as clipmem-tiny-32 for clipmem-tiny; empty = f's.",
    )
    model: str = Field(
        "", description="Address of an existing f, which is not trained (docs/models.md); empty = train f."
    )
    trajectory: str = Field("", description="What its training recorded: a file of AlignmentRecorder.")
    estimator: str = Field("distilled", description="Estimator of single scores: raw = the difference of the halves.")


class LeaveOneOutSection(Section):
    """`[leave_one_out]`: the pairs to leave out, one per model and seed."""

    pairs: Annotated[int, Field(ge=1, le=10_000)] = Field(
        30, description="Number of candidates, up to a third planted if others suffice; each costs a training per seed."
    )
    uids: Annotated[tuple[str, ...], Field(max_length=10_000, strict=False)] = Field(
        (), description="Leave out exactly these pairs instead."
    )


class GivenSection(Section):
    """`[given]`: one or more pairs of existing models; nothing is trained."""

    target: Annotated[tuple[str, ...], Field(strict=False)] = Field(
        (), description="Models that trained on the candidates: folders or other addresses (docs/models.md)."
    )
    reference: Annotated[tuple[str, ...], Field(strict=False)] = Field(
        (), description="Models that did not, one for each target, in the same order."
    )
    roles: str = Field(
        "", description="Parquet or CSV: uid, role[, planted, captions_from]; empty = draw split.external pairs."
    )


class EmbedSection(Section):
    """`[embed]`: the embeddings of each pair."""

    views: OptionalViews = Field(0, description="Random views per image, at most 1,000; 0 = the unchanged image.")
    caption_edits: OptionalViews = Field(
        0, description="Random edits of the caption of single-caption pairs, for sslmem-text; at most 1,000."
    )
    batch_size: Count = Field(256, description="Images or captions per forward pass.")
    precision: Literal["train", "fp32", "bf16"] = Field(
        "train", description="bf16 = autocast; train = as trained, fp32 for given models."
    )


class LocalizeSection(Section):
    """`[localize]`: the pairs and views of `clipmem localize`; only runs with the same ones are compared."""

    views: Views = Field(10, description="Image views, and maximum number of text views, per pair; at most 1,000.")
    pairs: Count = Field(1000, description="Maximum number of pairs per role, sampled at random.")
    crop: Literal["train", "own"] = Field(
        "train", description="train = crops as in [train]; own = as in the three keys below."
    )
    crop_scale: Annotated[tuple[Fraction, Fraction], Field(strict=False)] = Field(
        (0.9, 1.0), description="Area fraction of the crop, with crop = 'own'."
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
            raise ValueError(f"{own[0]} is set but crop = 'train' does not use it; set crop = 'own', or omit it")
        return self


class ScoreSection(Section):
    """`[score]`: scores and intervals."""

    alignment: Annotated[str, AfterValidator(partial(known, "alignments"))] = Field(
        "clip", description="Alignment score to compare; confidence needs train.objective = 'supervised'."
    )
    weight: NonNegative = Field(1.0, description="Weight w of the similarity to the bank in the alignment score.")
    confidence: Annotated[float, Field(gt=0, lt=1)] = Field(0.95, description="Level of all intervals.")
    draws: Annotated[int, Field(ge=100, le=1_000_000)] = Field(2000, description="Bootstrap draws, at most 1,000,000.")


class DejavuSection(Section):
    """`[dejavu]`: Déjà Vu memorization, measured if pairs have objects."""

    objects: str = Field("", description="Parquet with uid and objects that replace the data's; empty = the data's.")
    neighbors: Count = Field(10, description="k: public images whose objects are the prediction.")
    top: Size = Field(0, description="Predict the N most frequent objects of the neighbors; 0 = all.")
    ranking: Literal["gap", "correct", "distance"] = Field(
        "gap", description="Rank pairs by correct objects under f minus g, under f, or by distance to the neighbors."
    )
    fractions: Annotated[
        tuple[Annotated[float, Field(gt=0, le=1)], ...], Field(min_length=1, max_length=100, strict=False)
    ] = Field((0.001, 0.01, 0.1), description="Top fractions of the pairs whose gaps are shown.")


class EvaluateSection(Section):
    """`[evaluate]`: memorization over wordings; retrieval; zero-shot and linear probes."""

    wordings: Views = Field(
        1,
        description="Captions per pair on which memorization and utility are also measured, at most 1,000; 1 = only "
        "those in train.captions.",
    )
    validation: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.0,
        description="Share of the external pairs that choose settings, such as the length, and measure no utility.",
    )
    labels: Literal["label", "sublabel", "none"] = Field(
        "label", description="Classes: the label, the finer sublabel (emoji have both), or none."
    )
    classnames: str = Field(
        "", description="JSON or CSV: label -> class names; empty = the shipped names, else the label."
    )
    templates: Annotated[tuple[_Template, ...], Field(strict=False)] = Field(
        (), description="Prompts with {} for the class name: 'a photo of a {}.'; empty = the data source's."
    )
    retained: str = Field(
        "", description="Data on which the pretrained model is compared with f and g: a path, or emoji; empty = none."
    )
    probe_c: Annotated[tuple[Positive, ...], Field(min_length=1, max_length=100, strict=False)] = Field(
        (0.001, 0.01, 0.1, 1.0),
        description="C (inverse regularization strength) of the linear probe; the best on validation is used.",
    )
    probe_validation: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.2, description="Fraction of the probe's training pairs used to choose C."
    )

    @model_validator(mode="after")
    def _usable(self) -> "EvaluateSection":
        for template in self.templates:
            if "{}" not in template and "{c}" not in template:
                raise ValueError(f"templates has {template!r} without {{}}; write {{}} in place of the class name")
        if list(self.probe_c) != sorted(set(self.probe_c)):
            raise ValueError(f"probe_c = {list(self.probe_c)} is not increasing; list each value once, smallest first")
        return self
