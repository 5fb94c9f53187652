"""Mitigations of the weights against loops: interpolation, exact at its ends; the average over steps; the controls."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from clipmem.base.errors import InputError
from clipmem.base.mitigations import AverageSection, EarlyStoppingSection, InterpolateSection, WeightDecaySection
from clipmem.base.recipes import load_recipe
from clipmem.mitigate import interpolate_weights
from clipmem.mitigate.weights import Average, EarlyStopping, Interpolation, WeightDecay
from clipmem.models import openclip
from clipmem.train.checkpoint import CHECKPOINT_FILE, Checkpoints, State, TrainingStopped
from clipmem.train.hooks import Hook, Hooks
from clipmem.train.loop import Session, learning_rate, train
from clipmem.train.objectives import Towers
from tests.tiny import epoch_batches
from tests.unit.mitigate.test_base import fit as hooked
from tests.unit.train.test_checkpoint import contents
from tests.unit.train.test_loop import N, data_of, plan_of, section

EMBEDDING = "token_embedding.weight"


def bytes_of(tensor):
    return tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes()


def same_bytes(a, b):
    return a.keys() == b.keys() and all(bytes_of(a[name]) == bytes_of(b[name]) for name in a)


def fit(folder, *hooks, encoder=None, stop_after=None, file=None, **changes):
    seen = []

    def stop():
        seen.append(1)
        return len(seen) == stop_after

    encoder = encoder or openclip.create("clipmem-micro", seed=7)
    train(
        Towers(encoder, hooks=Hooks(hooks)),
        data_of(range(N)),
        plan_of(range(N)),
        section(**{"epochs": 4, "batch_size": 7, **changes}),
        folder,
        Session(checkpoints=Checkpoints(file, 1e9, stop) if file else None),
    )
    return openclip.load(folder).module.state_dict()


def average(decay):
    return Average(AverageSection(decay=decay))


def interpolation(alpha):
    return Interpolation(InterpolateSection(alpha=alpha))


def initial():
    return openclip.create("clipmem-micro", seed=7).module.state_dict()


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return fit(tmp_path_factory.mktemp("plain") / "m")


# ---- interpolation


FLOATS = st.floats(-1e6, 1e6, width=32)


def states(draw_from=FLOATS):
    pairs = st.lists(st.tuples(draw_from, draw_from), min_size=1, max_size=8)
    return pairs.map(lambda both: [{"w": torch.tensor(side, dtype=torch.float32)} for side in zip(*both, strict=True)])


@given(states(), st.floats(0, 1))
def test_interpolation_is_convex_and_that_of_the_loop(both, alpha):
    base, tuned = both
    found = interpolate_weights(base, tuned, alpha)["w"]
    for a, b, c in zip(base["w"].tolist(), tuned["w"].tolist(), found.tolist(), strict=True):
        assert min(a, b) <= c <= max(a, b)
        assert c == pytest.approx((1 - alpha) * a + alpha * b, abs=1e-6 * max(abs(a), abs(b), 1e-30))


@given(states(st.sampled_from([0.0, -0.0, 1.5, float("inf"), float("-inf"), 1e-42])), st.floats(0, 1))
def test_the_ends_and_equal_weights_keep_their_bytes(both, alpha):
    base, tuned = both
    assert same_bytes(interpolate_weights(base, tuned, 0.0), base)
    assert same_bytes(interpolate_weights(base, tuned, 1.0), tuned)
    assert same_bytes(interpolate_weights(tuned, tuned, alpha), tuned)


@settings(max_examples=20)
@given(st.floats(0, 1), st.integers(0, 1000))
def test_adapters_are_scaled_by_alpha(alpha, seed):
    generator = torch.Generator().manual_seed(seed)
    a0, a, b = (torch.randn(2, 3, generator=generator, dtype=torch.float64) for _ in range(3))
    names = [f"block.base_layer.lora_{one}.default.weight" for one in "AB"]
    base, tuned = dict(zip(names, (a0, torch.zeros(3, 2)), strict=True)), dict(zip(names, (a, b.T), strict=True))
    found = interpolate_weights(base, tuned, alpha)
    assert torch.allclose(found[names[1]] @ found[names[0]], alpha * (b.T @ a), rtol=1e-12)
    assert torch.equal(found[names[0]], a)


def test_modules_buffers_and_counters():
    def module(seed):
        torch.manual_seed(seed)
        made = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
        made(torch.randn(5, 3))
        return made

    base, tuned = module(0), module(1)
    tuned(torch.randn(5, 3))
    before = {name: value.clone() for name, value in tuned.state_dict().items()}
    found = interpolate_weights(base, tuned, 0.25)
    assert same_bytes(tuned.state_dict(), before)
    mean = 0.75 * base[1].running_mean + 0.25 * tuned[1].running_mean
    assert torch.allclose(found["1.running_mean"], mean)
    assert int(found["1.num_batches_tracked"]) == 2
    tuned.load_state_dict(found)


@pytest.mark.parametrize("alpha", [-0.1, 1.5, float("nan")])
def test_alpha_out_of_range_is_refused(alpha):
    with pytest.raises(InputError) as caught:
        interpolate_weights({}, {}, alpha)
    assert (caught.value.what, caught.value.got) == ("interpolation alpha", str(alpha))


@pytest.mark.parametrize(
    ("tuned", "got", "expected"),
    [
        ({"a": (2,), "w": (2, 3)}, "(2, 3)", "(3, 2)"),
        ({"a": (2,)}, "none", "(3, 2)"),
        ({"a": (2,), "w": (3, 2), "x": (1,)}, "(1,)", "none"),
    ],
)
def test_other_parameters_are_refused_by_the_first_name(tuned, got, expected):
    base, tuned = (
        {name: torch.zeros(shape) for name, shape in one.items()} for one in ({"a": (2,), "w": (3, 2)}, tuned)
    )
    with pytest.raises(InputError) as caught:
        interpolate_weights(base, tuned, 0.5)
    assert caught.value.what == f"parameter {'x' if 'x' in tuned else 'w'}"
    assert caught.value.got == got
    assert caught.value.expected.startswith(expected)


def test_a_training_ends_between_its_weights(tmp_path, plain):
    assert same_bytes(fit(tmp_path / "one", interpolation(1.0)), plain)
    # rows of tokens that no caption has decay in training, and are the pretrained ones as well
    assert same_bytes(fit(tmp_path / "zero", interpolation(0.0)), initial())
    found = fit(tmp_path / "half", interpolation(0.5))
    assert same_bytes(found, interpolate_weights(initial(), plain, 0.5))
    assert not torch.equal(found[EMBEDDING], plain[EMBEDDING])
    record = json.loads((tmp_path / "half" / "record.json").read_text())
    assert record["mitigate"] == {"interpolate": {"alpha": 0.5, "run": ""}}


def test_an_average_is_interpolated_whole(tmp_path):
    both = fit(tmp_path / "both", average(0.8), interpolation(0.25))
    assert same_bytes(both, interpolate_weights(initial(), fit(tmp_path / "average", average(0.8)), 0.25))


@pytest.mark.parametrize("frozen", ["image", "embeddings"])
def test_frozen_weights_keep_their_bytes(tmp_path, frozen):
    found = fit(tmp_path / "m", average(0.8), interpolation(0.25), freeze=(frozen,))
    start = initial()
    own = (
        ("visual.",)
        if frozen == "image"
        else ("token_embedding.", "positional_", "visual.conv1.", "visual.positional_")
    )
    kept = [name for name in start if name.startswith(own)]
    assert len(kept) >= len(own)
    assert all(bytes_of(found[name]) == bytes_of(start[name]) for name in kept)
    assert not torch.equal(found["text_projection"], start["text_projection"])


# ---- recipes


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[mitigate.interpolate]\nalpha = 0.5", "model.pretrained"),
        ("[mitigate.interpolate]\nalpha = 1.5", "alpha"),
        ("[model]\npretrained = 'x'\n[mitigate.interpolate]\nrun = 'y'", "alpha = 1 does not use it"),
        ("[mitigate.average]\ndecay = 1.0", "decay"),
        (
            "protocol = 'given'\n[given]\ntarget=['a']\nreference=['b']\n[mitigate.average]\ndecay = 0.5",
            "trains nothing",
        ),
    ],
)
def test_recipes_that_are_refused(text, said):
    with pytest.raises(InputError) as caught:
        load_recipe(text)
    assert said in str(caught.value)


def test_what_is_active():
    assert list(load_recipe("[mitigate.average]\ndecay = 0.5").mitigate.active()) == ["average"]
    assert not list(load_recipe("[model]\npretrained = 'x'\n[mitigate.interpolate]\nalpha = 1").mitigate.active())
    tuned = load_recipe("[model]\npretrained = 'x'\n[mitigate.interpolate]\nalpha = 0")
    assert list(tuned.mitigate.active()) == ["interpolate"]


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


def test_torchs_average_in_a_loop_of_ones_own_is_the_same():
    """docs/mitigations.md recommends it: `update_parameters` once before the first step, and after each step."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    theirs = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.8), use_buffers=True)
    hook, optimizer = average(0.8), torch.optim.AdamW(model.parameters(), lr=0.1)
    for step in range(5):
        if step:
            optimizer.zero_grad()
            model(torch.randn(6, 3)).square().sum().backward()
            optimizer.step()
        weights = [(name, weight) for name, weight in model.state_dict().items() if weight.is_floating_point()]
        hook.step(weights, 1.0)
        theirs.update_parameters(model)
    for name, mean in hook.tensors().items():
        if name in dict(weights):
            torch.testing.assert_close(theirs.module.state_dict()[name], mean)


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


