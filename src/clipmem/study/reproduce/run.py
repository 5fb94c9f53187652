"""`clipmem reproduce`: make the runs, judge the findings, write `findings.json` and the page."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from clipmem._version import __version__
from clipmem.base.errors import InputError
from clipmem.base.progress import Reporter
from clipmem.base.suggest import did_you_mean
from clipmem.report.numbers import duration
from clipmem.report.reproduced.page import render
from clipmem.store.atomic import atomic_write, make_folder
from clipmem.store.manifest import recipe_hash
from clipmem.study import pool
from clipmem.study.reproduce.finding import FINDINGS, Context, Finding, Results
from clipmem.study.reproduce.findings import ORDER
from clipmem.study.reproduce.making import Maker, make_all, unique
from clipmem.study.reproduce.scales import scale_of

DOCUMENT, PAGE = "findings.json", "index.html"


def reproduce(
    out: Path,
    *,
    figures: Sequence[str] = (),
    scale: str = "tiny",
    seeds: int | None = None,
    settings: Sequence[str] = (),
    device: str = "auto",
    engine: str = "local",
    reporter: Reporter | None = None,
    say: Callable[[str], object] = lambda _: None,
) -> dict[str, Any]:
    """Make the runs of the published experiments, or what is left of them, and judge the findings.

    Args:
        out: Where everything goes; a reproduction that was stopped goes on there.
        figures: The findings to reproduce; none = all.
        scale: `tiny`, `laptop` or `published`.
        seeds: Seeds of every run; None = the scale's.
        settings: Changes to the base study, for example `["data.path=/data/coco"]`.
        device: `auto`, `cpu` or `cuda`.
        engine: Who trains (see `clipmem.run`).
        reporter: Who is told of each run's stages.
        say: Told which run is made, and the estimate before.

    Returns:
        What `findings.json` holds.

    Raises:
        InputError: There is no such finding or scale, a setting is wrong, or the folder holds another reproduction.
        RunError: A run failed.
    """
    names = _names(figures)
    chosen = scale_of(scale)
    base = chosen.base(seeds, settings)
    context = Context(chosen, base)
    findings = {name: FINDINGS[name]() for name in names}
    needed = {name: finding.runs(context) for name, finding in findings.items()}
    runs = unique(base, [(f"{name}: {run}", wanted) for name in names for run, wanted in needed[name].items()])
    _claim(out, {"scale": scale, "recipe_sha256": recipe_hash(base)})
    maker = Maker(out, base, device=device, engine=engine, reporter=reporter)
    maker.write_index(runs)
    with pool.kept():
        say(_estimate(maker, runs))
        make_all(maker, runs, say)
    results = Results(maker.open, base.score.confidence)
    documents: list[dict[str, Any]] = []
    for name, finding in findings.items():
        took = sum(maker.seconds(wanted) for wanted in unique(base, needed[name].items()).values())
        documents.append(_judged(name, finding, context, results, took))
    document = {
        "format": 1,
        "clipmem": __version__,
        "scale": scale,
        "recipe_sha256": recipe_hash(base),
        "confidence": base.score.confidence,
        "seeds": list(base.train.seeds),
        "runs": {name: wanted.key(base) for name, wanted in runs.items()},
        "rows": [
            {"finding": one["finding"], **{key: row[key] for key in _ROW}, "seconds": one["seconds"]}
            for one in documents
            for row in one["effects"]
        ],
        "findings": documents,
    }
    text = json.dumps(document, indent=1, allow_nan=False, ensure_ascii=False)
    atomic_write(out / DOCUMENT, (text + "\n").encode())
    atomic_write(out / PAGE, render(document).encode())
    return document


_ROW = ("measure", "estimate", "low", "high", "holds", "seeds")


def _names(figures: Sequence[str]) -> list[str]:
    for name in figures:
        if name not in ORDER:
            raise InputError(f"--figure {name}", got="no such finding", hint=did_you_mean(name, ORDER, kind="finding"))
    return [name for name in ORDER if name in figures or not figures]


def _claim(out: Path, what: dict[str, str]) -> None:
    """Make the folder this reproduction's, or check that it already is: runs of two scales are not to be mixed."""
    file = out / "reproduce.json"
    if file.is_file():
        there = json.loads(file.read_text(encoding="utf-8"))
        if there != what:
            raise InputError(
                f"folder {out} holds another reproduction",
                got=f"scale {there.get('scale')!r}, base recipe {str(there.get('recipe_sha256'))[:16]} there; "
                f"scale {what['scale']!r}, base recipe {what['recipe_sha256'][:16]} now",
                hint="Choose another --out DIR.",
            )
        return
    if out.is_dir() and any(out.iterdir()):
        raise InputError(
            f"--out {out}",
            got="a folder that holds other files",
            expected="a new folder, or one that an earlier reproduction made",
            hint="Choose another --out DIR.",
        )
    atomic_write(make_folder(out) / "reproduce.json", (json.dumps(what) + "\n").encode())


def _estimate(maker: Maker, runs: dict[str, Any]) -> str:
    found = maker.estimate(runs.values())
    if not found.runs:
        return f"all {len(runs)} runs are there"
    return (
        f"{found.runs} of {len(runs)} runs to make, {found.models} models: about {duration(found.seconds)}, from a "
        f"short run here just now ({found.rate:,.0f} pairs/s a model, {found.overhead:.0f} s a run beside training)"
    )


def _judged(name: str, finding: Finding, context: Context, results: Results, seconds: float) -> dict[str, Any]:
    effects = finding.effects(context, results)
    return {
        "finding": name,
        "title": finding.title,
        "claim": finding.claim,
        "published": finding.published,
        "limits": finding.limits,
        "holds": finding.holds(effects),
        "seconds": round(seconds, 1),
        "effects": [asdict(one) for one in effects],
        "panels": [panel.as_dict() for panel in finding.panels(context, results)],
    }
