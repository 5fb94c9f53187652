"""The callbacks in Lightning's Trainer with a tiny module: what is logged is what the monitor computes by hand."""

import csv
import logging
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch.utils.data import DataLoader, Dataset, IterableDataset

from clipmem.base.errors import InputError
from clipmem.integrations.monitor import Monitor

lightning = pytest.importorskip("lightning.pytorch", reason="Lightning is not installed")

from clipmem.integrations.lightning import MemorizationCallback, ReweightCallback
from clipmem.mitigate import Reweighting, pair_weights
from tests.overfitting import OverfittingEmbeddings

pytestmark = pytest.mark.filterwarnings("ignore")  # what Lightning says
N, WIDTH = 24, 12


class Pairs(Dataset):
    def __init__(self, seed, n=N):
        drawn = torch.Generator().manual_seed(seed)
        self.image, self.text = (torch.randn(n, WIDTH, generator=drawn) for _ in range(2))

    def __len__(self):
        return len(self.image)

    def __getitem__(self, k):
        return k, self.image[k], self.text[k]


class Towers(lightning.LightningModule):
    def __init__(self, reweight=None):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.image, self.text = torch.nn.Linear(WIDTH, 8), torch.nn.Linear(WIDTH, 8)
        self.reweight, self.seen = reweight, []

    def forward(self, batch):
        return F.normalize(self.image(batch[1]), dim=-1), F.normalize(self.text(batch[2]), dim=-1)

    def training_step(self, batch, _):
        u, v = self(batch)
        if self.reweight is not None:
            loss = self.reweight(batch[0], u, v, 10.0, self.current_epoch)
            self.seen.append((self.current_epoch, batch[0], u.detach(), v.detach(), loss.item()))
            return loss
        logits, target = 10 * u @ v.T, torch.arange(len(u))
        return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2

    def validation_step(self, batch, _, dataloader_idx=0):
        pass

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), 0.02)


def fit(folder, module, callbacks, train=None, val=None, **settings):
    options = {"max_epochs": 3, "accelerator": "cpu", "logger": False, "enable_checkpointing": False} | settings
    trainer = lightning.Trainer(
        default_root_dir=folder, callbacks=callbacks, enable_progress_bar=False, enable_model_summary=False, **options
    )
    train = DataLoader(Pairs(1), 8, shuffle=True) if train is None else train
    trainer.fit(module, train, val)
    return trainer


class ByHand(lightning.Callback):
    def __init__(self):
        self.values = []
        train, held_out = DataLoader(Pairs(1), 8), DataLoader(Pairs(2), 8)
        self.monitor = Monitor(held_out, train=train, embed=Towers.forward, pairs=N, budget=1.0)

    def on_train_start(self, trainer, pl_module):
        self.monitor.begin(pl_module)

    def on_train_epoch_end(self, trainer, pl_module):
        self.monitor.measure(trainer.current_epoch + 1, pl_module, self.values.append)


@pytest.mark.parametrize("more", [{}, {"accumulate_grad_batches": 2}, {"precision": "bf16-mixed"}], ids=str)
def test_logged_values_are_those_computed_by_hand(tmp_path, more):
    by_hand, callback = ByHand(), MemorizationCallback(Pairs(2), pairs=N, budget=1.0)
    logger = lightning.loggers.CSVLogger(tmp_path)
    trainer = fit(tmp_path, Towers(), [by_hand, callback], logger=logger, **more)
    assert not callback.monitor.failure
    assert [row.epoch for row in callback.monitor.history] == [0, 1, 2, 3]
    table = csv.DictReader((Path(logger.log_dir) / "metrics.csv").open(newline=""))
    rows = [{name: float(value) for name, value in row.items() if name.startswith("clipmem/")} for row in table]
    values = (
        by_hand.values
        if "precision" not in more
        else [
            {f"clipmem/{name}": value for name, value in row._asdict().items() if name != "epoch"}
            for row in callback.monitor.history[1:]
        ]
    )
    for row, expected in zip(rows, values, strict=True):
        assert row == pytest.approx(expected, abs=1e-6)
    assert trainer.current_epoch == 3
    if "precision" in more:  # the callback measures under the Trainer's autocast
        gaps = [[row.margin_gap for row in one.monitor.history] for one in (callback, by_hand)]
        assert gaps[0] == pytest.approx(gaps[1], abs=0.03)
        assert gaps[0] != gaps[1]


