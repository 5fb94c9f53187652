r"""Flickr8k and Flickr30k as their text files come: `NAME#0<TAB>CAPTION`, `NAME| 0| CAPTION` and `NAME,CAPTION`.

Of lines with commas or bars only those before the caption separate; quotes are read as CSV reads them. One space after
a bar is the separator's.
"""

import re
from collections.abc import Iterator

from clipmem.base.recipes import DataSection
from clipmem.data.sources.base import SOURCES
from clipmem.data.sources.csv_table import need_file
from clipmem.data.sources.files import FileSource, Row
from clipmem.data.sources.look import Look
from clipmem.data.sources.records import problem
from clipmem.data.sources.text_tables import open_text, split_line

BROKEN_LINE = "a line without a picture and a caption"
_NAME = r"[^\t,|#]+\.(?:jpe?g|png|webp|gif|bmp|tiff?)"
# one line of Flickr30k's results.csv lacks its second bar
_DIALECTS = {
    "NAME#NUMBER, a tab, CAPTION": re.compile(rf"(?P<path>{_NAME})#\d+\t(?P<caption>.*)", re.I | re.S),
    "NAME| NUMBER| CAPTION": re.compile(rf"(?P<path>{_NAME})\|\s*\d+\s*\|? ?(?P<caption>.*)", re.I | re.S),
    "NAME,NUMBER,CAPTION": re.compile(rf"(?P<path>{_NAME}),\s*\d+,(?P<caption>.*)", re.I | re.S),
    "NAME,CAPTION": re.compile(rf"(?P<path>{_NAME}),(?P<caption>.*)", re.I | re.S),
}
_QUOTED = {"NAME,NUMBER,CAPTION", "NAME,CAPTION"}


@SOURCES.register("flickr")
class FlickrSource(FileSource):
    """A text file with a picture's name and one caption a line, five lines a picture."""

    def __init__(self, section: DataSection) -> None:
        super().__init__(section)
        self._file = need_file(section, "Flickr's text file of captions")

    @classmethod
    def recognise(cls, look: Look) -> str:
        """A text file whose lines (after a header, which it may have) are of one of the dialects."""
        dialect = dialect_of(look.lines) if look.is_file else ""
        return f"lines of {dialect}" if dialect else ""

    def rows(self) -> Iterator[Row]:
        """Yield one row a line."""
        dialect = dialect_of(Look(str(self._file)).lines) or "NAME,CAPTION"
        pattern, source = _DIALECTS[dialect], self._file.name
        with open_text(self._file) as stream:
            for number, line in enumerate(_whole_lines(stream, quoted=dialect in _QUOTED), 1):
                match = pattern.fullmatch(line.rstrip("\r\n"))
                if match:
                    caption = match["caption"]
                    if dialect in _QUOTED and caption.startswith('"'):
                        caption = ",".join(split_line(caption, ","))
                    yield Row(source, f"line {number}", match["path"], [caption])
                elif line.strip() and number > 1:  # the first may be a header
                    self.problems.append(problem(source, f"line {number}", BROKEN_LINE))


def dialect_of(lines: list[str]) -> str:
    """Return the dialect that most of the lines after the first are of; empty if fewer than half are of any."""
    body = lines[1:] or lines
    counts = {name: sum(bool(pattern.fullmatch(line)) for line in body) for name, pattern in _DIALECTS.items()}
    best = max(counts, key=lambda name: counts[name])
    return best if body and 2 * counts[best] > len(body) else ""


def _whole_lines(stream: Iterator[str], *, quoted: bool) -> Iterator[str]:
    """Yield lines, joined where a quoted caption goes over several."""
    for line in stream:
        while quoted and ',"' in line and line.count('"') % 2 and (more := next(stream, "")):
            line += more
        yield line
