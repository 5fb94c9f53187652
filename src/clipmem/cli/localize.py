"""`clipmem localize`: where a study's memorization sits."""

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

    Writes localize/units.parquet, layers.parquet and towers.parquet into the run folder, and the report again with
    them in it. What was measured over the same pairs and views is not measured again.

    Args:
        folder: The folder of a finished four-way run.
        views: Image views, and at most as many text views, of each pair; by default the recipe's [localize].
        pairs: At most this many pairs of each role, drawn at random; by default the recipe's [localize].
        compare_with: Folders of other localized runs that differ in their objective, shown side by side.
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