def test_weights_are_those_without_the_callback(tmp_path):
    weights = []
    for callbacks in ([], [MemorizationCallback(Pairs(2), budget=1.0)]):
        torch.manual_seed(1)
        module = Towers()
        fit(tmp_path, module, callbacks)
        weights.append(module.state_dict())
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_validation_data_are_the_held_out_pairs_by_default(tmp_path):
    for val in (DataLoader(Pairs(2), 8), [DataLoader(Pairs(2), 8), DataLoader(Pairs(3), 8)]):
        callback = MemorizationCallback(pairs=N, budget=1.0)
        fit(tmp_path, Towers(), [callback], val=val, max_epochs=1, num_sanity_val_steps=0)
        assert not callback.monitor.failure
        other = MemorizationCallback(DataLoader(Pairs(2), 8), pairs=N, budget=1.0)
        fit(tmp_path, Towers(), [other], max_epochs=1)
        assert callback.monitor.history[0] == other.monitor.history[0]


class Stream(IterableDataset):
    def __iter__(self):
        yield from (Pairs(1)[k] for k in range(N))


def test_a_data_set_without_random_access(tmp_path):
    callback = MemorizationCallback(Pairs(2), pairs=12, budget=1.0)
    trainer = fit(tmp_path, Towers(), [callback], DataLoader(Stream(), 8))
    assert not callback.monitor.failure
    assert trainer.global_step == 9


def test_the_alarm_ends_the_training(tmp_path):
    callback = MemorizationCallback(
        Pairs(2, 64), embed=OverfittingEmbeddings(), pairs=64, budget=1.0, stop_when="overfitting"
    )
    trainer = fit(tmp_path, Towers(), [callback], DataLoader(Pairs(1, 64), 8), max_epochs=9)
    assert trainer.current_epoch == 2
    assert callback.monitor.verdict.startswith("overfitting since epoch 1")


@pytest.mark.parametrize(
    ("held_out", "settings", "words"),
    [
        (None, {}, "held_out: got no validation data"),
        (iter([]), {}, "iterator"),
        (Pairs(2, 3), {}, "sample: got 3 pairs"),
        (Pairs(2), {"embed": lambda module, batch: (batch[1], torch.stack([batch[2], batch[2]], 1))}, "Of several"),
        (Pairs(2), {"embed": lambda module, batch: module.missing}, "missing"),
    ],
)
def test_what_fails_is_logged_once_and_the_training_ends_as_without(tmp_path, held_out, settings, words, caplog):
    callback = MemorizationCallback(held_out, **settings)
    trainer = fit(tmp_path, Towers(), [callback])
    assert trainer.global_step == 9
    assert words in callback.monitor.failure
    assert len([one for one in caplog.records if one.name == "clipmem" and one.levelno == logging.WARNING]) == 1


# ---- reweighting


def images_and_captions():
    drawn = np.random.default_rng(0)
    images = [Image.fromarray(drawn.integers(0, 255, (16, 16, 3), dtype=np.uint8)) for _ in range(N)]
    return images, [f"thing {k % 5} of kind {k % 3}" for k in range(N)]


@pytest.mark.parametrize("more", [{}, {"accumulate_grad_batches": 2}, {"precision": "bf16-mixed"}], ids=str)
def test_losses_and_weights_are_those_of_the_mitigation(tmp_path, more):
    module = Towers(Reweighting(*images_and_captions(), 0.4))
    fit(tmp_path, module, [], **more)
    loss_of = Reweighting(*images_and_captions(), 0.4)
    for epoch, index, u, v, loss in module.seen:
        assert loss_of(index, u.requires_grad_(), v, 10.0, epoch).item() == pytest.approx(loss, rel=1e-5)
    assert {epoch for epoch, *_ in module.seen} == {0, 1, 2}
    assert torch.equal(module.reweight.weights, loss_of.weights)
    assert loss_of.weights.min() < 0.5


