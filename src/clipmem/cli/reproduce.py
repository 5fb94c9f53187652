"""`clipmem reproduce`: replicate the published experiments."""

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
    """Replicate the published experiments and test their findings.

    Estimates the time, trains all missing runs, and writes findings.json and a page with each finding next to the
    published curve. Run it again to resume after a stop.

    Args:
        figure: Findings to reproduce, all by default: distributions, memorized, planted, layers, encoders, captions,
            text-noise, removal, tradeoff, model-size, one-pass, data-size.
        seeds: Seeds per run; by default 2 for tiny, 5 for laptop, 3 for published.
        scale: tiny = a test that takes minutes; laptop = conclusive, takes hours; published = needs a GPU and COCO.
        out: Output folder; by default clipmem-reproduce-SCALE.
        set_: Change the base study: --set data.path=/data/coco. Can be repeated.
        device: Device to compute on.
        engine: Execution engine: local, ray, or ray://HEAD:PORT.
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
            log=reporter.note,
        )
    print_screen("findings", document, Console(), f"Page: {place / PAGE}")
