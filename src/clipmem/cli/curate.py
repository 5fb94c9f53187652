"""`clipmem curate`: find mismatched captions, and write the data without them."""

from pathlib import Path

from clipmem import report, study
from clipmem.base.progress import Reporter
from clipmem.cli.arguments import Device, Flag, ModelName, RunOrData
from clipmem.cli.shell import Screen, command


@command
def curate(
    data: RunOrData,
    /,
    *,
    model: ModelName = "",
    out: Path | None = None,
    write: Path | None = None,
    correct: Flag = False,
    captions: int | None = None,
    device: Device = "auto",
    reporter: Reporter,
) -> Screen:
    """Find mismatched captions: rank the pairs, say why, and write the cleaned data.

    Without a model, compares pixels and words of the pairs: seconds for thousands of pairs, 4 minutes for 200,000.
    Writes suspects.parquet and curate.json into --out. `clipmem view` opens that folder, and marks made there are read
    the next time: wrong pairs go, fine ones stay. With a run folder, uses its models, scores and marks.

    Args:
        data: A file, folder or shards, as in data.path of a recipe; emoji for the shipped pairs; or a run folder.
        model: A model that also looks at the pairs (docs/models.md), or its embeddings by `clipmem export embeddings`.
        out: Output folder; by default curate in the run folder, or curated.
        write: Also write the data without suspects into this new folder: in the format they came in, or as Parquet.
        correct: With --write: give suspects the suggested caption, where there is one, instead of removing them.
        captions: Maximum number of captions per pair; by default all.
        device: Device to compute on.
    """
    how = study.curating.Curating(model, captions, out, write, correct, device)
    curated = study.curating.curate_and_write(data, how, reporter)
    where = f"Suspects: {curated.folder / study.curating.SUSPECTS}"
    return Screen("curated", curated, where, report.templating.next_steps("suspects", folder=curated.folder))
