"""COCO captions: one JSON file with `images` and `annotations`, the pictures in a folder beside it."""

import json
from collections.abc import Iterator

from clipmem.base.recipes import DataSection
from clipmem.data.sources.base import SOURCES
from clipmem.data.sources.csv_table import need_file
from clipmem.data.sources.files import FileSource, Row
from clipmem.data.sources.json_document import as_objects, load_json, wrong_json
from clipmem.data.sources.look import Look

NO_IMAGE = "annotation of a picture that is not in the list"
SAME_ID = "id of an earlier image"


@SOURCES.register("coco")
class CocoSource(FileSource):
    """`captions_train2017.json` and its like; one pair a picture, with its captions in the order of the file."""

    uses = frozenset({"image_root"})

    def __init__(self, section: DataSection) -> None:
        super().__init__(section)
        self._file = need_file(section, "a JSON file of COCO captions")

    @classmethod
    def recognise(cls, look: Look) -> str:
        """A JSON object with images and annotations, of which the first has a caption."""
        document = look.document
        if all(f'"{key}"' in look.large_json for key in ("images", "file_name", "image_id", "caption")):
            return "JSON with images, and annotations that are captions"
        if not isinstance(document, dict) or not isinstance(document.get("images"), list):
            return ""
        annotations = document.get("annotations")
        first = annotations[0] if isinstance(annotations, list) and annotations else None
        return (
            "JSON with images, and annotations that are captions"
            if isinstance(first, dict) and "caption" in first
            else ""
        )

    def rows(self) -> Iterator[Row]:
        """Yield one row an annotation, then the pictures that have none."""
        document = load_json(self._file)
        if not isinstance(document, dict) or not {"images", "annotations"} <= set(document):
            raise wrong_json(self._file, "an object with the lists 'images' and 'annotations'")
        names: dict[str, object] = {}
        for image in as_objects(document["images"], self._file):
            if _id(image.get("id")) in names:
                self.ledger.read += 1
                self.ledger.leave_out(self._file.name, f"image {image.get('file_name')}", SAME_ID)
            names.setdefault(_id(image.get("id")), image.get("file_name"))
        without = dict(names)
        for number, annotation in enumerate(as_objects(document["annotations"], self._file)):
            key = f"annotation {annotation.get('id', number)}"
            image = _id(annotation.get("image_id"))
            self.ledger.read += 1
            if image not in names:
                self.ledger.leave_out(self._file.name, key, NO_IMAGE)
                continue
            without.pop(image, None)
            yield Row(self._file.name, key, names[image], [annotation.get("caption")])
        for image, name in without.items():
            self.ledger.read += 1
            yield Row(self._file.name, f"image {image}", name, [])


def _id(value: object) -> str:
    return json.dumps(value)  # 1 and "1" are two ids, and any value may be one
