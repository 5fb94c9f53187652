"""The model with few tokens: its encoding pair by pair, its size, and that the regime reads it."""

import gzip
import json
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from open_clip.tokenizer import bytes_to_unicode, default_bpe

from clipmem.models import openclip
from clipmem_reproduce.data.vocabulary import SIZE, write
from clipmem_reproduce.reproduction import base_recipe
from clipmem_reproduce.scales import SCALES


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    out = tmp_path_factory.mktemp("model") / "vocabulary.json"
    write(out)
    return out


def encoded(word):
    """The tokens of a word by byte-pair encoding: the earliest merge first, wherever it is, until none applies."""
    with gzip.open(default_bpe(), "rt", encoding="utf-8") as lines:
        merges = [tuple(line.split()) for line in lines.read().split("\n")[1:987]]
    symbols = list(bytes_to_unicode().values())
    names = [*symbols, *(symbol + "</w>" for symbol in symbols), *("".join(merge) for merge in merges)]
    parts = [bytes_to_unicode()[byte] for byte in word.encode()]
    parts[-1] += "</w>"
    for merge in merges:
        while merge in pairwise(parts):
            at = list(pairwise(parts)).index(merge)
            parts[at : at + 2] = ["".join(merge)]
    return [names.index(part) for part in parts]


@pytest.mark.parametrize("word", ["dog", "face", "grinning", "accordion", "zymurgy", "été"])
def test_words_are_made_of_the_first_merges(file, word):
    tokens = openclip.create(f"{file}", seed=0).tokenize([word])[0]
    assert tokens[tokens > 0].tolist() == [SIZE - 2, *encoded(word), SIZE - 1]


def test_a_table_of_few_tokens_is_a_small_part_of_the_text_tower(file):
    state = openclip.create(f"{file}", seed=0).module.state_dict()
    text = {name: value for name, value in state.items() if not name.startswith(("visual", "logit"))}
    table = text["token_embedding.weight"]
    assert table.shape == (SIZE, 128)
    assert 0.2 < table.numel() / sum(value.numel() for value in text.values()) < 0.3
    assert all(torch.isfinite(value).all() for value in text.values())


def test_the_regime_has_the_data_of_unique_and_this_model(file, monkeypatch):
    monkeypatch.chdir(file.parent)
    few, unique = (base_recipe("planned", regime) for regime in ("small-vocabulary", "unique"))
    assert few.model.name == "vocabulary.json"
    assert (few.data, few.split, few.train, few.score) == (unique.data, unique.split, unique.train, unique.score)
    assert SCALES["small-vocabulary", "planned"].warmed_study == SCALES["unique", "planned"].warmed_study
    assert openclip.create(few.model.name, seed=1).tokenize(["a cat"]).max() == SIZE - 1


def test_the_file_is_the_same_each_time_and_names_its_merges(file, tmp_path):
    write(tmp_path / "vocabulary.json")
    one, other = (json.loads((folder / "vocabulary.json").read_text()) for folder in (file.parent, tmp_path))
    paths = [config["text_cfg"].pop("tokenizer_kwargs")["bpe_path"] for config in (one, other)]
    assert one == other
    contents = [Path(path).read_bytes() for path in paths]
    assert contents[0] == contents[1]
    assert paths == [f"{folder / 'vocabulary.merges.gz'}" for folder in (file.parent, tmp_path)]
