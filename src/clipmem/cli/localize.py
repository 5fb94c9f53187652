"""`clipmem localize`: memorization by tower, layer and unit."""

from clipmem import study
from clipmem.base.progress import Reporter
from clipmem.cli.arguments import Count, RunDir
from clipmem.cli.shell import Screen, command


@command
def localize(
    folder: RunDir, /, *, views: Count | None = None, pairs: Count | None = None, reporter: Reporter
) -> Screen:
    """Find where the models of a study memorize: towers, layers and units.

    Measurements over the same pairs and views are reused. Writes localize/units.parquet, layers.parquet and
    towers.parquet into the run folder, and updates the report.

    Args:
        folder: A finished four-way run folder.
        views: Image views, and maximum number of text views, per pair; by default the recipe's [localize].
        pairs: Maximum number of pairs per role, sampled at random; by default the recipe's [localize].
    """
    study.localizing.localize_run(folder, views=views, pairs=pairs, reporter=reporter)
    return Screen("localize", folder)
