"""`clipmem evaluate`: utility of trained models."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cyclopts import Parameter

from clipmem import report, study
from clipmem.base.errors import InputError, shorten
from clipmem.base.progress import Reporter
from clipmem.cli.arguments import ModelNames, ReadableFile, RunDir
from clipmem.cli.shell import Screen, command


@Parameter(name="*")
@dataclass(frozen=True)
class TestPairs:
    """The pairs to evaluate on.

    Attributes:
        data: Pairs to evaluate on.
        source: Data source, as in data.source of a recipe; by default parquet, or classfolder for a folder without
            Parquet files.
        label_column: Column of labels.
        caption_column: Column of captions; without it, labels are the captions and retrieval is skipped.
        image_column: Column of images.
        labels: Classes: label, or the finer sublabel of emoji; by default as in the recipe.
        classnames: JSON or CSV with the names of the classes.
        templates: Text or JSON with prompts that have {} for the class name.
    """

    data: str | None = None
    source: str = ""
    label_column: str | None = None
    caption_column: str | None = None
    image_column: str | None = None
    labels: Literal["", "label", "sublabel"] = ""
    classnames: ReadableFile | None = None
    templates: ReadableFile | None = None

    @property
    def section(self) -> dict[str, str] | None:
        """Keys of `[data]`; None if there are none: a run's own external pairs."""
        if self.data is None and not self.source:
            return None
        columns = {"label_column": self.label_column, "caption_column": self.caption_column}
        keys = {"path": self.data, "source": self.source or None, **columns, "image_column": self.image_column}
        return {key: value for key, value in keys.items() if value is not None}


@command
def evaluate(
    folder: RunDir | None = None,
    /,
    *,
    model: ModelNames = (),
    test: TestPairs = TestPairs(),
    interpolate: str = "",
    name: str = "",
    out: Path | None = None,
    reporter: Reporter,
) -> Screen:
    """Measure the utility of models: zero-shot classification, linear probe, retrieval.

    By default, evaluates the models of a run on the study's external pairs, which no model trained on. With --data,
    uses any labeled images. --model evaluates other models and needs --data. Writes evaluate/NAME.json into the run
    folder. With --interpolate, evaluates the models between a pretrained model and its fine-tuned version: those of a
    run, with their memorization, or with --model BASE TUNED those between two models.

    Args:
        folder: A finished run folder.
        model: Model folders, or transformers:FOLDER, instead of a run.
        interpolate: Weights of the fine-tuned model from 0 to 1, separated by commas: 0,0.25,0.5,0.75,1. The runs are
            written to the folder interpolate of the run.
        name: Name of the output; by default external, or the name of the data.
        out: With --model: output file; by default NAME.json in the working directory. With --interpolate of a run:
            folder of the comparison; by default interpolate/compared in the run folder.
    """
    alphas = _numbers(interpolate)
    prompts = {"labels": test.labels, "classnames": test.classnames, "templates": test.templates}
    evaluated = study.api.evaluate(
        folder, model=model, data=test.section, interpolate=alphas, name=name, out=out, reporter=reporter, **prompts
    )
    if folder is not None and alphas:
        return Screen("comparison", evaluated.document, f"Page: {evaluated.file}")
    steps = report.templating.next_steps("view", run=folder) if folder else ()
    return Screen("evaluated", evaluated.document, f"Written: {evaluated.file}", steps)


def _numbers(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")] if text else []
    except ValueError as error:
        expected, hint = "numbers from 0 to 1, separated by commas", "For example: --interpolate 0,0.25,0.5,0.75,1."
        raise InputError("--interpolate", got=shorten(text), expected=expected, hint=hint) from error
