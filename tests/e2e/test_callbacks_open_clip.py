"""The wrappers in open_clip's own trainer: what is logged is what the monitor computes by hand."""

import argparse
import csv
import json
import logging
from importlib.resources import files

import numpy as np
import open_clip
import pytest
import torch

from clipmem.base.errors import InputError
from clipmem.integrations.monitor import Monitor
from clipmem.integrations.open_clip import MemorizationCallback, ReweightCallback
from clipmem.mitigate.reweight import Reweighting
from tests.overfitting import OverfittingEmbeddings
from tests.tiny import encoded_image

for _package in ("pandas", "webdataset"):
    pytest.importorskip(_package, reason="open_clip's trainer needs the extra `bench`: pip install '.[bench]'")

import open_clip_train.main as trainer
from PIL import Image

pytestmark = pytest.mark.filterwarnings("ignore")  # what open_clip says
N = 24


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    """Tables of training pairs, of held-out pairs, and of 3 pairs."""
    folder = tmp_path_factory.mktemp("pairs")
    config = (files("clipmem.models") / "configs" / "clipmem-micro.json").read_text(encoding="utf-8")
    (folder / "clipmem-micro.json").write_text(json.dumps(json.loads(config)))
    open_clip.add_model_config(folder / "clipmem-micro.json")
    for name, first, n in (("train", 0, N), ("val", N, N), ("few", 2 * N, 3)):
        with (folder / f"{name}.csv").open("w", newline="") as stream:
            writer = csv.writer(stream, delimiter="\t")
            writer.writerow(["filepath", "title"])
            for k in range(first, first + n):
                (folder / f"{k}.png").write_bytes(encoded_image(k))
                writer.writerow([folder / f"{k}.png", f"thing {k % 7} of kind {k % 3}"])
    return folder


@pytest.fixture
def run(tables, tmp_path, monkeypatch):
    """Run the trainer with wrappers; return its log and its weights."""

    def start(*wrappers, val="val", epochs=2, **options):
        epoch = original
        for wrapper in wrappers:
            epoch = wrapper(epoch)
        monkeypatch.setattr(trainer, "train_one_epoch", epoch)
        runs.append(f"run-{len(runs)}")
        options = {"precision": "fp32", "workers": 0, "accum-freq": 1, "batch-size": 8} | options
        trainer.main([
            "--train-data", str(tables / "train.csv"), "--dataset-type", "csv", "--csv-img-key", "filepath",
            *(["--val-data", str(tables / f"{val}.csv")] if val else []), "--csv-caption-key", "title",
            "--model", "clipmem-micro", "--epochs", str(epochs), "--device", "cpu", "--lr", "1e-3", "--warmup", "2",
            "--log-every-n-steps", "1", "--logs", str(tmp_path), "--name", runs[-1],
            *(word for name, value in options.items() for word in (f"--{name}", str(value))),
        ])  # fmt: skip
        weights = torch.load(tmp_path / runs[-1] / "checkpoints" / f"epoch_{epochs}.pt", weights_only=True)
        return (tmp_path / runs[-1] / "out.log").read_text(), weights["state_dict"]

    original, runs = trainer.train_one_epoch, []
    handlers = logging.root.handlers[:]  # the trainer adds some, and sets the level of every logger
    loggers = [logging.root, *map(logging.getLogger, list(logging.root.manager.loggerDict))]
    levels = [logger.level for logger in loggers]
    yield start
    for handler in set(logging.root.handlers) - set(handlers):
        handler.close()
    logging.root.handlers[:] = handlers
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)


class ByHand:
    """The monitor itself, called after each epoch."""

    def __init__(self):
        self.values, self.monitor, self.steps = [], None, 0

    def __call__(self, train_one_epoch):
        def wrapped(model, data, *others, **more):
            def embed(model, batch):
                output = model(*batch)
                return output["image_features"], output["text_features"]

            if self.monitor is None:
                held_out, train = data["val"].dataloader, data["train"].dataloader
                self.monitor = Monitor(held_out, train=train, embed=embed, pairs=N, budget=1.0)
                self.monitor.begin(model)
            train_one_epoch(model, data, *others, **more)
            self.steps += 1
            self.monitor.measure(others[1] + 1, model, self.values.append)

        return wrapped


