"""Errors, the random-number tree, recipes and the registry."""

import errno
import math
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clipmem.base.errors import ClipmemError, InputError, RunError, did_you_mean, shorten
from clipmem.base.paths import as_os_error, as_write_error, checked_path
from clipmem.base.random import derive_seed, generator, uniform
from clipmem.base.recipes import Recipe, as_settings, differences, dump_recipe, flatten, load_recipe, recipe_from
from clipmem.base.registry import Registry
from clipmem.base.sections import Section
from clipmem.study.api import find_recipe


def test_errors_have_standard_parents_and_exit_codes():
    assert issubclass(InputError, ValueError)
    assert InputError.exit_code == 2
    assert issubclass(RunError, RuntimeError)
    assert RunError.exit_code == 1
    assert issubclass(InputError, ClipmemError)
    assert str(InputError("a", got="b", expected="c", hint="Do d.")) == "a: got b, expected c. Do d."
    assert str(InputError("a")) == "a"
    assert str(InputError("a", hint="Do d.")) == "a. Do d."


def test_shorten_keeps_both_ends():
    assert shorten("x" * 10) == repr("x" * 10)
    text = shorten("a" * 100 + "b" * 100, limit=21)
    assert len(text) == 21
    assert text.startswith("'aaa")
    assert text.endswith("bbb'")


# ---- random numbers


def test_streams_differ_by_root_and_name():
    seeds = {derive_seed(root, *names) for root in (0, 1) for names in ((), ("a",), ("b",), ("a", 1), ("a", "1"))}
    assert len(seeds) == 10
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert generator(3, "x").integers(1 << 30) == generator(3, "x").integers(1 << 30)


def test_derived_seeds_are_the_same_for_ever():
    # a change here would change every study: it needs a new format version and a line in the changelog
    assert derive_seed(0, "init") == 2797632981193840420
    drawn = uniform(np.array([1, 2**63], dtype=np.uint64), seed=5, draws=2)
    assert drawn.tolist() == [
        [0.3490480406264971, 0.720863849982092],
        [0.5873099091597077, 0.6245630921958443],
    ]


@given(st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=20), st.integers(0, 2**63 - 1), st.randoms())
def test_uniform_depends_on_key_and_seed_only(keys, seed, shuffler):
    array = np.array(keys, dtype=np.uint64)
    drawn = uniform(array, seed, 5)
    assert ((drawn >= 0) & (drawn < 1)).all()
    order = list(range(len(keys)))
    shuffler.shuffle(order)
    np.testing.assert_array_equal(uniform(array[order], seed, 5), drawn[order])
    np.testing.assert_array_equal(uniform(array, seed, 3), drawn[:, :3])


def test_uniform_is_uniform_and_uncorrelated():
    drawn = uniform(np.arange(20_000, dtype=np.uint64), seed=11, draws=4)
    counts = np.stack([np.histogram(column, bins=20, range=(0, 1))[0] for column in drawn.T])
    chi_square = ((counts - 1000) ** 2 / 1000).sum(axis=1)
    assert (chi_square < 50).all()  # 19 degrees of freedom: P(> 50) is 1e-4
    assert np.abs(np.corrcoef(drawn.T) - np.eye(4)).max() < 0.03
    neighbors = np.corrcoef(drawn[:-1, 0], drawn[1:, 0])[0, 1]
    assert abs(neighbors) < 0.03


# ---- recipes


def test_recipe_survives_toml():
    recipe = load_recipe("[train]\nseeds = [3, 4, 5]\nlr = 1e-5\n[data]\npath = 'a \"b\" \\\\ ü\\t'\n")
    assert load_recipe(dump_recipe(recipe)) == recipe
    assert load_recipe(dump_recipe(recipe, comments=True)) == recipe
    assert recipe_from(recipe.model_dump()) == recipe


_TEXT = st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=30)  # no setting can hold NUL


