"""Prompts: names in templates, files that users give, what ships for the emoji, errors."""

import pytest

from clipmem.base.errors import InputError
from clipmem.base.recipes import dump_recipe, load_recipe
from clipmem.base.sections import DataSection, EmojiArtistsSection
from clipmem.data.sources import class_prompts, open_source
from clipmem.measure.zero_shot import (
    make_prompts,
    read_classnames,
    read_templates,
)


def test_every_name_stands_in_every_template():
    found = make_prompts(
        ["b", "a", "", "b"], {"a": ["cat", "tom"], "b": ["dog"], "c": ["cow"]}, ["{}", "the {c}, a {}"]
    )
    assert found.classes == ["a", "b", "c"]
    assert found.texts == [
        "cat",
        "the cat, a cat",
        "tom",
        "the tom, a tom",
        "dog",
        "the dog, a dog",
        "cow",
        "the cow, a cow",
    ]
    assert found.prompt_class == [0, 0, 0, 0, 1, 1, 2, 2]


def test_without_names_a_label_is_its_own():
    assert make_prompts(["hot-dog", "ice_cream", ""], None, ["a {}"]).texts == ["a hot dog", "a ice cream"]


def test_a_template_is_text_and_no_program():
    texts = make_prompts(["a"], {"a": ["{0}"]}, ["{} {c.__class__} {x} {{}}"]).texts
    assert texts == ["{0} {c.__class__} {x} {{0}}"]


def test_files(tmp_path):
    lines, as_json = tmp_path / "t.txt", tmp_path / "t.json"
    lines.write_text("a {}\n\nthe {c}\n")
    as_json.write_text('["a {}", "the {c}"]')
    assert read_templates(lines) == read_templates(as_json) == ["a {}", "the {c}"]
    names, table = tmp_path / "n.json", tmp_path / "n.csv"
    names.write_text('{"n01": "tench", "n02": ["a, b", "c"]}')
    table.write_text('label,name,more\nn01,tench,1\nn02,"a, b",2\nn02,c,3\n')
    assert read_classnames(names) == read_classnames(table) == {"n01": ["tench"], "n02": ["a, b", "c"]}


@pytest.mark.parametrize("labels", ["label", "sublabel"])
def test_the_emoji_have_names_for_all_their_classes(labels):
    names, templates = class_prompts(DataSection(), labels)
    there = open_source(DataSection())  # pyright: ignore[reportCallIssue]
    assert set(names) == set(there.pairs()[labels])
    assert list(templates) == ["{}", "a {}", "emoji of a {}"]
    # a name of two classes could tell neither from the other
    every = [name for own in names.values() for name in own]
    assert all(len(own) == len(set(own)) for own in names.values())
    if labels == "label":
        assert len(every) == len(set(every))


def test_concepts_as_labels_name_themselves() -> None:
    """Of emoji-artists with the emoji's name as label, only the subgroups have shipped names."""
    section = DataSection(source="emoji-artists", emoji_artists=EmojiArtistsSection(label="emoji"))
    assert class_prompts(section, "label") == (None, class_prompts(DataSection(), "label")[1])
    assert class_prompts(section, "sublabel") == class_prompts(DataSection(), "sublabel")


def test_other_sources_have_plain_sentences():
    assert class_prompts(DataSection(source="parquet"), "label") is None
    assert class_prompts(DataSection(path="somewhere"), "label") is None


def test_the_section_reads_back():
    recipe = load_recipe('[evaluate]\ntemplates = ["a {}", "{c}"]\nlabels = "sublabel"\nprobe_c = [0.5]')
    assert load_recipe(dump_recipe(recipe)) == recipe


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            'templates = ["a photo"]',
            "recipe: [evaluate] templates has 'a photo' without {}; write {} in place of the class name.",
        ),
        (
            "probe_c = [1.0, 0.1]",
            "recipe: [evaluate] probe_c = [1.0, 0.1] is not increasing; list each value once, smallest first.",
        ),
        (
            "probe_validation = 1.0",
            "recipe: [evaluate] probe_validation: got 1.0, expected less than 1. "
            "`clipmem init` prints every key with its meaning.",
        ),
        (
            "lables = 'none'",
            "recipe: [evaluate] lables: got an unknown key, expected a key of [evaluate]. Did you mean 'labels'?",
        ),
    ],
)
def test_errors_of_the_section(text, message):
    with pytest.raises(InputError) as error:
        load_recipe(f"[evaluate]\n{text}")
    assert str(error.value) == message


def test_errors_of_prompts():
    with pytest.raises(InputError) as error:
        make_prompts(["cats", "dogs"], {"cat": ["cat"]}, ["{}"])
    assert (error.value.what, error.value.hint) == ("class names", "Did you mean 'cat'?")
    assert error.value.got == "none for label 'cats' (2 of 2 labels have none)"
    with pytest.raises(InputError) as error:
        make_prompts([""], None, ["{}"])
    assert (error.value.what, error.value.got) == ("prompts", "no class")


@pytest.mark.parametrize(
    ("name", "text", "got"),
    [
        ("t.txt", "a photo\n", "'a photo'"),
        ("t.txt", "\n", "no template"),
        ("t.json", '"a {}"', "'a {}'"),
        ("t.json", "[1]", "1"),
        ("t.txt", None, "No such file or directory"),
    ],
)
def test_errors_of_templates(tmp_path, name, text, got):
    file = tmp_path / name
    if text is not None:
        file.write_text(text)
    with pytest.raises(InputError) as error:
        read_templates(file)
    assert (error.value.what, error.value.got) == (f"templates {file}", got)


@pytest.mark.parametrize(
    ("name", "text", "got"),
    [
        ("n.json", "[]", "[]"),
        ("n.json", '{"a": []}', "[] for label 'a'"),
        ("n.json", '{"a": ["x", 1]}', "['x', 1] for label 'a'"),
        ("n.csv", "label,name\na,\n", "[''] for label 'a'"),
        ("n.csv", None, "no such file"),
    ],
)
def test_errors_of_class_names(tmp_path, name, text, got):
    file = tmp_path / name
    if text is not None:
        file.write_text(text)
    with pytest.raises(InputError) as error:
        read_classnames(file)
    assert str(file) in error.value.what
    assert error.value.got == got


def test_files_that_do_not_read(tmp_path):
    broken = tmp_path / "n.json"
    broken.write_text("{")
    with pytest.raises(
        InputError, match=r"^class names .*n\.json: got text that is not JSON \(.*\)\. Correct the file\.$"
    ):
        read_classnames(broken)
    broken.write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match=r"got bytes that are not UTF-8 text, expected a JSON object"):
        read_classnames(broken)
    columns = tmp_path / "n.csv"
    columns.write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match="got the columns a, b, expected also label, name"):
        read_classnames(columns)
