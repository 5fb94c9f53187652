"""The recorder: what is recorded, that training does not notice, resume, other loops, and reading it back."""

import copy
import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from clipmem.base.errors import InputError
from clipmem.base.recipes import load_recipe
from clipmem.models import openclip
from clipmem.train import loop, recorder
from clipmem.train.checkpoint import CHECKPOINT_FILE, Checkpoints, TrainingStopped
from clipmem.train.hooks import Hook, Hooks
from clipmem.train.loop import Session, train
from clipmem.train.objectives import Towers
from clipmem.train.recorder import TRAJECTORY_FILE, AlignmentRecorder, read_trajectory
from tests.reference.loops_trajectory import batch_values
from tests.unit.train.test_loop import N, data_of, plan_of, section, uid

UIDS = [uid(k) for k in range(N)]


@pytest.fixture(scope="module")
def micro():
    return openclip.create("clipmem-micro", seed=7)


@pytest.fixture
def fit(micro):
    def run(folder, *, hooks=(), plan=None, checkpoints=None, **changes):
        encoder = openclip.OpenClipEncoder(copy.deepcopy(micro.module), micro.config, micro._tokenizer)
        settings = section(**{"epochs": 3, "batch_size": 7, "record": True, **changes})
        return train(
            Towers(encoder, hooks=Hooks(tuple(hooks))),
            data_of(range(N)),
            plan or plan_of(range(N)),
            settings,
            folder,
            Session(checkpoints=checkpoints),
        )

    return run


def batch(seed, n, d=5):
    drawn = torch.randn(2, n, d, generator=torch.Generator().manual_seed(seed))
    return drawn[0], drawn[1]


@given(st.integers(0, 2**32 - 1), st.integers(1, 9), st.floats(0.1, 100))
def test_a_step_against_loops(seed, n, length):
    image, text = batch(seed, n)
    found = AlignmentRecorder(n)
    found.update(range(n), image * length, text, 0)
    similarity, margin = batch_values(image.tolist(), text.tolist())
    assert found.similarity[0] == pytest.approx(similarity, abs=1e-5)
    assert found.margin[0] == pytest.approx(margin, abs=1e-5, nan_ok=True)
    assert np.isnan(found.margin).all() == (n == 1)


@given(st.integers(0, 2**32 - 1), st.permutations(range(8)))
def test_the_order_of_a_batch_does_not_matter(seed, order):
    image, text = batch(seed, 8)
    one, other = AlignmentRecorder(8), AlignmentRecorder(8)
    one.update(range(8), image, text, 0)
    other.update(order, image[order], text[order], 0)
    assert one.margin == pytest.approx(other.margin, abs=1e-6)


def test_blocks_change_nothing(monkeypatch):
    image, text = batch(0, 11)
    one, other = AlignmentRecorder(11), AlignmentRecorder(11)
    one.update(np.arange(11), image, text, 0)
    monkeypatch.setattr(recorder, "_BLOCK", 4)
    other.update(torch.arange(11), image, text, 0)
    assert one.margin == pytest.approx(other.margin, abs=1e-6)


def test_half_precision_is_computed_in_full():
    image, text = (F.normalize(rows, dim=-1) for rows in batch(0, 6, d=64))
    one, other = AlignmentRecorder(6), AlignmentRecorder(6)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        one.update(range(6), image, text, 0)
    other.update(range(6), image, text, 0)
    assert np.array_equal(one.margin, other.margin)


class _Batches(Hook):
    """Keeps what the loss got in each step."""

    name, changes = "batches", False

    def __init__(self):
        self.seen = []

    def unit(self, kind, unit, moment, view):
        self.seen.append((kind, moment, unit.detach().clone()))
        return unit


def test_a_training_is_recorded_as_it_was_shown(fit, tmp_path):
    kept = _Batches()
    files = fit(tmp_path, hooks=[kept])
    assert tmp_path / TRAJECTORY_FILE in files
    found = read_trajectory(tmp_path, UIDS)
    assert found.similarity.shape == found.margin.shape == (3, N)
    assert not np.isnan(found.margin).any()
    images, texts = ([one for one in kept.seen if one[0] == kind] for kind in ("image", "text"))
    assert len(images) == 9
    for (_, moment, u), (_, same, v) in zip(images, texts, strict=True):
        assert moment == same
        similarity, margin = batch_values(u.tolist(), v.tolist())
        assert found.similarity[moment.epoch, moment.slots] == pytest.approx(similarity, abs=1e-5)
        assert found.margin[moment.epoch, moment.slots] == pytest.approx(margin, abs=1e-5)


@pytest.mark.parametrize("objective", ["clip", "siglip"])
def test_training_does_not_notice(fit, tmp_path, objective):
    for name, record in (("with", True), ("without", False)):
        fit(tmp_path / name, record=record, objective=objective)
    files = [{file.name: file.read_bytes() for file in (tmp_path / name).iterdir()} for name in ("with", "without")]
    assert files[0].pop(TRAJECTORY_FILE)
    assert files[0] == files[1]
    assert "mitigate" not in json.loads(files[0]["record.json"])


@pytest.mark.parametrize("steps", [1, 4, 8])
def test_stopped_and_resumed(fit, tmp_path, steps):
    fit(tmp_path / "whole")
    file, seen = tmp_path / "parts" / CHECKPOINT_FILE, []
    with pytest.raises(TrainingStopped):
        fit(tmp_path / "parts", checkpoints=Checkpoints(file, 1e9, lambda: seen.append(1) or len(seen) == steps))
    assert not (tmp_path / "parts" / TRAJECTORY_FILE).exists()
    fit(tmp_path / "parts", checkpoints=Checkpoints(file))
    assert (tmp_path / "parts" / TRAJECTORY_FILE).read_bytes() == (tmp_path / "whole" / TRAJECTORY_FILE).read_bytes()


