"""`clipmem view`: look at pairs, and decide."""

import os
import sys
import webbrowser
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter, validators

from clipmem.base.require import require


def view(
    scores: Path,
    /,
    *,
    data: str | None = None,
    compare_with: Path | None = None,
    port: Annotated[int, Parameter(validator=validators.Number(gte=0, lte=65535))] = 0,
    no_browser: Annotated[bool, Parameter(negative="")] = False,
    export: Path | None = None,
    rows: Annotated[int | None, Parameter(validator=validators.Number(gte=1))] = None,
    uids: Path | None = None,
    all_: Annotated[bool, Parameter(name="--all", negative="")] = False,
) -> None:
    """Look at pairs in the browser: sort, filter, search, compare and mark them.

    Serves a page that only this machine can open and that works offline, until Ctrl-C. Marks are appended to
    marks.jsonl in the run folder, or next to the table: curate reads them. With --export, writes a folder of files.

    Args:
        scores: A run folder, the folder that curate wrote, or a table (.parquet) of score, estimate, curate or audit.
        data: With a table: its pairs, a file or folder, or emoji for the shipped ones. curate names its own.
        compare_with: Another run folder, or table, with the same pairs: shows what changed.
        port: Port on 127.0.0.1; 0 = a free one.
        no_browser: Only print the address.
        export: Write a folder that opens by double click and on any web server.
        rows: With --export: only the N highest-scoring, or most suspect, pairs.
        uids: With --export: only the pairs listed in this file (.txt, or .csv or .parquet with the column uid).
        all_: With --export: all pairs, even if there are more than 20,000.
    """
    chosen = ", ".join(name for name, given in (("--rows", rows), ("--uids", uids), ("--all", all_)) if given)
    require(export or not chosen, chosen, "no --export", "a folder to export to", "Add --export DIR.")
    from clipmem.report.explorer.server import Explorer, Server
    from clipmem.report.explorer.subject import open_subject

    explorer = Explorer(open_subject(scores, data, compare_with))
    if not explorer.columns.manifest["thumbnails"]:
        sys.stderr.write("clipmem: no images or captions. Add --data PAIRS to see them.\n")
    if export is not None:
        from rich.console import Console

        from clipmem.cli.terminal import TerminalReporter
        from clipmem.report.explorer.export import choose, export_to

        with TerminalReporter(Console(stderr=True)) as reporter:
            picked = choose(explorer.columns, rows, uids, every=all_)
            place = export_to(export, explorer, picked, reporter)
        sys.stdout.write(f"Exported {len(picked):,} pairs: {place}\n")
        return
    with Server(explorer, port) as server:
        sys.stdout.write(f"{len(explorer.columns):,} pairs at {server.address} (Ctrl-C ends)\n")
        sys.stdout.flush()
        # without a display, Python would open a browser inside the terminal
        if not no_browser and (sys.platform in {"darwin", "win32"} or {"DISPLAY", "WAYLAND_DISPLAY"} & set(os.environ)):
            webbrowser.open(server.address)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            marked = explorer.marks_file.is_file()
            sys.stderr.write(f"\nclipmem: stopped.{f' Marks are in {explorer.marks_file}.' if marked else ''}\n")
