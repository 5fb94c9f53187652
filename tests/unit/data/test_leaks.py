"""Leaks between two data sets: the closest match of each pair, against a loop over all pairs of both."""

import io

import numpy as np
import polars as pl
import pytest
from PIL import Image

from clipmem.base.hashing import same_words
from clipmem.data.decoding import decode
from clipmem.data.duplicates import correlation, difference_hash, thumbnails
from clipmem.data.leaks import MATCHES, leaks, write_sheet
from clipmem.data.sources import open_data

SAME, NEAR = "same image and caption", "near-duplicate image, same caption"


def photograph(seed, size=64, kind="PNG"):
    """A smooth random image, 8 x 8 random colors, enlarged; with a seed it is the same whatever its size and format."""
    colors = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(colors).resize((64, 64), Image.BICUBIC).resize((size, size), Image.BICUBIC).save(stream, kind)
    return stream.getvalue()


def data(path, images, captions):
    pl.DataFrame({"image": images, "captions": captions}).write_parquet(path)
    return open_data(str(path))


@pytest.fixture
def both(tmp_path):
    """Of each match one pair or more, a pair alone, one that does not decode, and two alike in the same set."""
    ours = [photograph(k) for k in range(6)] + [photograph(1, 80, "JPEG"), photograph(70)[:200], photograph(50)]
    texts = [["a"], ["b"], ["c"], ["d", "Red  Fox"], ["e"], ["f"], ["b"], ["g"], ["h"]]
    theirs = [photograph(0), photograph(1), photograph(2, 80, "JPEG"), photograph(3, 80, "JPEG"), photograph(60)]
    others = [["A "], ["other"], ["other"], ["red fox"], ["E"]]
    return data(tmp_path / "test.parquet", ours, texts), data(tmp_path / "train.parquet", theirs, others)


def by_loop(tested, other):
    """The closest match of each pair, from the definitions."""
    sets = []
    for source in (tested, other):
        rows = []
        for pair in source.pairs().iter_rows(named=True):
            [image] = source.read([pair["image"]])
            if len(image) != 200:
                rows.append((pair["uid"], decode(image, 64), {same_words(text) for text in pair["captions"]}))
        sets.append(rows)

    def near(a, b):
        bits = bin(int(difference_hash(a[None])[0]) ^ int(difference_hash(b[None])[0])).count("1")
        return bits <= 6 and correlation(thumbnails(a[None]), thumbnails(b[None]))[0] >= 0.98

    found = {}
    for uid, image, words in sets[0]:
        kinds = [(np.array_equal(image, seen), near(image, seen), bool(words & theirs)) for _, seen, theirs in sets[1]]
        tests = (
            any(same and caption for same, _, caption in kinds),
            any((same or like) and caption for same, like, caption in kinds),
            any(same for same, _, _ in kinds),
            any(like for _, like, _ in kinds),
            any(caption for _, _, caption in kinds),
        )
        if any(tests):
            found[uid] = list(MATCHES)[tests.index(True)]
    return found


def test_the_closest_match_of_each_pair_is_that_of_a_loop(both):
    facts, rows = leaks(*both)
    expected = by_loop(*both)
    assert dict(rows.select("uid", "match").iter_rows()) == expected
    assert set(expected.values()) == set(MATCHES)
    assert facts["matches"] == {match: list(expected.values()).count(match) for match in MATCHES}
    assert (facts["compared"], facts["others"]) == (8, 5)
    assert facts["leaked"] == sum(match != "same caption" for match in expected.values())
    assert facts["share"] == facts["leaked"] / 8
    partners = {
        key: (there, caption) for key, there, caption in rows.select("key", "other_key", "other_caption").iter_rows()
    }
    assert partners["3"] == ("3", "red fox")
    assert partners["0"] == ("0", "A ")


def test_sets_with_nothing_in_common_have_no_leaks(tmp_path):
    sets = [
        data(tmp_path / f"{k}.parquet", [photograph(10 * k + i) for i in range(3)], [[f"{k}{i}"] for i in range(3)])
        for k in range(2)
    ]
    facts, rows = leaks(*sets)
    assert (facts["leaked"], facts["share"], facts["samples"], rows.height) == (0, 0.0, [], 0)
    facts, _ = leaks(sets[0], sets[0])
    assert facts["matches"] == dict.fromkeys(MATCHES, 0) | {SAME: 3}


def test_a_set_without_an_image_that_decodes_leaks_nothing(tmp_path):
    ours = data(tmp_path / "a.parquet", [photograph(0)], [["a"]])
    theirs = data(tmp_path / "b.parquet", [photograph(1)[:200], photograph(2)[:300]], [["a"], ["b"]])
    facts, _ = leaks(ours, theirs)
    assert (facts["leaked"], facts["others"], theirs.ledger.undecodable) == (0, 0, 2)
    facts, rows = leaks(theirs, ours)
    assert (facts["compared"], facts["share"], rows.height) == (0, 0.0, 0)


def test_the_sheet_has_every_leak_above_its_match(both, tmp_path):
    _, rows = leaks(*both)
    write_sheet(tmp_path / "leaks.png", *both, rows)
    sheet = np.asarray(Image.open(tmp_path / "leaks.png"))
    listed = [row for row in rows.iter_rows(named=True) if row["match"] != "same caption"]
    assert sheet.shape == (2 * 128 + 16, 8 * 136, 3)
    assert len(listed) == 5
    for k, row in enumerate(listed):
        for side, (source, name) in enumerate(zip(both, ("image", "other_image"), strict=True)):
            [data] = source.read([row[name]])
            tile = sheet[side * 128 : (side + 1) * 128, k * 136 : k * 136 + 128]
            assert np.array_equal(tile, decode(data, 128))
    assert (sheet[:, 5 * 136 :] == 255).all()


def test_the_sheet_has_the_first_24(tmp_path):
    images = [photograph(k) for k in range(26)]
    sets = [data(tmp_path / f"{k}.parquet", images, [[f"{i}"] for i in range(26)]) for k in range(2)]
    write_sheet(tmp_path / "leaks.png", *sets, leaks(*sets)[1])
    sheet = np.asarray(Image.open(tmp_path / "leaks.png"))
    assert sheet.shape[0] == 3 * (2 * 128 + 16)
    assert np.array_equal(sheet[2 * 272 : 2 * 272 + 128, 7 * 136 : 7 * 136 + 128], decode(images[23], 128))
    write_sheet(tmp_path / "none.png", *sets, leaks(*sets)[1].clear())
    assert (np.asarray(Image.open(tmp_path / "none.png")) == 255).all()
