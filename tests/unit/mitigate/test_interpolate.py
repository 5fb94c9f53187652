"""Weights interpolated with those before training: against loops, exact at the ends."""

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from clipmem.base.errors import InputError
from clipmem.base.mitigations import AverageSection, InterpolateSection
from clipmem.base.recipes import load_recipe
from clipmem.mitigate import interpolate_weights
from clipmem.mitigate.average import Average
from clipmem.mitigate.interpolate import Interpolation
from clipmem.models import openclip
from clipmem.train.checkpoint import Checkpoints
from clipmem.train.hooks import Hooks
from clipmem.train.loop import train
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
        encoder,
        data_of(range(N)),
        plan_of(range(N)),
        section(**{"epochs": 4, "batch_size": 7, **changes}),
        folder=folder,
        precision="fp32",
        checkpoints=Checkpoints(file, 1e9, stop) if file else None,
        hooks=Hooks(hooks),
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
