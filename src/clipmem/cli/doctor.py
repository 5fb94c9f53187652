"""`clipmem doctor`: installed versions and an end-to-end test."""

import os
import platform
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

if TYPE_CHECKING:
    from rich.console import Console

_PACKAGES = (
    "clipmem", "torch", "torchvision", "open_clip_torch", "numpy", "scipy", "scikit-learn", "polars", "pyarrow",
    "pillow", "pydantic", "cyclopts", "rich", "matplotlib", "jinja2", "safetensors",
)  # fmt: skip
_TINY = [
    "model.name=clipmem-micro", "split.shared=60", "split.candidate=20", "split.independent=20", "split.external=20",
    "train.epochs=2", "train.seeds=[0]", "train.batch_size=40", "score.draws=200",
]  # fmt: skip


def doctor(
    *,
    speed: Annotated[bool, Parameter(negative="")] = False,
    declared: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Show the installed versions and run a tiny study end to end; exit with 1 if something is broken.

    Args:
        speed: Benchmark this machine instead (about a minute): training, decoding, embedding, time of a study.
        declared: List all protocols, alignments, objectives, mitigations, estimators, detectors, data sources and
            report sections instead, including those of other packages.
    """
    from rich.console import Console
    from rich.table import Table

    from clipmem.cli.app import installed
    from clipmem.report.terminal import AS_JSON, print_json

    # with --json, stdout is only the document
    console = Console(quiet=AS_JSON.get())
    if declared:
        _show_declared(console)
        return
    if speed:
        _show_speed(console)
        return
    table = Table("package", "version", title="installed", title_justify="left", box=None)
    packages = {name: installed(name) for name in (*_PACKAGES, "ray")}
    for name, version in packages.items():
        optional = name == "ray" and version == "missing"
        table.add_row(name, "not installed (needed for --engine ray only)" if optional else version)
    console.print(table)
    console.print(f"\npython {platform.python_version()} on {platform.platform()}", highlight=False)
    import torch

    from clipmem.base.machine import cores
    from clipmem.study import api, execution

    resources = execution.resolve(api.find_recipe("demo"), models=4)
    console.print(
        f"computing on {resources.device} in {resources.precision}: {resources.workers} models at a time, "
        f"{resources.threads} threads each, {cores()} cores"
        + (f", {torch.cuda.get_device_name()}" if resources.device == "cuda" else ""),
        highlight=False,
    )
    for name in ("OMP_NUM_THREADS", "OMP_PROC_BIND"):
        if name in os.environ:
            console.print(f"note: {name}={os.environ[name]} is set; training overrides it", highlight=False)
    with tempfile.TemporaryDirectory() as folder:
        started = time.monotonic()
        run = api.run("quick", Path(folder) / "run", settings=_TINY)
        seconds = time.monotonic() - started
    stages = ", ".join(f"{stage} {took:.1f} s" for stage, took in run.summary["seconds"].items())
    console.print(f"tiny study: finished in {seconds:.1f} s ({stages})", highlight=False)
    if AS_JSON.get():
        machine = {"python": platform.python_version(), "platform": platform.platform(), "cores": cores()}
        used = {name: getattr(resources, name) for name in ("device", "precision", "workers", "threads")}
        print_json({"packages": packages, **machine, **used, "seconds": run.summary["seconds"]})
        return
    console.print("no problems found", highlight=False)


def _show_declared(console: "Console") -> None:
    from rich.table import Table
    from rich.text import Text

    from clipmem.curation.detectors import DETECTORS
    from clipmem.data.sources import SOURCES
    from clipmem.mitigate import MITIGATIONS
    from clipmem.report.escape import visible
    from clipmem.report.sections import all_sections
    from clipmem.report.terminal import AS_JSON, print_json
    from clipmem.scoring.alignments import ALIGNMENTS
    from clipmem.scoring.estimators import ESTIMATORS
    from clipmem.scoring.protocols import PROTOCOLS
    from clipmem.train.objectives import OBJECTIVES

    kinds = (PROTOCOLS, ALIGNMENTS, OBJECTIVES, MITIGATIONS, ESTIMATORS, DETECTORS, SOURCES, all_sections())
    if AS_JSON.get():
        print_json({kind.kind: {name: kind.summary(name) for name in kind} for kind in kinds})
        return
    for kind in kinds:
        table = Table(kind.kind, "", box=None)
        for name in kind:
            table.add_row(Text(visible(name)), Text(visible(kind.summary(name))))
        console.print(table)
        console.print()


def _show_speed(console: "Console") -> None:
    from rich.table import Table

    from clipmem.base.machine import cores
    from clipmem.report.terminal import AS_JSON, print_json
    from clipmem.study.speed import in_words, measure

    found = measure(log=lambda what: console.print(f"measuring: {what} ...", highlight=False))
    if AS_JSON.get():
        print_json(asdict(found))
        return
    columns = ("task", "per second", "", "compared with", "ratio")
    table = Table(*columns, title="clipmem-tiny", title_justify="left", box=None)
    for column in (1, 4):
        table.columns[column].justify = "right"
    for row in found.rates:
        ratio = f"{row.ratio:.2f}" if row.ratio >= 0.1 else f"{row.ratio:.1g}"
        table.add_row(
            row.what, f"{row.rate:,.0f}" if row.rate >= 10 else f"{row.rate:.1f}", row.unit, row.against, ratio
        )
    console.print()
    console.print(table)
    console.print(
        f"\nestimated time: {in_words(found.demo)} to train the models of clipmem demo, {in_words(found.vit_epoch)} "
        "for one epoch of ViT-B-32 on 70,000 pairs",
        highlight=False,
        soft_wrap=True,
    )
    if found.load > 0.5:
        console.print(
            f"note: other programs were using {found.load:.1f} of the {cores()} cores; results are lower than on an "
            "idle machine",
            highlight=False,
            soft_wrap=True,
        )
