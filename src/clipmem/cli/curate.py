"""`clipmem curate`: find mismatched captions, and write the data without them."""

from dataclasses import asdict
from functools import partial
from pathlib import Path

from clipmem import report, study
from clipmem.base.progress import Reporter
from clipmem.cli.arguments import Flag, ModelName, RunOrData, Share, SuspectsAim, Work
from clipmem.cli.shell import Screen, checked_share, command
from clipmem.cli.view import look_at


@command
def curate(
    data: RunOrData = None,
    /,
    *,
    model: ModelName = "",
    out: Path | None = None,
    write: Path | None = None,
    correct: Flag = False,
    reviewed_only: Flag = False,
    captions: int | None = None,
    suspects: SuspectsAim = "",
    fail_above: Share | None = None,
    work: Work = Work(),
    view: Flag = False,
    reporter: Reporter,
) -> Screen | None:
    """Find mismatched captions: rank the pairs, say why, and write the cleaned data.

    Without a model, compares pixels and words of the pairs: seconds for thousands of pairs, minutes for 200,000.
    Writes suspects.parquet and curate.json into --out. `clipmem view` opens that folder to review the suspects. Marks
    made there are read the next time, without ranking again: wrong pairs go or get the caption that you gave them, fine
    ones stay. With a run folder, uses its models, scores and marks.

    Args:
        data: A file, folder or shards, as in data.path of a recipe; emoji for the shipped pairs; or a run folder. Not
            needed if --model is a folder of embeddings with captions.
        model: A model that also looks at the pairs (docs/models.md), or its embeddings by `clipmem export embeddings`.
        out: Output folder; by default curate in the run folder, or curated.
        write: Also write the data without suspects into this new folder: in the format they came in, or as Parquet.
        correct: With --write: give suspects the suggested caption, where there is one, instead of removing them.
        reviewed_only: With --write: apply only your marks, and leave the suspects that you have not marked.
        captions: Maximum number of captions per pair; by default all.
        suspects: How many suspects: a number, precision=0.7 (as many as there may be with this expected share of
            mismatched captions), or recall=0.5 (as few as have this expected share of all mismatched captions), both
            with the pairs that a rule flags; by default those that are more likely mismatched than not.
        fail_above: Exit with 1 if a larger share of the pairs are suspects; for tests of data.
        view: Then review the suspects in the browser, as clipmem view does.
    """
    how = study.curating.Curating(
        model, captions, out, write, correct, **asdict(work), suspects=suspects, reviewed=reviewed_only
    )
    curated = study.curating.curate_and_write(data, how, reporter)
    where = f"Suspects: {curated.folder / study.curating.SUSPECTS}"
    steps = report.templating.next_steps("suspects", folder=curated.folder)
    screen = Screen("curated", curated, where, steps, partial(look_at, curated.folder) if view else None)
    share = curated.document["suspects"] / curated.document["pairs"]
    return checked_share(screen, share, fail_above, "suspects")
