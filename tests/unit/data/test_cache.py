"""Sources, decoding, the pixel cache and image views."""

import io
import struct
import zlib

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms import functional as tv
from torchvision.transforms.v2 import RandomResizedCrop

from clipmem.base.errors import InputError
from clipmem.base.hashing import pair_uid
from clipmem.base.sections import DataSection
from clipmem.data.cache import build_cache, open_cache
from clipmem.data.decoding import decode
from clipmem.data.sources import open_source
from clipmem.data.views import Crops, as_float, draw_crops, pair_keys, render
from tests.tiny import encoded_image, write_parquet


def encoded(image: Image.Image, form: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


# ---- sources


@pytest.fixture(scope="module")
def emoji():
    return open_source(DataSection())


def test_shipped_pairs(emoji):
    pairs = emoji.pairs()
    assert pairs.height == pairs["uid"].n_unique() == 1914
    assert pairs["uid"].is_sorted()
    assert pairs["captions"].list.len().min() >= 5
    assert pairs.filter(pl.col("image").str.ends_with("_noto")).height == 1906
    row = pairs.row(by_predicate=pl.col("key") == "1F600", named=True)
    assert (row["label"], row["sublabel"], row["captions"][0]) == (
        "smileys-emotion",
        "face-smiling",
        "grinning face",
    )
    assert row["variants"] == [f"1f600_{v}" for v in ("twemoji", "fluent-flat", "noto-v1", "emojione")]
    [data] = emoji.read([row["image"]])
    assert row["uid"] == pair_uid(data, row["captions"])
    assert "Apache-2.0" in row["credit"]
    assert len(emoji.credits()) >= 3


def test_parquet_pairs(tmp_path):
    path = write_parquet(tmp_path / "a.parquet", 4)
    source = open_source(DataSection(source="parquet", path=str(path)))
    pairs = source.pairs()
    assert pairs.height == 4
    assert sorted(source.read(pairs["image"].to_list())) == sorted(encoded_image(seed) for seed in range(4))
    assert pairs["group"].to_list() == pairs["uid"].to_list()
    # one text a pair, plain bytes, group and label columns
    pl.DataFrame(
        {"png": [encoded_image(0), encoded_image(1)], "text": ["a", "b"], "who": [1, 1], "kind": ["x", None]}
    ).write_parquet(tmp_path / "b.parquet")
    section = DataSection(
        source="parquet",
        path=str(tmp_path / "b.parquet"),
        image_column="png",
        caption_column="text",
        group_column="who",
        label_column="kind",
    )
    pairs = open_source(section).pairs().sort("key")
    assert pairs["captions"].to_list() == [["a"], ["b"]]
    assert pairs["group"].to_list() == ["1", "1"]
    assert pairs["label"].to_list() == ["x", ""]


def test_a_folder_of_parquet_files_is_one_source(tmp_path):
    write_parquet(tmp_path / "1.parquet", 2)
    write_parquet(tmp_path / "0.parquet", 3, captions=[["x"], ["y"], ["z"]])
    pairs = open_source(DataSection(source="parquet", path=str(tmp_path))).pairs()
    # two rows with one path and the same image are one pair
    zero, one = (["thing number 0", "number 0"], ["thing number 1", "number 1"])
    assert sorted(pairs["captions"].to_list()) == [["x", *zero], ["y", *one], ["z"]]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (
            {"image": [b""], "captions": [["a"]]},
            " without a usable pair (1 x empty file, the first '0'), expected at least one image with a caption.",
        ),
        (
            {"image": [encoded_image(0)], "captions": [[""]]},
            " without a usable pair (1 x empty caption, the first '0')",
        ),
        ({"image": [encoded_image(0)], "captions": [None]}, " without a usable pair (1 x no caption, the first '0')"),
        ({"image": [None, b"x"], "captions": [["a"], ["a"]]}, " (1 x no image, 1 x not an image of a known format,"),
        ({"image": [1], "captions": [["a"]]}, "column 'image': got int64, expected bytes, a struct with a field"),
        ({"imgae": [b"x"], "captions": [["a"]]}, ": got no column 'image'. Did you mean 'imgae'?"),
    ],
)
def test_data_without_a_usable_row_are_refused(tmp_path, columns, message):
    path = tmp_path / "a.parquet"
    pl.DataFrame(columns, schema_overrides={"captions": pl.List(pl.String)}).write_parquet(path)
    with pytest.raises(InputError) as error:
        open_source(DataSection(source="parquet", path=str(path))).pairs()
    assert message in str(error.value)


def test_missing_files_and_sources_are_named(tmp_path):
    with pytest.raises(InputError) as error:
        open_source(DataSection(source="parquet", path=str(tmp_path / "none.parquet")))
    assert (error.value.what, error.value.expected[:15]) == ("[data] path", "a .parquet file")
    with pytest.raises(InputError, match=r"data source 'emojy': got an unknown name.* Did you mean 'emoji'\?"):
        open_source(DataSection(source="emojy"))
    (tmp_path / "x.parquet").write_text("no")
    with pytest.raises(InputError, match="not readable as Parquet"):
        open_source(DataSection(source="parquet", path=str(tmp_path / "x.parquet")))


