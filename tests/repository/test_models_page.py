"""docs/models.md: every name in its table is one, and its example in Python runs."""

import json
import re
import shutil
from pathlib import Path

import open_clip
import pytest
import torch

from clipmem.models import given, openclip
from tests.unit.models.test_openclip import PLAIN
from tests.unit.models.test_openclip_addresses import write_folder
from tests.unit.models.test_openclip_cache import put

DOCS = (Path(__file__).parents[2] / "docs" / "models.md").read_text(encoding="utf-8")
ROWS = [line.split(" | ")[-1] for line in DOCS.splitlines() if line.startswith("| `") and line.count("|") == 4]
EXAMPLES = [example for row in ROWS for example in re.findall("`([^`]+)`", row)]


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Lay small models out where the examples have theirs; the loading is the same."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "ViT-B-32", PLAIN)
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "ViT-B-32-quickgelu", {**PLAIN, "quick_gelu": True})
    model = write_folder(tmp_path / "my-model", PLAIN)
    shutil.copytree("my-model", "runs/mine/models/f/seed-0")
    weights = tmp_path / "my-model" / "open_clip_model.safetensors"
    shutil.copy(weights, "my-weights.safetensors")
    Path("my-config.json").write_text(json.dumps(PLAIN))
    Path("logs/run-1/checkpoints").mkdir(parents=True)
    state = model.state_dict()
    torch.save({"state_dict": state, "state_dict_ema": state}, "logs/run-1/checkpoints/epoch_32.pt")
    put(openclip.pretrained("ViT-B-32-quickgelu", "openai").repository, weights)
    put("laion/CLIP-ViT-B-32-laion2B-s34B-b79K", weights, weights.parent / "open_clip_config.json")
    return tmp_path


def test_there_is_an_example_of_each_kind():
    assert len(EXAMPLES) == 8
    assert {example.partition(":")[0] for example in EXAMPLES if ":" in example} == {
        "local-dir", "hf-hub", "transformers"
    }  # fmt: skip


@pytest.mark.parametrize("example", [one for one in EXAMPLES if not one.startswith("transformers:")])
def test_the_addresses_of_the_table(place, example):
    model = given.find(example)
    assert given.load(model).image_size == 16
    assert given.find(model.address)._replace(name=example) == model
    assert given.content(model)


def test_the_address_of_a_folder_of_transformers(place):
    transformers = pytest.importorskip("transformers", reason="the extra hf is not installed")
    from tests.unit.models.test_transformers import build

    [example] = [one for one in EXAMPLES if one.startswith("transformers:")]
    build(transformers, place / example.removeprefix("transformers:"), "clip", "clip", {})
    assert given.load(given.find(example)).image_size == 32


def test_the_example_in_python(place, capsys):
    [program] = re.findall(r"```python\n(.*?)```", DOCS, flags=re.DOTALL)
    exec(compile(program, "docs/models.md", "exec"), {})
    assert capsys.readouterr().out == "torch.Size([1, 32]) 32 shortest\n"
