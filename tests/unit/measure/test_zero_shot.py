"""Zero-shot classification: prompts, the CLIP convention, ties, blocks, names, chance, errors."""

import inspect

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import recall_score, top_k_accuracy_score

from clipmem.base.errors import InputError
from clipmem.base.recipes import dump_recipe, load_recipe
from clipmem.base.sections import DataSection, EmojiArtistsSection
from clipmem.data.sources import class_prompts, open_source
from clipmem.measure.zero_shot import (
    chance,
    class_embeddings,
    class_ranks,
    classification_metrics,
    make_prompts,
    read_classnames,
    read_templates,
    zero_shot_ranks,
)
from tests.reference import loops_utility as reference

raw_embeddings, raw_ranks = inspect.unwrap(class_embeddings), inspect.unwrap(zero_shot_ranks)


def study(n=23, c=7, d=5, prompts=3, seed=0):
    torch.manual_seed(seed)
    prompt_class = torch.cat([torch.arange(c), torch.randint(c, (prompts * c,))])
    return torch.randn(n, d), torch.randn(len(prompt_class), d), prompt_class, np.arange(n) % c


@pytest.mark.parametrize("seed", range(3))
def test_it_is_the_loop(seed):
    image, text, prompt_class, labels = study(seed=seed)
    classes = class_embeddings(text, prompt_class, 7)
    expected = reference.class_embeddings(text.tolist(), prompt_class.tolist(), 7)
    np.testing.assert_allclose(classes.numpy(), expected, atol=1e-12)
    ranks = zero_shot_ranks(image, classes, labels)
    assert ranks.tolist() == reference.zero_shot_ranks(image.tolist(), expected, labels.tolist())
    metrics = classification_metrics(ranks, labels, 7)
    assert metrics == pytest.approx(reference.classification_metrics(ranks.tolist(), labels.tolist()))


def test_metrics_are_those_of_scikit_learn():
    image, text, prompt_class, labels = study(n=40)
    labels = np.minimum(labels, 5)  # class 6 has a prompt and no image
    classes = class_embeddings(text, prompt_class, 7)
    scores = (torch.nn.functional.normalize(image.double(), dim=1) @ classes.T).numpy()
    found = classification_metrics(zero_shot_ranks(image, classes, labels), labels, 7)
    assert list(found) == ["acc1", "acc5", "mean_per_class_recall"]
    assert found["acc1"] == pytest.approx(top_k_accuracy_score(labels, scores, k=1, labels=range(7)))
    assert found["acc5"] == pytest.approx(top_k_accuracy_score(labels, scores, k=5, labels=range(7)))
    macro = recall_score(labels, scores.argmax(axis=1), labels=range(6), average="macro")
    assert found["mean_per_class_recall"] == pytest.approx(macro)


def test_every_prompt_counts_the_same_whatever_its_length():
    text = torch.tensor([[100.0, 0.0], [0.0, 1.0], [0.0, 3.0]])
    classes = class_embeddings(text, torch.tensor([0, 0, 1]), 2)
    torch.testing.assert_close(classes, torch.tensor([[0.5**0.5, 0.5**0.5], [0.0, 1.0]]).double())


@pytest.mark.parametrize("c", [2, 5, 9])
def test_a_model_that_cannot_tell_gets_the_middle_rank(c):
    same = torch.ones(6, 4)
    assert zero_shot_ranks(same, torch.ones(c, 4), np.arange(6) % c).tolist() == [(c + 1) / 2] * 6


def test_two_classes_of_one_name_are_both_wrong():
    classes = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    ranks = zero_shot_ranks(torch.tensor([[1.0, 0.0], [0.0, 1.0]]), classes, np.array([1, 2]))
    assert ranks.tolist() == [1.5, 1.0]
    assert classification_metrics(ranks, np.array([1, 2]), 3) == {"acc1": 0.5, "mean_per_class_recall": 0.5}


