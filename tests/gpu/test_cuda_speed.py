"""The fast paths of an accelerator agree with the processor: views, losses, transfers, memory; skipped without one."""

import copy
import json

import numpy as np
import pytest
import torch
from tests.tiny import encoded_image

from clipmem.base.sections import EmbedSection, TrainSection
from clipmem.data.decoding import decode
from clipmem.data.views import draw_crops, render, send
from clipmem.models import openclip, passes
from clipmem.models.openclip import OpenClipEncoder
from clipmem.train.batches import TrainingData
from clipmem.train.loop import Session, train
from clipmem.train.objectives import Towers
from clipmem.train.paired import TrainingSet

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device, and torch sees none here"),
]

N = 24
UIDS = tuple(f"{(k + 1) * 0x9E3779B97F4A7C15 % 2**64:016x}{k:016x}" for k in range(N))
PIXELS = np.stack([decode(encoded_image(k), size=32, name=str(k)) for k in range(N)])
DATA = TrainingData(PIXELS, np.arange(N), [[f"thing number {k}"] for k in range(N)])
PLAN = TrainingSet("f", 0, UIDS, N)


@pytest.fixture(scope="module")
def micro():
    return openclip.create("clipmem-micro", seed=7)


def trained(micro, folder, device, *, ahead=0, precision="fp32", **changes):
    encoder = OpenClipEncoder(copy.deepcopy(micro.module), micro.config, micro._tokenizer)
    settings = TrainSection(**{"epochs": 5, "batch_size": 8, "crop_scale": (0.3, 0.9), "flip": 0.5, **changes})
    train(Towers(encoder, precision, device), DATA, PLAN, settings, folder, Session(ahead=ahead))
    return [json.loads(line)["loss"] for line in (folder / "log.jsonl").read_text().splitlines()]


def test_the_same_views():
    keys = np.arange(1, 9, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    crops = draw_crops(keys, seed=0, size=224, scale=(0.1, 1.0), ratio=(0.5, 2.0), flip=0.5)
    pixels = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (8, 224, 224, 3), dtype=np.uint8))
    found = render(send(pixels, "cuda"), crops, size=224)
    assert found.is_cuda
    torch.testing.assert_close(found.cpu(), render(pixels, crops, size=224), rtol=0, atol=1e-6)


def test_losses_are_those_of_the_processor(micro, tmp_path):
    on_cpu = trained(micro, tmp_path / "cpu", "cpu")
    assert trained(micro, tmp_path / "cuda", "cuda") == pytest.approx(on_cpu, rel=1e-3)
    # fewer digits, same course
    for precision in ("tf32", "bf16"):
        losses = trained(micro, tmp_path / precision, "cuda", precision=precision)
        assert losses == pytest.approx(on_cpu, rel=0.05), precision


def test_compiled_on_the_device(micro, tmp_path):
    plain = trained(micro, tmp_path / "off", "cuda")
    assert trained(micro, tmp_path / "on", "cuda", compile="on") == pytest.approx(plain, rel=1e-3)


def test_batches_made_ahead_are_the_same_ones(micro, tmp_path):
    at_once = trained(micro, tmp_path / "0", "cuda", epochs=10)
    # kernels of a GPU add up in no fixed order: close, and another batch would be far off
    assert trained(micro, tmp_path / "2", "cuda", epochs=10, ahead=2) == pytest.approx(at_once, rel=1e-3)


def test_what_was_sent_may_be_changed_at_once():
    source = torch.zeros(2**24, dtype=torch.uint8)
    busy = torch.rand(4096, 4096, device="cuda")
    for value in range(1, 30):
        source.fill_(value)
        busy = busy @ busy * 1e-4  # the copy waits behind this
        there = send(source, "cuda")
        source.fill_(255)
        assert int(there.min()) == int(there.max()) == value


def test_memory_does_not_grow_with_the_epochs(micro, tmp_path):
    peaks = []
    for epochs in (2, 2, 12):
        torch.cuda.reset_peak_memory_stats()
        trained(micro, tmp_path / str(len(peaks)), "cuda", epochs=epochs, ahead=2)
        peaks.append(torch.cuda.max_memory_allocated())
    assert peaks[2] <= peaks[1] * 1.1


def test_embeddings_are_those_of_the_processor(micro):
    found = {}
    for device in ("cpu", "cuda"):
        encoder = OpenClipEncoder(copy.deepcopy(micro.module), micro.config, micro._tokenizer)
        settings, crops = EmbedSection(views=2, batch_size=7), TrainSection(crop_scale=(0.3, 0.9))
        inputs = passes.Inputs(PIXELS, DATA.rows, DATA.captions, UIDS)
        found[device] = passes.embed(encoder, inputs, settings, crops, device=device)
    for a, b in zip(found["cpu"][:3], found["cuda"][:3], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3)
