"""`clipmem data`: inspect and convert data sets, and list pairs by score."""

import sys
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Parameter, validators

from clipmem.cli.tables import prints_tables

data = App(name="data", help="Inspect and convert data sets; list pairs by score.")
_Settings = Annotated[tuple[str, ...], Parameter(name="--set", negative="", show_default=False)]
_Flag = Parameter(negative="")
_Count = Parameter(validator=validators.Number(gte=1))


@data.command
@prints_tables
def inspect(
    path: str,
    /,
    *,
    source: str = "",
    set_: _Settings = (),
    full: Annotated[bool, _Flag] = False,
    cost: bool = True,
    model: str = "clipmem-tiny",
    preset: Literal["", "finetune-vit-b-32", "finetune-lit", "finetune-lora", "finetune-siglip"] = "",
    against: str = "",
) -> None:
    """Inspect a data set: format, counts, captions, sizes, samples, duplicates, problems, cost of a study.

    Every record is read once; sizes, decoding and near-duplicates are checked on a sample. Exits with 2 if the data
    cannot be used.

    Args:
        path: A file, folder or shards, as in data.path of a recipe.
        source: Data source; by default detected.
        set_: Change a data setting: --set data.image_column=png. Can be repeated.
        full: Decode every image instead of a sample.
        cost: Benchmark this machine for some seconds and estimate the cost of a study.
        model: Architecture of that study.
        preset: Estimate a fine-tuning with this shipped recipe instead.
        against: Address of a model (docs/models.md): also find the pairs that it already aligns like members.
    """
    from rich.console import Console

    from clipmem.study import early

    early.check_there(path, source)
    from clipmem.base.errors import InputError
    from clipmem.cli.terminal import TerminalReporter
    from clipmem.report.terminal import print_screen
    from clipmem.study.data_commands import inspect as inspect_data

    with TerminalReporter(Console(stderr=True)) as reporter:
        found = inspect_data(
            path,
            source=source,
            settings=set_,
            full=full,
            cost=cost,
            model=model,
            preset=preset,
            against=against,
            reporter=reporter,
        )
    print_screen("inspected", found, Console())
    if not found["usable"]:
        tried = found["problems"]["decoded"]
        got = f"no decodable image (of {tried:,})"
        raise InputError(f"{path}", got=got, expected="images", hint="See the reasons above.")


@data.command
def export(
    path: str,
    /,
    *,
    to: Literal["webdataset", "parquet", "imagefolder"],
    out: Path,
    source: str = "",
    set_: _Settings = (),
    shard: Annotated[int, _Count] = 10_000,
) -> None:
    """Convert the usable pairs of a data set to another format, with the same images, captions and uids.

    Unusable records are left out, counted, and listed in OUT-quarantine.parquet, next to the output folder.

    Args:
        path: A file, folder or shards, as in data.path of a recipe; emoji for the shipped pairs.
        to: Output format.
        out: A new folder.
        source: Data source; by default detected.
        set_: Change a data setting: --set data.caption_column=text. Can be repeated.
        shard: Pairs per tar, Parquet file or sub-folder.
    """
    from rich.console import Console

    from clipmem.study import early

    early.check_there(path, source)
    from clipmem.cli.terminal import TerminalReporter
    from clipmem.study.data_commands import export as write

    with TerminalReporter(Console(stderr=True)) as reporter:
        sentence = write(path, out, to, source=source, settings=set_, shard=shard, reporter=reporter)
    Console().print(sentence, markup=False, highlight=False, soft_wrap=True)


@data.command
def ids(
    scores: Path,
    /,
    *,
    out: Path,
    top: Annotated[int | None, _Count] = None,
    bottom: Annotated[int | None, _Count] = None,
    by: str = "clipmem",
    role: str = "",
    invert: Annotated[bool, _Flag] = False,
) -> None:
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
    from clipmem.study.data_commands import write_list

    n = write_list(scores, out, top=top, bottom=bottom, by=by, role=role, invert=invert)
    sys.stdout.write(f"wrote {n:,} uids to {out}\n")
