"""Checkpoints: interrupted anywhere, a training ends with the bytes of an undisturbed one."""

import json
import random
from pathlib import Path

import pytest
import torch

from clipmem.base.recipes import load_recipe
from clipmem.models import openclip
from clipmem.train import checkpoint, loop
from clipmem.train.batches import TextTokens
from clipmem.train.checkpoint import CHECKPOINT_FILE, LOG_FILE, Checkpoints, StepLog, TrainingStopped, sweep
from clipmem.train.hooks import Hooks
from clipmem.train.loop import Session, Timing, train
from clipmem.train.objectives import Towers
from tests.unit.models.test_openclip import PLAIN, build
from tests.unit.train.test_loop import N, data_of, plan_of, section

SETTINGS = {"epochs": 5, "batch_size": 7}
STEPS = 5 * 3


def fit(folder, *, file=None, stop_after=None, every=1e9, encoder=None, seed=0, timing=None, **changes):
    """Train; with `stop_after` it is asked to stop after so many steps of this call."""
    seen = []

    def stop():
        seen.append(1)
        return len(seen) == stop_after

    checkpoints = Checkpoints(file, every, stop) if file else None
    return train(
        Towers(encoder or openclip.create("clipmem-micro", seed=7)),
        data_of(range(N)),
        plan_of(range(N), seed=seed),
        section(**{**SETTINGS, **changes}),
        folder,
        Session(checkpoints=checkpoints, timing=timing or Timing()),
    )


def contents(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir() if not file.name.startswith("checkpoint.")}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    fit(folder)
    return contents(folder)


@pytest.mark.parametrize("draw", range(4))
def test_stopped_at_random_steps_and_gone_on(tmp_path, undisturbed, draw):
    file, left, stops = tmp_path / CHECKPOINT_FILE, STEPS, 0
    drawn = random.Random(draw)
    while left > 1 and stops < 4:
        steps = drawn.randrange(1, left)
        with pytest.raises(TrainingStopped):
            fit(tmp_path, file=file, stop_after=steps)
        left, stops = left - steps, stops + 1
        assert {path.name for path in tmp_path.iterdir()} == {CHECKPOINT_FILE, LOG_FILE}
    timing = Timing()
    fit(tmp_path, file=file, timing=timing)
    assert timing.pairs == 6 * left  # only what was missing was shown
    assert contents(tmp_path) == undisturbed
    assert json.loads(undisturbed["record.json"])["final_sha256"] in (tmp_path / "record.json").read_text()


@pytest.mark.parametrize("objective", ["siglip", "simclr"])
def test_other_objectives_go_on_too(tmp_path, objective):
    fit(tmp_path / "whole", objective=objective)
    file = tmp_path / "parts" / CHECKPOINT_FILE
    with pytest.raises(TrainingStopped):
        fit(tmp_path / "parts", file=file, stop_after=8, objective=objective)
    fit(tmp_path / "parts", file=file, objective=objective)
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")


def test_how_often_changes_nothing_and_the_last_one_can_be_used(tmp_path, undisturbed):
    file = tmp_path / CHECKPOINT_FILE
    fit(tmp_path, file=file, every=0.0)
    assert contents(tmp_path) == undisturbed
    timing = Timing()
    fit(tmp_path, file=file, timing=timing)  # killed after the files, before the marker
    assert (contents(tmp_path), timing.pairs) == (undisturbed, 6)


def test_layers_that_draw_go_on_in_their_own_stream(tmp_path):
    config = {**PLAIN, "vision_cfg": {**PLAIN["vision_cfg"], "image_size": 32, "patch_dropout": 0.5}}
    (tmp_path / "c").mkdir()

    def fresh():
        return build(tmp_path / "c", config)

    torch.manual_seed(1)
    fit(tmp_path / "whole", encoder=fresh())
    torch.manual_seed(2)  # and what the process drew before does not matter
    file = tmp_path / "parts" / CHECKPOINT_FILE
    with pytest.raises(TrainingStopped):
        fit(tmp_path / "parts", file=file, stop_after=4, encoder=fresh())
    torch.rand(100)
    fit(tmp_path / "parts", file=file, encoder=fresh())
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")