@settings(max_examples=25)
@given(st.integers(0, 10**6), st.integers(1, 30), st.integers(2, 9), st.integers(1, 12))
def test_blocks_and_orders_change_nothing(seed, n, c, block):
    rng = np.random.default_rng(seed)
    # halves, so that there are ties
    image = torch.from_numpy(rng.integers(-2, 3, size=(n, 3)) / 2 + np.array([0.25, 0, 0]))
    classes = torch.from_numpy(rng.integers(-2, 3, size=(c, 3)) / 2 + np.array([0.25, 0, 0]))
    labels = rng.integers(c, size=n)
    ranks = raw_ranks(image, classes, labels)
    assert (raw_ranks(image, classes, labels, block=block) == ranks).all()
    rows, columns = rng.permutation(n), rng.permutation(c)
    moved = raw_ranks(image[rows], classes[columns], np.argsort(columns)[labels[rows]])
    assert (moved == ranks[rows]).all()
    assert ((ranks >= 1) & (ranks <= c)).all()
    metrics = classification_metrics(ranks, labels, c)
    again = classification_metrics(ranks[rows], labels[rows], c)
    assert metrics == pytest.approx(again)


def test_no_piece_is_larger_than_a_block(monkeypatch):
    sizes = []
    original = torch.Tensor.__matmul__
    monkeypatch.setattr(torch.Tensor, "__matmul__", lambda a, b: sizes.append((len(a), b.shape[1])) or original(a, b))
    zero_shot_ranks(torch.randn(10, 3), torch.randn(9, 3), np.arange(10) % 9, block=4)
    assert [rows for rows, _ in sizes] == [4, 4, 2]


def test_chance_is_what_random_embeddings_reach():
    rng = np.random.default_rng(0)
    c, n = 8, 20_000
    labels = rng.integers(c, size=n) // 2 * (rng.random(n) < 0.7)  # uneven classes, some of them empty
    ranks = class_ranks(rng.random((n, c)), labels)
    found, expected = classification_metrics(ranks, labels, c), chance(c)
    assert expected == {"acc1": 0.125, "acc5": 0.625, "mean_per_class_recall": 0.125}
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, abs=0.015)


def test_fewer_than_five_classes_have_no_acc5():
    assert set(chance(4)) == {"acc1", "mean_per_class_recall"}
    assert set(classification_metrics(np.array([1.0]), np.array([0]), 4)) == {"acc1", "mean_per_class_recall"}


def test_a_class_that_is_none_of_the_columns_is_never_found():
    ranks = class_ranks(np.array([[0.2, 0.1], [0.2, 0.1]]), np.array([-1, 0]))
    assert ranks.tolist() == [np.inf, 1.0]
    assert class_ranks(np.zeros((2, 0)), np.array([-1, -1])).tolist() == [np.inf, np.inf]


@pytest.mark.parametrize(
    ("call", "what", "got"),
    [
        (
            lambda: raw_embeddings(torch.ones(2, 3), torch.tensor([0]), 1),
            "prompts",
            "2 embeddings and 1 classes",
        ),
        (lambda: raw_embeddings(torch.ones(2, 3), torch.tensor([0, 2]), 2), "labels", "[2] in row [1]"),
        (lambda: raw_embeddings(torch.ones(2, 3), torch.tensor([0, 2]), 3), "prompts", "none for classes [1] of 3"),
        (
            lambda: raw_embeddings(torch.tensor([[1.0], [-1.0]]), torch.tensor([0, 0]), 1),
            "class embeddings",
            "1 zero and 0 not finite rows of 1, the first at index [0]",
        ),
        (
            lambda: raw_ranks(torch.ones(2, 3), torch.ones(2, 4), np.array([0, 1])),
            "embeddings",
            "images (2, 3), classes (2, 4), 2 labels",
        ),
        (lambda: raw_ranks(torch.ones(2, 3), torch.ones(2, 3), np.array([0, 1]), block=0), "block", "0"),
        (lambda: raw_ranks(torch.ones(2, 3), torch.ones(2, 3), np.array([0, 2])), "labels", "[2] in row [1]"),
        (
            lambda: inspect.unwrap(classification_metrics)(np.array([]), np.array([], dtype=int), 2),
            "ranks",
            "no value",
        ),
    ],
)
def test_errors(call, what, got):
    with pytest.raises(InputError) as error:
        call()
    assert (error.value.what, error.value.got) == (what, got)


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
