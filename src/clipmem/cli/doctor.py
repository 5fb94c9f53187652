"""`clipmem doctor`: installed versions and an end-to-end test."""

import os
import platform

from rich.console import Console
from rich.table import Table
from rich.text import Text

from clipmem import report, study
from clipmem.base.machine import cores, installed
from clipmem.cli.arguments import Flag
from clipmem.cli.shell import Screen, command
from clipmem.report.formats import visible

_PACKAGES = (
    "clipmem", "torch", "torchvision", "open_clip_torch", "numpy", "scipy", "scikit-learn", "polars", "pyarrow",
    "pillow", "pydantic", "cyclopts", "rich", "matplotlib", "jinja2", "safetensors",
)  # fmt: skip


@command
def doctor(*, speed: Flag = False, declared: Flag = False) -> Screen | None:
    """Check the installation: show versions and run a tiny study; exit with 1 if something is broken.

    Args:
        speed: Benchmark this machine instead: pairs per second of training, embedding and decoding.
        declared: List all protocols, alignments, objectives, mitigations, scores of pairs, data sources and
            report sections instead, including those of other packages.
    """
    # with --json, stdout is only the document
    console = Console(quiet=report.terminal.AS_JSON.get())
    document = (_show_declared if declared else _show_speed if speed else _show_health)(console)
    if report.terminal.AS_JSON.get():
        report.terminal.print_json(document)


def _show_health(console: Console) -> dict[str, object]:
    table = Table("package", "version", title="installed", title_justify="left", box=None)
    packages = {name: installed(name) for name in (*_PACKAGES, "ray")}
    for name, version in packages.items():
        optional = name == "ray" and version == "missing"
        table.add_row(name, "not installed (needed for --engine ray only)" if optional else version)
    console.print(table)
    console.print(f"\npython {platform.python_version()} on {platform.platform()}", highlight=False)
    resources, gpu = study.probing.resources()
    console.print(
        f"computing on {resources.device} in {resources.precision}: {resources.workers} models at a time, "
        f"{resources.threads} threads each, {cores()} cores{gpu and f', {gpu}'}",
        highlight=False,
    )
    for name in ("OMP_NUM_THREADS", "OMP_PROC_BIND"):
        if name in os.environ:
            console.print(f"note: {name}={os.environ[name]} is set; training overrides it", highlight=False)
    seconds, by_stage = study.probing.tiny_study()
    stages = ", ".join(f"{stage} {took:.1f} s" for stage, took in by_stage.items())
    console.print(f"tiny study: finished in {seconds:.1f} s ({stages})", highlight=False)
    console.print("no problems found", highlight=False)
    machine = {"python": platform.python_version(), "platform": platform.platform(), "cores": cores()}
    used = {name: getattr(resources, name) for name in ("device", "precision", "workers", "threads")}
    return {"packages": packages, **machine, **used, "seconds": by_stage}


def _show_declared(console: Console) -> dict[str, object]:
    kinds = study.probing.registries()
    for kind in kinds:
        table = Table(kind.kind, "", box=None)
        for name in kind:
            table.add_row(Text(visible(name)), Text(visible(kind.summary(name))))
        console.print(table)
        console.print()
    return {kind.kind: {name: kind.summary(name) for name in kind} for kind in kinds}


def _show_speed(console: Console) -> dict[str, object]:
    rates = study.probing.rates()
    for task, rate in rates.items():
        console.print(f"{task:<24} {rate:>8,.4g} pairs/s", highlight=False)
    return {"pairs_per_second": rates}