@settings(max_examples=50)
@given(_TEXT, st.floats(1e-12, 1e3), st.integers(1, 100_000), st.booleans())
def test_recipe_survives_toml_whatever_it_holds(text, lr, epochs, near):
    text = text.encode("utf-8", "replace").decode()
    recipe = recipe_from(
        {"data": {"path": text}, "train": {"lr": lr, "epochs": epochs}, "split": {"near_duplicates": near}}
    )
    assert load_recipe(dump_recipe(recipe, comments=True)) == recipe


def test_settings_are_applied_in_order():
    recipe = load_recipe("[train]\nlr = 1.0", ["train.lr=1e-4", "train.seeds=[7]", "data.path=a/b c", "train.lr=2e-4"])
    assert (recipe.train.lr, recipe.train.seeds, recipe.data.path) == (2e-4, (7,), "a/b c")


def test_settings_are_a_list_or_a_mapping():
    values = {
        "train.lr": np.float64(1e-4),
        "train.seeds": (7, 8),
        "data.path": Path("a/b c"),
        "train.record": True,
    }
    as_list = ["train.lr=1e-4", "train.seeds=[7, 8]", "data.path=a/b c", "train.record=true"]
    expected = load_recipe("", as_list)
    assert load_recipe("", values) == recipe_from({}, values) == recipe_from({}, tuple(as_list)) == expected
    assert (expected.train.lr, expected.train.seeds, expected.data.path) == (1e-4, (7, 8), "a/b c")
    assert load_recipe("", {"data.path": "7", "data.caption_column": 'true\n"x"'}).data.caption_column == 'true\n"x"'


@pytest.mark.parametrize(
    "recipe", [{"train": {"epochs": 3, "lr": 0.5}}, load_recipe("train.epochs = 3\ntrain.lr = 0.5")]
)
@pytest.mark.parametrize("changed", [["train.epochs=7"], {"train.epochs": 7}])
def test_settings_apply_to_mappings_and_recipes_too(recipe, changed):
    found = find_recipe(recipe, changed)
    assert (found.train.epochs, found.train.lr) == (7, 0.5)
    assert find_recipe(recipe).train.epochs == 3  # what the user gave stays


@pytest.mark.parametrize(
    ("settings", "got"),
    [
        ("train.lr=1e-4", "'train.lr=1e-4'"),
        (5, "5"),
        ([("train.lr", 1)], "[('train.lr', 1)]"),
        ({"train.lr": None}, "a value of type NoneType"),
        ({"train": {"lr": 1e-4}}, "a value of type dict"),
        ({"data.path=x": "y"}, "{'data.path=x': 'y'}"),
        ({5: 1}, "{5: 1}"),
    ],
)
def test_settings_of_another_kind_are_refused(settings, got):
    with pytest.raises(InputError) as caught:
        as_settings(settings)
    assert (caught.value.what, caught.value.got) == ("settings", got)


def test_differences_name_both_sides():
    assert differences(Recipe(), load_recipe("", ["train.lr=5.0"])) == [("train.lr", 0.001, 5.0)]
    assert list(flatten(Recipe()))[:2] == ["protocol", "data.source"]


