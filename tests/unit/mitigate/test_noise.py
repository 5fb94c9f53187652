"""Noise on embeddings: its level, its streams, that zero is nothing, and open_clip's own loss with it."""

import json
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from open_clip.loss import ClipLoss
from scipy import stats

from clipmem.base.errors import InputError
from clipmem.base.mitigations import NoiseSection
from clipmem.base.random import derive_seed, uniform
from clipmem.data.views import pair_keys
from clipmem.mitigate.noise import ImageEmbeddingNoise, ImageNoise, TextEmbeddingNoise, TextNoise, gaussian
from clipmem.models import openclip
from clipmem.train.checkpoint import Checkpoints, TrainingStopped
from clipmem.train.hooks import Hook, Hooks, Moment
from clipmem.train.loop import Session, Timing, train
from clipmem.train.objectives import Towers
from clipmem.train.objectives.contrastive import Clip
from clipmem.train.objectives.image_only import SimClr, nt_xent
from tests.unit.train.test_loop import N, data_of, plan_of, section, uid

KEYS = pair_keys([uid(k) for k in range(400)])
PLACES = ("post", "pre", "post-scaled")


def hooked(hook, std, place="post", seed=0, *, start=0.0, steps=10):
    """A hook as the training loop has it at its first step."""
    made = hook(NoiseSection(std=std, place=place, start=start), seed)
    assert made.last_step(steps) == steps
    return made


def moment(keys, step=0, seed=0):
    return Moment(seed, 0, step, np.arange(len(keys)), keys)


# ---- the numbers


def test_gaussian_is_the_quantile_of_each_uniform_number():
    drawn = uniform(KEYS[:5], 3, 7)
    for row, own in enumerate(gaussian(KEYS[:5], 3, 7)):
        for column, value in enumerate(own):
            assert value == pytest.approx(float(stats.norm.ppf(drawn[row, column])), abs=1e-9)


def test_gaussian_is_standard_normal_and_independent():
    z = gaussian(KEYS, 11, 64)
    n = z.size
    assert abs(z.mean()) < 4 / math.sqrt(n)
    assert abs(z.var() - 1) < 4 * math.sqrt(2 / n)
    assert stats.kstest(z.ravel(), "norm").pvalue > 1e-3
    between = np.corrcoef(z)  # pairs
    assert abs(between[~np.eye(len(z), dtype=bool)].mean()) < 0.01
    across = np.corrcoef(z.T)  # dimensions
    assert np.abs(across[~np.eye(64, dtype=bool)]).max() < 5 / math.sqrt(400)
    other = gaussian(KEYS, 12, 64)
    assert abs(np.corrcoef(z.ravel(), other.ravel())[0, 1]) < 4 / math.sqrt(n)


def test_gaussian_is_finite_where_the_uniform_number_is_zero(monkeypatch):
    monkeypatch.setattr("clipmem.mitigate.noise.uniform", lambda keys, seed, width: np.zeros((len(keys), width)))
    drawn = gaussian(KEYS[:2], 0, 3)
    assert np.isfinite(drawn).all()
    assert drawn == pytest.approx(stats.norm.ppf(2.0**-54))  # the smallest number that is drawn


@pytest.mark.parametrize("width", [4, 64, 512])
@pytest.mark.parametrize("place", PLACES)
def test_level_of_the_noise(place, width):
    noise, std = TextEmbeddingNoise(0.15, place, seed=5, start=0), 0.15
    v = F.normalize(torch.randn(400, width, generator=torch.Generator().manual_seed(0)), dim=-1)
    added = (noise(v, KEYS, 3) - v).double()
    scale = std / math.sqrt(width) if place == "post-scaled" else std
    count = added.numel()
    assert abs(float(added.mean())) < 4 * scale / math.sqrt(count)
    assert float(added.std()) == pytest.approx(scale, rel=4 / math.sqrt(2 * count))
    # E |noise|^2 = d scale^2, and noise is not aligned with the vector: E |v'|^2 = 1 + d scale^2
    expected = 1 + width * scale**2
    spread = math.sqrt((4 * scale**2 + 2 * width * scale**4) / 400)
    assert float((v.double() + added).square().sum(1).mean()) == pytest.approx(expected, abs=4 * spread)


