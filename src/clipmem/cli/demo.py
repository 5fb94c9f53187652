"""`clipmem demo`: the whole study on the data that ships in the package."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter, validators


def demo(
    *,
    out: Path = Path("clipmem-demo"),
    quick: Annotated[bool, Parameter(negative="")] = False,
    seeds: Annotated[int | None, Parameter(validator=validators.Number(gte=1, lte=100))] = None,
) -> None:
    """Run the whole study on the shipped emoji: which pairs does a CLIP model memorize?

    Trains f and g for every seed (two by default, a few minutes on two cores), scores all pairs and writes a report
    that opens offline. Running it again goes on where it stopped.

    Args:
        out: The run folder. With --quick, and none given, it is clipmem-demo-quick.
        quick: One seed on a third of the data, in under a minute: noisier, and no error of single pairs.
        seeds: Number of seeds, one f and one g for each.
    """
    from clipmem.cli.terminal import run_and_show

    if quick and out == Path("clipmem-demo"):
        out = Path("clipmem-demo-quick")
    settings = [] if seeds is None else [f"train.seeds={list(range(seeds))}"]
    command = " ".join(
        ["clipmem demo", *(["--quick"] if quick else []), *([f"--seeds {seeds}"] if seeds else []), f"--out {out}"]
    )
    run_and_show("quick" if quick else "demo", out, settings=settings, command=command)
