"""Planted flaws: chosen by image, named in the key, and images that are turned or cropped."""

import io

import numpy as np
import pytest
from PIL import Image

from clipmem.base.errors import InputError
from clipmem.base.sections import DataSection, EmojiArtistsSection, FlawsSection
from clipmem.data.decoding import decode
from clipmem.data.sources import open_source
from clipmem.data.sources.flawed import DISTORTED, VAGUE, distort


def source(**flaws):
    artists = EmojiArtistsSection(artists=["emojione", "fxemoji"])
    return open_source(DataSection(source="emoji-artists", emoji_artists=artists, flaws=FlawsSection(**flaws)))


def pixels(data):
    return np.array(Image.open(io.BytesIO(data)).convert("RGB"))


@pytest.mark.slow
def test_shares_are_kept_and_the_other_pairs_are_untouched():
    plain = {row["image"]: row for row in source().pairs().iter_rows(named=True)}
    made = source(vague=0.1, distorted=0.03)
    pairs = made.pairs()
    vague = [row for row in pairs.iter_rows(named=True) if row["key"].endswith(VAGUE)]
    distorted = [row for row in pairs.iter_rows(named=True) if row["key"].endswith(DISTORTED)]
    n = pairs.height
    assert len(plain) - n == len(made.problems) < 20  # one image twice, now with the same caption
    assert abs(len(vague) - 0.1 * n) < 4 * (0.09 * n) ** 0.5
    assert abs(len(distorted) - 0.03 * n) < 4 * (0.0291 * n) ** 0.5
    assert all(row["captions"] == [row["label"].replace("-", " ")] for row in vague)
    for row in pairs.iter_rows(named=True):
        before = plain[row["image"]]
        if row["key"] == before["key"]:
            assert row == before
        if row["key"].endswith(VAGUE):  # the image is the same
            assert row["uid"][:16] == before["uid"][:16]
        if row["key"].endswith(DISTORTED):
            assert (row["captions"], row["uid"][:16] != before["uid"][:16]) == (before["captions"], True)
    some = [row["image"] for row in distorted[:40]]
    changed, original = made.read(some), source().read(some)
    differs = [not np.array_equal(pixels(a), pixels(b)) for a, b in zip(changed, original, strict=True)]
    assert np.mean(differs) > 0.9  # a turned disk is the same
    again = source(vague=0.1, distorted=0.03)
    assert again.read(some) == changed  # without listing the pairs first
    assert again.pairs().equals(pairs)


@pytest.mark.slow
def test_pairs_of_several_records_stay_accounted_for(tmp_path):
    plain, made = (
        open_source(DataSection(source="emoji", flaws=FlawsSection(vague=share))).pairs() for share in (0, 0.3)
    )
    assert plain.height - made.height < 60  # one image twice, now with the same caption
    some = source().pairs()["image"][:40]
    rows = ["image,caption,label"]
    for number, data in enumerate(source().read(some.to_list())):
        (tmp_path / f"{number}.webp").write_bytes(data)
        rows += [f"{number}.webp,{text},a-thing" for text in ("one", "two", "")]
    (tmp_path / "pairs.csv").write_text("\n".join(rows))
    section = {"path": str(tmp_path / "pairs.csv"), "label_column": "label"}
    read = open_source(DataSection.model_validate({**section, "flaws": {"vague": 1.0}}))
    pairs = read.pairs()
    assert pairs["captions"].to_list() == [["a thing"]] * 40
    assert (read.ledger.read, read.ledger.pairs, read.ledger.merged, read.ledger.left_out) == (120, 40, 40, 40)


@pytest.mark.parametrize("kind", range(7))
def test_distortions_against_index_arithmetic(kind):
    image = np.random.default_rng(kind).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "PNG")
    found = decode(distort(stream.getvalue(), kind), 8 if kind < 3 else 4)
    expected = np.zeros_like(found)
    for y in range(len(found)):
        for x in range(len(found)):
            if kind < 3:
                row, column = [(x, 7 - y), (7 - y, 7 - x), (7 - x, y)][kind]
            else:
                row, column = y + 4 * ((kind - 3) // 2), x + 4 * ((kind - 3) % 2)
            expected[y, x] = image[row, column]
    assert np.array_equal(found, expected)


def test_none_is_the_source_itself_and_too_many_are_refused():
    assert type(source()).__name__ == "EmojiArtistsSource"
    with pytest.raises(InputError) as caught:
        source(vague=0.7, distorted=0.5)
    assert caught.value.got == "1.2"
