"""`clipmem export`: pairs in another format, lists of uids, embeddings."""

from pathlib import Path
from typing import Literal

from cyclopts import App

from clipmem import study
from clipmem.base.paths import check_place
from clipmem.base.progress import Reporter
from clipmem.cli.arguments import Count, Device, Flag, ModelName, Number0, Settings, ShardsPath, check_data
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
    *,
    model: ModelName,
    data: ShardsPath,
    out: Path,
    views: Number0 = 0,
    captions: Count | None = None,
    precision: Literal["fp32", "bf16"] = "fp32",
    batch_size: Count = 256,
    device: Device = "auto",
    engine: str = "local",
    part: str = "",
    reporter: Reporter,
) -> str:
    """Write the embeddings of pairs under one model, for `clipmem score`, `clipmem curate` or other tools.

    Writes img_emb, text_emb and metadata in parts, in clip-retrieval's layout: one row per pair, the mean of the unit
    embeddings of its views, or captions. Run the same command again to resume after a stop.

    Args:
        model: Model folder or other name (docs/models.md).
        data: Pairs: a file or folder, or emoji for the shipped ones.
        out: Output folder.
        views: Random views per image; 0 = the unchanged image.
        captions: Maximum number of captions per pair; by default all.
        precision: fp32, or bf16 = autocast.
        batch_size: Images or captions per forward pass.
        device: Device to compute on.
        engine: Who embeds the pairs: local, ray (this machine or the cluster of RAY_ADDRESS), or ray://HEAD:PORT.
        part: Embed only share K of N of the pairs, as K/N: for the array of a scheduler. Then run without it.
    """
    check_place(out)
    how = {"views": views, "captions": captions, "precision": precision, "batch_size": batch_size, "device": device}
    settings = study.score_inputs.Settings.of(**how, engine=engine, part=part)
    return study.scoring.embed_pairs(model, data, out, settings, reporter=reporter)
