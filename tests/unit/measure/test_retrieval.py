"""Retrieval: one or several captions an image, identical ones, ties, blocks, chance, names, errors."""

import inspect
import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from clipmem.base.errors import InputError
from clipmem.base.hashing import same_words
from clipmem.base.sections import EvaluateSection
from clipmem.measure import retrieval
from clipmem.measure.over_seeds import Statistics
from clipmem.measure.retrieval import Identity, chance, concepts_of, dependent_groups, identity_of, links_of, retrieve
from clipmem.measure.utility import TestPairs, Utility
from clipmem.models import passes
from clipmem.models.passes import Embeddings
from tests.reference import loops
from tests.reference import loops_utility as reference
from tests.reference.loops import retrieval_ranks
from tests.unit.scoring.test_aligning import MORE, N, captions_of, embeddings

raw_retrieve = inspect.unwrap(retrieve)


def test_names_are_those_of_clip_benchmark():
    found = retrieve(torch.eye(12), torch.eye(12), torch.arange(12))
    assert list(found.metrics) == [
        "image_retrieval_recall@1",
        "image_retrieval_recall@5",
        "image_retrieval_recall@10",
        "image_retrieval_mAP",
        "image_retrieval_median_rank",
        "text_retrieval_recall@1",
        "text_retrieval_recall@5",
        "text_retrieval_recall@10",
        "text_retrieval_mAP",
        "text_retrieval_median_rank",
    ]
    assert set(found.metrics.values()) == {1.0}


def test_an_image_needs_only_one_of_its_captions():
    image = torch.eye(2)
    # Image 0: one caption that is right, one that is like image 1. Image 1: one that is right.
    text = torch.tensor([[1.0, 0.1], [0.1, 1.0], [0.2, 1.0]])
    found = retrieve(image, text, torch.tensor([0, 0, 1]), ks=(1, 2))
    assert found.image.rank.tolist() == [1.0, 2.0, 1.0]
    assert found.text.rank.tolist() == [1.0, 2.0]
    assert found.metrics["image_retrieval_recall@1"] == pytest.approx(2 / 3)
    assert found.metrics["text_retrieval_recall@1"] == 0.5
    assert found.metrics["text_retrieval_recall@2"] == 1.0
    assert found.metrics["text_retrieval_median_rank"] == 1.5


def test_own_captions_are_no_rivals_of_each_other():
    image, text = torch.eye(2), torch.eye(2)[[0, 0, 0, 1]]
    assert retrieve(image, text, torch.tensor([0, 0, 0, 1])).text.rank.tolist() == [1.0, 1.0]


@pytest.mark.parametrize("n", [1, 2, 5, 33])
def test_a_model_that_cannot_tell_gets_the_middle_rank(n):
    same = torch.tensor([[0.3, -0.7, 0.1]]).expand(n, 3)
    found = retrieve(same, 2 * same, torch.arange(n), block=4)
    assert found.image.rank.tolist() == found.text.rank.tolist() == [(n + 1) / 2] * n


def test_duplicated_pairs_share_their_ranks():
    torch.manual_seed(0)
    image = torch.nn.functional.normalize(torch.randn(40, 16), dim=-1)
    twice = torch.cat([image, image])
    found = retrieve(twice, twice, torch.arange(80), ks=(1, 2), block=7)
    assert found.image.rank.tolist() == [1.5] * 80
    assert (found.metrics["image_retrieval_recall@1"], found.metrics["text_retrieval_recall@2"]) == (0.0, 1.0)


@pytest.mark.parametrize("block", [1, 3, 16, 1000])
def test_blocks_do_not_change_the_ranks(block):
    torch.manual_seed(0)
    image, text, pair = torch.randn(17, 5), torch.randn(41, 5), torch.arange(41) % 17
    one, other = retrieve(image, text, pair), retrieve(image, text, pair, block=block)
    assert one.metrics == other.metrics
    for way in ("image", "text"):
        for a, b in zip(getattr(one, way), getattr(other, way), strict=True):
            assert np.array_equal(a, b)


