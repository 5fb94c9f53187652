"""Retrieval: several captions an image, ties, blocks, names, errors."""

import inspect

import numpy as np
import pytest
import torch

from clipmem.base.errors import InputError
from clipmem.measure import retrieval
from clipmem.measure.retrieval import retrieve

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
