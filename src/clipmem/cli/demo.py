"""`clipmem demo`: a complete study on the shipped data."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter, validators


def demo(
    *,
    out: Path = Path("clipmem-demo"),
    quick: Annotated[bool, Parameter(negative="")] = False,
    seeds: Annotated[int | None, Parameter(validator=validators.Number(gte=1, lte=100))] = None,
) -> None:
    """Run a complete study on the shipped emoji drawings: which pairs does a CLIP model memorize?

    Trains f and g for every seed (two by default, a few minutes on two cores), scores all pairs and writes a report
    that opens offline. 100 of the 800 candidates have wrong captions. Run it again to resume after a stop.

    Args:
        out: Run folder; with --quick, by default clipmem-demo-quick.
        quick: Use one seed and half the length: about a minute, noisier, without intervals of single pairs.
        seeds: Number of seeds; one f and one g are trained per seed.
    """
    from rich.console import Console

    from clipmem.cli.terminal import run_and_show
    from clipmem.report.terminal import print_screen

    if quick and out == Path("clipmem-demo"):
        out = Path("clipmem-demo-quick")
    settings = [] if seeds is None else [f"train.seeds={list(range(seeds))}"]
    command = " ".join(
        ["clipmem demo", *(["--quick"] if quick else []), *([f"--seeds {seeds}"] if seeds else []), f"--out {out}"]
    )
    run_and_show("quick" if quick else "demo", out, settings=settings, command=command)
    print_screen("next", {"out": out}, Console())
