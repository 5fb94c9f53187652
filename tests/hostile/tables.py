"""CSV and TSV as people and programs write them, and as an attacker would."""

import random
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.hostile.case import ACCEPTED, REFUSED, Case, group
from tests.tiny import encoded_image

IMAGES = 8
HOSTILE_CAPTIONS = [
    "<script>alert(1)</script>", "\x1b[2J\x1b]0;owned\x07", "\u202egnp.exe", '=HYPERLINK("http://x/","y")',
    "<img src=x onerror=alert(1)>", "{{ 7*7 }}", "%s%s%n", "'; DROP TABLE pairs; --", "a" * 90_000, "\u0000nul",
    "../../../etc/passwd", "🏳️‍🌈" * 50, "\ufeffmark", "tab\tin it", "zero\u200bwidth",
]  # fmt: skip


def images(work: Path, count: int = IMAGES) -> None:
    """Write images named 0.png and so on."""
    for k in range(count):
        (work / f"{k}.png").write_bytes(encoded_image(k))


def _rows(separator: str = ",", header: str = "image{}caption", quote: str = "") -> list[str]:
    return [header.format(separator), *(f"{k}.png{separator}{quote}thing number {k}{quote}" for k in range(IMAGES))]


def with_images(name: str, data: bytes) -> Callable[[Path], object]:
    """Return what writes the images, and a file beside them."""

    def make(work: Path) -> None:
        images(work)
        (work / name).write_bytes(data)

    return make


def inspect(name: str, *settings: str) -> list[str]:
    """Return the command that accounts for every record of a file."""
    return ["inspect", name, "--json", *(word for one in settings for word in ("--set", one))]


def joined(lines: list[str], end: str = "\n", encoding: str = "utf-8") -> bytes:
    """Join lines to a file."""
    return (end.join(lines) + end).encode(encoding)


@group("CSV and TSV")
def csv_cases(rng: random.Random) -> Iterator[Case]:
    """Separators, encodings, quotes, headers, broken rows."""
    good = _rows()
    whole: dict[str, bytes] = {
        "tabs": joined(_rows("\t")),
        "semicolons": joined(_rows(";")),
        "bars": joined(_rows("|")),
        "carriage returns": joined(good, "\r\n"),
        "UTF-16": joined(good, encoding="utf-16"),
        "a byte order mark": joined(good, encoding="utf-8-sig"),
        "quoted cells": joined(_rows(quote='"')),
        "no last line end": joined(good)[:-1],
        "blank lines": joined([line for row in good for line in (row, "")]),
        "spaces in the header": joined(_rows(header=" image {} caption ")),
        "a header in capitals": joined(_rows(header="IMAGE{}CAPTION")),
        "captions with commas, last": joined([good[0], *(f"{k}.png,one, two, {k}" for k in range(IMAGES))]),
        "line breaks in quotes": joined([good[0], *(f'{k}.png,"one\ntwo {k}"' for k in range(IMAGES))]),
        "doubled quotes": joined([good[0], *(f'{k}.png,"a ""good"" {k}"' for k in range(IMAGES))]),
        "the same image twice": joined([*good, "0.png,again"]),
        "the same row twice": joined([*good, good[1]]),
    }
    for name, data in whole.items():
        records = IMAGES + ("twice" in name)
        yield Case(name, inspect("pairs.csv"), with_images("pairs.csv", data), ACCEPTED, records)
    damaged: dict[str, list[str]] = {
        "unclosed quote, first row": [good[0], '0.png,"thing', *good[2:]],
        "unclosed quote, fifth row": [*good[:5], '4.png,"thing', *good[6:]],
        "unclosed quote, last row": [*good[:-1], '7.png,"thing'],
        "a quote in the middle of a cell": [good[0], '0.png,a 5" screen', *good[2:]],
        "a row with one cell": [*good[:4], "3.png", *good[5:]],
        "a row with five cells, caption first": [
            "caption,image",
            *(f"thing {k},{k}.png" for k in range(7)),
            "thing,7.png,x,y,z",
        ],
        "an empty caption": [*good[:4], "3.png,", *good[5:]],
        "nan as caption": [*good[:4], "3.png,nan", *good[5:]],
        "an image that is not there": [*good[:4], "nowhere.png,thing", *good[5:]],
        "an absolute path": [*good[:4], "/etc/passwd,thing", *good[5:]],
        "a path that climbs": [*good[:4], "../../../../etc/passwd,thing", *good[5:]],
        "a path of 10,000 characters": [*good[:4], "x" * 10_000 + ",thing", *good[5:]],
        "a device as image": [*good[:4], "/dev/zero,thing", *good[5:]],
        "an address as image": [*good[:4], "http://127.0.0.1:9/x.png,thing", *good[5:]],
        "a comment line": [*good[:4], "# a comment", *good[4:]],
        "spaces only": [*good[:4], "   ", *good[4:]],
    }
    for name, lines in damaged.items():
        records = IMAGES + (name in {"a comment line", "spaces only"})
        yield Case(name, inspect("pairs.csv"), with_images("pairs.csv", joined(lines)), ACCEPTED, records)
    for caption in HOSTILE_CAPTIONS:
        lines = [good[0], '0.png,"' + caption.replace('"', '""') + '"', *good[2:]]
        yield Case(
            f"caption {caption[:24]!r}",
            inspect("pairs.csv"),
            with_images("pairs.csv", joined(lines)),
            ACCEPTED,
            IMAGES,
        )
        plain = ["inspect", "pairs.csv"]
        if "\x1b" in caption or "\u202e" in caption:
            yield Case(f"caption {caption[:24]!r}, shown", plain, with_images("pairs.csv", joined(lines)), ACCEPTED)
    yield Case("no header", inspect("pairs.csv"), with_images("pairs.csv", joined(good[1:])), ACCEPTED, IMAGES)
    refused: dict[str, bytes] = {
        "header foo,bar": joined(_rows(header="foo{}bar")),
        "a header alone": joined(good[:1]),
        "no image column": joined(["caption,size", *(f"thing {k},{k}" for k in range(8))]),
        "no caption column": joined(["image,size", *(f"{k}.png,{k}" for k in range(8))]),
        "NUL bytes": b"\0" * 1000,
        "random bytes": rng.randbytes(5000),
        "one line of 5 MB": b"x" * 5_000_000,
        "an HTML page": b"<!doctype html><html><body>404 Not Found</body></html>",
        "gzip": b"\x1f\x8b" + rng.randbytes(500),
    }
    for name, data in refused.items():
        yield Case(name, inspect("pairs.csv"), with_images("pairs.csv", data), REFUSED)
    columns = [f"data.{name}_column=nope" for name in ("caption", "image", "group", "label", "object")]
    others = ["data.split=train", "data.image_root=nowhere", "data.source=emoji", "data.source=csw", "train.epochs=3"]
    for setting in [*columns, *others, "data.source=webdataset"]:
        yield Case(f"--set {setting}", inspect("pairs.csv", setting), with_images("pairs.csv", joined(good)), REFUSED)