def test_no_piece_is_larger_than_a_block(monkeypatch):
    sizes = []
    original = torch.Tensor.__matmul__
    monkeypatch.setattr(torch.Tensor, "__matmul__", lambda a, b: sizes.append((len(a), b.shape[1])) or original(a, b))
    retrieve(torch.randn(10, 3), torch.randn(25, 3), torch.arange(25) % 10, block=4)
    assert sorted(set(sizes)) == [(1, 10), (2, 25), (4, 10), (4, 25)]
    sizes.clear()
    monkeypatch.setattr(retrieval, "_CELLS", 60)
    retrieve(torch.randn(10, 3), torch.randn(25, 3), torch.arange(25) % 10)
    assert max(rows * columns for rows, columns in sizes) <= 60


@pytest.mark.parametrize(
    ("shapes", "index", "options", "what", "got"),
    [
        (((2, 3), (2, 4)), [0, 1], {}, "embeddings", "images (2, 3), captions (2, 4), 2 pair indices"),
        (((0, 3), (0, 3)), [], {}, "embeddings", "no image"),
        (((3, 3), (2, 3)), [0, 1], {}, "text_pair", "1 of 3 pairs without a caption, the first is pair 2"),
        (((2, 3), (2, 3)), [0, 1], {"ks": (1, 0)}, "ks", "0"),
        (((2, 3), (2, 3)), [0, 1], {"block": 0}, "block", "0"),
    ],
)
def test_errors(shapes, index, options, what, got):
    with pytest.raises(InputError) as error:
        raw_retrieve(torch.ones(shapes[0]), torch.ones(shapes[1]), torch.tensor(index, dtype=torch.long), **options)
    assert (error.value.what, error.value.got) == (what, got)


WORDS = ("red heart", "Red  heart", "cat", "dog", "a dog", "sun")


def study(seed, n=9, levels=0):
    """Return embeddings, names of images of which some are the same, and captions of which some are the same."""
    rng = np.random.default_rng(seed)
    images = [f"{rng.integers(max(1, 2 * n // 3)):016x}" for _ in range(n)]
    captions = [[WORDS[k] for k in rng.integers(len(WORDS), size=rng.integers(1, 4))] for _ in range(n)]
    m = sum(len(own) for own in captions)
    image, text = rng.normal(size=(n, 3)), rng.normal(size=(m, 3))
    if levels:  # many equal similarities
        image, text = (np.sign(one) for one in (image, text))
    pair = np.repeat(np.arange(n), [len(own) for own in captions])
    return torch.from_numpy(image), torch.from_numpy(text), torch.from_numpy(pair), images, captions


@pytest.mark.parametrize("levels", [0, 2])
@pytest.mark.parametrize("seed", range(6))
def test_ranks_and_precisions_are_those_of_the_loop(seed, levels):
    image, text, pair, images, captions = study(seed, levels=levels)
    found = retrieve(image, text, pair, identity_of([name + "0" * 16 for name in images], captions), block=2)
    words = [[same_words(one) for one in own] for own in captions]
    of_captions, of_images = reference.right_items(images, words)
    for queries, items, names, right, own in (
        (text, image, images, of_captions, found.image),
        (image, text, [word for their in words for word in their], of_images, found.text),
    ):
        ranks, precisions = reference.search(queries.tolist(), items.tolist(), names, right)
        assert own.rank.tolist() == ranks
        assert own.precision.tolist() == pytest.approx(precisions, rel=1e-12)
        assert own.right.tolist() == [len(one) for one in right]
        assert own.items == len(set(names))
    assert found.metrics["text_retrieval_mAP"] == pytest.approx(np.mean(found.text.precision))
    assert found.metrics["image_retrieval_recall@5"] == np.mean(found.image.rank <= 5)


