"""Roles and wrong captions that the data or the user give, planting by share, and roles that outlive captions."""

import io

import numpy as np
import polars as pl
import pytest
from PIL import Image

from clipmem.base.errors import InputError
from clipmem.base.hashing import pair_uid
from clipmem.base.recipes import load_recipe
from clipmem.base.sections import DataSection, EmojiArtistsSection
from clipmem.data.sources import open_source
from clipmem.data.splits import ROLES, assign_roles, split_table
from clipmem.data.user_tables import read_wrong, roles_of
from clipmem.scoring.protocols import protocol_of
from clipmem.study.api import find_recipe
from clipmem.study.opening import open_study
from clipmem.study.plan import check_needs

SIZES = {"shared": 40, "candidate": 20, "independent": 20, "external": 10}
UIDS = [f"{k:016x}{(k * 7919) % 997:016x}" for k in range(100)]
CAPTIONS = {uid: [f"caption {k}"] for k, uid in enumerate(UIDS)}


def image(k: int) -> bytes:
    stream = io.BytesIO()
    pixels = np.random.default_rng(k).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def test_other_captions_keep_every_role():
    images = [bytes([k]) for k in range(100)]
    before = [pair_uid(one, [f"caption {k}"]) for k, one in enumerate(images)]
    after = [pair_uid(one, [f"caption {(k + 1) % 100}"]) for k, one in enumerate(images)]
    assert not set(before) & set(after)
    roles = [assign_roles(uids, uids, SIZES, seed=3) for uids in (before, after)]
    assert roles[0] == roles[1]


@pytest.mark.parametrize("share", [0.1, 0.2, 0.4])
def test_a_share_of_every_trained_role_swaps_captions_within_its_role(share):
    table = split_table(UIDS, UIDS, SIZES, planted=share, seed=1, captions=CAPTIONS)
    planted = table.filter("planted")
    counts = dict(planted["role"].value_counts().iter_rows())
    assert counts == {role: round(share * SIZES[role]) for role in ROLES[:3]}
    assert (planted["uid"] != planted["captions_from"]).all()
    role = dict(table.select("uid", "role").iter_rows())
    assert all(role[uid] == role[other] for uid, other in planted.select("uid", "captions_from").iter_rows())


def test_a_share_of_candidates_and_independent_pairs_leaves_them_exchangeable():
    both = split_table(
        UIDS, UIDS, SIZES, planted=0.2, planted_roles=("candidate", "independent"), seed=1, captions=CAPTIONS
    )
    every = split_table(UIDS, UIDS, SIZES, planted=0.2, seed=1, captions=CAPTIONS)
    assert both.filter(pl.col("role") != "shared").equals(every.filter(pl.col("role") != "shared"))
    assert not both.filter(role="shared")["planted"].any()


@pytest.mark.parametrize("name", ["demo", "quick"])
def test_the_shipped_demos_swap_captions_alike_in_both_exchangeable_roles(name):
    split = find_recipe(name).split
    assert (split.planted, sorted(split.planted_roles)) == (0, ["candidate", "independent"])
    assert split.planted_share * split.candidate == split.planted_share * split.independent >= 50


def test_a_share_of_one_pair_plants_two_and_of_none_plants_none():
    small = split_table(UIDS, UIDS, SIZES, planted=0.05, seed=1, captions=CAPTIONS).filter("planted")
    assert dict(small["role"].value_counts().iter_rows()) == {"shared": 2, "candidate": 2, "independent": 2}
    assert not split_table(UIDS, UIDS, SIZES, planted=0.0, seed=1)["planted"].any()


def test_known_wrong_pairs_are_planted_with_their_own_captions(tmp_path):
    wrong = UIDS[:5]
    (tmp_path / "wrong.txt").write_text("\n".join(wrong) + "\n\n", encoding="utf-8-sig")
    pl.DataFrame({"uid": wrong}).write_csv(tmp_path / "wrong.csv")
    for name in ("wrong.txt", "wrong.csv"):
        read = read_wrong(str(tmp_path / name), frozenset(UIDS))
        assert read == set(wrong)
        table = split_table(UIDS, UIDS, SIZES | {"shared": 50}, planted=0, seed=1, mismatched=read)
        assert table.filter("planted")["uid"].to_list() == sorted(wrong)
        assert (table["uid"] == table["captions_from"]).all()


