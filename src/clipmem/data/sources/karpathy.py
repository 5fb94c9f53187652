"""Karpathy's splits of COCO, Flickr8k and Flickr30k: a JSON file (`dataset_coco.json`) with a folder of images.

`data.split = "train"` includes `restval`, as in published models on these splits.
"""

import posixpath
from collections.abc import Iterator

from clipmem.data.sources.base import SOURCES, require_split
from clipmem.data.sources.files import TableSource, row_record
from clipmem.data.sources.path_probe import PathProbe
from clipmem.data.sources.records import Part, Record, listed_captions


@SOURCES.register("karpathy")
class KarpathySource(TableSource):
    """Images with `sentences` and a `split` each."""

    summary = "A JSON file of Karpathy's splits, with a folder of images."
    uses = frozenset({"image_root", "split"})
    rank = 60
    content = "a JSON file of Karpathy's splits"

    @classmethod
    def recognize(cls, probe: PathProbe) -> str:
        return "JSON of images with sentences" if probe.lists("images", "sentences") else ""

    def rows(self) -> Iterator[Record]:
        [images] = self.document("images")
        split = self.section.split
        require_split(split, {_split(image) for image in images} | {"train"})
        for number, image in enumerate(images):
            if split and _split(image) != split and not (split == "train" and _split(image) == "restval"):
                self.ledger.ignored["image of another split"] += 1
                continue
            self.ledger.read += 1
            part = Part(f"image {image.get('imgid', number)}", listed_captions(image.get("sentences")))
            yield row_record(self.file.name, _path(image), part)


def _path(image: dict[str, object]) -> object:
    name, folder = image.get("filename"), image.get("filepath")
    return posixpath.join(folder, name) if isinstance(folder, str) and isinstance(name, str) else name


def _split(image: dict[str, object]) -> str:
    return str(image.get("split", ""))
