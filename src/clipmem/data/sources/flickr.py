r"""Text files of Flickr8k and Flickr30k: `NAME#0<TAB>CAPTION`, `NAME| 0| CAPTION` and `NAME,CAPTION`."""

import re
from collections.abc import Iterator

from clipmem.base.errors import require, shorten
from clipmem.data.sources.base import SOURCES
from clipmem.data.sources.csv_table import OPEN_QUOTE, csv_lines, long_fields, open_text, split_line
from clipmem.data.sources.files import TableSource, row_record
from clipmem.data.sources.path_probe import PathProbe
from clipmem.data.sources.records import CAPTIONS, IMAGES, Part, Record

BROKEN_LINE = "line without an image and a caption"
_NAME = r"[^\t,|#:]+\.(?:jpe?g|png|webp|gif|bmp|tiff?)"
# one line of Flickr30k's results.csv lacks its second bar
_DIALECTS = {
    "NAME#NUMBER, a tab, CAPTION": re.compile(rf"(?P<path>{_NAME})#\d+\t(?P<caption>.*)", re.I | re.S),
    "NAME| NUMBER| CAPTION": re.compile(rf"(?P<path>{_NAME})\|\s*\d+\s*\|? ?(?P<caption>.*)", re.I | re.S),
    "NAME,NUMBER,CAPTION": re.compile(rf"(?P<path>{_NAME}),\s*\d+,(?P<caption>.*)", re.I | re.S),
    "NAME,CAPTION": re.compile(rf"(?P<path>{_NAME}),(?P<caption>.*)", re.I | re.S),
}
_QUOTED = {"NAME,NUMBER,CAPTION", "NAME,CAPTION"}
_HEADER = {*IMAGES, *CAPTIONS, "image_name", "comment_number", "caption_number", "comment"}


@SOURCES.register("flickr")
class FlickrSource(TableSource):
    """A text file with an image name and one caption per line, five lines per image."""

    summary = "The text file of Flickr8k or Flickr30k, with a folder of images."
    uses = frozenset({"image_root"})
    rank = 80
    content = "Flickr's text file of captions"

    @classmethod
    def recognize(cls, probe: PathProbe) -> str:
        dialect = dialect_of(probe.lines) if probe.is_file else ""
        begins = dialect and (_DIALECTS[dialect].fullmatch(probe.lines[0]) or _is_header(probe.lines[0]))
        return f"lines of {dialect}" if begins else ""

    def rows(self) -> Iterator[Record]:
        dialect = dialect_of(PathProbe(str(self.file)).lines) or "NAME,CAPTION"
        pattern, source, quoted = _DIALECTS[dialect], self.file.name, dialect in _QUOTED

        def is_row(line: str) -> bool:
            return bool(pattern.fullmatch(line.rstrip("\r\n")))

        with open_text(self.file) as stream, long_fields():
            lines = csv_lines(stream, ",", is_row) if quoted else ((k, line, []) for k, line in enumerate(stream, 1))
            for number, line, cells in lines:
                text = line.rstrip("\r\n")
                match = pattern.fullmatch(text)
                if not text or (number == 1 and not match and self._header(text, dialect)):
                    continue
                self.ledger.read += 1
                if match is None:
                    self.ledger.leave_out(source, f"line {number}", BROKEN_LINE)
                    continue
                caption = match["caption"]
                if quoted and caption.startswith('"'):
                    if cells is None:
                        self.ledger.leave_out(source, f"line {number}", OPEN_QUOTE)
                        continue
                    caption = ",".join(split_line(caption, ","))
                yield row_record(source, match["path"], Part(f"line {number}", [caption]))

    def _header(self, line: str, dialect: str) -> bool:
        expected = f"{dialect}, or a header with common names such as image,caption"
        hint = "Set data.source to csv, and data.image_column and data.caption_column to names in that line."
        require(_is_header(line) or "#" in dialect, f"{self.file}", f"the first line {shorten(line)}", expected, hint)
        return _is_header(line)


def _is_header(line: str) -> bool:
    return all(name.strip().strip('"').lower() in _HEADER for name in re.split(r"[,|\t]", line))


def dialect_of(lines: list[str]) -> str:
    """Return the dialect of most lines after the first; "" if fewer than half have any."""
    body = lines[1:] or lines
    counts = {name: sum(bool(pattern.fullmatch(line)) for line in body) for name, pattern in _DIALECTS.items()}
    best = max(counts, key=lambda name: counts[name])
    return best if body and 2 * counts[best] > len(body) else ""