@pytest.mark.parametrize("more", [{}, {"accum-freq": 3}, {"workers": 2}], ids=str)
def test_logged_values_are_those_computed_by_hand(run, more):
    by_hand, results = ByHand(), {}
    callback = MemorizationCallback(results=results, pairs=N, budget=1.0)
    # training images are cropped at random: by hand and the wrapper sample with the same global random numbers
    log, weights = run(by_hand, callback, **more)
    assert not callback.monitor.failure
    assert list(results) == [1, 2]
    held_out = [row["clipmem/held_out_recall_at_5"] for row in results.values()]
    assert held_out == [row["clipmem/held_out_recall_at_5"] for row in by_hand.values]
    history = callback.monitor.history
    for epoch, row in results.items():
        assert row == {f"clipmem/{n}": v for n, v in history[epoch]._asdict().items() if n != "epoch"}
        assert " ".join(f"{name}: {value:.4f}" for name, value in row.items()) in log
    assert f"clipmem: {callback.monitor.verdict}" in log
    _, plain = run(**more)
    assert all(torch.equal(weights[name], plain[name]) for name in weights)


def test_mixed_precision(run):
    callback = MemorizationCallback(pairs=N, budget=1.0)
    run(callback, precision="amp_bf16")
    assert not callback.monitor.failure
    assert len(callback.monitor.history) == 3


def test_tensorboard_gets_the_values():
    class Writer:
        def __init__(self):
            self.values = {}

        def add_scalar(self, name, value, step):
            self.values[name, step] = value

    batches, writer = [(torch.eye(8), torch.eye(8))], Writer()
    args = argparse.Namespace(rank=0, wandb=False, accum_freq=1, device="cpu", precision="fp32")
    data = {"train": argparse.Namespace(dataloader=batches), "val": argparse.Namespace(dataloader=batches)}
    callback = MemorizationCallback(embed=lambda model, batch: batch, budget=1.0)
    callback(lambda *_, **__: None)(torch.nn.Identity(), data, None, 0, args, tb_writer=writer)
    assert writer.values["clipmem/margin_gap", 1] == 0
    assert len(writer.values) == 6


def test_after_the_alarm_the_epochs_do_nothing(run):
    embed, by_hand = OverfittingEmbeddings(), ByHand()
    callback = MemorizationCallback(
        train=[(torch.ones(64, 1),)], held_out=[(torch.ones(64, 1),)], embed=embed, pairs=64, budget=1.0,
        stop_when="overfitting",
    )  # fmt: skip
    log, _ = run(by_hand, callback, epochs=5)
    assert by_hand.steps == 2
    assert "overfitting since epoch 1" in log


@pytest.mark.parametrize(
    ("val", "settings", "words"),
    [
        (None, {}, "held_out: got no validation data"),
        ("few", {}, "sample: got 3 pairs"),
        ("val", {"held_out": iter([])}, "iterator"),
        ("val", {"embed": lambda model, batch: (batch[0], batch[1])}, "embed: got shapes"),
    ],
)
def test_what_fails_is_logged_once_and_the_training_ends_as_without(run, val, settings, words):
    callback = MemorizationCallback(**settings)
    log, weights = run(callback, val=val)
    assert words in callback.monitor.failure
    assert log.count("clipmem measures nothing more") == 1
    _, plain = run(val=val)
    assert all(torch.equal(weights[name], plain[name]) for name in weights)


# ---- reweighting


class Following:
    """The mitigation, called with the batches of the trainer; it knows a pair by its image."""

    def __init__(self, tables):
        self.images = [Image.open(tables / f"{k}.png") for k in range(N)]
        self.loss_of = Reweighting(self.images, [f"thing {k % 7} of kind {k % 3}" for k in range(N)], 0.4)
        self.losses = []

    def __call__(self, train_one_epoch):
        def wrapped(model, data, loss, epoch, *others, **more):
            def noted(**named):
                result = loss(**named)
                self.losses.append((epoch, float(result["contrastive_loss"].detach())))
                return result

            return train_one_epoch(model, data, noted, epoch, *others, **more)

        return wrapped


