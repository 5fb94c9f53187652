"""Which format lies at a path, told by what is in it and not by its name alone.

The first source that recognises it is taken, in the order of `ORDER`: what is most particular first. When not to trust
it: a folder may hold several data sets at once; then name the one you mean.
"""

from pathlib import PurePosixPath
from typing import NamedTuple

from clipmem.base.errors import InputError
from clipmem.base.recipes import DataSection
from clipmem.data.sources.base import SOURCES
from clipmem.data.sources.columns import named_columns, no_such_column
from clipmem.data.sources.look import PICTURES, Look

# sources of installed packages come after these
ORDER = ("hub", "saved", "webdataset", "imagefolder", "parquet", "coco", "karpathy", "csv", "flickr", "jsonl")
_TABLES = (".json", ".jsonl", ".csv", ".tsv", ".txt", ".token")
_MOST_FILES = 40


class Detection(NamedTuple):
    """What was found."""

    format: str
    path: str
    reason: str


def detect(path: str, section: DataSection | None = None) -> Detection:
    """Tell the format of what lies at a path."""
    look = Look(path, section)
    found = _recognised(look)
    if found:
        return found
    inside = _inside(look) if look.is_dir else []
    if len(inside) == 1:
        return inside[0]
    if inside:
        raise InputError(
            "[data] path",
            got=f"{path!r}, a folder with {len(inside)} data sets: {', '.join(one.path for one in inside[:4])}",
            expected="one of them",
            hint="Set data.path to the file that you mean.",
        )
    names = look.names
    for key, name in named_columns(look.section).items():
        if names and name not in names:
            raise no_such_column(key, name, names, what=path)
    raise InputError("[data] path", got=f"{path!r}, {look.describe()}", expected=_expected(look), hint=_todo(look))


def _recognised(look: Look) -> Detection | None:
    names = [*ORDER, *(name for name in SOURCES if name not in ORDER)]
    for name in names:
        reason = SOURCES[name].recognise(look)
        if reason:
            return Detection(name, look.text, reason)
    return None


def _inside(look: Look) -> list[Detection]:
    """Return what the tables of captions in a folder are."""
    tables = [name for name in look.files if name.lower().endswith(_TABLES) and name.count("/") < 2]
    found = [_recognised(Look(str(look.path / name), look.section)) for name in tables[:_MOST_FILES]]
    return [one for one in found if one]


def _expected(look: Look) -> str:
    if look.is_dir and look.with_suffix(*PICTURES):
        return "captions with them: metadata.csv (file_name, caption), or a .txt or .json beside each"
    if look.is_file and (
        look.head.startswith(b"PAR1") or PurePosixPath(look.text).suffix in {".csv", ".tsv", ".jsonl"}
    ):
        return "a column of pictures (such as image or filepath) and one of captions (such as caption or title)"
    return (
        "an image folder, CSV, JSON lines, COCO or Karpathy JSON, Flickr's text, tars, Parquet, or a folder that "
        "datasets has saved"
    )


def _todo(look: Look) -> str:
    if not look.is_file and not look.is_dir:
        return "Check the path; a data set of Hugging Face's hub is written hf-hub:OWNER/NAME."
    return "Set data.image_column and data.caption_column, or data.source; docs/data.md shows every format."
