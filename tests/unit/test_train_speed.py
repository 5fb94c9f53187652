"""What makes training faster and must not change it: batches made ahead in a thread, compiled towers."""

import copy
import json
import threading

import numpy as np
import pytest

from clipmem.base.errors import InputError
from clipmem.base.recipes import TrainSection
from clipmem.data.decoding import decode
from clipmem.models import openclip
from clipmem.models.openclip import OpenClipEncoder
from clipmem.testing.tiny import picture
from clipmem.train import loop
from clipmem.train.loop import TrainingData, train
from clipmem.train.numerics import check_compiler
from clipmem.train.paired import TrainingSet

N = 18
UIDS = tuple(f"{(k + 1) * 0x9E3779B97F4A7C15 % 2**64:016x}{k:016x}" for k in range(N))
PIXELS = np.stack([decode(picture(k), size=32, name=str(k)) for k in range(N)])
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
        return OpenClipEncoder(copy.deepcopy(micro.module), micro._config, micro._tokenizer)

    return make


def makers():
    return [thread for thread in threading.enumerate() if thread.name == "clipmem batches"]


@pytest.mark.parametrize("objective", ["clip", "simclr"])
def test_batches_made_ahead_change_nothing(fresh, tmp_path, objective):
    weights = {}
    settings = section(objective=objective, crop_scale=(0.3, 0.9), flip=0.5, colour=0.5)
    for ahead in (0, 1, 4):
        folder = tmp_path / str(ahead)
        timing = loop.Timing()
        how = {"folder": folder, "precision": "fp32", "timing": timing, "ahead": ahead}
        train(fresh(), DATA, PLAN, settings, **how)
        weights[ahead] = [file.read_bytes() for file in sorted(folder.iterdir())]
        assert timing.pairs == 2 * N
        assert timing.data >= 0
        assert timing.compute > 0
    assert weights[0] == weights[1] == weights[4]


def test_an_error_in_a_batch_made_ahead_is_that_error(fresh, tmp_path, monkeypatch):
    real, calls = loop.render, []

    def broken(*args, **how):
        calls.append(1)
        if len(calls) == 3:
            raise OSError("the shard is gone")
        return real(*args, **how)

    monkeypatch.setattr(loop, "render", broken)
    steps = []
    how = {"folder": tmp_path, "precision": "fp32", "ahead": 2, "progress": lambda step, *_: steps.append(step)}
    encoder = fresh()
    with pytest.raises(OSError, match="the shard is gone"):
        train(encoder, DATA, PLAN, section(), **how)
    assert not makers()
    # the whole table is back, as after any other error
    assert len(encoder.module.token_embedding.weight) > 49000


def test_ctrl_c_while_batches_are_made_ahead(fresh, tmp_path, monkeypatch):
    def interrupt(*_):
        assert makers()
        raise KeyboardInterrupt

    monkeypatch.setattr(loop, "_step", interrupt)
    with pytest.raises(KeyboardInterrupt):
        train(fresh(), DATA, PLAN, section(epochs=50), folder=tmp_path, precision="fp32", ahead=1)
    assert not makers()


def test_compiled_towers_train_alike(fresh, tmp_path, monkeypatch):
    real = OpenClipEncoder.compile
    # the compiler that changes nothing: what is compiled, and that the rest fits it, is the same
    monkeypatch.setattr(OpenClipEncoder, "compile", lambda self: real(self, backend="aot_eager"))
    monkeypatch.setattr(loop, "check_compiler", lambda *_: None)
    losses = {}
    for setting in ("off", "on"):
        train(fresh(), DATA, PLAN, section(compile=setting), folder=tmp_path / setting, precision="fp32")
        losses[setting] = losses_of(tmp_path / setting)
        names = set(openclip.load(tmp_path / setting).module.state_dict())
        assert not [name for name in names if "_orig_mod" in name]
    assert losses["on"] == pytest.approx(losses["off"], rel=1e-4)
    records = [json.loads((tmp_path / setting / "record.json").read_text()) for setting in ("off", "on")]
    assert records[0]["init_sha256"] == records[1]["init_sha256"]
    # one of each would not be comparable: f and g share the setting
    assert records[0]["settings_sha256"] != records[1]["settings_sha256"]


@pytest.mark.parametrize(("device", "names"), [("cpu", "g++, clang++"), ("cuda", "gcc, clang, cc")])
def test_no_compiler(monkeypatch, tmp_path, device, names):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    check_compiler("off", device)
    with pytest.raises(InputError) as caught:
        check_compiler("on", device)
    assert str(caught.value) == (
        f"[train] compile = 'on': got no compiler here (looked for {names}), expected a C++ compiler on the PATH, or "
        "named by the environment variable CXX. Install one (Debian, Ubuntu: apt-get install g++), or set "
        "train.compile = 'off'."
    )
    compiler = tmp_path / "mine"
    compiler.touch(mode=0o755)
    monkeypatch.setenv("CXX", "mine")
    check_compiler("on", device)