@pytest.mark.parametrize(
    ("text", "set_", "message"),
    [
        ("[train]\nepoch = 3", [], "recipe: [train] epoch: got an unknown key, expected a key of [train]. "
         "Did you mean 'epochs'?"),
        ("[trian]\nx = 1", [], "recipe: trian: got an unknown key, expected a key of the recipe. "
         "Did you mean 'train'?"),
        ("[train]\nepochs = 0", [], "recipe: [train] epochs: got 0, expected 1 or more. "
         "`clipmem init` prints every key with its meaning."),
        ("[train]\nepochs = '40'", [], "recipe: [train] epochs: got '40', expected a whole number. "
         "`clipmem init` prints every key with its meaning."),
        ("[split]\ncandidate = 3", [], "recipe: [split] candidate = 3 and independent = 200 differ; "
         "f and g must train on the same number of pairs: make them equal."),
        ("[train]\nobjective = 'simclr'", [], "recipe: objective = 'simclr' trains no text tower, but alignment = "
         "'clip' needs one; set score.alignment = 'sslmem-image' and embed.views = 6."),
        ("[score]\nalignment = 'confidence'", [], "recipe: alignment = 'confidence' needs a class head, but "
         "objective = 'clip' trains none; set train.objective = 'supervised'."),
        ("[split]\nplanted = 1", [], "recipe: [split] planted = 1 of 200 candidates; planted pairs swap captions: "
         "use 0, or 2 up to the number of candidates."),
        ("[train]\nseeds = [1, 1]", [], "recipe: [train] seeds = [1, 1] has duplicates; name each "
         "seed once."),
        ("[train]\ncrop_scale = [1.0, 0.5]", [], "recipe: [train] crop_scale = [1.0, 0.5] is not a range; "
         "use [low, high] with 0 < low <= high."),
        ("[localize]\ncrop = 'own'\ncrop_scale = [0.9, 0.5]", [], "recipe: [localize] crop_scale = [0.9, 0.5] is not "
         "a range; use [low, high] with 0 < low <= high."),
        ("[localize]\nflip = 0.5", [], "recipe: [localize] flip is set but crop = 'train' does not use it; "
         "set crop = 'own', or omit it."),
        ("", ["lr"], "--set 'lr': got no =, expected section.key=value. For example: --set train.lr=1e-4."),
        ("train = 3", ["train.lr=1"], "--set 'train.lr=1': got 'train' is not a section, "
         "expected section.key=value. Use section.key=value."),
        ("x =", [], "recipe: got text that is not TOML (Invalid value (at end of document)), expected a TOML "
         "document. Fix that line; `clipmem init` writes a correct file."),
    ],
)  # fmt: skip
def test_wrong_recipes_are_explained(text, set_, message):
    with pytest.raises(InputError) as error:
        load_recipe(text, set_)
    assert str(error.value) == message


# ---- names


def test_near_names_are_suggested():
    assert did_you_mean("epoch", ["epochs", "lr"]) == "Did you mean 'epochs'?"
    assert did_you_mean("zzz", ["b", "a"], kind="key") == "Known keys: a, b."


class Value(ValueError):
    """Something that can be registered."""


def test_registry_rejects_duplicates_and_strangers():
    registry: Registry[Exception] = Registry("odd thing", Exception)
    registry.register("value")(Value)
    with pytest.raises(ValueError, match="'value' is registered twice"):
        registry.register("value")(KeyError)
    with pytest.raises(TypeError, match="not a subclass"):
        registry.register("int")(int)  # type: ignore[arg-type]
    assert registry["value"] is Value
    assert Value.name == "value"
    assert list(registry) == ["value"]
    with pytest.raises(InputError) as error:
        registry["valu"]
    assert (
        str(error.value)
        == "odd thing 'valu': got an unknown name, expected the name of an existing odd thing. Did you mean 'value'?"
    )


# ---- hostile input


def _walk(model=Recipe, at=()):
    """Yield where every key and every table of a recipe is."""
    for name, field in model.model_fields.items():
        yield (*at, name)
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            yield from _walk(field.annotation, (*at, name))


WRONG = [
    *("text", "", "\0", True, math.nan, math.inf, -1, 1.5, 10**400, 10**5000, None, b"x"),
    *([], {}, {"x": 1}, ["text"], [math.nan], [-1], [1, [2]], [1, 2, 3], [10**5000]),
]
PYDANTIC = ("after validation", "Input should", "unable to parse", "a valid", "instance of", "tuple", "Section")


