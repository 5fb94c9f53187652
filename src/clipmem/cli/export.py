"""`clipmem export`: pairs in another format, lists of uids, embeddings."""

from dataclasses import asdict
from pathlib import Path
from typing import Literal

from cyclopts import App

from clipmem import study
from clipmem.base.paths import check_place
from clipmem.base.progress import Reporter
from clipmem.cli.arguments import Count, Embedding, Flag, ModelName, Settings, ShardsPath, check_data
from clipmem.cli.shell import command

export = App(
    name="export",
    group_commands="Commands",
    help="Write pairs in another format, lists of uids by score, or embeddings.",
)


@export.command
@command
def pairs(
    path: str,
    /,
    *,
    to: Literal["webdataset", "parquet", "imagefolder"],
    out: Path,
    source: str = "",
    set_: Settings = (),
    shard: Count = 10_000,
    reporter: Reporter,
) -> str:
    """Write the usable pairs of a data set in another format, with the same images, captions and uids.

    Unusable records are left out, counted, and listed in OUT-skipped.parquet, next to the output folder.

    Args:
        path: A file, folder or shards, as in data.path of a recipe; emoji for the shipped pairs.
        to: Output format.
        out: A new folder.
        source: Data source; by default detected.
        set_: Change a data setting: --set data.caption_column=text. Can be repeated.
        shard: Pairs per tar, Parquet file or sub-folder.
    """
    if not (source or set_):
        check_data(path)
    opened = study.opening.open_data(path, {"source": source}, settings=set_)
    return study.data_commands.export(opened, out, to, shard=shard, reporter=reporter)


@export.command
@command
def ids(
    scores: Path,
    /,
    *,
    out: Path,
    top: Count | None = None,
    bottom: Count | None = None,
    by: str = "clipmem",
    role: str = "",
    invert: Flag = False,
) -> str:
    """Write the uids of pairs by score: .txt, .parquet, .csv, or DataComp's sorted .npy.

    Args:
        scores: A finished run folder, or a Parquet file with the columns uid and clipmem.
        out: Output file; its extension is the format.
        top: Keep the N highest-scoring pairs; by default all.
        bottom: Keep the N lowest-scoring pairs.
        by: Column to sort by.
        role: Keep only pairs of this role: candidate, independent, shared or external.
        invert: Write all other pairs instead.
    """
    n = study.data_commands.write_list(scores, out, top=top, bottom=bottom, by=by, role=role, invert=invert)
    return f"wrote {n:,} uids to {out}"


@export.command
@command
def embeddings(
    *, model: ModelName, data: ShardsPath, out: Path, embedding: Embedding = Embedding(), reporter: Reporter
) -> str:
    """Write the embeddings of pairs under one model, for `clipmem score`, `clipmem curate` or other tools.

    Writes img_emb, text_emb and metadata in parts, in clip-retrieval's layout: one row per pair, the mean of the unit
    embeddings of its views, or captions. Run the same command again to resume after a stop.

    Args:
        model: Model folder or other name (docs/models.md).
        data: Pairs: a file or folder, or emoji for the shipped ones.
        out: Output folder.
    """
    check_place(out)
    settings = study.score_inputs.Settings.of(**asdict(embedding))
    return study.scoring.embed_pairs(model, data, out, settings, reporter=reporter)
