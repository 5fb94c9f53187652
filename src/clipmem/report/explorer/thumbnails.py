"""Thumbnails: images of pairs, decoded with the checks of a study and encoded again as WebP."""

import io
import threading
from functools import lru_cache

from PIL import Image

from clipmem.base.errors import ClipmemError
from clipmem.base.hashing import is_image_of
from clipmem.data.decoding import shrink
from clipmem.report.explorer.subject import Subject

_KEPT = 4000  # thumbnails in memory: at most about 64 MB


class Thumbnails:
    """Thumbnails by row: from the data or, where these are gone, from the run's decoded images."""

    def __init__(self, subject: Subject) -> None:
        self._subject, self._lock = subject, threading.Lock()
        self.get = lru_cache(_KEPT)(self._make)

    def _make(self, row: int, size: int) -> bytes | None:
        """Return the WebP file of a row, its longest side at most `size`; None if there is no image."""
        image = self._from_data(row, size) or self._from_cache(row, size)
        if image is None:
            return None
        stream = io.BytesIO()
        image.save(stream, "WEBP", quality=82, method=1)
        return stream.getvalue()

    def _from_data(self, row: int, size: int) -> Image.Image | None:
        reference = None if self._subject.pairs is None else self._subject.pairs["image"][row]
        if self._subject.source is None or reference is None:
            return None
        try:
            with self._lock:  # sources are not made for several threads
                data = self._subject.source.read([reference])[0]
            # a run folder that somebody else wrote could name any file
            return shrink(data, size) if is_image_of(self._subject.scores["uid"][row], data) else None
        except (ClipmemError, OSError, KeyError):
            return None

    def _from_cache(self, row: int, size: int) -> Image.Image | None:
        pixels, row_of = self._subject.pixels or (None, {})
        index = row_of.get(self._subject.scores["uid"][row])
        if pixels is None or index is None:
            return None
        image = Image.fromarray(pixels[index])
        image.thumbnail((size, size))
        return image
