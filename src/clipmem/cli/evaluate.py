"""`clipmem evaluate`: zero-shot classification, linear probe and retrieval of finished models."""

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter


def evaluate(
    folder: Path | None = None,
    /,
    *,
    model: Annotated[tuple[str, ...], Parameter(consume_multiple=True, negative="", show_default=False)] = (),
    data: Path | None = None,
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
    """Measure what models can do: zero-shot classification, linear probe, retrieval.

    With a run folder alone: on the external pairs of that study, which no model trained on. With --data: on any
    labeled images. Writes evaluate/NAME.json into the folder and prints a table. Models without a run are named by
    --model, and need --data.

    Args:
        folder: The folder of a finished run.
        model: Folders of models, or transformers:FOLDER, instead of a run.
        data: The pairs to test on.
        source: Their format, a name as in a recipe's data.source; by default parquet, or classfolder for a folder
            without Parquet files.
        label_column: Their column of labels.
        caption_column: Their column of captions; without it the labels are the captions, and retrieval is left out.
        image_column: Their column of images.
        labels: Classes: label, or the finer sublabel of emoji; by default as in the recipe.
        classnames: JSON or CSV with the names of the classes.
        templates: Text or JSON with sentences that have {} in the place of the name.
        name: Name of the document; by default external, or that of the data.
        out: With --model: the file to write; by default NAME.json here.
    """
    from rich.console import Console

    from clipmem.study import early

    early.check_choice(folder, model, data=bool(data or source))
    if folder is not None:
        early.check_run(folder)
    early.check_models(model)
    early.check_there(str(data or ""), source)
    for what, path in (("--classnames", classnames), ("--templates", templates)):
        if path is not None:
            early.check_file(path, what)
    from clipmem.cli.terminal import TerminalReporter
    from clipmem.report.terminal import print_screen
    from clipmem.study.evaluating import data_section, evaluate_given, evaluate_run

    section = data_section(data, source, label=label_column, caption=caption_column, image=image_column)
    changes = {"labels": labels, "classnames": classnames, "templates": templates}
    with TerminalReporter(Console(stderr=True)) as reporter:
        if folder is not None:
            found = evaluate_run(folder, data=section, name=name, reporter=reporter, **changes)
        else:
            out = out or Path(f"{name or 'utility'}.json")
            found = evaluate_given(model, section, out, reporter=reporter, **changes)
    print_screen("evaluated", found.document, Console(), f"Written: {found.file}")