def reweighting(share=0.4, **settings):
    return ReweightCallback(*images_and_captions(), share, **{"key": 0, "scale": lambda _: 10.0} | settings)


@pytest.mark.parametrize("more", [{}, {"accumulate_grad_batches": 2}], ids=str)
def test_the_callback_trains_as_the_mitigation_does(tmp_path, more):
    weights = []
    by_hand, callback = Reweighting(*images_and_captions(), 0.4), reweighting()
    for module, callbacks in ((Towers(by_hand), []), (Towers(), [callback])):
        torch.manual_seed(1)
        fit(tmp_path, module, callbacks, **more)
        weights.append(module.state_dict())
    torch.testing.assert_close(*weights, rtol=0, atol=1e-4)  # the callback normalizes, once more
    margin = callback.loss.recorder.margin
    np.testing.assert_allclose(margin, by_hand.recorder.margin, rtol=0, atol=1e-4)
    assert margin.shape == (3, N)
    assert not np.isnan(margin).any()
    assert torch.equal(callback.loss.weights, by_hand.weights)
    expected = pair_weights(callback.loss._hook._agreement, margin[:2], share=0.4)  # of the finished epochs
    np.testing.assert_array_equal(callback.loss.weights, expected)
    assert callback.loss.weights.min() < 0.2
    assert module.training_step.__func__ is Towers.training_step  # as before


def test_the_loss_is_logged_and_both_callbacks_go_together(tmp_path):
    monitor = MemorizationCallback(Pairs(2), pairs=N, budget=1.0)
    trainer = fit(tmp_path, Towers(), [monitor, reweighting()])
    assert not monitor.monitor.failure
    assert len(monitor.monitor.history) == 4
    assert trainer.callback_metrics["clipmem/loss"].isfinite()


def test_with_a_share_of_0_it_records_only(tmp_path):
    weights = []
    for callbacks in ([], [callback := reweighting(0.0)]):
        torch.manual_seed(1)
        fit(tmp_path, module := Towers(), callbacks)
        weights.append(module.state_dict())
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert not np.isnan(callback.loss.recorder.margin).any()


class Named(Pairs):
    """Batches with names, whose embeddings have any length, and a factor that is learned."""

    def __getitem__(self, k):
        return {"index": k, "image": self.image[k], "text": self.text[k]}


class NamedTowers(Towers):
    def __init__(self):
        super().__init__()
        self.logit_scale = torch.nn.Parameter(torch.tensor(2.0))


def test_batches_with_names_and_a_learned_factor(tmp_path):
    def embed(module, batch):
        return 3 * module.image(batch["image"]), module.text(batch["text"])

    callback = ReweightCallback(*images_and_captions(), 0.4, embed=embed)
    fit(tmp_path, module := NamedTowers(), [callback], DataLoader(Named(1), 8))
    assert module.logit_scale != 2
    assert callback.loss.recorder.margin.shape == (3, N)
    assert callback.loss.recorder.margin.max() <= 2


@pytest.mark.parametrize(
    ("change", "settings", "words"),
    [
        (lambda module: None, {"key": "index"}, "a batch without pair ids"),
        (lambda module: setattr(module, "automatic_optimization", False), {}, "automatic_optimization=False"),
        (lambda module: setattr(module, "logit_bias", torch.nn.Parameter(torch.zeros(1))), {}, "SigLIP"),
    ],
)
def test_what_cannot_be_reweighted_is_refused_in_the_first_step(tmp_path, change, settings, words):
    change(module := Towers())
    with pytest.raises(InputError) as caught:
        fit(tmp_path, module, [reweighting(**settings)])
    assert words in caught.value.got
    assert module.trainer.global_step == 0
    fit(tmp_path, module, [])  # without the callback, as ever


def test_an_index_outside_the_data_is_refused(tmp_path):
    with pytest.raises(InputError) as caught:
        fit(tmp_path, Towers(Reweighting(*images_and_captions(), 0.4)), [], DataLoader(Pairs(1, 2 * N), 8))
    assert caught.value.what == "recorder.update indices"
    with pytest.raises(InputError, match="captions of each image"):
        Reweighting(images_and_captions()[0], ["a cat"], 0.4)
