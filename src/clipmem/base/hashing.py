"""Content hashes: the identity of pairs, files, recipes and data sets."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import polars as pl
from jaxtyping import Int64

_HALF = 8  # bytes of a uid for the image, and for the captions


def pair_uid(image: bytes, captions: Sequence[str]) -> str:
    """Hash a pair's content: 16 hexadecimal digits for the encoded image, 16 for the image with its captions in order.

    Roles are drawn in the order of uids, so that changing captions keeps them. Each part is preceded by its length, so
    that different pairs never give the same bytes.
    """
    return ImageHash(image).uid(captions)


class ImageHash:
    """The image's part of `pair_uid`, so that its bytes need not be kept until the captions are known.

    Example:
        >>> ImageHash(b"x").uid(["a", "b"]) == pair_uid(b"x", ["a", "b"])
        True
    """

    __slots__ = ("_digest",)

    def __init__(self, image: bytes) -> None:
        self._digest = hashlib.sha256(len(image).to_bytes(8, "little"))
        self._digest.update(image)

    def digest(self) -> bytes:
        """Return the hash of the image alone."""
        return self._digest.digest()

    def uid(self, captions: Sequence[str]) -> str:
        """Return the uid of the image with these captions."""
        digest = self._digest.copy()
        for caption in captions:
            # broken JSON may have lone surrogates
            part = caption.encode("utf-8", "surrogatepass")
            digest.update(len(part).to_bytes(8, "little"))
            digest.update(part)
        return (self.digest()[:_HALF] + digest.digest()[:_HALF]).hex()


def image_part(uid: str) -> str:
    """Return the part of a uid that is the hash of the image."""
    return uid[: 2 * _HALF]


def is_image_of(uid: str, image: bytes) -> bool:
    """Return whether encoded bytes are the image of a pair.

    Example:
        >>> uid = pair_uid(b"x", ["a"])
        >>> is_image_of(uid, b"x"), is_image_of(uid, b"y")
        (True, False)
    """
    return ImageHash(image).digest()[:_HALF].hex() == image_part(uid)


def same_words(caption: str) -> str:
    """Return what two captions have in common that count as the same: casefolded, one space between words.

    Example:
        >>> same_words(" A  red Heart")
        'a red heart'
    """
    return " ".join(caption.casefold().split())


def numbered(texts: Iterable[str]) -> Int64[np.ndarray, " n"]:
    """Number texts in their sorted order, the same for equal ones, in less memory than their strings take in Python.

    Example:
        >>> numbered(["b", "a", "b"]).tolist()
        [1, 0, 1]
    """
    rank = pl.Series(values=texts, dtype=pl.String).rank("dense")
    return rank.cast(pl.Int64).to_numpy() - 1


def data_fingerprint(uids: Iterable[str], *, ordered: bool = False) -> str:
    """Hash a data set by the uids of its pairs, sorted, or in their order, in which they are cut into parts."""
    digest = hashlib.sha256()
    for uid in uids if ordered else sorted(uids):
        digest.update(uid.encode() + b"\n")
    return digest.hexdigest()


def file_sha256(path: Path) -> str:
    """Hash a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def json_sha256(value: object) -> str:
    """Hash plain data as canonical JSON: sorted keys, no spaces."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()
