"""The recipe's `[mitigate.*]` sections, all off by default; see `clipmem.mitigate`.

A run and the same run with a mitigation have recipes that differ in one section, so that they can be compared.
"""

from collections.abc import Iterator, Sequence
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from clipmem.base.sections import (
    Above0,
    Below1,
    Count,
    Fraction,
    Inside,
    Listed,
    NonNegative,
    OptionalViews,
    Range,
    Section,
    Seed,
    Size,
    Views,
    check_ranges,
    key,
)

Place = Literal["post", "pre", "post-scaled"]


class MitigationSection(Section):
    """The settings of a mitigation.

    Attributes:
        needs: What the training must have: "text tower", "unit embeddings", "pair weights", "pretrained model", or a
            tower that is not frozen because its inputs change from step to step: "changing image", "changing text".
    """

    needs: ClassVar[tuple[str, ...]] = ()

    @property
    def active(self) -> bool:
        """Whether it changes anything: by default, whether its first key differs from its default."""
        first, field = next(iter(type(self).model_fields.items()))
        return getattr(self, first) != field.default


class NoiseSection(MitigationSection):
    """`[mitigate.image_noise]`: Gaussian noise on the embeddings of one tower."""

    needs = ("unit embeddings",)

    std: NonNegative = key(0.0, "Standard deviation of the noise in each dimension; 0 = none.")
    place: Place = key(
        "post", "post: added to the unit vector; pre: before it is normalized; post-scaled: std / sqrt(d)."
    )
    start: Below1 = key(0.33, "Fraction of the training before which there is no noise; 0 = noise from the first step.")


class TextNoiseSection(NoiseSection):
    """`[mitigate.text_noise]`."""

    needs = ("text tower", "unit embeddings")


class CaptionsSection(MitigationSection):
    """`[mitigate.captions]`: several captions per pair in training; scores still use `train.captions`."""

    needs = ("text tower",)

    count: OptionalViews = key(0, "Captions per pair that training samples from, one each step; 0 = as train.captions.")


class CaptionVariantsSection(MitigationSection):
    """`[mitigate.caption_variants]`: rewrites of a caption that replace it at random."""

    needs = ("text tower",)

    kinds: Listed[Literal["dropout", "reorder", "synonyms", "templates"]] = key(
        (), "Any of dropout, reorder, synonyms (extra `wordnet`), templates, used in turn; [] = none."
    )
    count: Views = key(4, "Maximum number of variants per caption.")
    probability: Fraction = key(0.5, "Probability that a sample shows a variant.")
    dropout: Inside = key(0.2, "Fraction of words that dropout removes.")
    templates: Annotated[tuple[str, ...], Field(min_length=1, strict=False)] = key(
        ("a picture of {}", "an image of {}", "this shows {}", "{} in a picture"),
        "Sentences for templates; {} is replaced with the caption.",
    )
    seed: Seed = key(0, "Seed of the variants.")

    @property
    def active(self) -> bool:
        """Whether it changes anything."""
        return bool(self.kinds) and self.probability > 0

    @model_validator(mode="after")
    def _usable(self) -> "CaptionVariantsSection":
        if len(set(self.kinds)) != len(self.kinds):
            raise ValueError(f"kinds = {list(self.kinds)} has duplicates; name each kind once")
        for template in self.templates:
            if template.count("{}") != 1:
                raise ValueError(f"template {template!r} must have {{}} exactly once, in place of the caption")
        return self


class ImageVariantsSection(MitigationSection):
    """`[mitigate.image_variants]`: other images of a pair that replace its image at random."""

    needs = ("changing image",)

    probability: Fraction = key(0.0, "Probability that a sample shows a variant; 0 = never.")
    source: Literal["given", "augment"] = key(
        "given", "given: the data's other images of a pair; augment: stronger crops and color jitter."
    )
    count: OptionalViews = key(0, "given: images used per pair; 0 = all.")
    crop_scale: Range[Fraction] = key((0.3, 1.0), "augment: area fraction of the crop.")
    color: Annotated[float, Field(ge=0, le=2)] = key(0.5, "augment: strength of the color jitter.")

    @model_validator(mode="after")
    def _usable(self) -> "ImageVariantsSection":
        check_ranges(crop_scale=self.crop_scale)
        return self


class TextMaskingSection(MitigationSection):
    """`[mitigate.text_masking]`: tokens dropped at random, independently each time."""

    needs = ("text tower", "changing text")

    probability: Below1 = key(0.0, "Probability that a caption token is dropped; 0 = none.")


class WeightDecaySection(MitigationSection):
    """`[mitigate.weight_decay]`: a control: more weight decay than `train.weight_decay`."""

    factor: NonNegative = key(1.0, "Factor on train.weight_decay; 1 = unchanged.")


class EarlyStoppingSection(MitigationSection):
    """`[mitigate.early_stopping]`: a control: the same training, ended early."""

    share: Above0 = key(1.0, "Fraction of the steps to run, with the full training's schedule; 1 = all.")


