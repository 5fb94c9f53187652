"""The average of the weights over the steps of training, against a loop."""

import numpy as np
import pytest
import torch

from clipmem.models import openclip
from clipmem.train.checkpoint import CHECKPOINT_FILE, State, TrainingStopped
from clipmem.train.hooks import Hook, Hooks
from clipmem.train.schedule import learning_rate
from tests.unit.mitigate.test_interpolate import EMBEDDING, average, fit, initial, same_bytes
from tests.unit.train.test_checkpoint import contents


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return fit(tmp_path_factory.mktemp("plain") / "m")


class Recorder(Hook):
    """Keeps the trained weights of every step."""

    name = "recorder"

    def __init__(self):
        self.seen = []

    def step(self, weights, decay):
        self.seen.append(({name: weight.detach().clone() for name, weight in weights}, decay))


def whole(encoder):
    """Let an encoder train with its whole vocabulary."""
    encoder.compact_vocabulary = lambda used: None
    return encoder


@pytest.mark.parametrize("decay", [0.5, 0.9])
def test_the_average_is_that_of_the_loop_without_a_compact_vocabulary(tmp_path, decay):
    recorder = Recorder()
    fit(tmp_path / "whole", recorder, encoder=whole(openclip.create("clipmem-micro", seed=7)))
    assert len(recorder.seen) == 1 + 4 * 3
    assert recorder.seen[0][1] == 1.0
    mean = {name: weight.double() for name, weight in recorder.seen[0][0].items()}
    for weights, _ in recorder.seen[1:]:
        mean = {name: decay * mean[name] + (1 - decay) * weights[name].double() for name in mean}
    found = fit(tmp_path / "compact", average(decay))
    assert mean.keys() == found.keys()
    for name, weight in mean.items():
        assert torch.allclose(found[name].double(), weight, atol=1e-6), name


def test_rows_of_tokens_without_captions_have_the_average_factor(tmp_path):
    factor = mean = 1.0
    for step in range(12):
        factor *= 1 - 0.2 * learning_rate(step, 12, peak=1e-2, warmup=0.1)
        mean = 0.7 * mean + 0.3 * factor
    found = fit(tmp_path / "m", average(0.7), lr=1e-2)[EMBEDDING]
    start, plain = initial()[EMBEDDING], fit(tmp_path / "plain", lr=1e-2)[EMBEDDING]
    unused = (plain == (start * factor).float()).all(dim=1)
    assert 0.5 < unused.float().mean() < 1
    assert factor < 0.99
    assert torch.allclose(found[unused], start[unused] * mean, rtol=1e-6)
    assert not torch.allclose(found[unused], plain[unused], rtol=1e-6)


def test_an_average_of_decay_0_is_the_last_step(tmp_path, plain):
    assert same_bytes(fit(tmp_path / "m", average(0.0)), plain)


@pytest.mark.parametrize(("objective", "stop"), [("clip", 1), ("clip", 7), ("siglip", 5)])
def test_an_average_resumes_with_the_same_bytes(tmp_path, objective, stop):
    fit(tmp_path / "whole", average(0.8), objective=objective)
    file = tmp_path / "parts" / CHECKPOINT_FILE
    with pytest.raises(TrainingStopped):
        fit(tmp_path / "parts", average(0.8), objective=objective, file=file, stop_after=stop)
    fit(tmp_path / "parts", average(0.8), objective=objective, file=file)
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")


def test_a_checkpoint_of_another_decay_is_not_used(tmp_path):
    file = tmp_path / "m" / CHECKPOINT_FILE
    with pytest.raises(TrainingStopped):
        fit(tmp_path / "m", average(0.8), file=file, stop_after=5)
    found = fit(tmp_path / "m", average(0.5), file=file)
    assert same_bytes(found, fit(tmp_path / "whole", average(0.5)))


def test_averages_of_batch_norm_are_averaged():
    torch.manual_seed(0)
    module, hook = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4)), average(0.25)
    optimizer = torch.optim.AdamW(module.parameters())
    state = State(module, torch.nn.Identity(), optimizer, list(module.named_parameters()), "", Hooks((hook,)))
    mean = np.zeros(4)
    for _ in range(3):
        module(torch.randn(5, 3))
        state.stepped()
        mean = 0.25 * mean + 0.75 * module[1].running_mean.double().numpy()
    assert hook.end(state.weights, 1.0) == 1.0
    assert np.allclose(module[1].running_mean.numpy(), mean, atol=1e-6)