@pytest.mark.parametrize(("place", "length"), [("post", 0.15 * math.sqrt(512)), ("post-scaled", 0.15)])
def test_published_noise_is_longer_than_the_vector_and_scaled_noise_shorter(place, length):
    v = F.normalize(torch.randn(400, 512, generator=torch.Generator().manual_seed(1)), dim=-1)
    added = TextEmbeddingNoise(0.15, place, seed=6, start=0)(v, KEYS, 0) - v
    # |noise|^2 / s^2 is chi-squared with 512 degrees of freedom
    assert float(added.norm(dim=1).mean()) == pytest.approx(length, rel=5 / math.sqrt(2 * 512 * 400) + 1 / (4 * 512))


# ---- the streams


def test_noise_depends_on_seed_step_pair_view_and_tower_only():
    noise, v = TextEmbeddingNoise(0.1, seed=1, start=0), torch.zeros(400, 16)
    whole = noise(v, KEYS, 7)
    order = np.random.default_rng(0).permutation(400)[:31]
    assert torch.equal(noise(v[:31], KEYS[order], 7), whole[order])
    assert torch.equal(TextEmbeddingNoise(0.1, seed=1, start=0)(v, KEYS, 7), whole)
    for other in (
        noise(v, KEYS, 8),
        noise(v, KEYS, 7, view=1),
        TextEmbeddingNoise(0.1, seed=2, start=0)(v, KEYS, 7),
        ImageEmbeddingNoise(0.1, seed=1, start=0)(v, KEYS, 7),
    ):
        assert abs(float(torch.corrcoef(torch.stack([other.ravel(), whole.ravel()]))[0, 1])) < 0.06


def test_calls_are_counted_where_no_step_is_given_and_the_count_is_state():
    noise, v = TextEmbeddingNoise(0.1, start=0), torch.zeros(3, 4)
    first, second = noise(v), noise(v)
    assert not torch.equal(first, second)
    again = TextEmbeddingNoise(0.1, start=0)
    again.load_state_dict({"step": torch.tensor(1)})
    assert torch.equal(again(v), second)
    rows = np.arange(3, dtype=np.uint64)
    assert torch.equal(first, noise(v, rows, 0))


@given(
    start=st.floats(0, 1, exclude_max=True),
    steps=st.integers(1, 40),
    place=st.sampled_from(PLACES),
    keyed=st.booleans(),
)
def test_no_noise_before_the_start_and_the_same_stream_after_it(start, steps, place, keyed):
    v, late = torch.zeros(3, 4), TextEmbeddingNoise(0.1, place, seed=4, start=start, steps=steps)
    early = TextEmbeddingNoise(0.1, place, seed=4, start=0)
    for step in range(steps):
        where = (KEYS[:3], step) if keyed else ()
        found, always = late(v, *where), early(v, *where)
        assert torch.equal(found, v if step < round(start * steps) else always), step
    assert int(late.step) == int(early.step) == (0 if keyed else steps)


def test_evaluation_does_not_count_as_training():
    noise, v = TextEmbeddingNoise(0.1, start=0.5, steps=4), torch.zeros(3, 4)
    for _ in range(5):
        assert noise.eval()(v) is v
    assert [torch.equal(noise.train()(v), v) for _ in range(4)] == [True, True, False, False]


def test_nothing_in_evaluation_or_with_zero():
    v = torch.randn(3, 4)
    assert TextEmbeddingNoise(0.0)(v) is v
    assert TextEmbeddingNoise(0.3, start=0).eval()(v) is v


def test_gradient_passes_unchanged():
    v = torch.randn(3, 4, requires_grad=True)
    (TextEmbeddingNoise(0.2, start=0)(v) * torch.arange(12.0).view(3, 4)).sum().backward()
    assert torch.equal(v.grad, torch.arange(12.0).view(3, 4))


