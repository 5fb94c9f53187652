"""Kinds of caption variants: what each does to a caption, and how often."""

import math
from collections import Counter

import pytest

from clipmem.base.errors import InputError
from clipmem.mitigate import wordings
from clipmem.mitigate.wordings import WORDINGS, make_variants
from tests.unit.mitigate.test_caption_variants import words


def wording(kind, **changes):
    return WORDINGS[kind](words(kind, **changes))


def test_dropout_leaves_out_words_as_often_as_it_says():
    caption, dropped = " ".join(f"w{k}" for k in range(20)), Counter()
    made = wording("dropout", dropout=0.3)
    for number in range(2000):
        left = made.variant(caption, number, 0).split()
        assert left == [word for word in caption.split() if word in left]
        dropped.update(set(caption.split()) - set(left))
    spread = math.sqrt(2000 * 0.3 * 0.7)
    assert all(abs(dropped[word] - 600) < 5 * spread for word in caption.split())
    assert all(wording("dropout", dropout=0.99).variant("a b", k, 0) in {"a", "b"} for k in range(50))
    assert wording("dropout").variant("alone", 0, 0) == ""


def test_reorder_is_a_uniform_permutation_of_tags():
    seen = Counter(wording("reorder").variant("a, b, c", number, 1) for number in range(3000))
    assert len(seen) == 6
    assert all(abs(count - 500) < 5 * math.sqrt(3000 / 6 * 5 / 6) for count in seen.values())
    assert wording("reorder").variant("a cat on a mat", 0, 0) == ""
    assert sorted(wording("reorder").variant("x |y", 1, 0).split(" | ")) == ["x", "y"]


def test_templates_are_each_used_once_before_one_comes_again():
    made = wording("templates")
    texts = [made.variant("{} cat", number, 0) for number in range(8)]
    assert texts[:4] == texts[4:]
    assert set(texts) == {"a picture of {} cat", "an image of {} cat", "this shows {} cat", "{} cat in a picture"}


def lexicon(folder):
    """A WordNet of two synsets, in the format that `wn` reads."""
    file = folder / "tiny.xml"
    entry = (
        '<LexicalEntry id="t-{w}"><Lemma writtenForm="{w}" partOfSpeech="n"/>'
        '<Sense id="t-{w}-1" synset="t-{s}-n"/></LexicalEntry>'
    )
    words_of = {"1": ("car", "auto", "automobile"), "2": ("dog", "hot dog")}
    entries = "".join(entry.format(w=word.replace(" ", "_"), s=s) for s, own in words_of.items() for word in own)
    file.write_text(
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        '<!DOCTYPE LexicalResource SYSTEM "http://globalwordnet.github.io/schemas/WN-LMF-1.1.dtd">\n'
        '<LexicalResource xmlns:dc="https://globalwordnet.github.io/schemas/dc/">'
        '<Lexicon id="tiny" label="Tiny" language="en" email="nobody@example.org" license="CC0" version="1">'
        f'{entries}<Synset id="t-1-n" ili="" partOfSpeech="n"/><Synset id="t-2-n" ili="" partOfSpeech="n"/>'
        "</Lexicon></LexicalResource>"
    )
    return file


@pytest.fixture
def wordnet(tmp_path, monkeypatch):
    wn = pytest.importorskip("wn", reason="needs the extra wordnet")
    before = wn.config.data_directory
    wn.config.data_directory = tmp_path / "wn"
    yield wn
    wn.config.data_directory = before


def test_synonyms_come_from_wordnet(wordnet, tmp_path):
    wordnet.add(lexicon(tmp_path), progress_handler=None)
    made = wording("synonyms")
    seen = Counter(made.variant("a red Car", number, 0) for number in range(400))
    assert set(seen) == {"a red auto", "a red automobile"}
    assert all(abs(count - 200) < 5 * 10 for count in seen.values())
    assert made.variant("a dog", 0, 0) == ""  # its only synonym is no single word


def test_without_wordnet_it_is_said_how_to_get_it(wordnet, tmp_path):
    with pytest.raises(InputError) as caught:
        wording("synonyms")
    assert str(caught.value) == (
        f"[mitigate.caption_variants] kinds: synonyms: got no English lexicon in {tmp_path / 'wn'}, expected one, such "
        "as the Open English WordNet. Download it once: python -m wn download oewn:2024"
    )


def test_without_the_package_the_extra_is_named(monkeypatch):
    monkeypatch.setattr(wordings.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError) as caught:
        wording("synonyms")
    assert str(caught.value) == (
        "[mitigate.caption_variants] kinds: synonyms: got no package wn, expected the extra wordnet. "
        "Install it in the checkout: pip install '.[wordnet]'."
    )


def test_a_kind_that_repeats_itself_ends():
    assert make_variants("a", {"same": lambda text, number, seed: "A "}, count=3, seed=0) == []
