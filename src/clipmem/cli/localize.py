"""`clipmem localize`: where a study's memorization sits."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter, validators

_POSITIVE = validators.Number(gte=1)


def localize(
    folder: Path,
    /,
    *,
    views: Annotated[int, Parameter(validator=_POSITIVE)] = 10,
    pairs: Annotated[int, Parameter(validator=_POSITIVE)] = 1000,
) -> None:
    """Localize the memorization of a finished study: towers, layers and units.

    Writes localize/units.parquet, layers.parquet and towers.parquet into the run folder, and the report again with
    them in it.

    Args:
        folder: The folder of a finished four-way run.
        views: Image views, and at most as many text views, of each pair.
        pairs: At most this many pairs of each role, drawn at random.
    """
    from rich.console import Console

    from clipmem.cli.terminal import TerminalReporter
    from clipmem.report.terminal import print_localized
    from clipmem.study.localizing import localize_run

    with TerminalReporter(Console(stderr=True)) as reporter:
        localize_run(folder, views=views, pairs=pairs, reporter=reporter)
    print_localized(folder, Console())
