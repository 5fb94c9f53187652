"""Compare run folders: the result in a notebook, or written as `compare.json`, `compare.parquet` and `index.html`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from clipmem.base.atomic import is_free, write_json
from clipmem.base.require import require
from clipmem.base.tables import write_parquet
from clipmem.report.audits import compare_audits
from clipmem.report.comparison import compare as compare_finished
from clipmem.report.figures import standalone
from clipmem.report.page import write_page
from clipmem.report.run import Run, read_finished
from clipmem.report.sections.comparison import Comparison as Section
from clipmem.report.sections.comparison import pareto_figure
from clipmem.report.templating import notebook_html

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
    resolved = [folder.resolve() for folder in folders]
    twice = [str(folder) for k, folder in enumerate(folders) if folder.resolve() in resolved[:k]]
    require(not twice, "clipmem compare", f"{twice} twice", "each run once", "Omit one of them.")
    audited = [run for run in map(Run, folders) if run.audit]
    if len(audited) == len(folders) > 1:
        return compare_audits(audited)
    runs = [read_finished(folder) for folder in folders]
    return compare_finished(runs, measure=measure, confidence=confidence, along=along, utility=utility)


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


class Comparison:
    """Finished runs compared with a baseline, over paired seeds; what `clipmem.compare` returns.

    Attributes:
        document: What `clipmem compare` writes as compare.json.
    """

    def __init__(self, document: Mapping[str, Any]) -> None:
        self.document = document

    @property
    def table(self) -> pl.DataFrame:
        """One row per run and measure: mean, baseline, difference with its interval, p-values."""
        return pl.DataFrame(self.document["differences"])

    def __repr__(self) -> str:
        return f"Comparison of {', '.join(run['run'] for run in self.document['runs'])}"

    def _repr_html_(self) -> str:
        rows = [
            {**row, "run": answer["run"], "name": name}
            for answer in Section().data(self.document)["answers"]
            for name, row in answer["parts"]
        ]
        figure = standalone(pareto_figure(self.document, "narrow")) if self.document["pareto"] else ""
        return notebook_html("comparison", document=self.document, rows=rows) + figure


def compare(baseline: Any, *others: Any, **settings: Any) -> Comparison:
    """Compare finished runs with a baseline: memorization, utility and cost over paired seeds.

    Args:
        baseline: A run, or its folder.
        others: Runs to compare with it.
        settings: `measure`, `confidence`, `along`, `utility`, as in `clipmem compare`.

    Raises:
        InputError: A run is not finished, or the runs differ in data, split, seeds or alignment.
    """
    return Comparison(compare_runs([Path(getattr(run, "path", run)) for run in (baseline, *others)], **settings))