@pytest.mark.parametrize(
    ("arguments", "what", "got"),
    [
        ({"std": -0.1}, "std", "-0.1"),
        ({"std": math.nan}, "std", "nan"),
        ({"std": 0.1, "place": "before"}, "place", "'before'"),
        ({"std": 0.1, "start": 1.0, "steps": 9}, "start", "1.0"),
        ({"std": 0.1, "start": -0.1, "steps": 9}, "start", "-0.1"),
        ({"std": 0.1, "start": math.nan, "steps": 9}, "start", "nan"),
        ({"std": 0.1}, "steps", "None"),  # a third of an unknown length is no step
        ({"std": 0.1, "start": 0.5, "steps": 0}, "steps", "0"),
    ],
)
def test_wrong_arguments_are_explained(arguments, what, got):
    with pytest.raises(InputError) as caught:
        TextEmbeddingNoise(**arguments)
    assert (caught.value.what, caught.value.got) == (f"TextEmbeddingNoise {what}", got)


# ---- in the loop


def slow(raw, place, std, keys, seed, step, kind="text"):
    """The three equations of the module, one number at a time."""
    n, d = raw.shape
    out = torch.empty(n, d, dtype=torch.float64)
    for i in range(n):
        u = uniform(keys[i : i + 1], derive_seed(seed, f"{kind} noise", step), d)[0]
        row = [float(x) for x in raw[i]]
        noise = [float(stats.norm.ppf(x)) for x in u]
        length = math.sqrt(math.fsum(x * x for x in row))
        if place == "pre":
            row = [x + std * e for x, e in zip(row, noise, strict=True)]
            length = math.sqrt(math.fsum(x * x for x in row))
            out[i] = torch.tensor([x / length for x in row], dtype=torch.float64)
        else:
            s = std / math.sqrt(d) if place == "post-scaled" else std
            out[i] = torch.tensor([x / length + s * e for x, e in zip(row, noise, strict=True)], dtype=torch.float64)
    return out


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("kind", ["text", "image"])
def test_hook_follows_the_equations(encoder, place, kind):
    hook, raw = hooked(TextNoise if kind == "text" else ImageNoise, 0.2, place, seed=9), torch.randn(5, 6) * 3
    towers = Towers(encoder, "fp32", "cpu", hooks=Hooks((hook,)), moment=moment(KEYS[:5], step=4, seed=9))
    assert torch.allclose(towers.unit(kind, raw).double(), slow(raw, place, 0.2, KEYS, 9, 4, kind), atol=1e-5)
    other = "image" if kind == "text" else "text"
    assert torch.equal(towers.unit(other, raw), F.normalize(raw, dim=-1))


@pytest.fixture(scope="module")
def encoder():
    return openclip.create("clipmem-micro", seed=7)


@pytest.mark.parametrize("place", PLACES)
def test_open_clips_loss_with_our_noise_is_our_loss(encoder, place):
    """A user's loop of open_clip's features and loss with the noise between, and our objective with the hook."""
    model = encoder.module.train()
    keys, tokens = KEYS[:9], encoder.tokenize([f"thing number {k}" for k in range(9)])
    pixels = torch.randn(9, 3, encoder.image_size, encoder.image_size, generator=torch.Generator().manual_seed(3))
    noise, theirs, loss = TextEmbeddingNoise(0.15, place, seed=2, start=0), ClipLoss(), Clip()
    padded = F.pad(tokens, (0, model.context_length - tokens.shape[1]))
    for step in range(3):
        hooks = Hooks((hooked(TextNoise, 0.15, place, seed=2),))
        towers = Towers(encoder, "fp32", "cpu", hooks=hooks, moment=moment(keys, step, seed=2))
        ours = loss(towers, [pixels], tokens, None)
        image, text = model.encode_image(pixels, normalize=True), model.encode_text(padded)
        text = (
            F.normalize(noise(text, keys, step), dim=-1)
            if place == "pre"
            else noise(F.normalize(text, dim=-1), keys, step)
        )
        assert float(ours.detach()) == pytest.approx(
            float(theirs(image, text, model.logit_scale.exp()).detach()), abs=2e-5
        )


