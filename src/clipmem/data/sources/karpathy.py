"""Karpathy's splits of COCO, Flickr8k and Flickr30k: one JSON file (`dataset_coco.json`), the pictures beside it.

`data.split = "train"` takes `restval` too: the pictures of COCO's validation part that every published model of these
splits trains on.
"""

import posixpath
from collections.abc import Iterator

from clipmem.base.errors import InputError
from clipmem.base.recipes import DataSection
from clipmem.base.suggest import did_you_mean
from clipmem.data.sources.base import SOURCES
from clipmem.data.sources.csv_table import need_file
from clipmem.data.sources.files import FileSource, Row
from clipmem.data.sources.json_document import as_objects, load_json, wrong_json
from clipmem.data.sources.look import Look
from clipmem.data.sources.records import listed_captions


@SOURCES.register("karpathy")
class KarpathySource(FileSource):
    """Pictures with `sentences` and a `split` each."""

    uses = frozenset({"image_root", "split"})

    def __init__(self, section: DataSection) -> None:
        super().__init__(section)
        self._file = need_file(section, "a JSON file of Karpathy's splits")

    @classmethod
    def recognise(cls, look: Look) -> str:
        """A JSON object with images, of which the first has sentences."""
        if '"sentences"' in look.large_json and '"images"' in look.large_json:
            return "JSON with images that have sentences"
        images = look.document.get("images") if isinstance(look.document, dict) else None
        first = images[0] if isinstance(images, list) and images else None
        return "JSON with images that have sentences" if isinstance(first, dict) and "sentences" in first else ""

    def rows(self) -> Iterator[Row]:
        """Yield one row a picture of the split."""
        document = load_json(self._file)
        images = document.get("images") if isinstance(document, dict) else None
        if images is None:
            raise wrong_json(self._file, "an object with the list 'images'")
        found = as_objects(images, self._file)
        wanted = self.section.split
        splits = {_split(image) for image in found} | {"train"}
        if wanted and wanted not in splits:
            raise InputError(
                "[data] split", got=f"{wanted!r}", expected=f"one of {sorted(splits)}",
                hint=did_you_mean(wanted, splits, kind="split"),
            )  # fmt: skip
        for number, image in enumerate(found):
            if wanted and _split(image) != wanted and not (wanted == "train" and _split(image) == "restval"):
                self.ledger.ignored["image of another split"] += 1
                continue
            self.ledger.read += 1
            name, folder = image.get("filename"), image.get("filepath")
            path = posixpath.join(folder, name) if isinstance(folder, str) and isinstance(name, str) else name
            key = f"image {image.get('imgid', number)}"
            yield Row(self._file.name, key, path, listed_captions(image.get("sentences")))


def _split(image: dict[str, object]) -> str:
    return str(image.get("split", ""))