def test_no_sentence_of_pydantic_reaches_a_user():
    refused = []
    for place in _walk():
        for value in WRONG:
            document = value
            for name in reversed(place):
                document = {name: document}
            try:
                recipe_from(document)
            except InputError as error:
                refused.append((place, value, error))
    assert len(refused) > 1000
    for place, value, error in refused:
        where = (place, type(value), str(error))
        assert not any(words in str(error) for words in PYDANTIC), where
        assert len(str(error)) < 600, where
        # a sentence of our own about several keys has no single value
        assert (error.got and error.expected != "another value") or not error.hint, where
        assert bool(error.got) == bool(error.expected), where


@pytest.mark.parametrize(
    ("text", "expected", "hint"),
    [
        ("train.epochs = 'x'", "a whole number", ""),
        ("train.epochs = 1.5", "a whole number", ""),
        (f"train.epochs = {10**400}", "a whole number of at most 64 bits", ""),
        ("train.epochs = 0", "1 or more", ""),
        ("train.lr = 0", "more than 0", ""),
        ("train.lr = nan", "a finite number", ""),
        ("train.lr = true", "a number", ""),
        ("train.flip = 2", "at most 1", ""),
        ("score.confidence = 1.0", "less than 1", ""),
        ("train.seeds = []", "a list of 1 or more values", ""),
        ("train.seeds = 1", "a list", ""),
        ("train.crop_scale = [1]", "a list of more values", ""),
        ("train.crop_scale = [1, 1, 1]", "a list of at most 2 values", ""),
        ("data.path = 1", "text", ""),
        ('data.path = "a\\u0000b"', "text without the character NUL", ""),
        ("data.download = 1", "true or false", ""),
        ("train = 1", "a table of keys", ""),
        ("train.objective = 'siglp'", "'clip', 'siglip', 'supervised' or 'simclr'", "Did you mean 'siglip'"),
        (
            "protocol = 'four-wya'",
            "'four-way', 'f-only', 'subsample', 'leave-one-out', 'halves' or 'given'",
            "Did you mean 'fo",
        ),
        ("train.epoch = 1", "a key of [train]", "Did you mean 'epochs'?"),
        ("x = [" * 1000, "a TOML document", ""),
        ("x = " + "[" * 100_000, "a TOML document", ""),
        ("x = " + "9" * 5000, "a TOML document", ""),
    ],
)
def test_expected_is_said_in_our_words(text, expected, hint):
    with pytest.raises(InputError) as error:
        load_recipe(text)
    assert error.value.expected == expected
    assert error.value.got
    assert error.value.hint.startswith(hint)


def test_near_names_of_huge_names_are_found_at_once():
    name, known = "x" * 100_000, ["y" * 100_000, *(f"column_{k}" * 20_000 for k in range(50)), "epochs"]
    started = time.process_time()
    assert len(did_you_mean(name, known)) < 10_000
    assert did_you_mean("epoch", known) == "Did you mean 'epochs'?"
    assert time.process_time() - started < 1


@pytest.mark.parametrize("path", ["a\0b", "x" * 256, "/".join("x" * 200 for _ in range(30)), "\ud800"])
def test_paths_that_no_file_system_holds_are_refused(path):
    with pytest.raises(InputError) as error:
        checked_path(path, "--out")
    assert error.value.what.startswith("--out ")
    assert error.value.got
    assert checked_path("x" * 255, "--out").name == "x" * 255


@pytest.mark.parametrize(
    ("number", "kind"),
    [(errno.ENOENT, InputError), (errno.ENAMETOOLONG, InputError), (errno.ELOOP, InputError), (errno.EROFS, InputError),
     (errno.ENOSPC, RunError), (errno.EIO, RunError), (errno.EMFILE, RunError)],
)  # fmt: skip
def test_errors_of_the_system_are_the_users_or_the_machines(number, kind, tmp_path):
    error = OSError(number, "reason", str(tmp_path))
    for explained in (as_write_error(error, tmp_path), as_os_error(error)):
        assert type(explained) is kind
        assert "reason" in str(explained)