@settings(max_examples=40, derandomize=True)
@given(st.integers(0, 10**6), st.integers(1, 12), st.sampled_from([0, 2]), st.integers(1, 5))
def test_the_order_of_pairs_changes_nothing(seed, n, levels, block):
    image, text, pair, images, captions = study(seed, n=n, levels=levels)
    same = identity_of([name + "0" * 16 for name in images], captions)
    found = retrieve(image, text, pair, same, block=block)
    rng = np.random.default_rng(seed)
    rows, columns = rng.permutation(n), rng.permutation(len(text))
    place = np.argsort(rows)
    names = rng.permutation(1000)  # any numbers may stand for the classes
    other = Identity(names[same.image[rows]], names[same.text[columns]])
    again = inspect.unwrap(retrieve)(
        image[rows], 3 * text[columns], torch.from_numpy(place[pair.numpy()[columns]]), other
    )
    assert again.image.rank.tolist() == found.image.rank[columns].tolist()
    assert again.text.rank.tolist() == found.text.rank[rows].tolist()
    assert again.text.precision == pytest.approx(found.text.precision[rows], rel=1e-12)
    assert again.image.precision == pytest.approx(found.image.precision[columns], rel=1e-12)
    for own in (found.image, found.text):
        assert ((own.precision > 0) & (own.precision <= 1)).all()
        assert (own.rank >= 1).all()
        assert (own.rank <= 1 + own.items - own.right).all()


@settings(max_examples=40, derandomize=True)
@given(st.integers(0, 10**6), st.integers(1, 10), st.sampled_from([0, 2]))
def test_if_nothing_is_the_same_ranks_are_those_of_pairs(seed, n, levels):
    image, text, pair, _, _ = study(seed, n=n, levels=levels)
    found = retrieve(image, text, pair)
    image_ranks, text_ranks = retrieval_ranks(image.tolist(), text.tolist(), pair.tolist())
    assert (found.image.rank.tolist(), found.text.rank.tolist()) == (image_ranks, text_ranks)
    # with one right item, precision is 1 / rank
    assert found.image.precision.tolist() == pytest.approx([1 / rank for rank in image_ranks])


def test_identical_captions_are_right_and_other_spellings_of_them():
    # four drawings of two emoji: a model that knows the emoji, but not which drawing, has nothing wrong
    image = torch.eye(2)[[0, 0, 1, 1]].double() + 0.01 * torch.tensor([[0.0, 1], [0, 2], [3, 0], [4, 0]])
    text = torch.eye(2)[[0, 0, 1, 1]].double()
    pair = torch.arange(4)
    uids = [f"{k:016x}" * 2 for k in range(4)]
    same = identity_of(uids, [["a cat"], ["A  Cat"], ["dog"], ["dog "]])
    assert set(retrieve(image, text, pair, same).metrics.values()) == {1.0}
    assert retrieve(image, text, pair).metrics["image_retrieval_recall@1"] == 0.5  # today's pairs only


def test_a_copy_of_the_image_brings_its_captions():
    image, text = torch.eye(3).double()[[0, 0, 1]], torch.eye(3).double()[[0, 2, 1]]
    # the copy's caption "c" is unlike the image, and "a" is right for the copy
    copies = Identity(np.array([7, 7, 8]), np.arange(3))
    found = retrieve(image, text, torch.arange(3), copies)
    assert found.text.rank.tolist() == [1, 1, 1]
    assert found.text.right.tolist() == [2, 2, 1]
    assert (found.image.items, found.text.items) == (2, 3)
    assert retrieve(image, text, torch.arange(3)).text.rank.tolist() == [1, 2.5, 1]


def test_copies_of_a_wrong_caption_take_one_place():
    image, text = torch.tensor([[1.0, 0.5], [1.0, 0.0]]), torch.tensor([[0.0, 1.0], *[[1.0, 0.0]] * 7])
    pair = torch.tensor([0, *[1] * 7])
    alike = Identity(np.arange(2), np.array([0, *[1] * 7]))
    assert retrieve(image, text, pair, alike).text.rank.tolist() == [2, 1]
    assert retrieve(image, text, pair).text.rank.tolist() == [8, 1]


def test_rights_are_not_passed_on():
    # pair 1 has the captions of both others; nobody else is right for both
    same = identity_of([f"{k:016x}" * 2 for k in range(3)], [["a"], ["a", "b"], ["b"]])
    links = links_of(same, np.array([0, 1, 1, 2]))
    assert links.table.toarray().tolist() == [[True, False], [True, True], [False, True]]


