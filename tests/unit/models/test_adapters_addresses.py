"""Adapters of models at every kind of address, and what they cost to train."""

import json
import shutil

import open_clip
import pytest
import torch
from safetensors.torch import load_file

from clipmem.base.sections import ModelSection, TrainSection
from clipmem.models import given, openclip
from clipmem.models.start import Start
from clipmem.study import execution, forecast
from tests.unit.models.test_adapters import close, embed, saved
from tests.unit.models.test_openclip import PLAIN
from tests.unit.models.test_openclip_addresses import write_folder
from tests.unit.models.test_openclip_cache import put

pytest.importorskip("peft", reason="the extra hf is not installed")


def test_every_kind_of_address_can_be_the_base(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "ViT-B-32-quickgelu", {**PLAIN, "quick_gelu": True})
    write_folder(tmp_path / "model", {**PLAIN, "quick_gelu": True})
    file = tmp_path / "model" / "open_clip_model.safetensors"
    put(openclip.pretrained("ViT-B-32-quickgelu", "openai").repository, file)
    put("some/clip", file, file.with_name("open_clip_config.json"))
    shutil.copytree("model", "a@b")
    torch.save({"state_dict": {}, "state_dict_ema": load_file(file)}, "some.pt")
    addresses = ["model", "local-dir:a@b", "ViT-B-32-quickgelu/openai", f"ViT-B-32-quickgelu@{file}",
                 "ViT-B-32-quickgelu@some.pt#ema", "hf-hub:some/clip"]  # fmt: skip
    for k, address in enumerate(addresses):
        encoder = saved(address, tmp_path / str(k))
        written = json.loads((tmp_path / str(k) / "base.json").read_text())["address"]
        assert written == given.find(address).address
        close(embed(given.load(given.find(str(tmp_path / str(k))))), embed(encoder))


def test_the_cost_of_adapters_is_estimated_from_the_architecture_alone():
    train = TrainSection(adapter="lora", freeze=("image",))
    start = Start(ModelSection(name="clipmem-micro"), train)
    resources = execution.Execution("cpu", "fp32", 1, 1)
    rate, memory = forecast.training_rate_and_memory(start, resources, 4)
    assert rate > 0
    assert memory > sum(p.numel() for p in start.outline().module.parameters())
