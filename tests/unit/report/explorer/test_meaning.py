"""Similarities to words against loops over the definition, the vectors of an export, and what is refused."""

import base64

import numpy as np
import polars as pl
import pytest

from clipmem.base.errors import InputError
from clipmem.report.explorer.meaning import LONGEST, Meaning
from clipmem.report.explorer.neighbors import Embedded


def pairs_of(captions, rows=(0,)):
    """Twelve pairs, of which some rows have captions."""
    by_row = dict(zip(rows, captions, strict=True))
    return pl.DataFrame({"captions": [by_row.get(row, ["unseen unseen"]) for row in range(12)]})


def unit(vector):
    return vector / np.linalg.norm(vector)


def tower(width):
    """A text tower: each text has a direction of its own, the empty vector for "nothing"."""

    def embed(texts):
        drawn = [np.random.default_rng(list(text.encode())).normal(size=width) for text in texts]
        return np.array([vector * (text != "nothing") for vector, text in zip(drawn, texts, strict=True)], np.float32)

    return embed


@pytest.fixture(params=[8, 700])
def made(request, tmp_path):
    """12 pairs with 2 views, of which the last has no embeddings; and a meaning that counts its loads."""
    width, folder = request.param, tmp_path / "f" / "seed-3"
    folder.mkdir(parents=True)
    image = np.random.default_rng(0).normal(size=(12, 2, width)).astype(np.float32)
    np.save(folder / "image.npy", image)
    owner, loads = np.array([-1, *range(11)]), []

    def load(side, seed):
        loads.append((side, seed))
        return tower(width)

    return Meaning(Embedded(12, {"f": folder}, owner), load), image[1:], loads, tower(width)


def expected(image, text):
    """The mean cosine of the views of each pair with a text."""
    return [np.mean([unit(view) @ unit(text) for view in views]) for views in image]


def test_similarities_are_those_of_the_definition(made):
    meaning, image, loads, embed = made
    assert loads == []
    for query in ("red car at night", "a", "漢"):
        similarities = meaning.similarities(query)
        np.testing.assert_allclose(similarities[:11], expected(image, embed([query])[0]), atol=1e-5)
        assert np.isnan(similarities[11])
    assert loads == [("f", 3)]  # once
    assert (meaning.similarities("nothing")[:11] == 0).all()


def vectors_of(piece):
    codes, scales = (base64.b64decode(part) for part in piece)
    scales = np.frombuffer(scales, "<f4")[:, None]
    return np.frombuffer(codes, np.int8).reshape(len(scales), -1) * scales


def test_an_export_has_vectors_of_words_and_images(made):
    meaning, image, _, embed = made
    rows = np.array([4, 0, 11])
    captions = [["A red car", "a CAR_2, Über über"], ["red x" + "y" * 40] * 2, None]
    stored = meaning.vectors(rows, pairs_of(captions, rows.tolist()))
    assert stored["words"] == ["red", "a", "über"]  # the most frequent first; "car" and "car_2" occur once
    assert stored["width"] == min(512, image.shape[2])
    words, images = vectors_of(stored["vectors"]), vectors_of(stored["images"])
    assert not images[2].any()
    for query in (["red"], ["red", "über"]):
        mean = np.mean([unit(vector) for vector in embed(query)], axis=0)
        direction = unit(sum(words[stored["words"].index(word)] for word in query))
        np.testing.assert_allclose(images[:2] @ direction, expected(image[rows[:2]], mean), atol=0.01)


def test_frequent_words_come_first_and_are_limited(made):
    captions = [*(f"w{k:04} w{k:04}" for k in range(2100)), "last last last"]
    words = made[0].vectors(np.arange(1), pairs_of([captions]))["words"]
    assert len(words) == 2000
    assert words[:3] == ["last", "w0000", "w0001"]


@pytest.mark.parametrize("text", ["", " \n", "x" * (LONGEST + 1)])
def test_empty_and_huge_queries_are_refused_before_a_model_is_loaded(made, text):
    with pytest.raises(InputError, match="search by meaning: got [0-9]+ characters, expected 1 to 500"):
        made[0].similarities(text)
    assert made[2] == []


def test_what_is_missing_is_told(made):
    meaning, _, _, _ = made
    with pytest.raises(InputError, match="no word twice"):
        meaning.vectors(np.arange(1), pairs_of([["each word", "once"]]))
    for query in (lambda one: one.similarities("a"), lambda one: one.vectors(np.arange(1), pairs_of([["a a"]]))):
        for embedded in (None, meaning._embedded):
            with pytest.raises(InputError, match="no image embeddings of these pairs with their model.*clipmem run"):
                query(Meaning(embedded, None))
        with pytest.raises(InputError, match="width"):
            query(Meaning(meaning._embedded, lambda side, seed: tower(5)))
    with pytest.raises(InputError, match="no image embeddings"):
        Meaning(None, None).vectors(np.arange(1), None)


def test_a_model_that_fails_to_load_is_asked_for_again(made):
    meaning, answers = made[0], [InputError("weights", got="none"), made[3]]

    def load(side, seed):
        answer = answers.pop(0)
        if isinstance(answer, InputError):
            raise answer
        return answer

    meaning._load = load
    with pytest.raises(InputError, match="weights"):
        meaning.similarities("a")
    assert np.isfinite(meaning.similarities("a")[0])
