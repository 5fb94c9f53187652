"""`clipmem reproduce`: the published experiments, and whether they hold."""

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter, validators


def reproduce(
    *,
    figure: Annotated[tuple[str, ...], Parameter(consume_multiple=True, negative="", show_default=False)] = (),
    seeds: Annotated[int | None, Parameter(validator=validators.Number(gte=1, lte=100))] = None,
    scale: Literal["tiny", "laptop", "published"] = "tiny",
    out: Path | None = None,
    set_: Annotated[tuple[str, ...], Parameter(name="--set", negative="", show_default=False)] = (),
    device: Literal["auto", "cpu", "cuda"] = "auto",
    engine: str = "local",
) -> None:
    """Make the published experiments again and say which findings hold.

    Says how long it will take, makes every run that is missing, and writes findings.json and a page with a figure for
    each finding beside the published curve. Run it again after a stop: it resumes.

    Args:
        figure: Findings to reproduce, all by default: distributions, memorized, planted, layers, encoders, captions,
            text-noise, removal, tradeoff, model-size, one-pass, data-size.
        seeds: Seeds of every run: 2 at scale tiny, 5 at laptop, 3 at published.
        scale: tiny shows that it works, in minutes; laptop decides, in hours; published needs a GPU machine and COCO.
        out: Where everything goes; by default clipmem-reproduce-SCALE.
        set_: Change the base study: --set data.path=/data/coco. May be given several times.
        device: Where to compute.
        engine: Who computes: local, ray, or ray://HEAD:PORT.
    """
    from rich.console import Console

    from clipmem.cli.terminal import TerminalReporter
    from clipmem.report.terminal import print_screen
    from clipmem.study.reproduce import PAGE
    from clipmem.study.reproduce import reproduce as run

    place = out or Path(f"clipmem-reproduce-{scale}")
    progress = Console(stderr=True)
    with TerminalReporter(progress) as reporter:
        document = run(
            place,
            figures=figure,
            scale=scale,
            seeds=seeds,
            settings=set_,
            device=device,
            engine=engine,
            reporter=reporter,
            say=reporter.note,
        )
    print_screen("findings", document, Console(), f"Page: {place / PAGE}")