def test_pairs_left_out_and_epochs_not_reached_are_nan(fit, tmp_path):
    class Early(Hook):
        def last_step(self, steps):
            return steps - 5  # of three epochs with three steps

    fit(tmp_path, plan=loop.replace(plan_of(range(N)), left_out=UIDS[4]), hooks=[Early()])
    found = read_trajectory(tmp_path, UIDS)
    for values in found.similarity, found.margin:
        assert np.isnan(values[:, 4]).all()
        assert np.isnan(values).sum(1).tolist()[0] == 1
        assert 1 < np.isnan(values).sum(1).tolist()[1] < N
        assert np.isnan(values[2]).all()


def test_noise_on_unit_vectors_is_not_recorded(fit, tmp_path):
    class Loud(Hook):
        name = "loud"

        def unit(self, kind, unit, moment, view):
            return unit * 100 if moment.step == 0 else unit

    fit(tmp_path, hooks=[Loud()])
    assert np.abs(read_trajectory(tmp_path, UIDS).similarity).max() <= 1.00001


def test_another_loop(tmp_path):
    image, text = batch(0, 4)
    found = AlignmentRecorder(["d", "b", "a", "ü"])
    for epoch in range(20):  # more steps than wait for the accelerator
        found.update([3, 1], image[:2].requires_grad_(), text[:2] * (1 if epoch else -1), epoch)
    found.update([0], image[2:3], text[2:3], 0)
    read = read_trajectory(found.save(tmp_path / "one.npz"), ["ü", "b"])
    assert np.array_equal(read.margin, found.margin[:, [3, 1]])
    assert read.similarity[0] == pytest.approx(-read.similarity[1])
    assert np.isnan(found.margin[:, 2]).all()
    assert np.isnan(found.similarity[:, 0]).tolist() == [False] + [True] * 19


def test_resumed_in_another_loop():
    image, text = batch(0, 4)
    one, other = AlignmentRecorder(4, epochs=2), AlignmentRecorder(4, epochs=2)
    one.update(range(4), image, text, 0)
    for name, values in other.tensors().items():
        values.copy_(one.tensors()[name])
    for each in one, other:
        each.update([2, 1], image[:2], text[:2], 1)
    assert np.array_equal(one.margin, other.margin, equal_nan=True)


@pytest.mark.parametrize(
    ("change", "what", "got"),
    [
        ({"indices": [0, 4]}, "indices", "4"),
        ({"indices": [0, -1]}, "indices", "-1"),
        ({"indices": [0]}, "recorder.update", "1 indices"),
        ({"indices": []}, "recorder.update", "0 indices"),
        ({"text": torch.zeros(3, 5)}, "recorder.update", "(3, 5)"),
        ({"text": torch.zeros(2, 4)}, "recorder.update", "(2, 4)"),
        ({"image": torch.zeros(2), "text": torch.zeros(2)}, "recorder.update", "(2,)"),
        ({"epoch": -1}, "epoch", "-1"),
    ],
)
def test_bad_steps(change, what, got):
    image, text = batch(0, 2)
    arguments = {"indices": [0, 1], "image": image, "text": text, "epoch": 0, **change}
    with pytest.raises(InputError) as caught:
        AlignmentRecorder(4).update(**arguments)
    assert what in caught.value.what
    assert got in caught.value.got


@pytest.mark.parametrize("pairs", [0, -1, [], ["a", "a"]])
def test_bad_pairs(pairs):
    with pytest.raises(InputError) as caught:
        AlignmentRecorder(pairs)
    assert caught.value.what == "AlignmentRecorder pairs"


@pytest.mark.parametrize("objective", ["simclr", "supervised"])
def test_objectives_without_pairs_are_refused_before_training(objective):
    settings = ["train.record=true", f"train.objective={objective}", "score.alignment=sslmem-image", "embed.views=2"]
    with pytest.raises(InputError, match="record"):
        load_recipe("", settings)
    load_recipe("", settings[1:])


def stored(**changes):
    values = np.zeros((2, 3), np.float32)
    return {"similarity": values, "margin": values, "uids": np.array([b"a", b"b", b"c"]), **changes}


@pytest.mark.parametrize(
    "damage",
    ["none", "text", "empty", "cut", "pickle", {"uids": np.array([b"a"])}, {"margin": np.zeros((1, 3), np.float32)},
     {"margin": np.zeros((2, 3))}, {"uids": np.arange(3)}, {"similarity": np.zeros(3, np.float32)}, {"margin": None}],
)  # fmt: skip
def test_bad_files(tmp_path, damage):
    file = tmp_path / TRAJECTORY_FILE
    np.savez(file, **{key: value for key, value in stored(**(damage if isinstance(damage, dict) else {})).items()
                      if value is not None})  # fmt: skip
    if damage == "none":
        file.unlink()
    elif damage == "pickle":
        np.savez(file, **stored(uids=np.array(["a", None, 3], dtype=object)))
    elif isinstance(damage, str):
        whole = file.read_bytes()
        file.write_bytes({"text": b"similarity", "empty": b"", "cut": whole[: len(whole) // 2]}[damage])
    with pytest.raises(InputError) as caught:
        read_trajectory(tmp_path if damage != "none" else file, ["a"])
    assert caught.value.what == str(file)


def test_pairs_of_another_model(tmp_path):
    np.savez(tmp_path / TRAJECTORY_FILE, **stored())
    assert read_trajectory(tmp_path, ["c", "a"]).margin.shape == (2, 2)
    with pytest.raises(InputError) as caught:
        read_trajectory(tmp_path, ["a", "x", "y"])
    assert "2 of 3 pairs" in caught.value.got
