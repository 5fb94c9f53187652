"""The recipe's `[evaluate]` section: how the utility of models is measured, beside retrieval."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from clipmem.base.section import Positive, Section

_Template = Annotated[str, Field(min_length=1)]


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
