"""The alignments that a recipe can ask for, against loops."""

import numpy as np
import pytest
import torch

from clipmem.base.errors import InputError
from clipmem.embed.passes import Embeddings
from clipmem.functional import alignment
from clipmem.score.alignments import ALIGNMENTS, parts_of
from clipmem.testing import reference

N, VIEWS, D = 9, 3, 5
COUNTS = [2, 3, 2, 2, 4, 2, 3, 2, 2]
EXTERNAL = np.array([False] * 5 + [True] * 4)


def embeddings(seed=0, views=VIEWS, counts=COUNTS):
    rng = torch.Generator().manual_seed(seed)
    pair = torch.repeat_interleave(torch.arange(N), torch.tensor(counts))
    return Embeddings(torch.randn(N, views, D, generator=rng), torch.randn(len(pair), D, generator=rng), pair)


def unit(x):
    x = np.asarray(x, dtype=np.float64)
    return x / np.sqrt((x * x).sum())


def of_pair(one, k):
    images = [unit(view) for view in one.image[k].numpy()]
    texts = [unit(text) for text in one.text[one.text_pair == k].numpy()]
    return images, texts


def test_clip_is_the_score_of_the_design():
    one = embeddings()
    got = alignment(parts_of(one, EXTERNAL, "clip"))
    for k in range(N):
        bank = [j for j in np.flatnonzero(EXTERNAL) if j != k]
        images, texts = of_pair(one, k)
        expected = reference.alignment(
            [i.tolist() for i in images],
            [t.tolist() for t in texts],
            [[i.tolist() for i in of_pair(one, j)[0]] for j in bank],
            [[t.tolist() for t in of_pair(one, j)[1]] for j in bank],
        )
        assert float(got[k]) == pytest.approx(expected, abs=1e-6)


def test_cmc_is_its_expansion():
    one = embeddings()
    got = alignment(parts_of(one, EXTERNAL, "cmc"))
    for k in range(N):
        bank = [j for j in np.flatnonzero(EXTERNAL) if j != k]
        images, texts = of_pair(one, k)
        inner = np.mean([i @ t for i in images for t in texts])
        outer = 0.0
        for j in bank:
            other_images, other_texts = of_pair(one, j)
            for mine in (images, texts):
                for theirs in (other_images, other_texts):
                    outer += np.mean([a @ b for a in mine for b in theirs]) / len(bank)
        assert float(got[k]) == pytest.approx(inner - outer / 2, abs=1e-6)


def test_sslmem_is_minus_the_mean_distance_to_the_first_view():
    one = embeddings()
    image = alignment(parts_of(one, EXTERNAL, "sslmem-image"))
    text = alignment(parts_of(one, EXTERNAL, "sslmem-text"))
    for k in range(N):
        images, texts = of_pair(one, k)
        assert float(image[k]) == pytest.approx(-np.mean([np.linalg.norm(v - images[0]) for v in images[1:]]), abs=1e-6)
        assert float(text[k]) == pytest.approx(-np.mean([np.linalg.norm(v - texts[0]) for v in texts[1:]]), abs=1e-6)


def test_what_is_missing_is_named():
    with pytest.raises(InputError) as error:
        parts_of(embeddings(views=1), EXTERNAL, "sslmem-image")
    assert str(error.value) == (
        "[embed] views: got 1 view of each picture, expected 2 or more for score.alignment = 'sslmem-image'. "
        "Set embed.views, for example to 6."
    )
    with pytest.raises(InputError, match=r"\[train\] captions: got pairs with one caption, expected 2 or more"):
        parts_of(embeddings(counts=[1] * N), EXTERNAL, "sslmem-text")


def test_every_alignment_has_a_test_here():
    assert set(ALIGNMENTS) == {"clip", "cmc", "sslmem-image", "sslmem-text"}
