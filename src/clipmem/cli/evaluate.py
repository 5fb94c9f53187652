"""`clipmem evaluate`: utility of trained models."""

from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter


def evaluate(
    folder: Path | None = None,
    /,
    *,
    model: Annotated[tuple[str, ...], Parameter(consume_multiple=True, negative="", show_default=False)] = (),
    data: str | None = None,
    source: str = "",
    label_column: str | None = None,
    caption_column: str | None = None,
    image_column: str | None = None,
    labels: Literal["", "label", "sublabel"] = "",
    classnames: Path | None = None,
    templates: Path | None = None,
    name: str = "",
    out: Path | None = None,
) -> None:
    """Evaluate models: zero-shot classification, linear probe, retrieval.

    By default, evaluates the models of a run on the study's external pairs, which no model trained on. With --data,
    uses any labeled images. --model evaluates other models and needs --data. Writes evaluate/NAME.json into the run
    folder.

    Args:
        folder: A finished run folder.
        model: Model folders, or transformers:FOLDER, instead of a run.
        data: Pairs to evaluate on.
        source: Data source, as in data.source of a recipe; by default parquet, or classfolder for a folder without
            Parquet files.
        label_column: Column of labels.
        caption_column: Column of captions; without it, labels are the captions and retrieval is skipped.
        image_column: Column of images.
        labels: Classes: label, or the finer sublabel of emoji; by default as in the recipe.
        classnames: JSON or CSV with the names of the classes.
        templates: Text or JSON with prompts that have {} for the class name.
        name: Name of the output; by default external, or the name of the data.
        out: With --model: output file; by default NAME.json in the working directory.
    """
    from rich.console import Console

    from clipmem.study import early

    early.check_choice(folder, model, data=bool(data is not None or source))
    if folder is not None:
        early.check_run(folder)
    early.check_models(model)
    if data is not None or source:
        early.check_there(data or "", source)
    for what, path in (("--classnames", classnames), ("--templates", templates)):
        if path is not None:
            early.check_file(path, what)
    from clipmem.cli.terminal import TerminalReporter
    from clipmem.report.terminal import print_screen
    from clipmem.study.evaluating import data_section, evaluate_given, evaluate_run

    section = data_section(data, source, label=label_column, caption=caption_column, image=image_column)
    changes: dict[str, Any] = {"labels": labels, "classnames": classnames, "templates": templates}
    with TerminalReporter(Console(stderr=True)) as reporter:
        if folder is not None:
            found = evaluate_run(folder, data=section, name=name, reporter=reporter, **changes)
        else:
            out = out or Path(f"{name or 'utility'}.json")
            found = evaluate_given(model, section, out, reporter=reporter, **changes)
    print_screen("evaluated", found.document, Console(), f"Written: {found.file}")