@pytest.mark.parametrize("more", [{}, {"accum-freq": 3}, {"workers": 2}], ids=str)
def test_losses_and_weights_are_those_of_the_mitigation(run, tables, more):
    following, callback = Following(tables), ReweightCallback(share=0.4)
    seen = []

    class Noted(Reweighting):
        def __call__(self, index, image, text, scale, epoch):
            seen.append((epoch, index.tolist(), image.detach(), text.detach(), float(scale)))
            return super().__call__(index, image, text, scale, epoch)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("clipmem.integrations.open_clip.Reweighting", Noted)
        run(following, callback, epochs=3, **more)
    for (epoch, index, image, text, scale), (_, loss) in zip(seen, following.losses, strict=True):
        expected = following.loss_of(torch.tensor(index), image.requires_grad_(), text, scale, epoch)
        assert expected.item() == pytest.approx(loss, rel=1e-5)
    assert torch.equal(callback.loss.weights, following.loss_of.weights)
    assert callback.loss.weights.min() < 0.2
    each = [sorted(k for at, index, *_ in seen if at == epoch for k in index) for epoch in range(3)]
    repeats = 3 if "accum-freq" in more else 1
    assert each == [sorted([*range(N)] * repeats)] * 3


def test_the_index_is_that_of_the_row(run, tables):
    """A pair's similarity is recorded under its own row: the captions of the rows tell which it is."""
    callback, tokens = ReweightCallback(share=0.4), {}

    def texts(train_one_epoch):
        def wrapped(model, data, *others, **more):
            rows = data["train"].dataloader.dataset
            tokens.update({k: tuple(rows[k][1].tolist()) for k in range(N)})
            model.register_forward_pre_hook(lambda module, inputs: batches.append(inputs[1].tolist()))
            return train_one_epoch(model, data, *others, **more)

        return wrapped

    batches, indices = [], []

    class Noted(Reweighting):
        def __call__(self, index, *others):
            indices.append(index.tolist())
            return super().__call__(index, *others)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("clipmem.integrations.open_clip.Reweighting", Noted)
        run(texts, callback, val=None, epochs=1, workers=2)
    assert [[list(tokens[k]) for k in index] for index in indices] == batches


def test_with_a_share_of_0_it_records_only(run):
    _, plain = run()
    callback = ReweightCallback(share=0.0)
    _, weights = run(callback)
    assert all(torch.equal(weights[name], plain[name]) for name in weights)
    assert callback.loss.recorder.margin.shape == (2, N)
    assert not np.isnan(callback.loss.recorder.margin).any()


def test_captions_may_be_lists_and_dropped_pairs_have_no_margin(run, tables):
    images, captions = [Image.open(tables / f"{k}.png") for k in range(N)], [[f"thing {k % 7}", "it"] for k in range(N)]
    callback = ReweightCallback(0.4, images, captions)
    run(callback, **{"batch-size": 10})  # the last 4 of an epoch are dropped
    assert np.isnan(callback.loss.recorder.margin).sum(1).tolist() == [4, 4]


def trained(data, **args):
    settings = {"world_size": 1, "accum_freq": 1} | args
    wrapped = ReweightCallback(share=0.4, images=[], captions=[])(lambda *_, **__: None)
    wrapped(None, {"train": argparse.Namespace(dataloader=data)}, None, 0, argparse.Namespace(**settings))


def test_what_cannot_be_reweighted_is_refused_before_the_first_step(run):
    loader = torch.utils.data.DataLoader([1, 2])
    for data, args, got in (
        (iter([]), {}, "without pair ids"),  # as webdataset's
        (loader, {"world_size": 2}, "2 processes"),
        (loader, {}, "0 images"),
    ):
        with pytest.raises(InputError) as caught:
            trained(data, **args)
        assert got in caught.value.got

    def siglip(train_one_epoch):
        return lambda model, data, loss, *_, **__: loss(*torch.ones(2, 8, 8), torch.ones(()), logit_bias=0.0)

    with pytest.raises(InputError, match="logit_bias"):
        run(siglip, ReweightCallback(share=0.4))
