"""Content hashes: the identity of pairs, files, recipes and data sets."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

_UID_BYTES = 16


def pair_uid(image: bytes, captions: Sequence[str]) -> str:
    """Hash a pair's content: the encoded image and its captions in order.

    Each part is preceded by its length, so that no two different pairs give the same bytes.
    """
    return ImageHash(image).uid(captions)


class ImageHash:
    """The part of `pair_uid` that needs an image's bytes; they need not be kept until the captions are known.

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
            # a caption may hold a lone surrogate (broken JSON in the wild): hash it rather than fail
            part = caption.encode("utf-8", "surrogatepass")
            digest.update(len(part).to_bytes(8, "little"))
            digest.update(part)
        return digest.hexdigest()[: 2 * _UID_BYTES]


def data_fingerprint(uids: Iterable[str]) -> str:
    """Hash a data set: the sorted uids of its pairs, so that the order of rows does not matter."""
    digest = hashlib.sha256()
    for uid in sorted(uids):
        digest.update(uid.encode() + b"\n")
    return digest.hexdigest()


def file_sha256(path: Path) -> str:
    """Hash a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def canonical_json(value: object) -> str:
    """Render plain data as JSON in one way only (sorted keys, no spaces), fit for hashing."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def json_sha256(value: object) -> str:
    """Hash plain data through `canonical_json`."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()