def test_known_wrong_pairs_may_not_decode(tmp_path):
    for name in ("wrong.txt", "wrong.csv"):
        (tmp_path / name).write_text("\n".join(["uid"] * (name == "wrong.csv") + UIDS[:3]))
        recipe = load_recipe(
            "[split]\nshared = 8\ncandidate = 4\nindependent = 4\nexternal = 4", [f"split.wrong={tmp_path / name}"]
        )
        pairs = pl.DataFrame({"uid": UIDS[:24], "captions": [CAPTIONS[uid] for uid in UIDS[:24]]})
        open_study(recipe, tmp_path / "run", device="cpu")
        splits = protocol_of(recipe).split(pairs[1:], UIDS[1:24])
        wrong = set(splits.filter("planted")["uid"])
        assert wrong == set(UIDS[1:3]) & set(splits["uid"])
        with pytest.raises(InputError, match="unknown uid"):
            check_needs(recipe, protocol_of(recipe), pairs[1:])
        (tmp_path / name).unlink()
        with pytest.raises(InputError) as caught:
            open_study(recipe, tmp_path / "run", device="cpu")
        assert caught.value.what.startswith("[split] wrong")


@pytest.mark.parametrize(
    ("content", "got"), [(None, "No such file"), ("ab\n", "unknown uid 'ab'"), (f"{UIDS[0]}\n{UIDS[0]}\n", "in 2 rows")]
)
def test_bad_lists_of_wrong_pairs(tmp_path, content, got):
    if content is not None:
        (tmp_path / "wrong.txt").write_text(content)
    with pytest.raises(InputError) as caught:
        read_wrong(str(tmp_path / "wrong.txt"), frozenset(UIDS))
    assert "[split] wrong" in caught.value.what
    assert got in caught.value.got


def table_of_roles(path, roles):
    rows = {"image": [image(k) for k in range(len(roles))], "text": [f"caption {k}" for k in range(len(roles))]}
    pl.DataFrame({**rows, "part": roles}).write_parquet(path)
    return DataSection(path=str(path), role_column="part")


@pytest.mark.parametrize("ending", ["parquet", "csv", "jsonl"])
def test_a_column_of_roles_replaces_the_draw(tmp_path, ending):
    roles = ["shared"] * 5 + ["candidate"] * 4 + ["independent"] * 4 + ["external"] * 3 + ["", None]
    if ending == "parquet":
        section = table_of_roles(tmp_path / "pairs.parquet", roles)
    else:
        for k in range(len(roles)):
            (tmp_path / f"{k}.png").write_bytes(image(k))
        columns = {
            "image": [f"{k}.png" for k in range(len(roles))],
            "text": [f"caption {k}" for k in range(len(roles))],
        }
        table = pl.DataFrame({**columns, "part": roles})
        write = table.write_csv if ending == "csv" else table.write_ndjson
        write(tmp_path / f"pairs.{ending}")
        section = DataSection(path=str(tmp_path / f"pairs.{ending}"), role_column="part")
    pairs = open_source(section).pairs()
    assert sorted(role or "" for role in roles) == sorted(pairs["role"].to_list())
    sizes = " ".join(f"{role} = {roles.count(role)}\n" for role in ROLES)
    recipe = load_recipe(f'[data]\nrole_column = "part"\n[split]\n{sizes}')
    splits = protocol_of(recipe).split(pairs, pairs["group"].to_list())
    given = {uid: role for uid, role in zip(pairs["uid"], roles_of(pairs), strict=True) if role}
    assert dict(splits.select("uid", "role").iter_rows()) == given


def test_roles_that_do_not_fit_are_refused():
    roles = [role for role in ROLES for _ in range(SIZES[role])] + [None] * 10
    with pytest.raises(InputError) as caught:
        split_table(UIDS, UIDS, SIZES | {"shared": 41}, planted=0, seed=1, roles=roles)
    assert caught.value.what == "[split] sizes"
    assert "--set split.shared=40" in caught.value.hint
    # checked before anything is written; fewer pairs may decode than the column has
    pairs = pl.DataFrame({"uid": UIDS, "role": [role or "" for role in roles]})
    sizes = " ".join(f"{role} = {size}\n" for role, size in SIZES.items())
    protocol = protocol_of(load_recipe(f'[data]\nrole_column = "part"\n[split]\n{sizes}'))
    protocol.check_pairs(pairs)
    with pytest.raises(InputError) as caught:
        protocol.check_pairs(pairs.filter(pl.col("uid") != UIDS[0]))
    assert "--set split.shared=39" in caught.value.hint
    groups = [*UIDS]
    groups[40] = groups[0]  # a candidate and a shared pair
    with pytest.raises(InputError) as caught:
        split_table(UIDS, groups, SIZES, planted=0, seed=1, roles=roles)
    assert caught.value.what == "[data] role_column"
    assert "near-duplicates" in caught.value.got
    with pytest.raises(InputError) as caught:
        roles_of(pl.DataFrame({"uid": ["a"], "role": ["train"]}))
    assert "'train'" in caught.value.got


def test_two_ways_of_planting_are_refused():
    with pytest.raises(InputError, match="planted_share"):
        load_recipe("[split]\nplanted = 4\nplanted_share = 0.1")


# ---- the redundant shipped data


def artists(**settings):
    section = DataSection(source="emoji-artists", emoji_artists=EmojiArtistsSection(**settings))
    return open_source(section)


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
