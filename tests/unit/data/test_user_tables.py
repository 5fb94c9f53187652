"""Objects, roles and wrong pairs that users give: what is read, and the exact text where it cannot be."""

import io

import numpy as np
import polars as pl
import pytest
from PIL import Image

from clipmem.base.errors import InputError
from clipmem.base.recipes import load_recipe
from clipmem.base.sections import DataSection, SplitSection
from clipmem.data.sources import open_source
from clipmem.data.splits import ROLES, split_table
from clipmem.data.user_tables import object_lists, read_wrong, roles_of, with_objects
from clipmem.scoring.protocols import protocol_of
from clipmem.study.opening import open_study
from clipmem.study.plan import check_needs
from tests.tiny import encoded_image, write_parquet
from tests.unit.data.test_splits import CAPTIONS, SIZES, UIDS

PAIRS = pl.DataFrame({"uid": ["a" * 32, "b" * 32], "objects": [["cat"], []]})


def message(call):
    with pytest.raises(InputError) as error:
        call()
    return str(error.value)


def test_objects_of_the_emoji():
    pairs = open_source(DataSection()).pairs()
    row = pairs.row(by_predicate=pl.col("key") == "1F600", named=True)
    assert {"group:smileys-emotion", "subgroup:face-smiling", "face", "smile"} <= set(row["objects"])
    times = pairs["objects"].explode().value_counts()
    words = times.filter(~pl.col("objects").str.contains("group:"))
    assert words["count"].min() == 3  # an object that no other emoji has could never be found
    assert pairs["objects"].list.n_unique().to_list() == pairs["objects"].list.len().to_list()
    assert all(word == word.lower() for word in words["objects"])


def test_objects_of_a_parquet_column(tmp_path):
    images = [encoded_image(0), encoded_image(1), encoded_image(2)]
    for name, column in (
        ("list", [["cat", " sofa ", "cat"], None, []]),
        ("text", ["cat,sofa, cat", None, " , "]),
    ):
        path = tmp_path / f"{name}.parquet"
        pl.DataFrame({"image": images, "captions": ["x", "y", "z"], "things": column}).write_parquet(path)
        section = DataSection(source="parquet", path=str(path), object_column="things")
        assert open_source(section).pairs().sort("key")["objects"].to_list() == [["cat", "sofa"], [], []]
    assert object_lists(pl.Series("objects", [None, None])) == [[], []]


def test_without_a_column_no_pair_has_an_object(tmp_path):
    path = str(write_parquet(tmp_path / "a.parquet", 3))
    pairs = open_source(DataSection(source="parquet", path=path)).pairs()
    assert pairs["objects"].to_list() == [[], [], []]
    missing = DataSection(source="parquet", path=path, object_column="caption")
    assert message(lambda: open_source(missing)) == f"{path}: got no column 'caption'. Did you mean 'captions'?"
    assert message(lambda: object_lists(pl.Series("things", [1, 2]))) == (
        "column 'things': got Int64, expected lists of strings, or comma-separated strings. "
        "Convert the objects to strings."
    )


def test_a_file_of_objects_stands_in_place_of_the_sources(tmp_path):
    path = tmp_path / "objects.parquet"
    pl.DataFrame({"uid": ["b" * 32], "objects": ["dog, ball"]}).write_parquet(path)
    assert with_objects(PAIRS, str(path))["objects"].to_list() == [[], ["dog", "ball"]]
    assert with_objects(PAIRS, "").equals(PAIRS)


@pytest.mark.parametrize(
    ("columns", "what", "got"),
    [
        ({"id": ["a"], "objects": [["x"]]}, ", PATH", "the columns id, objects"),
        ({"uid": ["a" * 32], "labels": [["x"]]}, ", PATH", "the columns uid, labels"),
        (
            {"uid": ["a" * 32, "c" * 32, None], "objects": [["x"], ["y"], ["z"]]},
            ", row 2",
            f"unknown uid '{'c' * 32}' (2 of 3 rows)",
        ),
        ({"uid": ["a" * 32] * 2, "objects": [["x"], ["y"]]}, "", f"uid '{'a' * 32}' in 2 rows"),
        ({"uid": ["a" * 32], "objects": [""]}, "", "no object in the 1 rows of PATH"),
    ],
)
def test_wrong_files_of_objects_are_named(tmp_path, columns, what, got):
    path = tmp_path / "objects.parquet"
    pl.DataFrame(columns).write_parquet(path)
    with pytest.raises(InputError) as error:
        with_objects(PAIRS, str(path))
    assert error.value.what == f"[dejavu] objects{what}".replace("PATH", str(path))
    assert error.value.got == got.replace("PATH", str(path))
    assert error.value.hint


def test_files_that_are_no_parquet_are_named(tmp_path):
    path = tmp_path / "none.parquet"
    for got in ("no such file", "an unreadable file ("):
        with pytest.raises(InputError) as error:
            with_objects(PAIRS, str(path))
        assert error.value.what == f"[dejavu] objects, {path}"
        assert error.value.got.startswith(got)
        path.write_text("no")


def image(k: int) -> bytes:
    stream = io.BytesIO()
    pixels = np.random.default_rng(k).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def test_known_wrong_pairs_are_planted_with_their_own_captions(tmp_path):
    wrong = UIDS[:5]
    (tmp_path / "wrong.txt").write_text("\n".join(wrong) + "\n\n", encoding="utf-8-sig")
    pl.DataFrame({"uid": wrong}).write_csv(tmp_path / "wrong.csv")
    for name in ("wrong.txt", "wrong.csv"):
        read = read_wrong(str(tmp_path / name), frozenset(UIDS))
        assert read == set(wrong)
        table = split_table(UIDS, UIDS, SplitSection(**SIZES | {"shared": 50}), mismatched=read)
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
        split_table(UIDS, UIDS, SplitSection(**SIZES | {"shared": 41}), roles=roles)
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
        split_table(UIDS, groups, SplitSection(**SIZES), roles=roles)
    assert caught.value.what == "[data] role_column"
    assert "near-duplicates" in caught.value.got
    with pytest.raises(InputError) as caught:
        roles_of(pl.DataFrame({"uid": ["a"], "role": ["train"]}))
    assert "'train'" in caught.value.got