def test_uneven_identities_are_refused():
    with pytest.raises(InputError) as error:
        retrieve(torch.eye(2), torch.eye(2), torch.arange(2), Identity(np.arange(2), np.arange(3)))
    assert (error.value.what, error.value.got) == ("identity", "2 images and 3 captions, with 2 pair indices")


@pytest.mark.parametrize(("right", "items"), [([1] * 7, 7), ([1, 2, 5, 5, 3], 16), ([4], 4), ([1], 1), ([3, 30], 200)])
def test_chance_is_that_of_random_orders(right, items):
    found = chance(np.array(right), items)
    rng = np.random.default_rng(0)
    draws, ranks, precisions = 4000, [], []
    for count in right:
        places = np.sort(np.argsort(rng.random((draws, items)), axis=1)[:, :count] + 1, axis=1)
        ranks.append(places[:, 0])
        precisions.append((np.arange(1, count + 1) / places).mean(axis=1))
    error = 4 / np.sqrt(draws * len(right))
    for k in (1, 5, 10):
        assert found[f"recall@{k}"] == pytest.approx(np.mean(np.array(ranks) <= k), abs=0.5 * error)
        by_hand = reference.text_recall_by_chance([*right, items - sum(right)] if sum(right) < items else right, k)
        if sum(right) == items:  # each item belongs to one query
            assert found[f"recall@{k}"] == pytest.approx(by_hand)
    assert found["mAP"] == pytest.approx(np.mean(precisions), abs=0.5 * error)
    assert found["median_rank"] == pytest.approx(np.median(ranks), rel=0.1, abs=0.6)


def test_with_one_right_item_chance_is_plain():
    found = chance(np.ones(30, dtype=int), 30)
    assert found["recall@5"] == pytest.approx(5 / 30)
    assert found["median_rank"] == 15.5
    assert found["mAP"] == pytest.approx(np.mean(1 / np.arange(1, 31)))


def test_random_embeddings_reach_chance_where_captions_are_shared():
    rng = np.random.default_rng(0)
    emoji = np.arange(60) // 3
    same, values = Identity(np.arange(60), emoji), []
    for _ in range(60):
        of_emoji = rng.normal(size=(20, 64))
        image, text = torch.from_numpy(rng.normal(size=(60, 64))), torch.from_numpy(of_emoji[emoji])
        one = Embeddings(image[:, None], text, torch.arange(60))
        values.append(one)
    found = retrieval.measure({"f": values}, same, np.arange(60), Statistics(0.95, 20, 0)).document()
    for name in ("image_retrieval_recall@5", "text_retrieval_recall@5", "retrieval_mAP"):
        entry = found["f"][name]
        assert entry["mean"] == pytest.approx(found["chance"][name], abs=0.03)
    both = [found["chance"][f"{way}_retrieval_recall@5"] for way in ("image", "text")]
    assert found["chance"]["retrieval_recall@5"] == pytest.approx(np.mean(both))


def test_the_mean_of_both_ways_is_taken_by_seed():
    models = []
    for k in range(3):
        image, text, pair, images, captions = study(0)
        noise = torch.from_numpy(np.random.default_rng(k).normal(size=image.shape))
        models.append(Embeddings((image + noise)[:, None], text, pair))
    same = identity_of([name + "0" * 16 for name in images], captions)
    found = retrieval.measure({"f": models}, same, np.arange(9), Statistics(0.95, 50, 0)).metrics["f"]
    for name in ("recall@1", "recall@5", "recall@10", "mAP"):
        ways = [found[f"{way}_retrieval_{name}"]["by_seed"] for way in ("image", "text")]
        assert found[f"retrieval_{name}"]["by_seed"] == pytest.approx(np.mean(ways, axis=0).tolist())
        assert found[f"retrieval_{name}"]["over"] == "pairs and seeds"


