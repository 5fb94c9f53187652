"""A tiny study on an accelerator; skipped, with the reason, where there is none."""

import pytest
import torch
from tests.tiny import tiny_recipe

import clipmem

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device, and torch sees none here"),
]


def test_a_study_on_the_device_agrees_with_one_on_the_processor(tmp_path):
    settings = ("train.precision=fp32", "train.epochs=1", "train.seeds=[0]")
    on_device = clipmem.run(tiny_recipe(*settings), tmp_path / "cuda", device="cuda")
    on_cpu = clipmem.run(tiny_recipe(*settings), tmp_path / "cpu", device="cpu")
    assert on_device.manifest["device"] == "cuda"
    # other kernels, other order of additions: close after four steps, not equal
    difference = (on_device.scores["clipmem"] - on_cpu.scores["clipmem"]).abs().max()
    assert difference < 0.02


def test_bf16_on_the_device(tmp_path):
    run = clipmem.run(tiny_recipe("train.precision=bf16", "train.seeds=[0]"), tmp_path / "run", device="cuda")
    assert run.manifest["precision"] == "bf16"
    assert run.scores["clipmem"].is_finite().all()
