"""The sections of a recipe that come with the package, but for its mitigations."""

from functools import partial
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from clipmem.base.declared import known
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


class DataSection(Section):
    """`[data]`: where the pairs come from."""

    source: str = Field(
        "auto", description="A data source; auto = what `path` holds, or the shipped emoji without one."
    )
    path: str = Field("", description="File, folder or shards of the source; empty for the shipped one.")
    image_root: str = Field("", description="Folder that image paths start from; empty = found near `path`.")
    split: str = Field("", description="Use this split only, where the source has some; empty = all of them.")
    download: bool = Field(False, description="hub: fetch the data set if it is not on this machine.")
    image_column: str = Field("image", description="tables: bytes, a struct of bytes and path, or a path.")
    caption_column: str = Field("captions", description="tables: text, or a list of texts.")
    group_column: str = Field("", description="tables: pairs that share it never straddle roles.")
    label_column: str = Field("", description="tables: a class label, shown in reports.")
    object_column: str = Field("", description="tables: objects in the image, a list of texts or text with commas.")


class SplitSection(Section):
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
    near_duplicates: bool = Field(True, description="Keep near-duplicate images in one role.")
    seed: Seed = Field(0, description="Seed of the split.")


class ModelSection(Section):
    """`[model]`: the architecture of f and g."""

    name: str = Field("clipmem-tiny", description="open_clip model name, shipped name, or path of a JSON config.")


class TrainSection(Section):
    """`[train]`: how f and g are trained; one section for both, since they may differ in data only."""

    seeds: Annotated[tuple[Seed, ...], Field(min_length=1, max_length=1000, strict=False)] = Field(
        (0, 1), description="One f and one g for each seed; at most 1,000: each is two trainings."
    )
    objective: Annotated[str, AfterValidator(partial(known, "objectives"))] = Field(
        "clip", description="The loss; supervised needs labels, simclr sees two views of each image and no captions."
    )
    simclr_temperature: Positive = Field(0.1, description="simclr: t of NT-Xent; smaller looks at nearer images.")
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
    color: Annotated[float, Field(ge=0, le=2)] = Field(
        0.0, description="Strength of SimCLR's color jitter (it uses 1, or 0.5 for small images); 0 = none."
    )
    grayscale: Fraction = Field(0.0, description="Probability of a gray image (SimCLR: 0.2).")
    blur: Fraction = Field(0.0, description="Probability of a blurred image (SimCLR: 0.5, small images 0).")
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


class SubsampleSection(Section):
    """`[subsample]`: the models of the subsample protocol."""

    models: Annotated[int, Field(ge=4, le=10_000)] = Field(
        16, description="How many models, at most 10,000; each costs one training."
    )
    fraction: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.7,
        description="Share of the models that train on each pair of the pool (all pairs but the external ones), to the "
        "nearest whole model; each model trains on the same share of the pool.",
    )


class LeaveOneOutSection(Section):
    """`[leave_one_out]`: the pairs that are left out, one a model and seed."""

    pairs: Annotated[int, Field(ge=1, le=10_000)] = Field(
        30, description="How many candidates, a third of them planted ones where there are any; each is a training."
    )
    uids: Annotated[tuple[str, ...], Field(max_length=10_000, strict=False)] = Field(
        (), description="Exactly these, instead."
    )


class GivenSection(Section):
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


class EmbedSection(Section):
    """`[embed]`: what of each pair is embedded."""

    views: OptionalViews = Field(
        0, description="Random image views of a pair, each one more pass; 0 = the image as it is; at most 1,000."
    )
    caption_edits: OptionalViews = Field(
        0, description="Seeded edits of the caption of a pair that has one, for sslmem-text; at most 1,000."
    )
    batch_size: Count = Field(256, description="Images or captions in a forward pass.")
    precision: Literal["train", "fp32", "bf16"] = Field(
        "train", description="fp32, or bf16 autocast; train = as the models were trained, and fp32 for given ones."
    )


class LocalizeSection(Section):
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


class ScoreSection(Section):
    """`[score]`: how alignment becomes a score and an interval."""

    alignment: Annotated[str, AfterValidator(partial(known, "alignments"))] = Field(
        "clip", description="What is compared between models; confidence needs train.objective = 'supervised'."
    )
    weight: NonNegative = Field(1.0, description="w of the alignment score: how much the bank's similarity counts.")
    confidence: Annotated[float, Field(gt=0, lt=1)] = Field(0.95, description="Level of every interval.")
    draws: Annotated[int, Field(ge=100, le=1_000_000)] = Field(
        2000, description="Bootstrap draws; more than 1,000,000 change no digit that is shown."
    )


class DejavuSection(Section):
    """`[dejavu]`: Déjà Vu memorization, measured where pairs have objects."""

    objects: str = Field("", description="Parquet with uid and objects, instead of the data's own; empty = those.")
    neighbors: Count = Field(10, description="k: public images whose objects are the prediction.")
    top: Size = Field(0, description="Most frequent objects of the neighbors that are predicted; 0 = all of them.")
    ranking: Literal["gap", "correct", "distance"] = Field(
        "gap", description="What puts a pair at the top: objects right under f minus g, under f, or the nearest image."
    )
    fractions: Annotated[
        tuple[Annotated[float, Field(gt=0, le=1)], ...], Field(min_length=1, max_length=100, strict=False)
    ] = Field((0.001, 0.01, 0.1), description="Shares of the pairs whose gaps at the top are shown.")
    text_embeddings: str = Field(
        "", description="Text-only vectors for the one-model test: parquet (uid, embedding) or npy; empty = TF-IDF."
    )


class EvaluateSection(Section):
    """`[evaluate]`: zero-shot classification and the linear probe, measured where pairs have labels."""

    labels: Literal["label", "sublabel", "none"] = Field(
        "label", description="The pairs' classes: their label, their finer sublabel (emoji have both), or none."
    )
    classnames: str = Field(
        "", description="JSON or CSV: label -> the names of the class; empty = shipped ones, else the label itself."
    )
    templates: Annotated[tuple[_Template, ...], Field(strict=False)] = Field(
        (), description="Sentences with {} for a class name, as 'a photo of a {}.'; empty = those of the data source."
    )
    probe_c: Annotated[tuple[Positive, ...], Field(min_length=1, max_length=100, strict=False)] = Field(
        (0.001, 0.01, 0.1, 1.0),
        description="C of the linear probe (the larger, the less it is held back); the best on validation is taken.",
    )
    probe_validation: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.2, description="Share of the probe's training pairs on which C is chosen."
    )

    @model_validator(mode="after")
    def _usable(self) -> "EvaluateSection":
        for template in self.templates:
            if "{}" not in template and "{c}" not in template:
                raise ValueError(f"templates has {template!r}, where no class name can stand; write {{}} in its place")
        if list(self.probe_c) != sorted(set(self.probe_c)):
            raise ValueError(f"probe_c = {list(self.probe_c)} does not rise; write each value once, smallest first")
        return self
