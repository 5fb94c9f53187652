"""Write a comparison: `compare.json`, `compare.parquet` and one page that opens offline and loads nothing."""

import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl
from markupsafe import Markup

from clipmem.base.errors import InputError
from clipmem.report.compare.differences import compare
from clipmem.report.compare.fair import check_fair
from clipmem.report.compare.figure import pareto_figure
from clipmem.report.compare.rows import answer_sentences, cost_cells, difference_cells, settings_of
from clipmem.report.compare.run import ComparedRun, read_compared
from clipmem.report.figures import SIZES
from clipmem.report.page import environment, template_text
from clipmem.store.atomic import atomic_write

DOCUMENT, TABLE, PAGE = "compare.json", "compare.parquet", "index.html"
MEASURES = ("clipmem", "clipmem_norm")
_SCHEMA: dict[str, type[pl.DataType]] = {
    "run": pl.String,
    "measure": pl.String,
    "kind": pl.String,
    "n": pl.Int64,
    "seeds": pl.Int64,
    "baseline": pl.Float64,
    "mean": pl.Float64,
    "difference": pl.Float64,
    "ratio": pl.Float64,
    "low": pl.Float64,
    "high": pl.Float64,
    "p": pl.Float64,
    "p_holm": pl.Float64,
    "wilcoxon_p": pl.Float64,
    "effect": pl.Float64,
}


def compare_runs(
    folders: Sequence[Path], *, measure: str = "clipmem", confidence: float | None = None
) -> dict[str, Any]:
    """Compare finished runs with the first of them.

    Args:
        folders: Run folders, two or more; the first is the baseline.
        measure: `clipmem`, or `clipmem_norm` for runs with one normaliser.
        confidence: Level of the intervals; by default that of the baseline's recipe.

    Returns:
        What `compare.json` holds (see `clipmem.report.compare.differences.compare`).

    Raises:
        InputError: There is nothing to compare, a folder is no finished four-way run, or the comparison is unfair.
    """
    runs = _read(folders)
    if measure not in MEASURES:
        raise InputError(
            "measure", got=repr(measure), expected="'clipmem' or 'clipmem_norm'", hint="Choose one of the two."
        )
    for run in runs[1:]:
        check_fair(runs[0], run, measure=measure)
    return compare(runs, measure=measure, confidence=confidence or runs[0].recipe.score.confidence)


def write_compared(
    folders: Sequence[Path], out: Path, *, measure: str = "clipmem", confidence: float | None = None
) -> dict[str, Any]:
    """Compare runs (see `compare_runs`) and write the document, the table and the page to `out`; return the document.

    Raises:
        InputError: As `compare_runs`, or `out` holds other files.
    """
    _check_out(out)
    document = compare_runs(folders, measure=measure, confidence=confidence)
    text = json.dumps(document, indent=1, allow_nan=False, ensure_ascii=False)
    atomic_write(out / DOCUMENT, (text + "\n").encode())
    atomic_write(out / TABLE, _table(document))
    atomic_write(out / PAGE, render(document).encode())
    return document


def _check_out(out: Path) -> None:
    if out.is_dir() and any(out.iterdir()) and not (out / DOCUMENT).is_file():
        raise InputError(
            f"--out {out}",
            got="a folder that holds other files",
            expected="a new folder, or one that an earlier comparison made",
            hint="Choose another --out DIR.",
        )


def _read(folders: Sequence[Path]) -> list[ComparedRun]:
    if len(folders) < 2:
        raise InputError(
            "clipmem compare",
            got=f"{len(folders)} run folder{'s' * (len(folders) != 1)}",
            expected="two or more, the baseline first",
            hint="Name the run without mitigation, then those with.",
        )
    resolved = [folder.resolve() for folder in folders]
    twice = next((folder for k, folder in enumerate(resolved) if folder in resolved[:k]), None)
    if twice:
        raise InputError(
            "clipmem compare",
            got=f"{folders[resolved.index(twice)]} twice",
            expected="each run once",
            hint="Leave one of them out.",
        )
    runs = [read_compared(folder) for folder in folders]
    names = [run.name for run in runs]
    if len(set(names)) < len(names):
        name = next(name for name in names if names.count(name) > 1)
        raise InputError(
            "clipmem compare",
            got=f"two folders of the name {name!r}",
            expected="names that tell runs apart",
            hint="Rename a folder.",
        )
    return runs


def _table(document: Mapping[str, Any]) -> bytes:
    empty = dict.fromkeys(_SCHEMA)
    rows = [*document["differences"], *({**row, "kind": "cost", "seeds": None} for row in document["cost"])]
    table = pl.DataFrame([{name: (empty | row)[name] for name in _SCHEMA} for row in rows], schema=_SCHEMA)
    stream = io.BytesIO()
    table.write_parquet(stream, compression="zstd", statistics=False)
    return stream.getvalue()


def render(document: Mapping[str, Any]) -> str:
    """Render the page of a comparison as text."""
    drawn = [pareto_figure(document, size) for size in SIZES] if document["pareto"] else []
    return (
        environment()
        .get_template("compare.html")
        .render(
            style=Markup(template_text("page.css")),  # noqa: S704  our own file
            document=document,
            answers=answer_sentences(document),
            runs=[
                {**run, "settings": settings_of(run) if k else "it is the baseline"}
                for k, run in enumerate(document["runs"])
            ],
            pareto_figure=[Markup(svg) for svg in drawn],  # noqa: S704  matplotlib escapes its text
            differences=_by_run(document, document["differences"], difference_cells),
            cost=_by_run(document, document["cost"], cost_cells),
        )
    )


def _by_run(
    document: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], cells: Callable[[Mapping[str, Any]], dict[str, str]]
) -> list[tuple[str, list[dict[str, str]]]]:
    """Write rows for a table, grouped by run in the order in which the runs were named."""
    names = [run["run"] for run in document["runs"]]
    grouped = [(name, [cells(row) for row in rows if row["run"] == name]) for name in names]
    return [(name, own) for name, own in grouped if own]
