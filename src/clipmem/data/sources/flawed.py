"""Planted flaws: some pairs of a source get a vague caption or a distorted image, to see what a score makes of them.

Which pairs depends on their image only. The key of a flawed pair ends with the kind of its flaw.
"""

import contextlib
import io
from collections.abc import Iterator, Sequence
from dataclasses import replace

from PIL import Image

from clipmem.base.errors import require
from clipmem.base.hashing import ImageHash
from clipmem.base.sections import DataSection
from clipmem.data.decoding import DecodeError, decode, read_header
from clipmem.data.sources.base import Source, Wrapped
from clipmem.data.sources.records import Record, caption_problem

VAGUE, DISTORTED = " (vague)", " (distorted)"
_TURNS = (Image.Transpose.ROTATE_90, Image.Transpose.ROTATE_180, Image.Transpose.ROTATE_270)


def distort(data: bytes, kind: int) -> bytes:
    """Turn an image by 90, 180 or 270 degrees (kinds 0 to 2), or crop it to one of its quarters (3 to 6); PNG.

    Raises:
        DecodeError: The image does not decode; it is cut to a square first, as for training.
    """
    header = read_header(data)
    image = Image.fromarray(decode(data, min(header.width, header.height)))
    if kind < len(_TURNS):
        image = image.transpose(_TURNS[kind])
    else:
        half = max(1, image.width // 2)
        x, y = (kind - 3) % 2 * (image.width - half), (kind - 3) // 2 * (image.height - half)
        image = image.crop((x, y, x + half, y + half))
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


class FlawedSource(Wrapped):
    """A source with planted flaws.

    The hash of an image gives it a number in [0, 1). A pair whose number is below `vague` has the name of its class as
    its only caption; one whose number is in [vague, vague + distorted) has a turned image, or one cropped to a corner.
    Pairs without a class are never vague.
    """

    def __init__(self, source: Source, section: DataSection) -> None:
        super().__init__(source, section)
        self._flaws = section.flaws
        self._distorted: dict[str, int] = {}

    def records(self) -> Iterator[Record]:
        vague, distorted = self._flaws.vague, self._flaws.distorted
        for record in self.source.records():
            bits = b"" if isinstance(record.image, str) else record.image.digest()
            number = int.from_bytes(bits[16:24], "little") / 2**64  # of bits that are not in the uid
            flawed = record
            if bits and number < vague and record.label:
                captions = [record.label.replace("-", " ").replace("_", " ")]
                # a part without a usable caption stays as it is, to be reported
                parts = [
                    part if all(map(caption_problem, part.captions)) else part._replace(captions=captions)
                    for part in record.parts
                ]
                flawed = replace(record, key=record.key + VAGUE, parts=parts)
            elif bits and vague <= number < vague + distorted:
                with contextlib.suppress(DecodeError):  # unusable images are reported when they are decoded
                    image = ImageHash(distort(self.source.read([record.reference])[0], bits[24] % 7))
                    self._distorted[record.reference] = bits[24] % 7
                    flawed = replace(record, key=record.key + DISTORTED, image=image)
            yield flawed

    def read(self, references: Sequence[str]) -> list[bytes]:
        if not self._distorted and self._flaws.distorted:
            self.pairs()
        contents = self.source.read(references)
        kinds = [self._distorted.get(reference) for reference in references]
        return [data if kind is None else distort(data, kind) for data, kind in zip(contents, kinds, strict=True)]


def planted(source: Source, section: DataSection) -> Source:
    """Return the source with the flaws of `[data.flaws]`, or itself if there are none."""
    flaws = section.flaws
    total = flaws.vague + flaws.distorted
    require(total <= 1, "[data.flaws] vague + distorted", f"{total:g}", "at most 1", "Lower one of the shares.")
    return FlawedSource(source, section) if total else source
