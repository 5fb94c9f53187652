r"""Files of captions next to a folder of images: COCO's JSON, Karpathy's splits, the text of Flickr8k and Flickr30k.

Flickr's lines are `NAME#0<TAB>CAPTION`, `NAME| 0| CAPTION` or `NAME,CAPTION`.
"""

import json
import posixpath
import re
from collections.abc import Iterator

from clipmem.base.errors import require, shorten
from clipmem.data.sources.base import SOURCES, require_split
from clipmem.data.sources.csv_table import OPEN_QUOTE, csv_lines, long_fields, open_text, split_line
from clipmem.data.sources.files import TableSource, row_record
from clipmem.data.sources.path_probe import PathProbe
from clipmem.data.sources.records import CAPTIONS, IMAGES, Part, Record, listed_captions

NO_IMAGE = "annotation of an unlisted image"
SAME_ID = "duplicate image id"
BROKEN_LINE = "line without an image and a caption"
_NAME = r"[^\t,|#:]+\.(?:jpe?g|png|webp|gif|bmp|tiff?)"
# one line of Flickr30k's results.csv lacks its second bar
_DIALECTS = {
    "NAME#NUMBER, a tab, CAPTION": re.compile(rf"(?P<path>{_NAME})#\d+\t(?P<caption>.*)", re.I | re.S),
    "NAME| NUMBER| CAPTION": re.compile(rf"(?P<path>{_NAME})\|\s*\d+\s*\|? ?(?P<caption>.*)", re.I | re.S),
    "NAME,NUMBER,CAPTION": re.compile(rf"(?P<path>{_NAME}),\s*\d+,(?P<caption>.*)", re.I | re.S),
    "NAME,CAPTION": re.compile(rf"(?P<path>{_NAME}),(?P<caption>.*)", re.I | re.S),
}
_TO_CSV = "Set data.source to csv, and data.image_column and data.caption_column to names in that line."
_QUOTED = {"NAME,NUMBER,CAPTION", "NAME,CAPTION"}
_HEADER = {*IMAGES, *CAPTIONS, "image_name", "comment_number", "caption_number", "comment"}


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
            number = json.dumps(image.get("id"))  # distinguishes 1 and "1"
            if number in names:
                self.ledger.read += 1
                self.ledger.leave_out(self.file.name, f"image {image.get('file_name')}", SAME_ID)
            names.setdefault(number, image.get("file_name"))
        without = dict(names)
        for k, annotation in enumerate(annotations):
            key, number = f"annotation {annotation.get('id', k)}", json.dumps(annotation.get("image_id"))
            self.ledger.read += 1
            if number not in names:
                self.ledger.leave_out(self.file.name, key, NO_IMAGE)
                continue
            without.pop(number, None)
            yield row_record(self.file.name, names[number], Part(key, [annotation.get("caption")]))
        for number, name in without.items():
            self.ledger.read += 1
            yield row_record(self.file.name, name, Part(f"image {number}", []))


@SOURCES.register("karpathy")
class KarpathySource(TableSource):
    """Images with `sentences` and a `split` each: COCO, Flickr8k and Flickr30k in files like `dataset_coco.json`.

    `data.split = "train"` includes `restval`, as in published models on these splits.
    """

    summary = "A JSON file of Karpathy's splits, with a folder of images."
    uses = frozenset({"image_root", "split"})
    rank = 60
    content = "a JSON file of Karpathy's splits"

    @classmethod
    def recognize(cls, probe: PathProbe) -> str:
        return "JSON of images with sentences" if probe.lists("images", "sentences") else ""

    def rows(self) -> Iterator[Record]:
        [images] = self.document("images")
        split, splits = self.section.split, [str(image.get("split", "")) for image in images]
        require_split(split, {*splits, "train"})
        for number, (image, of_image) in enumerate(zip(images, splits, strict=True)):
            if split and of_image != split and not (split == "train" and of_image == "restval"):
                self.ledger.ignored["image of another split"] += 1
                continue
            self.ledger.read += 1
            part = Part(f"image {image.get('imgid', number)}", listed_captions(image.get("sentences")))
            name, folder = image.get("filename"), image.get("filepath")
            path = posixpath.join(folder, name) if isinstance(folder, str) and isinstance(name, str) else name
            yield row_record(self.file.name, path, part)


@SOURCES.register("flickr")
class FlickrSource(TableSource):
    """A text file with an image name and one caption per line, five lines per image."""

    summary = "The text file of Flickr8k or Flickr30k, with a folder of images."
    uses = frozenset({"image_root"})
    rank = 80
    content = "Flickr's text file of captions"

    @classmethod
    def recognize(cls, probe: PathProbe) -> str:
        dialect = _dialect_of(probe.lines) if probe.is_file else ""
        begins = dialect and (_DIALECTS[dialect].fullmatch(probe.lines[0]) or _is_header(probe.lines[0]))
        return f"lines of {dialect}" if begins else ""

    def rows(self) -> Iterator[Record]:
        dialect = _dialect_of(PathProbe(str(self.file)).lines) or "NAME,CAPTION"
        pattern, source, quoted = _DIALECTS[dialect], self.file.name, dialect in _QUOTED

        def is_row(line: str) -> bool:
            return bool(pattern.fullmatch(line.rstrip("\r\n")))

        with open_text(self.file) as stream, long_fields():
            lines = csv_lines(stream, ",", is_row) if quoted else ((k, line, []) for k, line in enumerate(stream, 1))
            for number, line, cells in lines:
                text = line.rstrip("\r\n")
                match = pattern.fullmatch(text)
                if text and number == 1 and not match:
                    expected = f"{dialect}, or a header with common names such as image,caption"
                    usual, got = _is_header(text) or "#" in dialect, f"the first line {shorten(text)}"
                    require(usual, f"{self.file}", got, expected, _TO_CSV)
                if not text or (number == 1 and not match and _is_header(text)):
                    continue
                self.ledger.read += 1
                caption = match["caption"] if match else ""
                is_open = quoted and caption.startswith('"') and cells is None
                if match is None or is_open:
                    self.ledger.leave_out(source, f"line {number}", OPEN_QUOTE if is_open else BROKEN_LINE)
                    continue
                if quoted and caption.startswith('"'):
                    caption = ",".join(split_line(caption, ","))
                yield row_record(source, match["path"], Part(f"line {number}", [caption]))


def _is_header(line: str) -> bool:
    return all(name.strip().strip('"').lower() in _HEADER for name in re.split(r"[,|\t]", line))


def _dialect_of(lines: list[str]) -> str:
    """Return the dialect of most lines after the first; "" if fewer than half have any."""
    body = lines[1:] or lines
    counts = {name: sum(bool(pattern.fullmatch(line)) for line in body) for name, pattern in _DIALECTS.items()}
    best = max(counts, key=lambda name: counts[name])
    return best if body and 2 * counts[best] > len(body) else ""