# ---- decoding


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


def test_orientation_in_exif_is_obeyed():
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


def test_cache_holds_what_decode_gives(tmp_path):
    data = {str(seed): encoded_image(seed, size=40) for seed in range(3)}
    done: list[int] = []
    build_cache(
        tmp_path / "c.npy",
        ["2", "0"],
        lambda names: [data[name] for name in names],
        size=16,
        progress=done.append,
    )
    cache = open_cache(tmp_path / "c.npy")
    np.testing.assert_array_equal(cache, np.stack([decode(data["2"], 16), decode(data["0"], 16)]))
    assert done == [2]
    with pytest.raises(InputError, match="image '1': got 1 bytes that do not decode"):
        build_cache(tmp_path / "d.npy", ["1"], lambda _: [b"x"], size=16)
    assert not (tmp_path / "d.npy").exists()
    with pytest.raises(InputError, match="pixel cache"):
        open_cache(tmp_path / "d.npy")


# ---- views


def draw(keys, seed=1, **changes):
    options = {"size": 48, "scale": (0.5, 0.9), "ratio": (0.75, 4 / 3), "flip": 0.5} | changes
    return draw_crops(np.asarray(keys, dtype=np.uint64), seed=seed, **options)


def test_views_depend_on_pair_and_stream_only():
    all_of_them, some = draw(range(50)), draw([40, 3])
    for ours, theirs in zip(some, all_of_them, strict=True):
        np.testing.assert_array_equal(ours, theirs[[40, 3]])
    assert (draw(range(50), seed=2).top != all_of_them.top).any()
    assert pair_keys(["0123456789abcdef" + "f" * 16]).tolist() == [0x0123456789ABCDEF]


@given(st.integers(0, 2**62), st.floats(0.05, 1), st.floats(0.05, 1), st.integers(1, 80))
def test_crops_lie_inside_the_image(seed, a, b, size):
    crops = draw(range(30), seed=seed, scale=(min(a, b), max(a, b)), size=size)
    assert (crops.top >= 0).all()
    assert (crops.left >= 0).all()
    assert (crops.height >= 1).all()
    assert (crops.width >= 1).all()
    assert (crops.top + crops.height <= size).all()
    assert (crops.left + crops.width <= size).all()


def test_crops_have_the_distribution_of_random_resized_crop():
    ours = draw(range(4000), size=64, scale=(0.3, 0.9))
    torch.manual_seed(0)
    theirs = RandomResizedCrop(8, scale=(0.3, 0.9))
    blank = torch.zeros(1, 64, 64)
    params = [theirs.make_params([blank]) for _ in range(4000)]
    for name, values in (
        ("height", ours.height),
        ("width", ours.width),
        ("top", ours.top),
        ("left", ours.left),
    ):
        other = np.array([one[name] for one in params])
        error = np.hypot(values.std(), other.std()) / np.sqrt(4000)
        assert abs(values.mean() - other.mean()) < 4 * error, name
        assert values.std() == pytest.approx(other.std(), rel=0.06), name
    assert abs(ours.flip.mean() - 0.5) < 4 * 0.5 / np.sqrt(4000)
    assert not draw(range(100), flip=0.0).flip.any()
    assert draw(range(100), flip=1.0).flip.all()


def test_rendered_crops_agree_with_torchvision():
    pixels = torch.from_numpy(np.stack([decode(encoded_image(seed, size=48), 48) for seed in range(20)]))
    crops = draw(range(20), scale=(0.4, 0.8))
    ours = render(pixels, crops, size=40)
    for k, image_ in enumerate(as_float(pixels)):
        top, left, height, width, flip = (values[k] for values in crops)
        theirs = tv.resized_crop(image_, int(top), int(left), int(height), int(width), [40, 40], antialias=False)
        if flip:
            theirs = tv.hflip(theirs)
        # at the rim torchvision repeats the crop's last pixel, grid sampling reads its neighbor outside the crop
        assert (ours[k] - theirs)[:, 1:-1, 1:-1].abs().max() < 2e-5


def test_a_whole_crop_changes_nothing():
    pixels = torch.from_numpy(decode(encoded_image(1, size=32), 32))[None]
    zero, whole = np.array([0]), np.array([32])
    crops = Crops(zero, zero, whole, whole, np.array([False]))
    assert (render(pixels, crops, size=32) - as_float(pixels)).abs().max() < 1e-5
    mirrored = render(pixels, crops._replace(flip=np.array([True])), size=32)
    assert (mirrored - as_float(pixels).flip(-1)).abs().max() < 1e-5
