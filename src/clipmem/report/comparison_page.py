"""Compare run folders and write `compare.json`, `compare.parquet` and `index.html`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl

from clipmem.base.atomic import is_free, write_json
from clipmem.base.require import require
from clipmem.base.tables import write_parquet
from clipmem.report.audits import compare_audits
from clipmem.report.comparison import compare
from clipmem.report.page import write_page
from clipmem.report.read import read_audited, read_finished

DOCUMENT, TABLE, PAGE = "compare.json", "compare.parquet", "index.html"
_TEXT = ("run", "measure", "kind")
_NUMBERS = ("baseline", "mean", "difference", "ratio", "low", "high", "p", "p_holm", "wilcoxon_p", "effect")
_SCHEMA: dict[str, type[pl.DataType]] = {
    **dict.fromkeys(_TEXT, pl.String),
    **dict.fromkeys(("n", "seeds"), pl.Int64),
    **dict.fromkeys(_NUMBERS, pl.Float64),
}


def compare_runs(
    folders: Sequence[Path],
    *,
    measure: str = "clipmem",
    confidence: float | None = None,
    along: str = "",
    utility: str = "",
) -> dict[str, Any]:
    """Compare finished runs with the first of them.

    See `clipmem.report.comparison.compare`, and `clipmem.report.audits.compare_audits` if all have an audit, which
    runs with models paired by seed never have.
    """
    audited = [read_audited(folder) for folder in folders]
    resolved = [folder.resolve() for folder in folders]
    twice = [str(folder) for k, folder in enumerate(folders) if folder.resolve() in resolved[:k]]
    require(not twice, "clipmem compare", f"{twice} twice", "each run once", "Omit one of them.")
    found = [one for one in audited if one is not None]
    if len(found) == len(folders) > 1:
        return compare_audits(found)
    runs = [read_finished(folder) for folder in folders]
    return compare(runs, measure=measure, confidence=confidence, along=along, utility=utility)


def write_compared(folders: Sequence[Path], out: Path, **settings: Any) -> dict[str, Any]:
    """Compare runs with the `settings` of `compare_runs`, write document, table and page to `out`."""
    foreign = not is_free(out) and not (out / DOCUMENT).is_file()
    expected, hint = "a new folder, or that of an earlier comparison", "Choose another --out DIR."
    require(not foreign, f"--out {out}", "a folder with other files", expected, hint)
    document = compare_runs(folders, **settings)
    write_json(out / DOCUMENT, document)
    if "audits" in document:
        return document
    rows = [*document["differences"], *({**row, "kind": "cost"} for row in document["cost"])]
    write_parquet(
        out / TABLE, pl.DataFrame([{name: row.get(name) for name in _SCHEMA} for row in rows], schema=_SCHEMA)
    )
    write_page(out / PAGE, "comparison", document)
    return document