class RemoveSection(MitigationSection):
    """`[mitigate.remove]`: pairs removed before training."""

    count: Size = key(0, "Number of f's training pairs to remove, worst first; 0 = none.")
    by: Literal["clipmem", "similarity", "random", "g-alignment", "planted", "file", "marks"] = key(
        "clipmem",
        "Worst first: highest CLIPMem; lowest similarity under f; random order; lowest alignment under g; "
        "planted: known mismatched ones; file: highest column; marks: marked wrong in the explorer.",
    )
    role: Literal["trained", "candidate"] = key("trained", "Remove from all of f's pairs, or from candidates only.")
    scores: str = key(
        "", "Run folder or scores.parquet of the parent; a table such as suspects.parquet, or marks.jsonl."
    )
    column: str = key("score", "by = 'file': column of the scores, for example a detector's.")
    seed: Seed = key(0, "Seed of by = 'random', and of the order of known wrong pairs.")

    @property
    def scored(self) -> bool:
        """Whether the order comes from the scores of another run."""
        return self.by not in ("random", "planted")

    @model_validator(mode="after")
    def _usable(self) -> "RemoveSection":
        if self.active and self.scored and not self.scores:
            raise ValueError(f"by = {self.by!r} needs scores; set it to the run folder that measured them")
        if not self.scored and self.scores:
            raise ValueError(f"scores is set and by = {self.by!r} does not use it; omit scores")
        return self


class RegroupSection(MitigationSection):
    """`[mitigate.regroup]`: separate batches for the most memorized pairs (after MultiMem)."""

    share: Below1 = key(0.0, "Fraction of an epoch's batches that hold only the most memorized pairs; 0 = none.")
    every: Count = key(1, "Regroup every N epochs.")
    scores: str = key("", "Run folder or scores.parquet of the parent, whose CLIPMem ranks the pairs.")

    @model_validator(mode="after")
    def _usable(self) -> "RegroupSection":
        if self.active and not self.scores:
            raise ValueError("share needs scores; set scores to the run folder that measured them")
        return self


class ReweightSection(MitigationSection):
    """`[mitigate.reweight]`: lower weights in the loss for pairs with suspect captions."""

    needs = ("pair weights",)

    share: Below1 = key(0.0, "Fraction of pairs whose weight is below 1, falling to 0 for the most suspect; 0 = none.")


class AverageSection(MitigationSection):
    """`[mitigate.average]`: the model is the exponential moving average of its weights over the steps."""

    decay: Below1 = key(0.0, "Weight d of the average before a step: d average + (1 - d) weights; 0 = no averaging.")


class InterpolateSection(MitigationSection):
    """`[mitigate.interpolate]`: the model is a mean of the pretrained and the fine-tuned weights (WiSE-FT)."""

    needs = ("pretrained model",)

    alpha: Fraction = key(1.0, "Weight of the fine-tuned model: 1 = unchanged, 0 = the pretrained model.")
    run: str = key("", "Finished run folder whose models are interpolated; empty = train them.")

    @model_validator(mode="after")
    def _usable(self) -> "InterpolateSection":
        if self.run and not self.active:
            raise ValueError("run is set and alpha = 1 does not use it; omit run, or set alpha below 1")
        return self


class MitigateSection(Section):
    """`[mitigate.*]`."""

    text_noise: TextNoiseSection = TextNoiseSection()
    image_noise: NoiseSection = NoiseSection()
    captions: CaptionsSection = CaptionsSection()
    caption_variants: CaptionVariantsSection = CaptionVariantsSection()
    image_variants: ImageVariantsSection = ImageVariantsSection()
    text_masking: TextMaskingSection = TextMaskingSection()
    weight_decay: WeightDecaySection = WeightDecaySection()
    early_stopping: EarlyStoppingSection = EarlyStoppingSection()
    remove: RemoveSection = RemoveSection()
    regroup: RegroupSection = RegroupSection()
    reweight: ReweightSection = ReweightSection()
    average: AverageSection = AverageSection()
    interpolate: InterpolateSection = InterpolateSection()

    def active(self) -> Iterator[str]:
        """Yield the names of the active mitigations."""
        return (name for name in type(self).model_fields if getattr(self, name).active)

    def conflict(
        self, protocol: Any, objective: Any, names: tuple[str, str], freeze: Sequence[str], *, pretrained: bool
    ) -> str:
        """Return which mitigation cannot work with this protocol, objective, frozen parts and start; "" if all can."""
        for name in self.active():
            needs, subject = getattr(self, name).needs, f"[mitigate.{name}] is set and"
            instead = "omit it, or set train.objective = 'clip'"
            if not protocol.trains:
                return f"{subject} protocol = {names[0]!r} trains nothing; omit it"
            if "pretrained model" in needs and not pretrained:
                return f"{subject} it needs a pretrained model; set model.pretrained"
            if "text tower" in needs and not objective.uses_text:
                return f"{subject} objective = {names[1]!r} trains no text tower; {instead}"
            if "unit embeddings" in needs and not objective.normalizes:
                return f"{subject} objective = {names[1]!r} does not normalize its embeddings; {instead}"
            if "pair weights" in needs and not objective.weighs:
                return f"{subject} objective = {names[1]!r} has no weights of pairs; {instead}"
            fixed = next((tower for tower in freeze if f"changing {tower}" in needs), "")
            if fixed:
                return f"{subject} the frozen {fixed} tower would not see its changes; omit it, or train that tower"
        return ""
