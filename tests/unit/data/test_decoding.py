"""Decoding: what open_clip would see, what is refused by its header, and one reason for each kind of broken file."""

import io
import struct
import time
import tracemalloc
import zlib

import numpy as np
import open_clip
import pytest
from PIL import Image, ImageFile
from PIL.TiffImagePlugin import ImageFileDirectory_v2
from torchvision.transforms import functional as tv

from clipmem.base.errors import InputError
from clipmem.data import decoding
from clipmem.data.decoding import FORMATS, DecodeError, Header, decode, read_header
from tests.tiny import encoded_image

SIZES = ((75, 50), (50, 75), (24, 24), (31, 24), (17, 90), (9, 11))


def encoded(image, form, **options):
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def noise(width, height, channels=3, seed=0):
    """An image without any structure: the hardest one to scale alike."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)


def by_open_clip(data, size):
    """The levels, 0 to 255, that open_clip's own preprocessing gives to a model."""
    transform = open_clip.image_transform(size, is_train=False, mean=(0, 0, 0), std=(1, 1, 1))
    return np.rint(transform(Image.open(io.BytesIO(data))).permute(1, 2, 0).numpy() * 255).astype(np.int64)


# ---- agreement with open_clip


@pytest.mark.parametrize("size", [16, 24, 40])
@pytest.mark.parametrize("shape", SIZES, ids=str)
def test_opaque_images_have_the_bytes_of_open_clip(shape, size):
    image = Image.fromarray(noise(*shape))
    opaque = image.copy()
    opaque.putalpha(255)
    files = [encoded(image, form) for form in ("PNG", "JPEG", "TIFF", "BMP")]
    files += [encoded(image, "WEBP", lossless=True), encoded(image.convert("L"), "PNG"), encoded(opaque, "PNG")]
    files += [encoded(image.convert("L"), "JPEG"), encoded(image, "JPEG", quality=30, progressive=True)]
    for data in files:
        np.testing.assert_array_equal(decode(data, size), by_open_clip(data, size))


@pytest.mark.parametrize("shape", SIZES, ids=str)
def test_cmyk_has_the_bytes_of_open_clip(shape):
    image = Image.fromarray(noise(*shape, channels=4), "CMYK")
    for data in (encoded(image, "TIFF"), encoded(image, "JPEG")):
        np.testing.assert_array_equal(decode(data, 24), by_open_clip(data, 24))


@pytest.mark.parametrize("turn", range(1, 9))
def test_orientation_in_exif_is_obeyed(turn):
    image = Image.fromarray(noise(30, 24))
    exif = Image.Exif()
    exif[0x0112] = turn
    upright = image if turn == 1 else image.transpose(decoding._TURNS[turn])
    expected = by_open_clip(encoded(upright, "PNG"), 16)
    for data in (encoded(image, "PNG", exif=exif), encoded(image, "WEBP", lossless=True, exif=exif)):
        np.testing.assert_array_equal(decode(data, 16), expected)
    data = encoded(image, "TIFF", exif=exif)
    np.testing.assert_array_equal(decode(data, 16), expected)


