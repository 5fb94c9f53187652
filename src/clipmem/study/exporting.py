"""`clipmem data export`: a source in, another format out, and the list of what was left out beside it."""

from collections.abc import Sequence
from pathlib import Path

from clipmem.base.progress import Quiet, Reporter
from clipmem.data.export import SHARD, export_pairs
from clipmem.data.quarantine import left_out_sentence, quarantine_table, summarize
from clipmem.store.tables import write_table
from clipmem.study import early
from clipmem.study.inspecting import data_section


def export(
    path: str,
    out: Path,
    to: str,
    *,
    source: str = "",
    settings: Sequence[str] = (),
    shard: int = SHARD,
    reporter: Reporter | None = None,
) -> str:
    """Write the usable pairs of a data set in another format.

    Args:
        path: What a recipe's `data.path` would be; `emoji` for the shipped pairs.
        out: A new folder.
        to: `webdataset`, `parquet` or `imagefolder`.
        source: The data source; found out when empty.
        settings: Changes to `[data]`.
        shard: Pairs in a tar, a Parquet file, or a sub-folder.
        reporter: Who is told of the progress.

    Returns:
        What was written, in a sentence. What was left out is listed in `OUT-quarantine.parquet`.

    Raises:
        InputError: As `export_pairs`.
    """
    section = data_section(path, source=source, settings=settings)
    told = reporter or Quiet()
    told.begin("export", 0, "pairs")
    written, problems = export_pairs(early.check_source(section), out, to, shard=shard, progress=told.advance)
    sentence = f"wrote {written:,} pairs to {out}"
    if not problems:
        return sentence
    table = quarantine_table(problems)
    beside = out.with_name(f"{out.name}-quarantine.parquet")
    write_table(beside, "quarantine", table)
    return f"{sentence}; {left_out_sentence(summarize(table, written))} (see {beside})"
