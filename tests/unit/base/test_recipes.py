"""Recipes: written and read, settings, differences, and the text of every error."""

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clipmem.base.errors import InputError
from clipmem.base.recipes import Recipe, as_settings, differences, dump_recipe, flatten, load_recipe, recipe_from
from clipmem.base.sections import Section
from clipmem.study.api import find_recipe

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
        ("[split]\nplanted = 1", [], "recipe: [split] planted = 1 of 200 candidates; planted swaps captions "
         "between pairs: use 0, or 2 up to the number of candidates."),
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
