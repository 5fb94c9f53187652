"""The alignments that a recipe can ask for, against loops."""

import math

import numpy as np
import pytest
import torch

from clipmem.base.errors import InputError
from clipmem.functional import alignment
from clipmem.models.passes import Embeddings
from clipmem.scoring.aligning import parts_of
from clipmem.scoring.alignments import ALIGNMENTS
from clipmem.train.objectives.image_only import Supervised
from tests.reference import loops_score as reference
from tests.tiny import tiny_recipe

N, VIEWS, D = 9, 3, 5
COUNTS = [2, 3, 2, 2, 4, 2, 3, 2, 2]
LABELS = np.array([0, 2, 1, 1, 0, 2, 0, 1, 2])
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
        "[embed] views: got 1 view of each image, expected 2 or more for score.alignment = 'sslmem-image'. "
        "Set embed.views, for example to 6."
    )
    with pytest.raises(InputError) as error:
        parts_of(embeddings(counts=[1, 2, 1, *COUNTS[3:]]), EXTERNAL, "sslmem-text")
    assert str(error.value) == (
        "[train] captions: got 2 pairs with one caption and no edits, expected 2 or more captions, or caption "
        "edits, for score.alignment = 'sslmem-text'. Set train.captions or embed.caption_edits, for example to 5 "
        "(one-letter captions have no edits)."
    )
    with pytest.raises(InputError) as error:
        parts_of(embeddings(), EXTERNAL, "confidence", labels=LABELS)
    assert (error.value.what, error.value.got) == ("score.alignment = 'confidence'", "a model without a class head")
    with pytest.raises(InputError) as error:
        parts_of(embeddings(), EXTERNAL, "confidence", head=Supervised(D, 3, seed=0).logits)
    assert str(error.value) == (
        "score.alignment = 'confidence': got pairs without labels, expected a class for every pair. "
        "Set data.label_column."
    )


def check_views(recipe, captions, uids):
    ALIGNMENTS[recipe.score.alignment]().check(recipe.embed, captions, uids)


def test_views_are_checked_before_any_training():
    captions, uids = [["a cat", "the cat"], ["ox"], ["a"]], [f"{k:032x}" for k in range(3)]
    for name in ALIGNMENTS:
        objective = "supervised" if name == "confidence" else "clip"
        recipe = tiny_recipe(f"score.alignment={name}", f"train.objective={objective}")
        if name in {"clip", "cmc", "confidence"}:
            check_views(recipe, captions, uids)
            continue
        with pytest.raises(InputError, match=f"score.alignment = '{name}'"):
            check_views(recipe, captions, uids)
    check_views(tiny_recipe("score.alignment=sslmem-image", "embed.views=2"), captions, uids)
    edited = tiny_recipe("score.alignment=sslmem-text", "embed.caption_edits=2")
    check_views(edited, captions[:2], uids[:2])
    with pytest.raises(InputError, match=r"got 1 pairs with one caption and no edits"):
        check_views(edited, captions, uids)


def test_edits_stand_in_where_a_pair_has_one_caption():
    counts = [1, 3, 1, 2, 4, 1, 3, 2, 2]
    one, rng = embeddings(counts=counts), torch.Generator().manual_seed(9)
    # pair 1 has captions: an edit of it, should there be one, is not looked at
    owner = torch.tensor([0, 0, 2, 5, 5, 5, 1])
    edits = torch.randn(len(owner), D, generator=rng)
    found = alignment(parts_of(one._replace(text_edits=edits, text_edits_pair=owner), EXTERNAL, "sslmem-text"))
    for k, count in enumerate(counts):
        first, *others = of_pair(one, k)[1]
        views = others if count > 1 else [unit(edit) for edit in edits[owner == k].numpy()]
        assert float(found[k]) == pytest.approx(-np.mean([np.linalg.norm(v - first) for v in views]), abs=1e-6)


def test_confidence_is_the_mean_probability_of_the_own_class_over_the_views():
    one, head = embeddings(), Supervised(D, 3, seed=0).requires_grad_(requires_grad=False)
    with torch.no_grad():
        head.bias.copy_(torch.tensor([0.5, -1.0, 0.25]))
    found = parts_of(one, EXTERNAL, "confidence", labels=LABELS, head=head.logits)
    assert not found.image_bank.any()
    assert not found.text_bank.any()
    weight, bias = head.weight.numpy().astype(np.float64), head.bias.numpy().astype(np.float64)
    for k in range(N):
        probabilities = []
        for view in one.image[k].numpy().astype(np.float64):  # the head was trained on embeddings of any length
            powers = [math.exp(weight[c] @ view + bias[c]) for c in range(3)]
            probabilities.append(powers[LABELS[k]] / sum(powers))
        assert float(found.positive[k]) == pytest.approx(np.mean(probabilities), abs=1e-6)


def test_confidence_does_not_see_captions():
    one, head = embeddings(), Supervised(D, 3, seed=0).logits
    other = one._replace(text=torch.flip(one.text, dims=[0]))
    a, b = (parts_of(x, EXTERNAL, "confidence", labels=LABELS, head=head).positive for x in (one, other))
    assert torch.equal(a, b)
    assert not torch.equal(parts_of(one, EXTERNAL).positive, parts_of(other, EXTERNAL).positive)


def test_every_alignment_has_a_test_here():
    assert set(ALIGNMENTS) == {"clip", "cmc", "sslmem-image", "sslmem-text", "confidence"}


def test_every_alignment_says_what_it_does():
    assert all(ALIGNMENTS[name].name == name and ALIGNMENTS[name].summary for name in ALIGNMENTS)