def test_pairs_that_make_the_same_query_are_one_group():
    groups, same = np.array([0, 1, 2, 3, 3]), Identity(np.array([0, 1, 2, 2, 4]), np.array([5, 5, 6, 7, 8, 5]))
    # pairs 0 and 1 share their first caption; 2 and 3 an image; 3 and 4 a group; the second caption of 4 joins nothing
    assert len(set(dependent_groups(groups, same, np.array([0, 1, 2, 3, 4, 4])).tolist())) == 2
    one = dependent_groups(groups, same, np.array([0, 1, 2, 3, 4, 4]))
    assert one[0] == one[1] != one[2] == one[3] == one[4]


def test_queries_that_are_repeated_do_not_narrow_the_interval():
    rng = np.random.default_rng(0)
    image, text = rng.normal(size=(20, 4)), rng.normal(size=(20, 4))
    pair = torch.arange(20)
    once = Embeddings(torch.from_numpy(image)[:, None], torch.from_numpy(text), pair)
    rows = np.repeat(np.arange(20), 3)
    often = Embeddings(torch.from_numpy(image[rows])[:, None], torch.from_numpy(text[rows]), torch.arange(60))
    statistics = Statistics(0.95, 50, 0)
    a = retrieval.measure({"f": [once]}, Identity(np.arange(20), np.arange(20)), np.arange(20), statistics).metrics["f"]
    b = retrieval.measure({"f": [often]}, Identity(np.arange(60), rows), np.arange(60), statistics).metrics["f"]
    name = "image_retrieval_recall@1"
    assert b[name]["mean"] == a[name]["mean"]
    assert b[name]["high"] - b[name]["low"] == pytest.approx(a[name]["high"] - a[name]["low"])


def test_a_concept_is_a_first_caption_that_pairs_share():
    first = ["Red heart", "cat", "red  HEART", "dog", "  "]
    data = [*first[:2], "dog", "dog", " ", " ", "red heart"]
    keys, names = concepts_of(first, np.array([True, True, False, True, True]), data)
    assert keys == ["red heart", "", "", "dog", ""]
    assert names == {"red heart": ["Red heart"], "dog": ["dog"]}


def words_of(more=MORE, kinds=3):
    """A number for every wording of each pair; few kinds, so that pairs share captions."""
    return [[(pair + place) % kinds + 10 * place for place in range(1 + count)] for pair, count in enumerate(more)]


def identity(words, image=None):
    """As `identity_of` numbers them."""
    images = np.arange(len(words)) if image is None else np.array(image)
    return Identity(images, np.array([word for own in words for word in own]))


def best_rank(similarities, right):
    """1 + better wrong items + half of the equal ones."""
    best = max(value for value, is_right in zip(similarities, right, strict=True) if is_right)
    wrong = [value for value, is_right in zip(similarities, right, strict=True) if not is_right]
    return 1 + sum(1.0 if value > best + 1e-12 else 0.5 if value >= best - 1e-12 else 0.0 for value in wrong)


def recall_by_loop(one, count, k, words):
    """The mean over all captions, that at least two pairs have, and directions; equal captions are one, and right."""
    found = []
    for wording in range(count):
        rows = [pair for pair in range(len(one.image)) if len(captions_of(one, pair)) > wording]
        if len(rows) < 2:
            continue
        images = [one.image[pair, 0].tolist() for pair in rows]
        texts = [captions_of(one, pair)[wording] for pair in rows]
        table = [[loops.similarity(image, text) for text in texts] for image in images]
        own = [words[pair][wording] for pair in rows]
        by_image, by_text = [], []
        for place, word in enumerate(own):
            nearest = {other: max(s for s, w in zip(table[place], own, strict=True) if w == other) for other in own}
            by_image.append(best_rank(list(nearest.values()), [other == word for other in nearest]))
            by_text.append(best_rank([row[place] for row in table], [other == word for other in own]))
        found += [loops.recall(by_text, k), loops.recall(by_image, k)]
    return sum(found) / len(found)