def test_weight_decay_is_multiplied(tmp_path):
    record, _ = hooked(tmp_path / "a", WeightDecay(WeightDecaySection(factor=3.0)))
    same, _ = hooked(tmp_path / "b", weight_decay=0.2 * 3.0)
    assert record["final_sha256"] == same["final_sha256"]
    assert record["mitigate"] == {"weight_decay": {"factor": 3.0}}
    one, _ = hooked(tmp_path / "c", WeightDecay(WeightDecaySection(factor=1.0)))
    plain, _ = hooked(tmp_path / "d")
    assert one["final_sha256"] == plain["final_sha256"] != record["final_sha256"]


@pytest.mark.parametrize(("share", "steps"), [(0.5, 3), (0.01, 1), (0.9, 5), (1.0, 6)])
def test_early_stopping_is_the_beginning_of_the_whole_training(tmp_path, share, steps):
    whole, log = hooked(tmp_path / "whole")
    record, begun = hooked(tmp_path / "short", EarlyStopping(EarlyStoppingSection(share=share)))
    assert begun == log[:steps]
    assert record["steps"] == steps
    sizes = [len(batch) for epoch in range(2) for batch in epoch_batches(N, 8, seed=0, epoch=epoch)]
    assert record["samples_seen"] == sum(sizes[:steps])
    assert whole["samples_seen"] == 2 * N
    assert (record["final_sha256"] == whole["final_sha256"]) == (share == 1)
