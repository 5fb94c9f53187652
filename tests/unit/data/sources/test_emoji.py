"""The shipped pairs: the emoji, and the drawings of chosen artists."""

import polars as pl
import pytest

from clipmem.base.errors import InputError
from clipmem.base.hashing import pair_uid
from clipmem.base.recipes import load_recipe
from clipmem.base.sections import DataSection, EmojiArtistsSection
from clipmem.data.sources import open_source


@pytest.fixture(scope="module")
def emoji():
    return open_source(DataSection())


@pytest.mark.slow
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


def artists(**settings):
    section = DataSection(source="emoji-artists", emoji_artists=EmojiArtistsSection(**settings))
    return open_source(section)


@pytest.mark.slow
def test_every_drawing_is_a_pair_with_the_captions_of_its_emoji():
    pairs = artists().pairs()
    assert pairs.height == 8588
    assert (pairs["group"] == pairs["uid"]).all()
    emoji = pairs["key"].str.split("_").list.first()
    assert pairs.with_columns(emoji=emoji).group_by("emoji").agg(pl.col("captions").n_unique())["captions"].max() == 1
    assert pairs["credit"].str.contains("CC-BY").any()
    assert pairs["variants"].list.len().max() == 0


def test_chosen_artists_have_pairs_and_the_others_are_variants():
    pairs = artists(artists=["noto", "twemoji"]).pairs()
    assert pairs.height == 1906 + 1914
    assert set(pairs["key"].str.split("_").list.last()) == {"noto", "twemoji"}
    others = set(pairs["variants"].explode().drop_nulls().str.split("_").list.last())
    assert others == {"fluent-flat", "noto-v1", "emojione", "fxemoji"}
    with pytest.raises(InputError) as caught:
        artists(artists=["notto"])
    assert caught.value.what == "[data.emoji_artists] artists"


@pytest.mark.slow
def test_own_orders_have_the_same_captions():
    named, own = (artists(order=order).pairs().sort("key") for order in ("name first", "own"))
    assert named["captions"].list.sort().equals(own["captions"].list.sort())
    assert 0.05 < (named["captions"].list.first() == own["captions"].list.first()).mean() < 0.25


def test_settings_of_another_source_are_refused_and_not_written():
    with pytest.raises(InputError, match="emoji_artists"):
        open_source(DataSection(source="emoji", emoji_artists=EmojiArtistsSection(order="own")))
    from clipmem.base.recipes import dump_recipe

    assert "emoji_artists" not in dump_recipe(load_recipe('[data]\nsource = "emoji"'))
    assert "[data.emoji_artists]" in dump_recipe(load_recipe('[data]\nsource = "emoji-artists"'))
