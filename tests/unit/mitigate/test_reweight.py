"""Reweighting: the weights of the equation, the weighted loss, and trainings that resume to the same bytes."""

import json

import numpy as np
import polars as pl
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

import clipmem
from clipmem.base.errors import InputError
from clipmem.base.folder import RunFolder
from clipmem.base.mitigations import ReweightSection
from clipmem.mitigate.base import Training
from clipmem.mitigate.reweight import TABLE, Reweight, pair_weights
from clipmem.models import openclip
from clipmem.models.openclip import contrastive_loss
from clipmem.study.plan import PlannedStudy
from clipmem.train.checkpoint import CHECKPOINT_FILE, Checkpoints, TrainingStopped
from clipmem.train.distributed import ALONE, contrastive_share
from clipmem.train.hooks import Hook, Hooks
from clipmem.train.loop import Session, train
from clipmem.train.objectives import Towers
from clipmem.train.objectives.contrastive import blocked_contrastive_loss
from tests.tiny import tiny_recipe
from tests.unit.train.test_checkpoint import contents
from tests.unit.train.test_loop import N, data_of, plan_of, section


def slow_ranks(values):
    return [sum(b < a for b in values) + (1 + sum(b == a for b in values)) / 2 for a in values]


def slow_weights(agreement, margin, share):
    n = len(agreement)
    by_image, by_caption = (slow_ranks([row[k] for row in agreement]) for k in (0, 1))
    means = {}
    for i in range(n):
        seen = [epoch[i] for epoch in margin if not np.isnan(epoch[i])]
        if seen:
            means[i] = sum(seen) / len(seen)
    own = dict(zip(means, slow_ranks(list(means.values())), strict=True))
    total = [by_image[i] + by_caption[i] + own.get(i, (by_image[i] + by_caption[i]) / 2) for i in range(n)]
    return [min(1, rank / (share * n)) for rank in slow_ranks(total)]


@given(data=st.data(), n=st.integers(2, 9), epochs=st.integers(0, 3), share=st.sampled_from([0.1, 0.5, 0.9]))
def test_the_weights_of_the_equation(data, n, epochs, share):
    numbers = st.integers(-3, 3).map(float)  # with ties
    agreement = np.array(data.draw(st.lists(st.tuples(numbers, numbers), min_size=n, max_size=n)))
    cells = st.one_of(numbers, st.just(float("nan")))
    margin = np.array([data.draw(st.lists(cells, min_size=n, max_size=n)) for _ in range(epochs)]).reshape(epochs, n)
    found = pair_weights(agreement, margin, share=share)
    assert found.tolist() == pytest.approx(slow_weights(agreement.tolist(), margin.tolist(), share), rel=1e-6)
    assert 0 < found.min() <= found.max() <= 1
    order = np.random.default_rng(0).permutation(n)
    assert np.array_equal(pair_weights(agreement[order], margin[:, order], share=share), found[order])


@pytest.mark.parametrize("block", [2, 100])
def test_the_weighted_loss(block):
    drawn = torch.Generator().manual_seed(0)
    u, v = (torch.randn(7, 4, generator=drawn).requires_grad_() for _ in range(2))
    log_scale, w = torch.tensor(2.0, requires_grad=True), torch.rand(7, generator=drawn)

    def slow(u, v, s):
        z = s * u @ v.T
        terms = [z[i].logsumexp(0) + z[:, i].logsumexp(0) - 2 * z[i, i] for i in range(7)]
        return sum(w[i] * term for i, term in enumerate(terms)) / (2 * w.sum())

    results = []
    for loss in (slow, lambda u, v, s: blocked_contrastive_loss(u, v, s, w, block=block)):
        value = 3 * loss(F.normalize(u, dim=1), F.normalize(v, dim=1), log_scale.exp())
        results.append([value.detach(), *torch.autograd.grad(value, [u, v, log_scale])])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)
    u, v = F.normalize(u, dim=1).detach(), F.normalize(v, dim=1).detach()
    share = contrastive_share(u, v, log_scale.exp(), ALONE, w)  # of a single process: the whole loss
    torch.testing.assert_close(share, slow(u, v, log_scale.exp()))
    same = blocked_contrastive_loss(F.normalize(u), F.normalize(v), log_scale.exp(), torch.full((7,), 0.3), block=block)
    torch.testing.assert_close(same, contrastive_loss(F.normalize(u), F.normalize(v), log_scale.exp()))