@pytest.mark.parametrize("kinds", [3, 9])
@pytest.mark.parametrize("count", [2, 3, 5, 9])
def test_recall_over_wordings_is_the_loop(count, kinds):
    words = words_of(kinds=kinds)
    models = {side: [embeddings(seed + 7 * (side == "g")) for seed in (0, 1, 2)] for side in "fg"}
    chance, found = retrieval.measure_wordings(models, identity(words), np.arange(N), count, 0.95)
    sizes = [sum(own >= wording for own in MORE) for wording in range(count)]
    for k in (1, 5, 10):
        name = f"retrieval_wordings_recall@{k}"
        for side, own in models.items():
            expected = [recall_by_loop(one, count, k, words) for one in own]
            assert found[side][name]["by_seed"] == pytest.approx(expected, abs=1e-12)
            assert found[side][name]["mean"] == pytest.approx(np.mean(expected), abs=1e-12)
            assert 0 <= found[side][name]["low"] <= found[side][name]["mean"] <= found[side][name]["high"] <= 1
        if kinds == N:  # all captions differ
            by_hand = np.mean([min(1, k / size) for size in sizes if size > 1])
            assert chance[name] == pytest.approx(by_hand, abs=1e-9)


def test_the_change_is_that_of_the_same_queries():
    models = {"base": [embeddings(9)], "f": [embeddings(0), embeddings(1)]}
    found = retrieval.measure_wordings(models, identity(words_of()), np.arange(N), 3, 0.95, against="base")[1]
    entry = found["f"]["retrieval_wordings_recall@1"]
    difference = entry["mean"] - found["base"]["retrieval_wordings_recall@1"]["mean"]
    assert entry["change"]["mean"] == pytest.approx(difference, abs=1e-12)
    assert "change" not in found["base"]["retrieval_wordings_recall@1"]


def test_a_group_counts_once():
    models = {"f": [embeddings(seed) for seed in range(3)]}
    name = "retrieval_wordings_recall@1"
    different = identity(words_of(kinds=N))
    alone = retrieval.measure_wordings(models, different, np.arange(N), 4, 0.95)[1]["f"][name]
    paired = retrieval.measure_wordings(models, different, np.arange(N) // 5, 4, 0.95)[1]["f"][name]
    assert paired["mean"] == alone["mean"]
    assert paired["high"] - paired["low"] > alone["high"] - alone["low"]


@pytest.mark.slow
@given(image=arrays.arrays(np.float64, (5, 3), elements=st.floats(0.1, 1)))
def test_one_wording_is_retrieval_with_that_caption(image):
    one = embeddings(4, (0,) * 5)._replace(image=torch.from_numpy(image)[:, None], text=torch.randn(5, 3).double())
    one = one._replace(wordings=torch.empty(0, 3).double())
    found = retrieval.measure_wordings({"f": [one]}, identity(words_of((0,) * 5, 9)), np.arange(5), 3, 0.95)[1]["f"]
    ranks = list(itertools.chain(*loops.retrieval_ranks(image.tolist(), one.text.tolist(), range(5))))
    assert found["retrieval_wordings_recall@1"]["mean"] == pytest.approx(loops.recall(ranks, 1), abs=1e-12)


def test_utility_has_them_only_if_there_are_several():
    test = np.arange(N) >= 4
    words = words_of()[4:]
    first = identity([own[:1] for own in words])
    pairs = TestPairs(np.arange(N), test, ~test, {}, first, {"zero_shot": "", "linear_probe": ""}, identity(words))
    documents = []
    for count in (1, 3):
        utility = Utility(pairs, EvaluateSection(wordings=count), Statistics(0.95, 200, 0))
        for seed in (0, 1):
            utility.add("f", seed, embeddings(seed), None)
        documents.append(utility.document(utility.retrieval()))
    plain, found = documents
    names = {f"retrieval_wordings_recall@{k}" for k in (1, 5, 10)}
    assert (
        set(found["metrics"]["f"]) - set(plain["metrics"]["f"]) == set(found["chance"]) - set(plain["chance"]) == names
    )
    for name, entry in plain["metrics"]["f"].items():
        assert found["metrics"]["f"][name] == entry
    by_seed = found["metrics"]["f"]["retrieval_wordings_recall@1"]["by_seed"]
    for seed in (0, 1):
        own = passes.chosen(embeddings(seed), torch.arange(4, N))
        assert by_seed[seed] == pytest.approx(recall_by_loop(own, 3, 1, words), abs=1e-12)
