"""`clipmem reproduce`: replicate the published experiments."""

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter, validators

from clipmem.base.progress import Reporter
from clipmem.cli.shell import Screen, command


@command
def reproduce(
    *,
    finding: Annotated[tuple[str, ...], Parameter(consume_multiple=True, negative="", show_default=False)] = (),
    seeds: Annotated[int | None, Parameter(validator=validators.Number(gte=1, lte=100))] = None,
    regime: str = "redundant",
    scale: str = "",
    out: Path | None = None,
    set_: Annotated[tuple[str, ...], Parameter(name="--set", negative="", show_default=False)] = (),
    device: Literal["auto", "cpu", "cuda"] = "auto",
    engine: str = "local",
    reporter: Reporter,
) -> Screen:
    """Replicate the published experiments and test their findings.

    Estimates the time, trains all missing runs, and writes findings.json and a page with each finding next to the
    published curve. Run it again to resume after a stop.

    Args:
        finding: Findings to reproduce, all by default: roles, memorized, planted, redundancy, layers,
            encoders, captions, text-noise, removal, tradeoff, paradigms, model-size, one-pass, data-size.
        seeds: Seeds of the base study; by default 2 for tiny, 8 for laptop, 3 for published.
        regime: Kind of data: redundant = the emoji as drawn by several artists; unique = one pair of each emoji;
            long-tail = icons (set data.path, see experiments/reproduce/RESULTS.md); photographs = food, sky, animals;
            titles, alt-texts = errors that people made (set data.path, see reproduce/README.md); small-vocabulary = few
            tokens (see there); coco = COCO (set data.path).
        scale: tiny = a test that takes minutes; laptop = conclusive, takes hours; planned = as decided before the runs
            (PLAN.md), with a split for each seed; repeated = a second look with other seeds; published = coco, needs a
            GPU. By default laptop if findings are named, else tiny; published for coco.
        out: Output folder; by default clipmem-reproduce-REGIME-SCALE.
        set_: Change the base study: --set data.path=captions_train2017.json. Can be repeated.
        device: Device to compute on.
        engine: Execution engine: local or ray.
    """
    from clipmem_reproduce.page import KIND  # imports torch, as the next ones
    from clipmem_reproduce.reproduction import PAGE
    from clipmem_reproduce.reproduction import reproduce as run

    scale = scale or ("published" if regime == "coco" else "laptop" if finding else "tiny")
    folder = out or Path(f"clipmem-reproduce-{regime}-{scale}")
    document = run(
        folder,
        findings=finding,
        scale=scale,
        regime=regime,
        seeds=seeds,
        settings=set_,
        device=device,
        engine=engine,
        reporter=reporter,
        log=reporter.note,
    )
    return Screen(KIND, document, f"Page: {folder / PAGE}")
