"""What makes training faster and must not change it: batches made ahead in a thread, compiled towers."""

import copy
import json
import platform
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch

from clipmem.base.errors import InputError
from clipmem.base.sections import TrainSection
from clipmem.data.decoding import decode
from clipmem.data.views import send
from clipmem.models import openclip
from clipmem.models.numerics import check_compiler, multiplying, resolve_precision
from clipmem.models.openclip import OpenClipEncoder
from clipmem.train import batches, loop
from clipmem.train.batches import TrainingData
from clipmem.train.loop import Session, train
from clipmem.train.objectives import Towers
from clipmem.train.paired import TrainingSet
from tests.tiny import encoded_image

N = 18
UIDS = tuple(f"{(k + 1) * 0x9E3779B97F4A7C15 % 2**64:016x}{k:016x}" for k in range(N))
PIXELS = np.stack([decode(encoded_image(k), size=32, name=str(k)) for k in range(N)])
DATA = TrainingData(PIXELS, np.arange(N), [[f"thing number {k}", f"number {k}"] for k in range(N)])
PLAN = TrainingSet("f", 0, UIDS, N)


def section(**changes):
    return TrainSection(**{"epochs": 2, "batch_size": 5, "precision": "fp32", "captions": 2, **changes})


def losses_of(folder):
    return [json.loads(line)["loss"] for line in (folder / "log.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def micro():
    return openclip.create("clipmem-micro", seed=7)


@pytest.fixture
def fresh(micro):
    def make():
        return OpenClipEncoder(copy.deepcopy(micro.module), micro.config, micro._tokenizer)

    return make


def makers():
    return [thread for thread in threading.enumerate() if thread.name.startswith("clipmem batches")]


@pytest.mark.parametrize("objective", ["clip", "simclr"])
def test_batches_made_ahead_change_nothing(fresh, tmp_path, objective):
    weights = {}
    settings = section(objective=objective, crop_scale=(0.3, 0.9), flip=0.5, color=0.5)
    for ahead in (0, 1, 4):
        folder = tmp_path / str(ahead)
        timing = loop.Timing()
        train(Towers(fresh()), DATA, PLAN, settings, folder, Session(timing=timing, ahead=ahead))
        weights[ahead] = [file.read_bytes() for file in sorted(folder.iterdir())]
        assert timing.pairs == 2 * N
        assert timing.data >= 0
        assert timing.compute > 0
    assert weights[0] == weights[1] == weights[4]


def test_an_error_in_a_batch_made_ahead_is_that_error(fresh, tmp_path, monkeypatch):
    real, calls = batches.render, []

    def broken(*args, **how):
        calls.append(1)
        if len(calls) == 3:
            raise OSError("the shard is gone")
        return real(*args, **how)

    monkeypatch.setattr(batches, "render", broken)
    steps = []
    session, encoder = Session(lambda step, *_: steps.append(step), ahead=2), fresh()
    with pytest.raises(OSError, match="the shard is gone"):
        train(Towers(encoder), DATA, PLAN, section(), tmp_path, session)
    assert not makers()
    # the whole table is back, as after any other error
    assert len(encoder.module.token_embedding.weight) > 49000


def test_ctrl_c_while_batches_are_made_ahead(fresh, tmp_path, monkeypatch):
    def interrupt(*_, **__):
        assert makers()
        raise KeyboardInterrupt

    monkeypatch.setattr(loop, "learning_rate", interrupt)
    with pytest.raises(KeyboardInterrupt):
        train(Towers(fresh()), DATA, PLAN, section(epochs=50), tmp_path, Session(ahead=1))
    assert not makers()


_COMPILED = """
import sys
from pathlib import Path
import numpy as np
from clipmem.base.sections import TrainSection
from clipmem.models import openclip
from clipmem.train import loop
from clipmem.train.paired import TrainingSet
from clipmem.train.objectives import Towers
folder, real = Path(sys.argv[1]), openclip.OpenClipEncoder.compile
openclip.OpenClipEncoder.compile = lambda self: real(self, backend=sys.argv[2])
loop.check_compiler = lambda *_: None
pixels = np.random.default_rng(0).integers(0, 256, (18, 32, 32, 3), dtype=np.uint8)
captions = [["thing number " + "one " * (k % 4)] for k in range(18)]
uids = tuple(f"{k:032x}" for k in range(18))
for setting in ("off", "on"):
    settings = TrainSection(epochs=2, batch_size=5, compile=setting)
    data = loop.TrainingData(pixels, np.arange(18), captions)
    plan = TrainingSet("f", 0, uids, 18)
    encoder = openclip.create("clipmem-micro", seed=7)
    loop.train(Towers(encoder), data, plan, settings, folder / setting)
"""


# `aot_eager` compiles as `inductor` does, up to the code: what is compiled, and that the rest fits it, is the same
@pytest.mark.slow
@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_compiled_towers_train_alike(tmp_path, backend):
    # in a process of its own: here all functions check their shapes, which is not to be compiled
    subprocess.run([sys.executable, "-c", _COMPILED, str(tmp_path), backend], check=True, timeout=600)
    off, on = tmp_path / "off", tmp_path / "on"
    assert losses_of(on) == pytest.approx(losses_of(off), rel=1e-4)
    assert len(losses_of(on)) == 8
    names = [set(openclip.load(folder).module.state_dict()) for folder in (off, on)]
    assert names[0] == names[1]
    records = [json.loads((folder / "record.json").read_text()) for folder in (off, on)]
    assert records[0]["init_sha256"] == records[1]["init_sha256"]
    # one of each would not be comparable: f and g share the setting
    assert records[0]["settings_sha256"] != records[1]["settings_sha256"]


_FAULTS = """
import resource, torch
from clipmem.models.numerics import keep_memory
kept = KEEP and keep_memory()
def faults():
    for _ in range(5):
        torch.ones(2**24)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
faults()
print(int(kept), -faults() + faults())
"""


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc keeps memory when it is told to")
def test_memory_is_kept_for_the_next_step():
    found = []
    for keep in (True, False):
        program = _FAULTS.replace("KEEP", str(keep))
        done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
        found.append([int(number) for number in done.stdout.split()])
    (kept, few), (not_kept, many) = found
    assert (kept, not_kept) == (1, 0)
    assert few < 100  # of 5 times 16,384 pages
    assert many > 1000


@pytest.mark.parametrize(("device", "names"), [("cpu", "g++, clang++"), ("cuda", "gcc, clang, cc")])
def test_no_compiler(monkeypatch, tmp_path, device, names):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    check_compiler("off", device)
    with pytest.raises(InputError) as caught:
        check_compiler("on", device)
    assert caught.value.what == "[train] compile = 'on'"
    assert caught.value.got == f"no compiler here (looked for {names})"
    compiler = tmp_path / "mine"
    compiler.touch(mode=0o755)
    monkeypatch.setenv("CXX", "mine")
    check_compiler("on", device)


@pytest.mark.parametrize(("precision", "matrices", "convolutions"), [
    ("fp32", "highest", False), ("tf32", "high", True), ("bf16", "highest", False),
])  # fmt: skip
def test_float32_on_a_gpu_is_multiplied_in_full_unless_asked(precision, matrices, convolutions):
    def now():
        return torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32

    before = now()
    with multiplying(precision, "cuda"):
        assert now() == (matrices, convolutions)
    assert now() == before
    with pytest.raises(KeyError), multiplying("tf32", "cuda"):
        raise KeyError
    assert now() == before
    with multiplying("fp32", "cpu"):  # on CPUs it is none of our business
        assert now() == before


def test_tf32_is_for_gpus():
    assert resolve_precision("tf32", "cuda") == "tf32"
    with pytest.raises(InputError) as caught:
        resolve_precision("tf32", "cpu")
    assert str(caught.value) == (
        "[train] precision = 'tf32': got device cpu, expected a GPU: only its matrix units support tf32. "
        "Use auto, fp32 or bf16."
    )


def test_sending_to_the_processor_copies_nothing():
    tensor = torch.arange(5)
    assert send(tensor, "cpu") is tensor
    assert send(tensor, torch.device("cpu")) is tensor