def test_two_views_have_noise_of_their_own(encoder):
    views = [torch.randn(4, 3, encoder.image_size, encoder.image_size) for _ in range(2)]
    hooks = Hooks((hooked(ImageNoise, 0.3),))
    towers = Towers(encoder, "fp32", "cpu", hooks=hooks, moment=moment(KEYS[:4]))
    first, second = towers.encode_image(torch.cat(views)).chunk(2)
    noise = ImageEmbeddingNoise(0.3, start=0)
    u = noise(F.normalize(first, dim=-1), KEYS[:4], 0)
    v = noise(F.normalize(second, dim=-1), KEYS[:4], 0, view=1)
    loss = SimClr(0.1)
    expected = nt_xent(u, v, 0.1)
    found = loss(towers, views, torch.zeros(4, 1, dtype=torch.long), None)
    assert float(found.detach()) == pytest.approx(float(expected.detach()))


def fit(folder, hooks):
    encoder = openclip.create("clipmem-micro", seed=7)
    train(Towers(encoder, hooks=Hooks(hooks)), data_of(range(N)), plan_of(range(N)), section(), folder)
    return json.loads((folder / "record.json").read_text()), (folder / "log.jsonl").read_text()


def test_zero_is_bitwise_no_mitigation_and_more_is_not(tmp_path):
    plain, log = fit(tmp_path / "plain", ())
    zero, log_of_zero = fit(tmp_path / "zero", (hooked(TextNoise, 0.0), hooked(ImageNoise, 0.0), Hook()))
    some, _ = fit(tmp_path / "some", (hooked(TextNoise, 0.1),))
    again, _ = fit(tmp_path / "again", (hooked(TextNoise, 0.1),))
    assert (zero["final_sha256"], log_of_zero) == (plain["final_sha256"], log)
    assert some["final_sha256"] == again["final_sha256"] != plain["final_sha256"]
    assert "mitigate" not in plain
    assert some["mitigate"] == {"text_noise": {"std": 0.1, "place": "post", "start": 0.0}}
    assert some["settings_sha256"] != plain["settings_sha256"]
    assert some["samples_seen"] == plain["samples_seen"] == 2 * N


def test_a_training_has_no_noise_before_the_start_and_a_plain_loop_agrees(tmp_path, monkeypatch):
    """Bitwise the run without noise up to the start; at each step the hook adds what a loop by hand adds."""
    added, inside = {}, TextNoise._added

    def watched(self, kind, embeddings, moment, view):
        found = inside(self, kind, embeddings, moment, view)
        if kind == "text":
            by_hand = TextEmbeddingNoise(0.2, seed=0, start=0)(embeddings, moment.keys, moment.step)
            assert torch.equal(found, embeddings if moment.step < 3 else by_hand)
            added[moment.step] = not torch.equal(found, embeddings)
        return found

    monkeypatch.setattr(TextNoise, "_added", watched)
    hook = TextNoise(NoiseSection(std=0.2, start=0.5), 0)
    _, late = fit(tmp_path / "late", (hook,))
    _, plain = fit(tmp_path / "plain", ())
    steps = len(added)
    assert [step for step in range(steps) if added[step]] == [3, 4, 5]
    losses = [[json.loads(line)["loss"] for line in log.splitlines()] for log in (late, plain)]
    assert losses[0][:3] == losses[1][:3]
    assert losses[0][3] != losses[1][3]


def test_a_checkpoint_of_another_noise_is_not_taken_up(tmp_path):
    def go(std, stop_after=None):
        seen = []

        def stop():
            seen.append(1)
            return len(seen) == stop_after

        timing = Timing()
        train(
            Towers(openclip.create("clipmem-micro", seed=7), hooks=Hooks((hooked(TextNoise, std, start=0.5),))),
            data_of(range(N)),
            plan_of(range(N)),
            section(),
            tmp_path / "model",
            Session(checkpoints=Checkpoints(tmp_path / "checkpoint", 1e9, stop), timing=timing),
        )
        return timing.pairs, (tmp_path / "model" / "record.json").read_text()

    with pytest.raises(TrainingStopped):
        go(0.1, stop_after=4)
    shown, other = go(0.2)
    assert shown == 2 * N
    shown, gone_on = go(0.1)
    assert shown == N - 6  # the steps that were missing
    (tmp_path / "checkpoint").unlink()
    assert go(0.1) == (2 * N, gone_on)
    assert gone_on != other
