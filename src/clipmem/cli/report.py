"""`clipmem report`: rebuild summary and report of a run."""

from pathlib import Path


def report(folder: Path, /) -> None:
    """Rebuild the summary and the report of a run folder from its tables, and print them.

    Args:
        folder: A finished run folder.
    """
    from rich.console import Console

    from clipmem.study import api

    api.report(folder)
    from clipmem.report.terminal import print_run

    print_run("report", folder, Console())