@pytest.mark.parametrize("exif", [b"Exif\0\0nonsense", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff"])
def test_exif_that_does_not_read_is_no_reason_to_leave_a_image_out(exif):
    image = Image.fromarray(noise(24, 24))
    expected = decode(encoded(image, "JPEG"), 16)
    np.testing.assert_array_equal(decode(encoded(image, "JPEG", exif=exif), 16), expected)


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_sixteen_bits_are_scaled_and_not_clipped(form):
    values = np.linspace(0, 65535, 32 * 32).reshape(32, 32).round().astype(np.uint16)
    pixels = decode(encoded(Image.fromarray(values), form), 32)
    expected = np.rint(values.astype(np.float64) * 255 / 65535)
    for channel in range(3):
        np.testing.assert_array_equal(pixels[..., channel], expected)


def test_a_hidden_level_of_sixteen_bit_gray_shows_white():
    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    rows = zlib.compress(b"".join(b"\0" + struct.pack(">2H", 1000, 40000) for _ in range(2)))
    header = struct.pack(">IIBBBBB", 2, 2, 16, 0, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + b"".join(
        chunk(kind, body)
        for kind, body in ((b"IHDR", header), (b"tRNS", struct.pack(">H", 1000)), (b"IDAT", rows), (b"IEND", b""))
    )
    assert decode(data, 2)[:, 0].tolist() == [[255] * 3] * 2
    assert decode(data, 2)[:, 1].tolist() == [[156] * 3] * 2


def tiff(values, bits, sample_format):
    """An uncompressed little-endian gray TIFF, with any bits in a sample."""
    height, width = values.shape
    tags = [(256, 4, width), (257, 4, height), (258, 3, bits), (259, 3, 1), (262, 3, 1), (273, 4, 200), (277, 3, 1)]
    tags += [(278, 4, height), (279, 4, values.nbytes), (339, 3, sample_format)]
    head = b"II*\0" + struct.pack("<IH", 8, len(tags)) + b"".join(struct.pack("<HHII", t, k, 1, v) for t, k, v in tags)
    return head.ljust(200, b"\0") + values.tobytes()


@pytest.mark.parametrize(
    ("values", "bits", "sample_format"),
    [
        (np.arange(64, dtype=np.int32) * 1000, 32, 2),  # all of them within 16 bits
        (np.linspace(0, 2**31 - 1, 64).astype(np.int32), 32, 2),
        (np.arange(64, dtype=np.uint32), 32, 1),
        (np.zeros(64, np.float32), 32, 3),
        (np.arange(64, dtype=np.int16), 16, 2),
        (np.zeros(48, np.uint16), 12, 1),
    ],
)
def test_samples_without_a_known_scale_are_refused_by_the_header(values, bits, sample_format):
    data = tiff(values.reshape(8, -1), bits, sample_format)
    for look in (read_header, lambda data: decode(data, 8)):
        with pytest.raises(DecodeError) as error:
            look(data)
        assert error.value.reason == "samples without a known scale"
        assert error.value.expected == "8 bits or unsigned 16 bits per sample"


def test_the_same_tiff_of_sixteen_bits_is_read():
    assert decode(tiff(np.full((8, 8), 25700, np.uint16), 16, 1), 8).max() == 100


def test_palettes_are_scaled_as_colors():
    image = Image.fromarray(noise(40, 40)).convert("P")
    as_colors = encoded(image.convert("RGB"), "PNG")
    for form in ("PNG", "GIF", "TIFF"):
        np.testing.assert_array_equal(decode(encoded(image, form), 16), by_open_clip(as_colors, 16))


def test_half_transparent_parts_are_mixed_with_white():
    image = Image.new("RGBA", (8, 8), (255, 0, 0, 51))  # a fifth of red, four fifths of white
    assert decode(encoded(image, "PNG"), 8)[0, 0].tolist() == [255, 204, 204]
    palette = Image.new("P", (8, 8), 3)
    palette.putpalette([7, 7, 7] * 256)
    assert decode(encoded(palette, "PNG", transparency=3), 8).min() == 255
    assert decode(encoded(palette, "GIF", transparency=3), 8).min() == 255


@pytest.mark.parametrize("form", ["GIF", "WEBP", "PNG"])
def test_an_animation_shows_its_first_frame(form):
    frames = [Image.new("RGB", (16, 16), color) for color in ("red", "lime", "blue")]
    options = {"lossless": True} if form == "WEBP" else {}
    data = encoded(frames[0], form, save_all=True, append_images=frames[1:], duration=50, **options)
    assert Image.open(io.BytesIO(data)).n_frames == 3
    assert (decode(data, 16) == [255, 0, 0]).all()


# ---- what is refused, and by what


class Reader:
    """Counts how often Pillow begins to decode pixels."""

    def __init__(self, monkeypatch):
        self.times = 0
        for kind in (Image.Image, ImageFile.ImageFile):
            monkeypatch.setattr(kind, "load", self._counted(kind.load))

    def _counted(self, load):
        def counted(image, *arguments, **options):
            self.times += 1
            return load(image, *arguments, **options)

        return counted


def chunked(width, height, body=b""):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


@pytest.fixture(scope="module")
def bomb():
    """30,000 x 30,000 black pixels: 2.7 GB in some 10 MB, and whole: every one of them would decode."""
    many = 1000
    rows = bytes(many * (1 + 3 * 30_000))
    packer = zlib.compressobj(1, wbits=-15)
    once = packer.compress(rows) + packer.flush(zlib.Z_FULL_FLUSH)  # fully flushed parts can be repeated
    check = 1
    for _ in range(30):
        check = zlib.adler32(rows, check)
    return chunked(30_000, 30_000, b"\x78\x01" + 30 * once + packer.flush() + struct.pack(">I", check))


def test_no_pixel_of_a_huge_image_is_decoded(bomb, monkeypatch):
    reader = Reader(monkeypatch)
    decode(encoded_image(0), 8)
    assert reader.times  # the counter counts
    reader.times = 0
    tracemalloc.start()
    started = time.process_time()
    for _ in range(10):
        with pytest.raises(DecodeError) as error:
            decode(bomb, 8)
        assert error.value.reason == "too many pixels"
        assert "900000000 pixels" in str(error.value)
        with pytest.raises(DecodeError):
            read_header(bomb)
    seconds, (_, peak) = time.process_time() - started, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert reader.times == 0
    assert seconds < 1  # 20 refusals; decoding it once takes several seconds
    assert peak < 2 * len(bomb) + 2**20


@pytest.mark.parametrize("form", FORMATS)
def test_the_cap_holds_in_every_format_before_a_pixel_is_decoded(form, monkeypatch):
    data = encoded(Image.fromarray(noise(20, 10)), form)
    monkeypatch.setattr(decoding, "MAX_PIXELS", 199)
    reader = Reader(monkeypatch)
    with pytest.raises(DecodeError) as error:
        decode(data, 8)
    assert (error.value.got, error.value.expected) == ("20 x 10 pixels", "at most 199 pixels in total")
    assert reader.times == 0
    monkeypatch.setattr(decoding, "MAX_PIXELS", 200)
    decode(data, 8)
    assert reader.times


def test_a_tile_larger_than_the_cap_is_refused():
    tags = ImageFileDirectory_v2()
    # 20 x 10 gray pixels in one tile of 30,000 x 30,000
    values = {256: 20, 257: 10, 258: 8, 259: 1, 262: 1, 277: 1, 322: 30_000, 323: 30_000, 324: 200, 325: 200}
    for tag, value in values.items():
        tags[tag] = value
    data = b"II*\0" + struct.pack("<L", 8) + tags.tobytes(8)
    assert Image.open(io.BytesIO(data)).size == (20, 10)
    with pytest.raises(DecodeError, match="30000 x 30000 pixels in a tile") as error:
        decode(data, 8)
    assert error.value.reason == "too many pixels"


def test_too_many_bytes_are_refused_unread(monkeypatch):
    monkeypatch.setattr(decoding, "MAX_BYTES", 100)
    monkeypatch.setattr(Image, "open", None)
    with pytest.raises(DecodeError) as error:
        decode(bytes(101), 8, name="image 'a'")
    assert (error.value.what, error.value.got, error.value.expected) == ("image 'a'", "101 bytes", "at most 100")
    assert error.value.reason == "too many bytes"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty file"),
        (b"<!doctype html><title>404</title>", "not an image of a known format"),
        (b"BMW is a maker of cars", "not an image of a known format"),
        (b"RIFF\x24\0\0\0WAVEfmt ", "not an image of a known format"),
        (encoded(Image.new("RGB", (4, 4)), "PPM"), "not an image of a known format"),
        (encoded(Image.new("RGB", (16, 16)), "ICO"), "not an image of a known format"),
        (b"\x89PNG\r\n\x1a\n" + bytes(80) + b"IEND", "damaged image"),
        (b"GIF89a nonsense;", "damaged image"),
        (chunked(40, 40, b"no zlib stream"), "damaged image"),
    ],
)
def test_each_problem_has_one_reason(data, reason):
    with pytest.raises(DecodeError) as error:
        decode(data, 8)
    assert error.value.reason == reason


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_a_file_that_was_cut_off_is_called_truncated(form, share):
    data = encoded(Image.fromarray(noise(64, 48)), form)
    with pytest.raises(DecodeError) as error:
        decode(data[: int(len(data) * share)], 8)
    # the table of a TIFF stands at its end, and Pillow finds none
    assert error.value.reason in ({"truncated image", "damaged image"} if form == "TIFF" else {"truncated image"})


@pytest.mark.parametrize("form", FORMATS)
def test_the_header_says_format_and_size(form, monkeypatch):
    data = encoded(Image.fromarray(noise(20, 10)), form)
    reader = Reader(monkeypatch)
    assert read_header(data) == Header(form, 20, 10)
    assert reader.times == 0


def test_decoding_agrees_with_torchvision():
    image = Image.open(io.BytesIO(encoded_image(3, size=60))).resize((75, 50))
    ours = decode(encoded(image, "PNG"), 24)
    theirs = tv.center_crop(tv.resize(image, 24, interpolation=tv.InterpolationMode.BICUBIC), [24, 24])
    np.testing.assert_array_equal(ours, np.asarray(theirs))


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "L", "CMYK", "1", "RGB"])
def test_every_mode_becomes_rgb_on_white(mode):
    image = Image.new("RGBA", (8, 8), (255, 0, 0, 0)) if mode in {"RGBA", "LA"} else Image.new("RGB", (8, 8), "white")
    form = "JPEG" if mode == "CMYK" else "PNG"
    pixels = decode(encoded(image.convert(mode), form), 8)
    assert pixels.shape == (8, 8, 3)
    assert pixels.min() > 250  # what is transparent shows white


