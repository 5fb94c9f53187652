"""`clipmem view`: look at pairs, and decide."""

import os
import sys
import webbrowser
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter, validators

from clipmem import study
from clipmem.base.errors import require
from clipmem.base.progress import Reporter
from clipmem.cli.arguments import Count, Flag
from clipmem.cli.shell import Screen, command, option_of, progress
from clipmem.report import explorer


@Parameter(name="*")
@dataclass(frozen=True)
class Selection:
    """What to export.

    Attributes:
        rows: With --export: only the N highest-scoring, or most suspect, pairs.
        uids: With --export: only the pairs listed in this file (.txt, or .csv or .parquet with the column uid).
        all_: With --export: all pairs, even if there are more than 20,000.
        space: With --export: add what a static Hugging Face Space needs; the folder has at most 10,000 pairs.
    """

    rows: Count | None = None
    uids: Path | None = None
    all_: Annotated[bool, Parameter(name="--all", negative="")] = False
    space: Flag = False


@command
def view(
    scores: Path,
    /,
    *,
    data: str | None = None,
    compare_with: Path | None = None,
    report: Flag = False,
    port: Annotated[int, Parameter(validator=validators.Number(gte=0, lte=65535))] = 0,
    no_browser: Flag = False,
    export: Path | None = None,
    selection: Selection = Selection(),
) -> Screen | str | None:
    """Look at pairs in the browser: sort, filter, search, compare, mark them, and review suspects.

    Serves a page that only this machine can open and that works offline, until Ctrl-C. Marks are appended to
    marks.jsonl in the run folder, or next to the table: curate reads them. The suspects of curate are reviewed one by
    one, and the cleaned data written from the page. With --export, writes the page as files.
    With --report, rebuilds the summary and the report of a run from its tables, and prints them.

    Args:
        scores: A run folder, the folder that curate wrote, or a table (.parquet) of score or audit.
        data: With a table: its pairs, a file or folder, or emoji for the shipped ones. curate names its own.
        compare_with: Another run folder, or table, with the same pairs: shows what changed.
        report: Print the tables of a run and write its report again, instead of opening the browser.
        port: Port on 127.0.0.1; 0 = a free one.
        no_browser: Only print the address.
        export: Write a folder that opens by double click and on any web server; or, if the name ends in .html, one file
            of at most 2,000 pairs and 25 MB.
    """
    asked = [option_of(name) for name, value in vars(selection).items() if value]
    require(export or not asked, ", ".join(asked), "no --export", "where to export to", "Add --export PATH.")
    if report:
        study.opening.RunFolder(scores).recipe()
        study.stages.renew_run(scores)
        return Screen("report", scores)
    opened = open_explorer(explorer.subject.open_subject(scores, data, compare_with))
    if not opened.columns.manifest["thumbnails"]:
        sys.stderr.write("clipmem: no images or captions. Add --data PAIRS to see them.\n")
    if export is not None:
        rows, uids, as_space = selection.rows, selection.uids, selection.space
        pairs = explorer.export.choose(opened.columns, export, rows, uids, every=selection.all_, as_space=as_space)
        with progress() as reporter:  # not while the page is served
            path = explorer.export.export_to(export, opened, pairs, reporter, as_space=as_space)
        return f"Exported {len(pairs):,} pairs: {path}"
    _serve(opened, port, no_browser=no_browser)
    return None


def open_explorer(subject: "explorer.subject.Subject") -> "explorer.server.Explorer":
    """Open the explorer, with the text towers of a run, and a review of the suspects if there are any."""

    def texts(side: str, seed: int) -> "explorer.meaning.Texts":
        return study.plan.PlannedStudy(subject.path).text_tower(side, seed)  # takes seconds, too

    if not subject.curation:
        return explorer.server.Explorer(subject, texts=texts)

    def review() -> dict[str, object]:
        from clipmem.curation import suspects  # takes seconds: not before the page asks

        return suspects.review(subject.curated)

    def write(path: Path, reporter: Reporter, **how: bool) -> dict[str, object]:
        return study.curating.write_reviewed(subject.curated, path, reporter, **how)

    return explorer.server.Explorer(subject, review, write, texts)


def look_at(folder: Path) -> None:
    """Serve the suspects in a folder that curate wrote until Ctrl-C."""
    _serve(open_explorer(explorer.subject.open_subject(folder)), 0, no_browser=False)


def _serve(opened: "explorer.server.Explorer", port: int, *, no_browser: bool) -> None:
    """Serve the page until Ctrl-C."""
    with explorer.server.Server(opened, port) as server:
        sys.stdout.write(f"{len(opened.columns):,} pairs at {server.address} (Ctrl-C ends)\n")
        sys.stdout.flush()
        # without a display, Python would open a browser inside the terminal
        if not no_browser and (sys.platform in {"darwin", "win32"} or {"DISPLAY", "WAYLAND_DISPLAY"} & set(os.environ)):
            webbrowser.open(server.address)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            marks = f" Marks are in {opened.marks_file}." if opened.marks_file.is_file() else ""
            sys.stderr.write(f"\nclipmem: stopped.{marks}\n")
