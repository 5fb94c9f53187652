"""Whatever bytes a file holds, decoding gives a square or one of its few reasons, and nothing else."""

import io

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from tests.tiny import encoded_image

from clipmem.data import decoding
from clipmem.data.decoding import FORMATS, DecodeError, Header, decode, read_header

REASONS = {
    decoding.EMPTY,
    decoding.MANY_BYTES,
    decoding.MANY_PIXELS,
    decoding.UNKNOWN,
    decoding.TRUNCATED,
    decoding.DAMAGED,
    decoding.SCALE,
}


def _files():
    image = Image.open(io.BytesIO(encoded_image(3)))
    exif = Image.Exif()
    exif[0x0112] = 6
    for form in FORMATS:
        for options in ({}, {"exif": exif} if form in {"JPEG", "WEBP", "PNG", "TIFF"} else None):
            if options is not None:
                stream = io.BytesIO()
                image.save(stream, form, **options)
                yield stream.getvalue()


FILES = tuple(_files())
changes = st.lists(st.tuples(st.integers(0, 2**16), st.integers(0, 255)), max_size=8)


def outcome(read, data):
    """What reading gives: a square, a header, or the reason why there is none."""
    try:
        return read(data)
    except DecodeError as error:
        return error.reason


@given(st.sampled_from(FILES), changes, st.one_of(st.none(), st.floats(0, 1)), st.sampled_from([40, 200, 2**16]))
def test_broken_bytes_end_in_a_square_or_a_reason(file, changed, cut, within):
    data = bytearray(file)
    for place, value in changed:
        data[place % min(within, len(data))] = value
    if cut is not None:
        data = data[: int(cut * len(data))]
    pixels, header = outcome(lambda d: decode(d, 8), bytes(data)), outcome(read_header, bytes(data))
    if isinstance(pixels, str):
        assert pixels in REASONS
    else:
        assert pixels.shape == (8, 8, 3)
        assert pixels.dtype == np.uint8
        assert isinstance(header, Header)  # what decodes has a header that reads
    assert isinstance(header, Header) or header in REASONS


@given(st.binary(max_size=300))
def test_any_bytes(data):
    assert outcome(lambda d: decode(d, 8), data) in REASONS
