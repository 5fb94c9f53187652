"""Tars and Parquet files: names, members and metadata that do not fit."""

import io
import json
import random
import tarfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tests.hostile.case import ACCEPTED, EITHER, REFUSED, TRAP, Case, group
from tests.tiny import encoded_image

PAIRS = 8
_Members = Sequence[tuple[str, bytes]]


def _inspect(name: str, *settings: str) -> list[str]:
    return ["inspect", name, "--json", *(word for one in settings for word in ("--set", one))]


def _pairs(count: int = PAIRS, name: str = "{:04d}") -> list[tuple[str, bytes]]:
    return [
        member
        for k in range(count)
        for member in ((f"{name.format(k)}.png", encoded_image(k)), (f"{name.format(k)}.txt", f"thing {k}".encode()))
    ]


def tar_bytes(members: _Members, kind: int = tarfile.USTAR_FORMAT) -> bytes:
    """Write members into a tar."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=kind) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def _file(data: bytes, name: str = "shard.tar") -> Callable[[Path], object]:
    return lambda work: (work / name).write_bytes(data)


def _special(kind: bytes, target: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, data in _pairs():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        info = tarfile.TarInfo("9999.png")
        info.type, info.linkname = kind, target
        tar.addfile(info)
        text = tarfile.TarInfo("9999.txt")
        text.size = 5
        tar.addfile(text, io.BytesIO(b"thing"))
    return buffer.getvalue()


@group("tars")
def tar_cases(rng: random.Random) -> Iterator[Case]:
    """Webdataset shards."""
    good = _pairs()
    extra: dict[str, tuple[list[tuple[str, bytes]], int]] = {
        "as img2dataset writes them": (good, PAIRS),
        "dotted names": (_pairs(name="photo.v{:d}"), PAIRS),
        "dotted names beside plain ones": ([*good, *_pairs(name="photo.v{:d}")], 2 * PAIRS),
        "names of many dots": (_pairs(name="a.b.c.{:d}.d"), PAIRS),
        "names with folders": (_pairs(name="deep/er/{:d}"), PAIRS),
        "names that begin with ./": (_pairs(name="./{:d}"), PAIRS),
        "names that climb": (_pairs(name="../../{:d}"), PAIRS),
        "absolute names": (_pairs(name="/etc/{:d}"), PAIRS),
        "a second image under one key": ([*good[:2], ("0000.jpg", encoded_image(99)), *good[2:]], PAIRS + 1),
        "an image without text": (good[:-1], PAIRS),
        "a text without image": ([*good, ("unmatched.txt", b"words")], PAIRS + 1),
        "an empty image": ([*good, ("e.png", b""), ("e.txt", b"thing")], PAIRS + 1),
        "an empty text": ([*good, ("e.png", encoded_image(50)), ("e.txt", b"")], PAIRS + 1),
        "a text that is not UTF-8": ([*good, ("e.png", encoded_image(50)), ("e.txt", b"\xff\xfe\xfa")], PAIRS + 1),
        "broken JSON": ([*good, ("e.png", encoded_image(50)), ("e.json", b"{broken")], PAIRS + 1),
        "JSON that is a list": ([*good, ("e.png", encoded_image(50)), ("e.json", b"[1]")], PAIRS + 1),
        "JSON nested deeply": ([*good, ("e.png", encoded_image(50)), ("e.json", b"[" * 50_000)], PAIRS + 1),
        "capital endings": ([(name.upper(), data) for name, data in good], PAIRS),
        "members out of order": (sorted(good, key=lambda member: rng.random()), PAIRS),
        "names of 90 characters": (_pairs(name="x" * 90 + "{:d}"), PAIRS),
        "names in other scripts": (_pairs(name="фото-写真-{:d}"), PAIRS),
        "names with control characters": (_pairs(name="\x1b[2J{:d}"), PAIRS),
        "a pickle beside each": ([*good, ("0000.pyd", b"cos\nsystem\n(S'touch " + TRAP.encode() + b"'\ntR.")], PAIRS),
        "masks beside each": ([*good, *((f"{k:04d}.seg.png", encoded_image(70 + k)) for k in range(PAIRS))], PAIRS),
        "the same member twice": ([*good, *good[:2]], PAIRS + 1),
    }  # fmt: skip
    for name, (members, records) in extra.items():
        kind = tarfile.PAX_FORMAT if "scripts" in name else tarfile.GNU_FORMAT
        yield Case(name, _inspect("shard.tar"), _file(tar_bytes(members, kind)), ACCEPTED, records)
    for kind, name in ((b"1", "a hard link"), (b"2", "a symbolic link"), (b"3", "a device"), (b"6", "a pipe")):
        yield Case(f"{name} as image", _inspect("shard.tar"), _file(_special(kind, "/etc/passwd")), ACCEPTED, PAIRS + 1)
    whole = tar_bytes(good)
    for at in sorted(rng.sample(range(600, 6000), 3)):
        yield Case(f"cut off at byte {at:,}", _inspect("shard.tar"), _file(whole[:at]), EITHER)
        yield Case(
            f"damaged at byte {at:,}",
            _inspect("shard.tar"),
            _file(whole[:at] + bytes([whole[at] ^ 255]) + whole[at + 1 :]),
            EITHER,
        )
    size = bytearray(whole)
    size[124:135] = b"77777777777"
    yield Case("a member of 8 GiB by its header", _inspect("shard.tar"), _file(bytes(size)), EITHER)
    for name, data in {
        "empty": b"",
        "zeros": bytes(10_240),
        "random": rng.randbytes(10_240),
        "gzip": b"\x1f\x8b\x08" + bytes(600),
    }.items():
        yield Case(f"{name} bytes as tar", _inspect("shard.tar"), _file(data), REFUSED)
    for setting in ("data.caption_column=nope", "data.label_column=nope", "data.split=train", "data.source=parquet"):
        yield Case(f"--set {setting}", _inspect("shard.tar", setting), _file(whole), REFUSED)
    table = [*good, *((f"{k:04d}.json", json.dumps({"caption": f"from JSON {k}"}).encode()) for k in range(PAIRS))]
    yield Case("text and JSON of each", _inspect("shard.tar"), _file(tar_bytes(table)), ACCEPTED, PAIRS)


def _parquet(columns: dict[str, object], **options: object) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer, **options)
    return buffer.getvalue()


@group("Parquet")
def parquet_cases(rng: random.Random) -> Iterator[Case]:
    """Tables of images or of paths."""
    images = [encoded_image(k) for k in range(PAIRS)]
    captions = [f"thing {k}" for k in range(PAIRS)]
    hollow = {"bytes": None, "path": None}
    structs = [{"bytes": data, "path": None} for data in images]
    kept: dict[str, tuple[dict[str, object], int]] = {
        "bytes": ({"image": images, "caption": captions}, PAIRS),
        "structs": ({"image": structs, "caption": captions}, PAIRS),
        "lists of captions": ({"image": images, "captions": [[one, one + "!"] for one in captions]}, PAIRS),
        "a null image": ({"image": [None, *images[1:]], "caption": captions}, PAIRS),
        "a null caption": ({"image": images, "caption": [None, *captions[1:]]}, PAIRS),
        "a list with nulls": ({"image": images, "captions": [[None], *([one] for one in captions[1:])]}, PAIRS),
        "an empty list": ({"image": images, "captions": [[], *([one] for one in captions[1:])]}, PAIRS),
        "bytes that are no image": ({"image": [b"nothing", *images[1:]], "caption": captions}, PAIRS),
        "the same image in all rows": ({"image": images[:1] * PAIRS, "caption": captions}, PAIRS),
        "the same row in all rows": ({"image": images[:1] * PAIRS, "caption": captions[:1] * PAIRS}, PAIRS),
        "a dictionary of captions": ({"image": images, "caption": pa.array(captions).dictionary_encode()}, PAIRS),
        "large strings": ({"image": images, "caption": pa.array(captions, pa.large_string())}, PAIRS),
        "struct without bytes or path": ({"image": [hollow, *structs[1:]], "caption": captions}, PAIRS),
    }  # fmt: skip
    for name, (columns, records) in kept.items():
        yield Case(name, _inspect("t.parquet"), _file(_parquet(columns), "t.parquet"), ACCEPTED, records)
    refused: dict[str, bytes] = {
        "no rows": _parquet({"image": pa.array([], pa.binary()), "caption": pa.array([], pa.string())}),
        "captions that are numbers": _parquet({"image": images, "caption": list(range(PAIRS))}),
        "images that are numbers": _parquet({"image": list(range(PAIRS)), "caption": captions}),
        "no image column": _parquet({"caption": captions}),
        "other columns": _parquet({"a": captions, "b": captions}),
        "no columns": _parquet({}),
        "its magic alone": b"PAR1PAR1",
        "a footer of 4 GiB": b"PAR1" + bytes(100) + b"\xff\xff\xff\xff" + b"PAR1",
        "cut off": _parquet({"image": images, "caption": captions})[:-9],
    }
    for name, data in refused.items():
        yield Case(name, _inspect("t.parquet"), _file(data, "t.parquet"), REFUSED)
    whole = bytearray(_parquet({"image": images, "caption": captions}))
    for at in sorted(rng.sample(range(4, len(whole) - 8), 4)):
        damaged = bytes(whole[:at]) + bytes([whole[at] ^ 255]) + bytes(whole[at + 1 :])
        yield Case(f"damaged at byte {at:,}", _inspect("t.parquet"), _file(damaged, "t.parquet"), EITHER)
    for setting in ("data.caption_column=nope", "data.image_column=nope", "data.label_column=nope"):
        yield Case(f"--set {setting}", _inspect("t.parquet", setting), _file(bytes(whole), "t.parquet"), REFUSED)
