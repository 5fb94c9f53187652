r"""Flickr8k and Flickr30k as their text files come: `NAME#0<TAB>CAPTION`, `NAME| 0| CAPTION` and `NAME,CAPTION`.

Of lines with commas or bars only those before the caption separate; quotes are read as CSV reads them. One space after
a bar is the separator's. The first line is a row, or a header of the usual names: any other header is refused.
"""

import re
from collections.abc import Iterator

from clipmem.base.errors import InputError, shorten
from clipmem.base.recipes import DataSection
from clipmem.data.sources.base import SOURCES
from clipmem.data.sources.columns import CAPTIONS, IMAGES
from clipmem.data.sources.csv_table import need_file
from clipmem.data.sources.files import FileSource, Row
from clipmem.data.sources.look import Look
from clipmem.data.sources.text_tables import OPEN_QUOTE, csv_lines, long_fields, open_text, split_line

BROKEN_LINE = "a line without a picture and a caption"
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
class FlickrSource(FileSource):
    """A text file with a picture's name and one caption a line, five lines a picture."""

    uses = frozenset({"image_root"})

    def __init__(self, section: DataSection) -> None:
        super().__init__(section)
        self._file = need_file(section, "Flickr's text file of captions")

    @classmethod
    def recognise(cls, look: Look) -> str:
        """A text file whose lines (after a header of the usual names, which it may have) are of one of the dialects."""
        dialect = dialect_of(look.lines) if look.is_file else ""
        begins = dialect and (_DIALECTS[dialect].fullmatch(look.lines[0]) or _is_header(look.lines[0]))
        return f"lines of {dialect}" if begins else ""

    def rows(self) -> Iterator[Row]:
        """Yield one row a line."""
        dialect = dialect_of(Look(str(self._file)).lines) or "NAME,CAPTION"
        pattern, source, quoted = _DIALECTS[dialect], self._file.name, dialect in _QUOTED

        def is_row(line: str) -> bool:
            return bool(pattern.fullmatch(line.rstrip("\r\n")))

        with open_text(self._file) as stream, long_fields():
            lines = csv_lines(stream, ",", is_row) if quoted else ((k, line, []) for k, line in enumerate(stream, 1))
            for number, line, cells in lines:
                text = line.rstrip("\r\n")
                match = pattern.fullmatch(text)
                if not text or (number == 1 and not match and self._header(text, dialect)):
                    continue
                self.ledger.read += 1
                caption = match["caption"] if match else ""
                if match is None:
                    self.ledger.leave_out(source, f"line {number}", BROKEN_LINE)
                elif quoted and caption.startswith('"') and cells is None:
                    self.ledger.leave_out(source, f"line {number}", OPEN_QUOTE)
                else:
                    if quoted and caption.startswith('"'):
                        caption = ",".join(split_line(caption, ","))
                    yield Row(source, f"line {number}", match["path"], [caption])

    def _header(self, line: str, dialect: str) -> bool:
        """Tell whether a first line that is no row is a header."""
        if _is_header(line) or "#" in dialect:
            return _is_header(line)
        raise InputError(
            f"{self._file}",
            got=f"the first line {shorten(line)}",
            expected=f"{dialect}, or a header of usual names such as image,caption",
            hint="Set data.source to csv, and data.image_column and data.caption_column to names of that line.",
        )


def _is_header(line: str) -> bool:
    return all(name.strip().strip('"').lower() in _HEADER for name in re.split(r"[,|\t]", line))


def dialect_of(lines: list[str]) -> str:
    """Return the dialect that most of the lines after the first are of; empty if fewer than half are of any."""
    body = lines[1:] or lines
    counts = {name: sum(bool(pattern.fullmatch(line)) for line in body) for name, pattern in _DIALECTS.items()}
    best = max(counts, key=lambda name: counts[name])
    return best if body and 2 * counts[best] > len(body) else ""