def test_a_turn_by_180_degrees_in_exif_is_obeyed():
    image = Image.new("RGB", (8, 8), "white")
    image.putpixel((0, 0), (0, 0, 0))
    exif = Image.Exif()
    exif[0x0112] = 3  # turned by 180 degrees
    pixels = decode(encoded(image, "PNG", exif=exif), 8)
    assert pixels[7, 7].max() == 0


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "image: got 0 bytes, expected an image. "),
        (b"GIF89a nonsense", "image: got 15 bytes that do not decode"),
        (encoded_image(0)[:-40], "image: got"),
        (encoded(Image.new("RGB", (4, 4)), "PPM"), "expected an image: WEBP, PNG, JPEG, GIF, BMP, TIFF"),
    ],
)
def test_what_does_not_decode_is_named(data, message):
    with pytest.raises(InputError) as error:
        decode(data, 8)
    assert message in str(error.value)


def test_a_huge_image_is_refused_by_its_header():
    # 30,000 x 30,000 pixels in a few kilobytes: the header alone must be enough to refuse it
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    with pytest.raises(InputError, match="900000000 pixels.* expected at most 100,000,000 pixels in total"):
        decode(data, 8)


def test_a_large_image_is_refused_with_its_size(monkeypatch):
    monkeypatch.setattr("clipmem.data.decoding.MAX_PIXELS", 100)
    with pytest.raises(InputError) as error:
        decode(encoded_image(0, size=16), 8)
    assert (error.value.got, error.value.expected) == ("16 x 16 pixels", "at most 100 pixels in total")
