"""`clipmem data`: look at data before a study, write them in another format, and list pairs by score."""

import sys
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Parameter, validators

data = App(name="data", help="Inspect and convert data sets; list pairs by score.")
_Settings = Annotated[tuple[str, ...], Parameter(name="--set", negative="", show_default=False)]
_Flag = Parameter(negative="")
_Count = Parameter(validator=validators.Number(gte=1))


@data.command
def inspect(
    path: str,
    /,
    *,
    source: str = "",
    set_: _Settings = (),
    full: Annotated[bool, _Flag] = False,
    cost: bool = True,
    model: str = "clipmem-tiny",
    json: Annotated[bool, _Flag] = False,
) -> None:
    """Say what lies at a path: format, counts, captions, sizes, samples, duplicates, problems, cost of a study.

    Every record is read once; sizes, decoding and near-duplicates are looked at in a sample, and said so. Exit code 2
    when the data cannot be used.

    Args:
        path: A file, a folder, or shards, as a recipe's data.path.
        source: The data source; by default it is found out.
        set_: Change a setting of the data: --set data.image_column=png. May be given several times.
        full: Decode every image, not a sample.
        cost: Time this machine for some seconds and estimate what a study would cost.
        model: The architecture of that study.
        json: Print JSON.
    """
    import json as json_module

    from rich.console import Console

    from clipmem.study import early

    early.check_there(path, source)
    from clipmem.base.errors import InputError
    from clipmem.cli.terminal import TerminalReporter
    from clipmem.report.terminal import print_screen
    from clipmem.study.data_commands import inspect as look

    done = 0
    with TerminalReporter(Console(stderr=True)) as reporter:

        def progress(now: int, of: int) -> None:
            nonlocal done
            if not done:
                reporter.begin("look", of, "images")
            reporter.advance(now - done)
            done = now

        found = look(path, source=source, settings=set_, full=full, cost=cost, model=model, progress=progress)
    if json:
        # ASCII only: a caption cannot act on the terminal
        sys.stdout.write(json_module.dumps(found, indent=1) + "\n")
    else:
        print_screen("inspected", found, Console())
    if not found["usable"]:
        tried = found["problems"]["decoded"]
        got = f"no image that decodes, of {tried:,}"
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
    """Write the usable pairs of a data set in another format: the same images, captions and uids.

    What cannot be used is left out, counted, and listed in OUT-quarantine.parquet beside the folder.

    Args:
        path: A file, a folder, or shards, as a recipe's data.path; emoji for the shipped pairs.
        to: The format to write.
        out: A new folder.
        source: The data source; by default it is found out.
        set_: Change a setting of the data: --set data.caption_column=text. May be given several times.
        shard: Pairs in a tar, a Parquet file, or a sub-folder.
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
    rest: Annotated[bool, _Flag] = False,
) -> None:
    """List pairs by their score: .txt, .parquet, .csv, or DataComp's sorted .npy.

    Args:
        scores: A finished run folder, or a Parquet file with the columns uid and clipmem.
        out: The file to write; its ending says how.
        top: So many with the largest scores; by default all.
        bottom: So many with the smallest scores.
        by: The column that orders the pairs.
        role: Only pairs of this role: candidate, independent, shared or external.
        rest: List all other pairs instead: the data without those.
    """
    from clipmem.study.data_commands import write_list

    n = write_list(scores, out, top=top, bottom=bottom, by=by, role=role, rest=rest)
    sys.stdout.write(f"wrote {n:,} uids to {out}\n")
