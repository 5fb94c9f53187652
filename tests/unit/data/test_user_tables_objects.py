"""Objects of pairs and the files that `[dejavu]` names: what is read, and the exact text where it cannot be."""

import numpy as np
import polars as pl
import pytest

from clipmem.base.errors import InputError
from clipmem.base.recipes import Recipe, dump_recipe, load_recipe
from clipmem.base.sections import DataSection
from clipmem.base.tables import read_table, write_table
from clipmem.data.sources import open_source
from clipmem.data.user_tables import object_lists, with_objects
from clipmem.measure.dejavu import Labeled, couples, why_not
from tests.tiny import encoded_image, write_parquet

PAIRS = pl.DataFrame({"uid": ["a" * 32, "b" * 32], "objects": [["cat"], []]})


def message(call):
    with pytest.raises(InputError) as error:
        call()
    return str(error.value)


# ---- labels of the sources


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


def test_a_pair_table_of_before_is_readable(tmp_path):
    pairs = open_source(DataSection(source="parquet", path=str(write_parquet(tmp_path / "a.parquet", 2)))).pairs()
    old, new = tmp_path / "old.parquet", tmp_path / "new.parquet"
    pairs.drop("objects").write_parquet(old)
    assert read_table(old, "pairs")["objects"].to_list() == [[], []]
    write_table(new, "pairs", pairs.drop("objects"))
    assert pl.read_parquet(new).schema["objects"] == pl.List(pl.String)


# ---- a user's own objects


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


# ---- the recipe, and where it is not defined


def test_the_section_is_written_and_read():
    recipe = load_recipe('[dejavu]\nneighbors = 5\nfractions = [0.05]\nobjects = "a.parquet"')
    assert load_recipe(dump_recipe(recipe)) == recipe
    assert load_recipe(dump_recipe(Recipe())).dejavu.fractions == (0.001, 0.01, 0.1)
    assert message(lambda: load_recipe("[dejavu]\nneighbors = 0")) == (
        "recipe: [dejavu] neighbors: got 0, expected 1 or more. `clipmem init` prints every key with its meaning."
    )
    assert "fractions.0 (1 more): got 2.0, expected at most 1." in message(
        lambda: load_recipe("[dejavu]\nfractions = [2.0]")
    )


@pytest.mark.parametrize(("key", "value", "instead"), [("top", 5, "lower dejavu.neighbors"), ("ranking", "gap", "")])
def test_keys_of_before_are_refused_with_what_replaces_them(key, value, instead):
    with pytest.raises(InputError) as caught:
        load_recipe("", [f"dejavu.{key}={value}"])
    error = caught.value
    assert (error.what, error.got, error.expected) == (f"recipe: [dejavu] {key}", "an unknown key", "a key of [dejavu]")
    assert error.hint.startswith("Remove it: ")
    assert instead in error.hint


BOTH = [("f", 0), ("g", 0)]
ROLE = np.array(["candidate", "external", "external"])


@pytest.mark.parametrize(
    ("settings", "tasks", "objects", "reason"),
    [
        (["dejavu.neighbors=2"], BOTH, [["x"], ["x"], []], ""),
        (
            ["protocol=subsample"],
            [("r", 0), ("r", 1)],
            [["x"]] * 3,
            "not defined for protocol 'subsample': it compares an f that saw all candidates with a g that saw none",
        ),
        (
            ["train.objective=simclr", "score.alignment=sslmem-image"],
            BOTH,
            [["x"]] * 3,
            "objective 'simclr' trains no text tower, which embeds the queries",
        ),
        (
            [],
            BOTH,
            [["x"]] * 3,
            "dejavu.neighbors = 10 is more than the 2 public images (external pairs); set it to 2 or less",
        ),
        (["dejavu.neighbors=1"], BOTH, [[], ["x"], []], "no candidate pair has an object"),
        (["dejavu.neighbors=1"], BOTH, [["x"], [], []], "no external pair has an object"),
    ],
)
def test_where_it_is_not_defined_it_says_why(settings, tasks, objects, reason):
    n = len(objects)
    labeled = Labeled(["a"] * n, ROLE, np.arange(n), objects, np.zeros(n, dtype=bool), np.zeros(n))
    assert why_not(load_recipe("", settings), tasks, labeled) == reason


def test_seeds_are_paired():
    assert couples([("f", 2), ("g", 1), ("f", 1), ("g", 2), ("g", 5)]) == [(1, 1), (2, 2)]
    assert couples([("f", 4), ("f", 3), ("g", 7)]) == [(3, 7)]
