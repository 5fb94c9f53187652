"""The commands of docs/audit.md that check an unlearning, on small models: retrained, and by gradient ascent."""

import json
import re
import shlex
from pathlib import Path

import polars as pl
import pytest
import torch

import clipmem
from clipmem.data.sources.emoji import emoji_table
from clipmem.models import openclip
from tests.e2e.running import clip
from tests.training import Prepared, train

pytestmark = pytest.mark.slow

PAGE = (Path(__file__).parents[2] / "docs" / "audit.md").read_text(encoding="utf-8")
SIZES = {"forget": 120, "held-out": 150, "retain": 330}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Models BEFORE of forget and retain set, RETRAINED of the retain set alone, and ASCENT, made from BEFORE."""
    root, table = tmp_path_factory.mktemp("unlearning"), emoji_table().unique("unicode", maintain_order=True)
    table = table.sample(sum(SIZES.values()), shuffle=True, seed=0)
    images, captions = [image["bytes"] for image in table["image"]], table["captions"].list.first().to_list()
    encoder, sets, first = openclip.create("clipmem-micro", seed=0), {}, 0
    for name, size in SIZES.items():
        rows = slice(first, first := first + size)
        pl.DataFrame({"image": images[rows], "caption": captions[rows]}).write_parquet(root / f"{name}.parquet")
        sets[name] = Prepared.of(encoder, images[rows], captions[rows])
    width = max(pairs.tokens.shape[1] for pairs in sets.values())  # captions are trimmed to the longest one
    sets = {name: Prepared(pixels, pad(tokens, width)) for name, (pixels, tokens) in sets.items()}
    everything = Prepared(*map(torch.cat, zip(sets["forget"], sets["retain"], strict=True)))
    train(encoder, everything, steps=250, lr=2e-3)
    encoder.save(root / "BEFORE")
    train(encoder, sets["retain"], steps=15, lr=5e-4, forget=sets["forget"])
    encoder.save(root / "ASCENT")
    encoder = openclip.create("clipmem-micro", seed=0)
    train(encoder, sets["retain"], steps=250, lr=2e-3)
    encoder.save(root / "RETRAINED")
    return root


def pad(tokens, width):
    return torch.nn.functional.pad(tokens, (0, width - tokens.shape[1]))


def commands():
    """The commands of the section, as words."""
    [section] = re.findall(r"^## Check an unlearning\n(.*?)^## ", PAGE, flags=re.MULTILINE | re.DOTALL)
    [block] = re.findall(r"```sh\n(.*?)```", section, flags=re.DOTALL)
    return [shlex.split(line) for line in block.splitlines()]


def means(file):
    """Mean score of the pairs and its standard error, and of the held-out pairs."""
    table = pl.read_parquet(file)
    scores, control = (table.filter(role=role)["clipmem"] for role in ("candidate", "external"))
    about = json.loads(file.with_suffix(".json").read_text())
    return scores.mean(), scores.std() / len(scores) ** 0.5, control.mean() if len(control) else about["control"]


@pytest.mark.parametrize("after", ["RETRAINED", "ASCENT"])
def test_the_commands(folder, tmp_path, monkeypatch, after):
    monkeypatch.chdir(tmp_path)
    for file in folder.iterdir():
        (tmp_path / file.name).symlink_to(file)
    (tmp_path / "AFTER").symlink_to(folder / after)
    for words in commands():
        assert words[0] == "clipmem"
        done = clip(*words[1:])
        assert done.returncode == 0, done.stderr
    forgotten, error, control = means(tmp_path / "forgotten.parquet")
    retained, _, _ = means(tmp_path / "retained.parquet")
    documents = [json.loads((tmp_path / f"{name}.json").read_text()) for name in ("before", "after")]
    before, now = (document["attacks"] for document in documents)
    assert (documents[0]["set_p_value"] < 1e-6, documents[1]["set_p_value"] > 0.05) == (True, after == "RETRAINED")
    assert before["cosine"]["auc"]["low"] > 0.9
    assert forgotten > 5 * error
    if after == "RETRAINED":
        assert abs(control) < forgotten / 5 > abs(retained)
        assert now["cosine"]["auc"]["low"] < 0.5 < now["cosine"]["auc"]["high"]
    else:  # held-out pairs changed more than those to forget, which an attacker still finds
        assert abs(control) > forgotten
        assert now["cosine"]["auc"]["low"] > 0.6


def test_ascent_is_no_retraining(folder):
    files = [str(folder / name) for name in ("RETRAINED", "ASCENT", "forget.parquet", "held-out.parquet")]
    scores = clipmem.score(*files[:3], bank=files[3]).filter(role="candidate")["clipmem"]
    assert abs(scores.mean()) > 5 * scores.std() / len(scores) ** 0.5
