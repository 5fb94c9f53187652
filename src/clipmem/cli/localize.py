"""`clipmem localize`: memorization by tower, layer and unit."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter, validators

_POSITIVE = validators.Number(gte=1)


def localize(
    folder: Path,
    /,
    *,
    views: Annotated[int | None, Parameter(validator=_POSITIVE)] = None,
    pairs: Annotated[int | None, Parameter(validator=_POSITIVE)] = None,
    compare_with: Annotated[tuple[Path, ...], Parameter(consume_multiple=True, negative="", show_default=False)] = (),
) -> None:
    """Localize the memorization of a finished study: towers, layers and units.

    Measurements over the same pairs and views are reused. Writes localize/units.parquet, layers.parquet and
    towers.parquet into the run folder, and updates the report.

    Args:
        folder: A finished four-way run folder.
        views: Image views, and maximum number of text views, per pair; by default the recipe's [localize].
        pairs: Maximum number of pairs per role, sampled at random; by default the recipe's [localize].
        compare_with: Other localized run folders with a different objective, to show side by side.
    """
    from rich.console import Console

    from clipmem.study import early

    for run in (folder, *compare_with):
        early.check_run(run)
    from clipmem.cli.terminal import TerminalReporter
    from clipmem.report.terminal import print_run
    from clipmem.study.localizing import localize_run

    with TerminalReporter(Console(stderr=True)) as reporter:
        localize_run(folder, views=views, pairs=pairs, compare_with=compare_with, reporter=reporter)
    print_run("localize", folder, Console())
