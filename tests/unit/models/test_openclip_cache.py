"""Models of open_clip by pretrained tag and from the hub's cache: what is there is used, and nothing is fetched."""

import json
import shutil

import open_clip
import pytest
import torch

from clipmem.models import given, openclip
from tests.unit.models.test_openclip import CAPTIONS, PLAIN
from tests.unit.models.test_openclip_addresses import (
    no_network,  # noqa: F401  a fixture for every test here
    noise,
    refused,
    text_tower,
    tokens_of,
    with_text_tower,
    write_folder,
)
from tests.unit.models.test_openclip_addresses import (
    transformers as transformers,  # a fixture
)


def test_a_tag_of_the_other_activation_is_refused():
    assert refused("ViT-B-32/openai") == (
        "model 'ViT-B-32/openai': got an architecture without QuickGELU and weights trained with it (openai), "
        "expected the activation that the weights were trained with. Use ViT-B-32-quickgelu/openai."
    )
    wrong = [(n, t) for n, t in open_clip.list_pretrained()
             if openclip.pretrained(n, t).quick_gelu and not openclip.model_config(n).get("quick_gelu")]  # fmt: skip
    assert len(wrong) > 20
    for name, tag in wrong:  # what the message says exists
        assert openclip.pretrained(f"{name}-quickgelu", tag).quick_gelu
        assert openclip.model_config(f"{name}-quickgelu")["quick_gelu"]


# ---- pretrained tags and hub repositories


def put(repository, *files):
    """Put files into the hub's cache, as its library lays them out."""
    from clipmem.models.hub import cache_folder

    place = cache_folder() / f"models--{repository.replace('/', '--')}"
    snapshot = place / "snapshots" / ("a" * 40)
    snapshot.mkdir(parents=True, exist_ok=True)
    (place / "refs").mkdir(exist_ok=True)
    (place / "refs" / "main").write_text("a" * 40)
    for file in files:
        shutil.copy(file, snapshot / file.name)
    return snapshot


SMALL = "ViT-S-32-alt"  # the smallest architecture with a tag


def test_every_tag_has_its_files():
    for name, tag in open_clip.list_pretrained():
        known = openclip.pretrained(name, tag)
        assert known.repository.count("/") == 1, (name, tag)
        assert known.files[0].endswith(".safetensors")
        assert all(file.rpartition(".")[2] in {"safetensors", "bin", "pt", "pth"} for file in known.files)


def test_a_tag_that_is_not_on_this_machine(monkeypatch):
    from clipmem.models.hub import cache_folder

    repository = openclip.pretrained("RN50-quickgelu", "openai").repository
    message = (
        f"model 'RN50-quickgelu/openai': got no open_clip_model.safetensors or open_clip_pytorch_model.bin of the hub "
        f"repository {repository} in {cache_folder()}, expected files on this machine. "
        f"Set CLIPMEM_DOWNLOAD=1 to download it, or run: hf download {repository}."
    )
    assert refused("RN50-quickgelu/openai") == message


def test_a_tag_in_the_cache(monkeypatch, tmp_path):
    # a small model under the name of a large one: the loading is the same
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "RN50-quickgelu", {**PLAIN, "quick_gelu": True})
    model = write_folder(tmp_path, {**PLAIN, "quick_gelu": True})
    repository = openclip.pretrained("RN50-quickgelu", "openai").repository
    snapshot = put(repository, tmp_path / "open_clip_model.safetensors")
    found = given.find("RN50-quickgelu/OpenAI")
    assert found.address == "RN50-quickgelu/openai"
    assert found.folder == snapshot
    encoder = given.load(found)
    with torch.inference_mode():
        pixels = noise(2, 3, 16, 16)
        torch.testing.assert_close(encoder.encode_image(pixels), model.encode_image(pixels), rtol=0, atol=1e-5)
    assert encoder.mean[0] == pytest.approx(0.4815, abs=1e-4)
    assert list(given.content(found)) == ["config of RN50-quickgelu", "open_clip_model.safetensors"]


def test_a_repository_in_the_cache(tmp_path, transformers):
    tower = tmp_path / "tower"
    text_tower(transformers, tower)
    config = with_text_tower(tower)
    model = write_folder(tmp_path / "model", config)
    config["text_cfg"] |= {"hf_model_name": "some/tower", "hf_tokenizer_name": "some/tower"}
    (tmp_path / "model" / "open_clip_config.json").write_text(json.dumps({"model_cfg": config}))
    name = "hf-hub:some/clip"
    assert "got no open_clip_config.json of the hub repository some/clip in " in refused(name)
    put("some/clip", tmp_path / "model" / "open_clip_config.json")
    assert "got no open_clip_model.safetensors or open_clip_pytorch_model.bin of the" in refused(name)
    put("some/clip", tmp_path / "model" / "open_clip_model.safetensors")
    assert refused(name, find=False).startswith(f"model '{name}': its tokenizer: got no tokenizer.json or ")
    put("some/tower", *(tower / file for file in tokens_of(tower)))
    assert refused(name, find=False).startswith(f"model '{name}': its text tower: got no config.json of the hub")
    put("some/tower", tower / "config.json")
    encoder = given.load(given.find(name))
    shutil.copy(tmp_path / "model" / "open_clip_config.json", tower)
    texts = open_clip.get_tokenizer(f"local-dir:{tower}")(CAPTIONS)
    with torch.inference_mode():
        found = encoder.encode_text(encoder.tokenize(CAPTIONS))
        torch.testing.assert_close(found, model.encode_text(texts), rtol=0, atol=1e-5)


def test_two_versions_of_a_repository_are_not_mixed(tmp_path):
    from clipmem.models.hub import cache_folder

    write_folder(tmp_path, PLAIN)
    snapshot = put("some/clip", tmp_path / "open_clip_config.json", tmp_path / "open_clip_model.safetensors")
    assert given.load(given.find("hf-hub:some/clip")).image_size == 16
    assert given.find("hf-hub:some/clip").folder == snapshot
    shutil.rmtree(cache_folder())


def test_offline_settings_are_put_back(monkeypatch):
    import os

    from huggingface_hub import constants

    from clipmem.models.hub import offline

    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.delenv("TRANSFORMERS_OFFLINE", raising=False)
    before = constants.HF_HUB_OFFLINE

    def inside():
        with offline():
            assert os.environ["HF_HUB_OFFLINE"] == os.environ["TRANSFORMERS_OFFLINE"] == "1"
            assert constants.HF_HUB_OFFLINE is True
            raise KeyError

    with pytest.raises(KeyError):
        inside()
    assert os.environ["HF_HUB_OFFLINE"] == "0"
    assert "TRANSFORMERS_OFFLINE" not in os.environ
    assert constants.HF_HUB_OFFLINE is before
