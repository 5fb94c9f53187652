"""COCO captions: a JSON file with `images` and `annotations`, next to a folder of images."""

import json
from collections.abc import Iterator

from clipmem.data.sources.base import SOURCES
from clipmem.data.sources.files import TableSource, row_record
from clipmem.data.sources.path_probe import PathProbe
from clipmem.data.sources.records import Part, Record

NO_IMAGE = "annotation of an unlisted image"
SAME_ID = "duplicate image id"


@SOURCES.register("coco")
class CocoSource(TableSource):
    """Files like `captions_train2017.json`; one pair per image, with its captions in the order of the file."""

    summary = "A JSON file of COCO captions, with a folder of images."
    uses = frozenset({"image_root"})
    rank = 50
    content = "a JSON file of COCO captions"

    @classmethod
    def recognize(cls, probe: PathProbe) -> str:
        is_coco = probe.lists("images", "file_name") and probe.lists("annotations", "image_id", "caption")
        return "JSON with images and caption annotations" if is_coco else ""

    def rows(self) -> Iterator[Record]:
        images, annotations = self.document("images", "annotations")
        names: dict[str, object] = {}
        for image in images:
            if _id(image.get("id")) in names:
                self.ledger.read += 1
                self.ledger.leave_out(self.file.name, f"image {image.get('file_name')}", SAME_ID)
            names.setdefault(_id(image.get("id")), image.get("file_name"))
        without = dict(names)
        for number, annotation in enumerate(annotations):
            key = f"annotation {annotation.get('id', number)}"
            image = _id(annotation.get("image_id"))
            self.ledger.read += 1
            if image not in names:
                self.ledger.leave_out(self.file.name, key, NO_IMAGE)
                continue
            without.pop(image, None)
            yield row_record(self.file.name, names[image], Part(key, [annotation.get("caption")]))
        for image, name in without.items():
            self.ledger.read += 1
            yield row_record(self.file.name, name, Part(f"image {image}", []))


def _id(value: object) -> str:
    return json.dumps(value)  # distinguishes 1 and "1"
