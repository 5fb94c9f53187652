"""Make the data of the regime `long-tail`: icons of permissively licensed sets, each captioned with its name.

    npm pack @iconify/json@2.2.535 && tar xzf iconify-json-2.2.535.tgz
    pip install resvg-py
    python experiments/reproduce/icons.py package icons.parquet
    clipmem reproduce --regime long-tail --scale laptop --set data.path=icons.parquet

60,000 images of 64 x 64 pixels on white, 24.5 MB, in about 8 minutes. A caption is the name that the icon's makers gave
it, in words, without the words for its style: "calendar plus", "arrow circle right". Of the styles of an icon in a set
one is drawn at random; identical images are kept once. Emoji, logos and sets without a permissive license are left out.
"""

import hashlib
import io
import json
import random
import re
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

COUNT, SIZE = 60_000, 64
LICENSES = frozenset(
    ("MIT", "Apache-2.0", "CC0-1.0", "ISC", "BSD-3-Clause", "Unlicense", "CC-BY-4.0", "CC-BY-3.0", "OFL-1.1")
)
LEFT_OUT = ("Emoji", "Logos", "Programming")
# words for a style at the end of a name, and at its beginning
ENDS = """
outline outlined filled fill line solid bold thin light duotone twotone two tone sharp rounded round regular linear
broken duo baseline rtl ltr o alt sm lg md mini micro color colour flat stroke outlinerounded remix block
1 2 3 4 5 6 7 8 9 10 12 14 16 18 20 24 28 32 48 w100 w200 w300
"""
STARTS = "outline round sharp twotone baseline bx bxs bxl fill line"
FLAT = 4  # standard deviation of the pixels below which an image is blank


class Icon(NamedTuple):
    """An icon: its set, its name there, its caption and its category."""

    collection: str
    name: str
    caption: str
    category: str


def caption_of(name: str) -> str:
    """Return the words of a name without those for a style; "" if no word is left.

    Example:
        >>> caption_of("arrow-circle-right-outline")
        'arrow circle right'
    """
    words = [word for word in re.split(r"[-_]", re.sub(r"(?<=[a-z])(?=[A-Z])", "-", name).lower()) if word]
    while len(words) > 1 and words[-1] in ENDS.split():
        words.pop()
    while len(words) > 1 and words[0] in STARTS.split():
        words.pop(0)
    return " ".join(words) if any(len(word) > 1 and word.isalpha() for word in words) else ""


def icons_of(package: Path, collections: Mapping[str, Any], draw: random.Random) -> Iterator[Icon]:
    """Yield one icon of each caption of each usable set."""
    for prefix, about in collections.items():
        usable = about["license"].get("spdx") in LICENSES and about.get("category") not in LEFT_OUT
        if not usable or about.get("hidden"):
            continue
        content = read(package, prefix)
        categories = {name: of for of, names in reversed((content.get("categories") or {}).items()) for name in names}
        by_caption: dict[str, list[str]] = defaultdict(list)
        for name, icon in content["icons"].items():
            caption = "" if icon.get("hidden") else caption_of(name)
            if caption:
                by_caption[caption].append(name)
        for caption, names in sorted(by_caption.items()):
            name = draw.choice(names)
            yield Icon(prefix, name, caption, categories.get(name, ""))


@cache
def read(package: Path, prefix: str) -> dict[str, Any]:
    """Read a set of icons."""
    return json.loads((package / "json" / f"{prefix}.json").read_text(encoding="utf-8"))


def rendered(content: Mapping[str, Any], name: str) -> Image.Image | None:
    """Draw an icon in the middle of a white square; None if it cannot be drawn or is blank."""
    import resvg_py

    icon = content["icons"][name]
    width, height = (icon.get(key, content.get(key, 16)) for key in ("width", "height"))
    left, top = (icon.get(key, content.get(key, 0)) for key in ("left", "top"))
    side = max(width, height)
    x, y = left - (side - width) / 2, top - (side - height) / 2
    body = icon["body"].replace("currentColor", "#000")
    names = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    svg = (
        f'<svg {names} width="{SIZE}" height="{SIZE}" viewBox="{x} {y} {side} {side}">'
        f'<rect x="{x}" y="{y}" width="{side}" height="{side}" fill="#fff"/>{body}</svg>'
    )
    try:
        image = Image.open(io.BytesIO(bytes(resvg_py.svg_to_bytes(svg_string=svg)))).convert("RGB")
    except Exception:  # noqa: BLE001  resvg raises its own errors for drawings that it does not know
        return None
    return image if np.asarray(image).std() >= FLAT else None


def encoded(image: Image.Image) -> bytes:
    """Encode an image as lossless WebP, in gray if it is gray."""
    pixels, stream = np.asarray(image), io.BytesIO()
    gray = bool((pixels[..., 0] == pixels[..., 1]).all() and (pixels[..., 1] == pixels[..., 2]).all())
    (image.convert("L") if gray else image).save(stream, "WEBP", lossless=True, quality=60)
    return stream.getvalue()


def rows(package: Path, count: int) -> Iterator[dict[str, Any]]:
    """Yield `count` icons in random order, as rows of the table."""
    collections = json.loads((package / "collections.json").read_text(encoding="utf-8"))
    draw, seen = random.Random(0), set[str]()  # noqa: S311  not for secrets
    icons = list(icons_of(package, collections, draw))
    draw.shuffle(icons)
    for icon in icons:
        if len(seen) == count:
            return
        image = rendered(read(package, icon.collection), icon.name)
        key = "" if image is None else hashlib.sha256(np.asarray(image).tobytes()).hexdigest()
        if image is None or key in seen:
            continue
        seen.add(key)
        about = collections[icon.collection]
        yield {
            "image": {"bytes": encoded(image), "path": f"{icon.collection}/{icon.name}.webp"},
            "captions": [icon.caption],
            "set": icon.collection,
            "category": icon.category,
            "license": about["license"]["spdx"],
            "author": about["author"]["name"],
        }


def main(package: str, out: str, count: int = COUNT) -> None:
    """Write the table."""
    table = pa.Table.from_pylist(list(rows(Path(package), count)))
    pq.write_table(table, out, compression="zstd")
    print(f"{table.num_rows:,} icons in {out}")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:4]))
