"""A data source for a CSV of images and captions, with further images of each pair in the folder `generated`.

The folder is the one beside the CSV that `generate_images.py` writes. Register the class in a package of your own
(docs/plugins.md), then set `data.source = "with-generated"`. Images need different names.
"""

from pathlib import Path

from clipmem.data.sources.csv_table import CsvSource


class WithGenerated(CsvSource):
    """A CSV of images and captions, with further images of each pair in `generated/`."""

    summary = "A CSV of images and captions, with generated images."

    @classmethod
    def recognize(cls, probe):  # noqa: ARG003
        """Recognize nothing: the source is used by its name only."""
        return ""

    def records(self):
        """Yield the records of the CSV with their generated images."""
        for record in super().records():
            paths = [f"generated/{Path(record.reference).stem}-{number}.png" for number in range(4)]
            record.variants = [path for path in paths if (self.base / path).is_file()]
            yield record
