"""Make a table of the images of GIMP's manual with their alt texts: errors that people made.

    python -m clipmem_reproduce.data.manual manual.parquet

Needs `apt-get` and `dpkg-deb`, and downloads 50 MB (the Debian packages gimp-help-en and gimp-help-common, in the
version that apt knows). A caption is an alt text as it is, however many images share it: many are vague ("Tool Options
Dialog", "Example"). Where pages show an image with several alt texts, all are captions. The kind is the folder. Images
without an alt text, vector icons, and identical images are left out. GNU Free Documentation License.
"""

import html
import posixpath
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from clipmem.base.errors import require
from clipmem_reproduce.data.packages import Package, debian, read
from clipmem_reproduce.data.table import Pair, main, unique

PAGES = "usr/share/gimp/*/help/en/*.html"
CREDIT = "The GIMP Documentation Team"
MOST = 10  # captions of an image
_IMAGE = re.compile(r"<img\b[^>]*>")
_ATTRIBUTE = re.compile(r'\b(src|alt)="([^"]*)"')


def manual(package: Package) -> Iterator[Pair]:
    """Yield the images that the pages show, with their alt texts."""
    pages = sorted(package.folder.glob(PAGES))
    require(pages, f"{package.folder}", "no pages", PAGES, "Use the Debian package gimp-help-en.")
    alts: dict[str, list[str]] = defaultdict(list)
    for page in pages:
        for tag in _IMAGE.findall(read(page)):
            values = {name: html.unescape(text) for name, text in _ATTRIBUTE.findall(tag)}
            alts[posixpath.normpath(values.get("src", ""))].append(values.get("alt", ""))
    for path, texts in sorted(alts.items()):
        file, captions = pages[0].parent / path, unique(texts, MOST)
        label = posixpath.dirname(path.removeprefix("images/")).partition("/")[0] or "images"
        if file.suffix == ".svg":
            yield Pair(package, path, "a vector icon")
        elif not file.is_file():
            yield Pair(package, path, "not in the package")
        elif not captions:
            yield Pair(package, path, "no alt text")
        else:
            yield Pair(package, path, file=file, captions=captions, label=label, group=path, credit=CREDIT)


def fetch(folder: Path) -> Iterator[Pair]:
    """Yield the images of the fetched package, with the license of the package that has its notice."""
    package, notice = (debian(name, folder) for name in ("gimp-help-en", "gimp-help-common"))
    yield from manual(package._replace(license=notice.license))


if __name__ == "__main__":
    main(fetch, __doc__)
