"""`clipmem curate`: find wrong captions, and write the data without them."""

import shlex
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from clipmem.base.require import require


def curate(
    data: str,
    /,
    *,
    model: str = "",
    out: Path | None = None,
    write: Path | None = None,
    correct: Annotated[bool, Parameter(negative="")] = False,
    captions: int | None = None,
    budget: float | None = None,
    yes: Annotated[bool, Parameter(negative="")] = False,
    device: Literal["auto", "cpu", "cuda"] = "auto",
) -> None:
    """Rank pairs by how likely their captions are wrong, say why, and write the cleaned data.

    Without a model, compares pixels and words of the pairs: seconds for thousands of pairs, 4 minutes for 200,000.
    Writes suspects.parquet and curate.json into --out. `clipmem view` opens that folder, and marks made there are read
    the next time: wrong pairs go, fine ones stay. With a run folder, uses its models, scores and marks.

    Args:
        data: A file, folder or shards, as in data.path of a recipe; emoji for the shipped pairs; or a run folder.
        model: Address of a model that also looks at the pairs (docs/models.md), or its embeddings by `clipmem embed`.
        out: Output folder; by default curate in the run folder, or curated.
        write: Also write the data without suspects into this new folder, in the format they came in.
        correct: With --write: give suspects the suggested caption, where there is one, instead of removing them.
        captions: Maximum number of captions per pair; by default all.
        budget: Also train a model on the data, for this many times the epochs that `clipmem init` suggests, and use its
            embeddings and the margins of its training. The run is the folder run in --out.
        yes: With --budget: start even if it would take more than a day, or more memory or disk space than available.
        device: Device to compute on.
    """
    from rich.console import Console

    from clipmem.study import early

    run = data != "" and (Path(data) / "recipe.toml").is_file()
    if run:
        early.check_run(data)
    else:
        early.check_data(data)
    if model:
        early.check_models([model])
    early.check_budget(budget)
    got = "a run folder, which is trained" if run else f"--model {model}"
    hint = "Omit one of them."
    require(budget is None or not (run or model), "--budget", got, "data alone", hint)
    early.check_device(device)
    from clipmem.cli.terminal import TerminalReporter
    from clipmem.report.terminal import print_screen
    from clipmem.study.curating import SUSPECTS, Curating, curate_and_write

    with TerminalReporter(Console(stderr=True)) as reporter:
        how = Curating(model=model, captions=captions, out=out, write=write, correct=correct, device=device)
        how = replace(how, budget=budget, allow_long=yes)
        found = curate_and_write(data, how, reporter)
    command = shlex.join(["clipmem", "view", f"{found.folder}"])
    print_screen("curated", found, Console(), f"Suspects: {found.folder / SUSPECTS}\nLook at them: {command}")
