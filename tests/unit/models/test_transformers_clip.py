"""The adapter for transformers' CLIPModel: fresh weights, saved folders, captions of any length."""

import sys

import pytest
import torch

from clipmem.base.errors import InputError
from clipmem.models import transformers as adapter
from clipmem.models.protocol import DualEncoder
from tests.tokens import clip_model

CONFIG = {
    "projection_dim": 12,
    "text_config": {
        "vocab_size": 40, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1,
        "num_attention_heads": 2, "max_position_embeddings": 12, "eos_token_id": 39, "bos_token_id": 38,
    },
    "vision_config": {
        "image_size": 32, "patch_size": 16, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1,
        "num_attention_heads": 2,
    },
}  # fmt: skip


def tokens(captions):
    return [[38, *(1 + sum(map(ord, word)) % 36 for word in text.split()), 39] for text in captions]


def test_missing_library_is_one_line(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "transformers", None)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(
        InputError, match=r"^transformers models: got no package transformers, expected the extra hf\. I"
    ):
        adapter.load(tmp_path)


def test_no_config(tmp_path):
    pytest.importorskip("transformers", reason="the extra hf is not installed")
    with pytest.raises(InputError, match=r"got no config\.json\. Give a folder saved by transformers\.$"):
        adapter.load(tmp_path)


@pytest.fixture
def encoder():
    pytest.importorskip("transformers", reason="the extra hf is not installed")
    return clip_model(CONFIG, tokens, seed=0)


def test_it_is_a_dual_encoder(encoder):
    assert isinstance(encoder, DualEncoder)
    assert encoder.image_size == 32
    assert encoder.logit_scale().item() == pytest.approx(1 / 0.07, rel=1e-3)


@torch.no_grad()
def test_padding_changes_nothing(encoder):
    ids = encoder.tokenize(["one", "two three four five"])
    assert ids[0].tolist()[3:] == [0, 0, 0]
    both = encoder.encode_text(ids)
    torch.testing.assert_close(both[0], encoder.encode_text(encoder.tokenize(["one"]))[0], atol=1e-6, rtol=1e-5)


@torch.no_grad()
def test_a_saved_folder_loads(encoder, tmp_path):
    files = encoder.save(tmp_path / "model")
    assert {"config.json", "model.safetensors"} <= {file.name for file in files}
    before = torch.get_rng_state()
    again = adapter.load(tmp_path / "model", tokens)
    assert torch.equal(torch.get_rng_state(), before)
    pixels = torch.randn(2, 3, 32, 32)
    assert torch.equal(again.encode_image(pixels), encoder.encode_image(pixels))
    with pytest.raises(InputError, match=r"got no tokenizer, expected one of tokenizer\.json, .*\. Save the "):
        adapter.load(tmp_path / "model")


def test_a_folder_without_weights_is_refused(encoder, tmp_path):
    encoder.save(tmp_path / "model")
    (tmp_path / "model" / "model.safetensors").unlink()
    with pytest.raises(InputError, match=r"files that do not load"):
        adapter.load(tmp_path / "model", tokens)