def hook(share=0.5):
    agreement = np.random.default_rng(3).random((N, 2))
    return Reweight(ReweightSection(share=share), 0, agreement)


def fit(folder, *hooks, file=None, stop_after=None, **changes):
    seen = []

    def stop():
        seen.append(1)
        return len(seen) == stop_after

    return train(
        Towers(openclip.create("clipmem-micro", seed=7), hooks=Hooks(hooks)),
        data_of(range(N)),
        plan_of(range(N)),
        section(epochs=4, batch_size=7, **changes),
        folder,
        Session(checkpoints=Checkpoints(file, 1e9, stop) if file else None),
    )


class Ones(Hook):
    name, changes = "ones", False

    def weigh(self, weights, moment):
        return weights * torch.ones(len(moment.slots))


def test_weight_one_everywhere_is_the_plain_training(tmp_path):
    fit(tmp_path / "plain")
    fit(tmp_path / "ones", Ones())
    fit(tmp_path / "hook", hook())
    assert contents(tmp_path / "ones") == contents(tmp_path / "plain")
    own, plain = contents(tmp_path / "hook"), contents(tmp_path / "plain")
    assert own.keys() == plain.keys()  # no trajectory unless asked for
    assert [name for name in own if own[name] == plain[name] and name.endswith(".safetensors")] == []


@pytest.mark.parametrize("stop", [2, 4, 7])
def test_resumes_with_the_same_bytes(tmp_path, stop):
    fit(tmp_path / "whole", hook(), record=True)
    file = tmp_path / "parts" / CHECKPOINT_FILE
    with pytest.raises(TrainingStopped):
        fit(tmp_path / "parts", hook(), file=file, stop_after=stop, record=True)
    fit(tmp_path / "parts", hook(), file=file, record=True)
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")


def test_the_margins_so_far_count(tmp_path):
    seen = {}

    class Spy(Reweight):
        def weigh(self, weights, moment):
            found = super().weigh(weights, moment)
            seen[moment.epoch] = self._weights.numpy().copy()
            return found

    spy = Spy(ReweightSection(share=0.5), 0, hook()._agreement)
    fit(tmp_path, spy, record=True)
    margin = np.load(tmp_path / "trajectory.npz")["margin"]
    for epoch, weights in seen.items():
        assert np.array_equal(weights, pair_weights(spy._agreement, margin[:epoch], share=0.5))
    assert not np.array_equal(seen[0], seen[3])


@pytest.mark.slow
def test_a_study(tmp_path):
    settings = ("train.seeds=[0]", "train.epochs=3", "mitigate.reweight.share=0.3")
    recipe = tiny_recipe(*settings)
    run = clipmem.run(recipe, tmp_path / "run")
    table = RunFolder(run.path).read(TABLE)
    assert set(table["uid"]) == set(run.splits.filter(pl.col("role") != "external")["uid"])
    records = [json.loads((run.path / "models" / side / "seed-0" / "record.json").read_text()) for side in "fg"]
    assert records[0]["mitigate"] == records[1]["mitigate"] == {"reweight": {"share": 0.3}}
    # shared pairs have the same testimony in f and g
    study = PlannedStudy(run.path)
    f, g = (Reweight.hook(Training(recipe, plan, study.folder, study.splits)) for plan in study.models)
    shared = study.models[0].shared
    assert np.array_equal(f._agreement[:shared], g._agreement[:shared])
    assert f.content() != g.content()


@pytest.mark.parametrize("objective", ["siglip", "simclr", "supervised"])
def test_other_objectives_are_refused(objective):
    more = ("score.alignment=sslmem-image", "embed.views=6") if objective != "siglip" else ()
    with pytest.raises(InputError) as caught:
        tiny_recipe(f"train.objective={objective}", "mitigate.reweight.share=0.3", *more)
    assert "[mitigate.reweight]" in str(caught.value)
