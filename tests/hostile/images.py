"""Folders of images: names, sidecars, modes, bombs."""

import io
import random
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from tests.hostile.case import ACCEPTED, EITHER, REFUSED, TRAP, Case, group
from tests.tiny import encoded_image

GOOD = 5
_ARGUMENTS = ["inspect", "photos", "--json", "--full"]


def _folder(more: dict[str, bytes]) -> Callable[[Path], object]:
    """Good pairs of an image and a text, and some more files."""

    def make(work: Path) -> None:
        folder = work / "photos"
        folder.mkdir()
        for k in range(GOOD):
            (folder / f"{k}.png").write_bytes(encoded_image(k))
            (folder / f"{k}.txt").write_text(f"thing {k}")
        for name, data in more.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(data)

    return make


def _saved(mode: str, form: str, pixels: np.ndarray, **options: object) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(stream, form, **options)
    return stream.getvalue()


def _png(width: int, height: int, data: bytes = b"") -> bytes:
    """Write a PNG whose header may lie."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", data or zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


def _tiff(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, "TIFF")
    return stream.getvalue()


@group("images")
def image_cases(rng: random.Random) -> Iterator[Case]:
    """Odd images among good ones: each is used, or listed with a reason."""
    gray = np.arange(32 * 32, dtype=np.uint8).reshape(32, 32)
    rgb = np.stack([gray, gray.T, 255 - gray], axis=-1)
    png, jpeg = encoded_image(77), encoded_image(77, form="JPEG")
    more = [Image.fromarray(gray)] * 3
    odd: dict[str, tuple[str, bytes]] = {
        "a palette": ("x.png", _saved("P", "PNG", rgb)),
        "one bit": ("x.png", _saved("1", "PNG", rgb)),
        "transparency": ("x.png", _saved("RGBA", "PNG", rgb)),
        "gray and transparency": ("x.png", _saved("LA", "PNG", rgb)),
        "CMYK": ("x.jpg", _saved("CMYK", "JPEG", rgb)),
        "Lab": ("x.tif", _saved("LAB", "TIFF", rgb)),
        "16-bit gray": ("x.png", _tiff(gray.astype(np.uint16) * 257)),
        "32-bit integers": ("x.tif", _tiff(gray.astype(np.int32) * 65_537)),
        "floating-point": ("x.tif", _tiff(gray.astype(np.float32))),
        "an animation": ("x.gif", _saved("P", "GIF", rgb, save_all=True, append_images=more)),
        "one pixel": ("x.png", _saved("RGB", "PNG", rgb[:1, :1])),
        "one row": ("x.png", _saved("RGB", "PNG", np.repeat(rgb[:1], 60, axis=1))),
        "a bomb of 60,000 by 60,000": ("x.png", _png(60_000, 60_000)),
        "a bomb of 2^31 pixels a side": ("x.png", _png(2**31 - 1, 2**31 - 1)),
        "zero by zero": ("x.png", _png(0, 0)),
        "a text chunk that is a bomb": ("x.png", png[:33] + struct.pack(">I", 10**6) + b"zTXt" + bytes(99) + png[33:]),
        "PNG cut in half": ("x.png", png[: len(png) // 2]),
        "JPEG cut in half": ("x.jpg", jpeg[: len(jpeg) // 2]),
        "its header alone": ("x.png", png[:8]),
        "nothing": ("x.png", b""),
        "an SVG": ("x.svg.png", b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>"),
        "an SVG in its own name": ("x.svg", b"<svg xmlns='http://www.w3.org/2000/svg'/>"),
        "a PDF": ("x.jpg", b"%PDF-1.7\n" + bytes(500)),
        "PostScript": ("x.jpg", b"%!PS-Adobe-3.0 EPSF-3.0\n(touch " + TRAP.encode() + b") system\n"),
        "a zip": ("x.png", b"PK\x03\x04" + bytes(100)),
        "HTML": ("x.jpg", b"<html><body>404</body></html>"),
        "JPEG called PNG": ("x.png", jpeg),
        "random bytes": ("x.png", rng.randbytes(3000)),
        "JPEG magic and random bytes": ("x.jpg", b"\xff\xd8\xff\xe0" + rng.randbytes(3000)),
        "HEIC": ("x.heic", b"\x00\x00\x00\x18ftypheic" + bytes(100)),
        "PSD": ("x.png", b"8BPS\x00\x01" + bytes(100)),
    }  # fmt: skip
    for name, (file, data) in odd.items():
        text = str(Path(file).with_suffix(".txt"))
        yield Case(name, _ARGUMENTS, _folder({file: data, text: b"odd"}), ACCEPTED, GOOD + 1)
    for k in range(6):
        at = rng.randrange(8, len(jpeg))
        damaged = jpeg[:at] + rng.randbytes(4) + jpeg[at + 4 :]
        yield Case(
            f"JPEG damaged at byte {at}, {k}",
            _ARGUMENTS,
            _folder({"x.jpg": damaged, "x.txt": b"odd"}),
            ACCEPTED,
            GOOD + 1,
        )


def _linked(work: Path) -> None:
    _folder({})(work)
    (work / "photos" / "link.png").symlink_to("/etc/passwd")
    (work / "photos" / "link.txt").write_text("thing")
    (work / "photos" / "round").symlink_to(work / "photos")


def _crowd(work: Path) -> None:
    _folder({})(work)
    (work / "photos" / "README").write_text("words")
    for k in range(200):
        (work / "photos" / f"note-{k}.md").write_text("words")


@group("folders")
def folder_cases(rng: random.Random) -> Iterator[Case]:
    """Sidecars and metadata that do not fit the images."""
    png = encoded_image(99)
    versions = {"p.v1.png": png, "p.v1.txt": b"a", "p.v2.png": encoded_image(98), "p.v2.txt": b"b"}
    folders: dict[str, tuple[dict[str, bytes], int]] = {
        "an image without text": ({"x.png": png}, GOOD + 1),
        "a text without image": ({"x.txt": b"words"}, GOOD + 1),
        "two images, one stem": ({"x.png": png, "x.jpg": encoded_image(98, form="JPEG"), "x.txt": b"words"}, GOOD + 2),
        "dotted names": ({"photo.v2.png": png, "photo.v2.txt": b"words"}, GOOD + 1),
        "dotted names, two versions": (versions, GOOD + 2),
        "a text of blank lines": ({"x.png": png, "x.txt": b"\n\n  \n"}, GOOD + 1),
        "a text of 10 MB": ({"x.png": png, "x.txt": b"word " * 2_000_000}, GOOD + 1),
        "a text that is not UTF-8": ({"x.png": png, "x.txt": b"\xff\xfe\xfa\xfb"}, GOOD + 1),
        "broken JSON": ({"x.png": png, "x.json": b"{broken"}, GOOD + 1),
        "JSON without a caption": ({"x.png": png, "x.json": b'{"width": 3}'}, GOOD + 1),
        "text and JSON": ({"x.png": png, "x.txt": b"words", "x.json": b'{"caption": "others"}'}, GOOD + 1),
        "capital endings": ({"X.PNG": png, "X.TXT": b"words"}, GOOD + 1),
        "sub-folders": ({"a/b/x.png": png, "a/b/x.txt": b"words"}, GOOD + 1),
        "a name in other scripts": ({"фото 写真.png": png, "фото 写真.txt": b"words"}, GOOD + 1),
        "a name with a line break": ({"a\nb.png": png, "a\nb.txt": b"words"}, GOOD + 1),
        "a name with an escape": ({"\x1b]0;t\x07.png": png, "\x1b]0;t\x07.txt": b"words"}, GOOD + 1),
        "a name that is markup": ({"[red]<b>.png": png, "[red]<b>.txt": b"words"}, GOOD + 1),
    }  # fmt: skip
    for name, (more, records) in folders.items():
        yield Case(name, _ARGUMENTS, _folder(more), ACCEPTED, records)
    yield Case("links", _ARGUMENTS, _linked, ACCEPTED, GOOD + 1)
    yield Case("other files", _ARGUMENTS, _crowd, ACCEPTED, GOOD)
    rows = [f"{k}.png,thing {k}" for k in range(GOOD)]
    for name, header in (("its usual header", "file_name,text"), ("other columns", "foo,bar")):
        data = {"metadata.csv": "\n".join([header, *rows]).encode()}
        yield Case(f"metadata.csv, {name}", _ARGUMENTS, _folder(data), EITHER, GOOD)
    data = {"metadata.csv": ("file_name,text\n" + "\n".join([*rows, "../../x.png,climbs", "0.png,again"])).encode()}
    yield Case("metadata.csv that climbs", _ARGUMENTS, _folder(data), ACCEPTED, GOOD + 2)
    for setting in (
        "data.caption_column=nope",
        "data.label_column=nope",
        "data.image_root=nowhere",
        "data.source=coco",
    ):
        yield Case(f"--set {setting}", [*_ARGUMENTS, "--set", setting], _folder({}), REFUSED)