@pytest.mark.parametrize("damage", ["torn", "garbage", "empty", "no metadata", "folder", "short log", "no log"])
def test_a_broken_checkpoint_is_not_used(tmp_path, undisturbed, damage):
    file = tmp_path / CHECKPOINT_FILE
    with pytest.raises(TrainingStopped):
        fit(tmp_path, file=file, stop_after=5)
    whole = file.read_bytes()
    log = file.with_name(LOG_FILE)
    if damage == "no log":
        log.unlink()
    elif damage == "short log":
        log.write_text("".join(log.read_text().splitlines(keepends=True)[:-1]))
    elif damage == "folder":
        file.unlink()
        file.mkdir()
    elif damage == "no metadata":
        file.write_bytes(checkpoint.save_safetensors({"random": torch.zeros(1)}))
    else:
        file.write_bytes({"torn": whole[: len(whole) // 2], "garbage": b"\x00\xff" * 500, "empty": b""}[damage])
    timing = Timing()
    fit(tmp_path, file=file, timing=timing)
    assert timing.pairs == 6 * STEPS
    assert contents(tmp_path) == undisturbed


@pytest.mark.parametrize("change", [{"lr": 2e-3}, {"seed": 1}, {"epochs": 6}, {"objective": "siglip"}])
def test_the_checkpoint_of_another_training_is_not_used(tmp_path, undisturbed, change):
    file = tmp_path / CHECKPOINT_FILE
    with pytest.raises(TrainingStopped):
        fit(tmp_path, file=file, stop_after=5, **change)
    timing = Timing()
    fit(tmp_path, file=file, timing=timing)
    assert timing.pairs == 6 * STEPS
    assert contents(tmp_path) == undisturbed


def test_another_image_is_another_training(tmp_path):
    plan, texts = plan_of(range(N)), TextTokens(torch.zeros(1, 2, dtype=torch.long), *[torch.ones(1).numpy()] * 2)
    one, other = data_of(range(N)), data_of([*range(1, N), 0])
    assert loop._identity({}, one, plan, texts, Hooks()) != loop._identity({}, other, plan, texts, Hooks())
    assert loop._identity({}, one, plan, texts, Hooks()) == loop._identity({}, data_of(range(N)), plan, texts, Hooks())


def test_sweep_removes_checkpoints_only(tmp_path):
    folder = tmp_path / "models" / "f" / "seed-0"
    folder.mkdir(parents=True)
    for name in (
        CHECKPOINT_FILE,
        LOG_FILE,
        f".{CHECKPOINT_FILE}.123.tmp",
        "record.json",
        "open_clip_model.safetensors",
    ):
        (folder / name).write_text("x")
    sweep(tmp_path / "models")
    assert sorted(file.name for file in folder.iterdir()) == ["open_clip_model.safetensors", "record.json"]


@pytest.mark.slow
def test_a_log_of_many_steps_is_saved_and_read_back(tmp_path):
    log, file = StepLog(), tmp_path / LOG_FILE
    log.entries = [{"step": k, "epoch": 0, "loss": 1.25, "lr": 1e-3, "logit_scale": 14.5} for k in range(1, 200_001)]
    log.save(file)
    log.add(torch.tensor(2.0), torch.tensor(15.0), step=200_001, epoch=0, lr=1e-3)
    assert log.settle() is None
    log.save(file)  # the new entry alone is appended
    again = StepLog()
    assert again.load(file, 200_001)
    assert again.entries[-1] == {"step": 200_001, "epoch": 0, "loss": 2.0, "lr": 1e-3, "logit_scale": 15.0}
    assert again.load(file, 199_999)  # a checkpoint from before the last append
    assert len(again.entries) == len(file.read_text().splitlines()) == 199_999
    again.save(file)  # appends: a kill in the middle of it loses nothing of what a checkpoint needs
    assert StepLog().load(file, 199_999)
    assert not again.load(file, 200_002)
    again.add(torch.tensor(float("nan")), torch.tensor(15.0), step=7, epoch=0, lr=1e-3)
    assert again.settle()["step"] == 7


def test_where_the_time_goes(tmp_path):
    timing = Timing()
    fit(tmp_path, timing=timing)
    assert timing.pairs == N * SETTINGS["epochs"]
    assert 0 < timing.data_share < 1
    assert timing.rate == pytest.approx(timing.pairs / (timing.data + timing.compute))


def test_every_minute_by_default():
    assert load_recipe("").train.model_dump().keys().isdisjoint({"checkpoint", "every"})  # no part of a recipe
    assert Checkpoints(Path("x")).every == 60.0
