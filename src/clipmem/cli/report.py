"""`clipmem report`: the summary and the page again, from finished tables."""

from pathlib import Path


def report(folder: Path, /) -> None:
    """Write the summary and the report of a run folder again, from its tables, and print both.

    Args:
        folder: The folder of a finished run.
    """
    from rich.console import Console

    from clipmem.study import api

    api.report(folder)
    from clipmem.report.terminal import print_run

    print_run("report", folder, Console())
