"""The monitor against slow loops: each value, verdicts on constructed histories, and inputs that it cannot measure."""

import logging
import random

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from clipmem.base.errors import InputError
from clipmem.integrations.monitor import Measurement, Monitor, overfits, verdict

N, WIDTH = 24, 6


def rows(seed, n=N):
    return torch.randn(n, WIDTH, generator=torch.Generator().manual_seed(seed))


class Towers(nn.Module):
    """Two linear towers; what they are given is seen in `modes`."""

    def __init__(self, seed=0):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.image, self.text = nn.Linear(WIDTH, 4), nn.Linear(WIDTH, 4)
        self.modes = []

    def forward(self, batch):
        self.modes.append(self.training)
        return self.image(batch[0]), self.text(batch[1])


def embed(model, batch):
    return model(batch)


def loader(seed, n=N, noise=1.0):
    image = rows(seed, n)
    return DataLoader(TensorDataset(image, image + noise * rows(seed + 50, n)), batch_size=7)


def cosine(a, b):
    return float(a @ b / (a.norm() * b.norm()))


def slow(image, text):
    """Mean margin and mean recall@5 by loops from the equations."""
    n = len(image)
    s = [[cosine(image[i].double(), text[j].double()) for j in range(n)] for i in range(n)]
    margins, hits = [], []
    for i in range(n):
        others = [max(s[i][j], s[j][i]) for j in range(n) if j != i]
        margins.append(s[i][i] - max(others))
        by_image = 1 + sum(s[i][j] > s[i][i] for j in range(n))
        by_text = 1 + sum(s[j][i] > s[i][i] for j in range(n))
        hits.append(((by_image <= 5) + (by_text <= 5)) / 2)
    return sum(margins) / n, sum(hits) / n


def whole(source, model):
    with torch.no_grad():
        return model((source.dataset.tensors[0], source.dataset.tensors[1]))


def test_values_are_those_of_a_slow_loop():
    train, held_out, retained, model = loader(1), loader(2), loader(3), Towers()
    monitor, logged = Monitor(held_out, train=train, retained=retained, embed=embed, pairs=N, budget=1.0), []
    before = [slow(*whole(source, model)) for source in (train, held_out, retained)]
    monitor.begin(model)
    with torch.no_grad():
        model.text.weight.copy_(model.image.weight)
        model.text.bias.copy_(model.image.bias)
    now = [slow(*whole(source, model)) for source in (train, held_out, retained)]
    monitor.measure(1, model, logged.append)
    expected = {
        "margin_gap": now[0][0] - now[1][0],
        "train_recall_at_5": now[0][1],
        "held_out_recall_at_5": now[1][1],
        "retrieved_because_seen": now[0][1] - now[1][1] - (before[0][1] - before[1][1]),
        "forgetting": before[2][1] - now[2][1],
        "overfitting": 0.0,
    }
    assert logged == [pytest.approx({f"clipmem/{name}": value for name, value in expected.items()}, abs=1e-6)]
    assert monitor.history[1]._asdict() == pytest.approx({"epoch": 1, **expected}, abs=1e-6)
    assert monitor.history[0].retrieved_because_seen == monitor.history[0].forgetting == 0
    assert expected["forgetting"] < 0  # the model learned


def test_without_retained_pairs_forgetting_is_that_of_held_out_pairs():
    model, monitor = Towers(), Monitor(loader(2), train=loader(1), embed=embed, pairs=N, budget=1.0)
    monitor.begin(model)
    with torch.no_grad():
        model.text.weight.zero_()
    monitor.measure(1, model)
    assert monitor.history[1].forgetting == pytest.approx(
        monitor.history[0].held_out_recall_at_5 - monitor.history[1].held_out_recall_at_5
    )


def test_samples_are_of_the_same_size_drawn_by_seed_and_of_the_items():
    class Items(Dataset):
        def __init__(self, seed, n):
            self.seen, self.rows = [], rows(seed, n)

        def __len__(self):
            return len(self.rows)

        def __getitem__(self, k):
            self.seen.append(k)
            return self.rows[k], self.rows[k]

    def samples(seed):
        train, held_out = Items(1, 900), Items(2, 30)
        monitor = Monitor(held_out, train=train, embed=embed, seed=seed)
        monitor.begin(Towers(), collate=torch.utils.data.default_collate)
        assert not monitor.failure
        return train.seen, held_out.seen

    train, held_out = samples(0)
    assert len(train) == 45  # a twentieth
    assert held_out == list(range(30))
    assert train == sorted(set(train))
    assert samples(0)[0] == train != samples(1)[0]


def test_the_default_number_of_pairs():
    seen = []
    for n, expected in ((40, 6), (400, 20), (30_000, 512)):
        data = TensorDataset(rows(0, n), rows(1, n))
        monitor = Monitor(data, train=data, embed=lambda model, batch: seen.append(len(batch[0])) or batch)
        monitor.begin(Towers(), collate=torch.utils.data.default_collate)
        assert sum(seen) == 2 * expected
        seen.clear()


class Drawing(TensorDataset):
    """Its items draw from all global random numbers."""

    def __getitem__(self, k):
        noise = random.random() + np.random.rand() + torch.rand(1).item()
        return tuple(row + noise for row in super().__getitem__(k))


def test_training_is_the_same_with_a_monitor(monkeypatch):
    data, restored = Drawing(rows(1), rows(2)), []
    # beartype, which checks types in tests, draws from `random` as well
    monkeypatch.setattr("clipmem.integrations.monitor.random.getstate", lambda: "state")
    monkeypatch.setattr("clipmem.integrations.monitor.random.setstate", restored.append)
    states, modes = [], []
    for monitored in (False, True):
        random.seed(1)
        np.random.seed(1)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            model = Towers()
            model.text.eval()  # a frozen tower
            monitor = Monitor(data, train=DataLoader(data, batch_size=5, shuffle=True), embed=embed, pairs=N)
            if monitored:
                monitor.begin(model, collate=torch.utils.data.default_collate)
                assert not monitor.failure
                assert set(model.modes) == {False}
            modes.append([part.training for part in model.modules()])
            states.append((np.random.rand(), torch.rand(1).item()))
            assert all(parameter.grad is None for parameter in model.parameters())
    assert states[0] == states[1]
    assert restored == ["state"]
    assert modes[0] == modes[1]
    assert modes[1][0]
    assert not modes[1][-1]


def test_epochs_are_left_out_that_would_take_too_much(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("clipmem.integrations.monitor.time.perf_counter", lambda: now[0])

    def slowly(model, batch):
        now[0] += 1.0
        return batch

    batches = [(rows(1), rows(2))]
    monitor = Monitor(batches, train=batches, embed=slowly, budget=0.1)
    monitor.begin(model := Towers())
    for epoch in range(1, 7):
        now[0] += 12.0  # 2 s of a measurement in 12 are too much; in 24 they are not
        monitor.measure(epoch, model)
    assert [row.epoch for row in monitor.history] == [0, 2, 4, 6]
    assert monitor.seconds == 8.0


# ---- verdicts


def history(*recalls, gap=0.1, over=()):
    return [
        Measurement(k, round(gap * k, 3), 0.5, recall, 0.0, 0.0, float(k in over)) for k, recall in enumerate(recalls)
    ]


def test_verdicts_on_constructed_histories():
    assert verdict(history(0.1)) == "no epoch measured yet"
    assert verdict(history(0.1, 0.4, 0.38)) == (
        "no overfitting detected by epoch 2: held-out R@5 0.380, best 0.400 after epoch 1; gap of margins 0.200"
    )
    assert verdict(history(0.1, 0.4, 0.3, 0.2, over=(3,))) == (
        "overfitting since epoch 2: held-out R@5 fell from 0.400 to 0.200 while the gap of margins grew from 0.100 to "
        "0.300"
    )
    # overfitting from the start; and it is over again
    assert verdict(history(0.5, 0.4, over=(1,))).startswith("overfitting since epoch 1: ")
    assert verdict(history(0.1, 0.4, 0.3, 0.5, over=(2,))).startswith("no overfitting detected by epoch 3")
    # of equal epochs the first is the best
    assert verdict(history(0.4, 0.4, 0.2, over=(2,))).startswith("overfitting since epoch 1: ")


def values(margin, recall, n=200, seed=0):
    """A sample of pairs with this mean margin, and this share of retrieved ones."""
    noise = np.random.default_rng(seed).normal(0, 0.02, n)
    return np.stack([margin + noise - noise.mean(), (np.arange(n) < round(recall * n)).astype(float)])


@pytest.mark.parametrize(
    ("recall", "train", "held_out", "expected"),
    [
        (0.4, 0.3, 0.1, True),
        (0.58, 0.3, 0.1, False),  # 4 of 200 pairs change, which can be chance
        (0.4, 0.2, 0.1, False),  # held-out recall fell, but the gap did not grow: forgetting, no overfitting
        (0.7, 0.3, 0.1, False),  # the gap grew, but held-out recall rose
        (0.4, 0.1, 0.1, False),  # both fell
    ],
)
def test_it_overfits_if_recall_fell_and_the_gap_grew(recall, train, held_out, expected):
    best = [values(0.2, 0.9, seed=1), values(0.1, 0.6, seed=2)]
    now = [values(train, 0.9, seed=3), values(held_out, recall, seed=4)]
    if recall == 0.58:
        now[1][1] = np.roll(best[1][1], 5)  # 5 pairs lost, 5 found
        now[1][1][:6] = 0
    assert overfits(best, now, 0.95) is expected


def test_equal_changes_of_all_pairs_need_no_interval():
    best, now = [values(0.1, 1.0), values(0.1, 1.0)], [values(0.2, 1.0), values(0.1, 0.0)]
    assert overfits(best, now, 0.95)
    assert not overfits(best, best, 0.95)


def test_chance_alone_is_seldom_called_overfitting():
    """Pairs that are retrieved or not by chance in each of 20 epochs while the gap grows: one training in 20."""
    drawn, false = np.random.default_rng(0), 0
    for _ in range(60):
        chances, means, best = drawn.beta(2, 2, 100), [], []
        for k in range(21):
            recall = (drawn.random(100) < chances).astype(float)
            now = [values(0.1 + 0.02 * k, 1.0, 100, seed=k), np.stack([values(0.1, 1.0, 100)[0], recall])]
            if k == 0 or recall.mean() > max(means):
                best = now
            elif overfits(best, now, 1 - 0.1 / (k * k * (k + 1))):
                false += 1
                break
            means.append(recall.mean())
    assert false <= 5  # 3 are expected; without the correction for several epochs it is 16


class Scripted:
    """A training of 60 pairs whose held-out captions fit after epochs 1 and 2 only."""

    def __init__(self):
        self.epoch, self.image = 0, torch.eye(60)

    def __call__(self, model, batch):
        held_out = bool(batch[0].max() > 1)
        mixed = {0: 0.0, 1: 0.5, 2: 1.0}.get(self.epoch, 0.0) if held_out else min(1.0, 0.4 * self.epoch)
        other = self.image.roll(7, 0)
        return self.image + 0.01 * self.image.roll(3, 0), mixed * self.image + (1 - mixed) * other


def test_the_alarm_warns_once_and_stops(caplog):
    train, held_out = [(torch.ones(60, 1),)], [(torch.full((60, 1), 2.0),)]
    for stop_when in (None, "overfitting"):
        script, caplog.records[:] = Scripted(), []
        monitor = Monitor(held_out, train=train, embed=script, budget=1.0, stop_when=stop_when)
        monitor.begin(model := Towers())
        for epoch in range(1, 6):
            script.epoch = epoch
            monitor.measure(epoch, model)
            assert monitor.stop is (stop_when is not None and epoch > 2)
        assert [row.overfitting for row in monitor.history] == [0, 0, 0, 1, 1, 1]
        assert monitor.verdict.startswith("overfitting since epoch 2: held-out R@5 fell from 1.000 to 0.000 while")
        [record] = [record for record in caplog.records if record.levelno == logging.WARNING]
        assert record.getMessage().startswith("clipmem: overfitting since epoch 2")


# ---- what it cannot measure


@pytest.mark.parametrize(
    ("settings", "what", "got"),
    [
        ({"pairs": 5}, "pairs", "5"),
        ({"budget": 1.5}, "budget", "1.5"),
        ({"stop_when": "overfit"}, "stop_when", "'overfit'"),
    ],
)
def test_settings_are_checked_at_once(settings, what, got):
    with pytest.raises(InputError) as caught:
        Monitor(**settings)
    assert caught.value.what == what
    assert caught.value.got == got


class Stream(IterableDataset):
    """Pairs without random access."""

    def __iter__(self):
        yield from zip(rows(1), rows(2), strict=True)


def test_data_without_random_access_give_their_first_pairs():
    seen = []

    def noted(model, batch):
        seen.append(batch)
        return model(batch)

    batches = [(rows(1)[k : k + 5], rows(2)[k : k + 5]) for k in range(0, N, 5)]
    collate = torch.utils.data.default_collate
    for source in (Stream(), DataLoader(Stream(), batch_size=5), DataLoader(batches, batch_size=None), batches):
        seen.clear()
        monitor = Monitor(source, train=source, embed=noted, pairs=8)
        monitor.begin(Towers(), collate=collate if isinstance(source, IterableDataset) else None)
        assert not monitor.failure
        image = torch.cat([batch[0] for batch in seen[: len(seen) // 2]])
        assert 8 <= len(image) <= 24
        assert torch.equal(image, rows(1)[: len(image)])
        assert len(list(source)) in (N, 5)  # nothing of it is missing


def captions_as_lists(model, batch):
    image, text = model(batch)
    return image, torch.stack([text, text], 1)


def broken(model, batch):
    raise ZeroDivisionError("in the model")


def batches_of(n):
    return [(rows(1, n), rows(2, n))]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"train": iter(batches_of(N))}, "InputError: pairs: got <list_iterator"),
        ({"train": (batch for batch in batches_of(N))}, "can be read again"),
        ({"train": 3}, "pairs: got 3"),
        ({"held_out": None}, "held_out: got no validation data"),
        ({"train": batches_of(5)}, "sample: got 5 pairs"),
        ({"embed": captions_as_lists}, "Of several captions, embed one"),
        ({"embed": broken}, "ZeroDivisionError: in the model"),
        ({"embed": lambda model, batch: (batch[0] * torch.nan, batch[1])}, "not finite"),
        ({"embed": None}, "TypeError"),
    ],
)
def test_what_cannot_be_measured_is_said_once_and_ends_nothing(settings, words, caplog):
    model, logged = Towers(), []
    arguments = {"train": batches_of(N), "held_out": batches_of(N), "embed": embed, "budget": 1.0} | settings
    monitor = Monitor(**arguments)
    monitor.begin(model)
    for epoch in (1, 2, 3):
        monitor.measure(epoch, model, logged.append)
    assert words in monitor.failure
    assert monitor.verdict == f"not measured: {monitor.failure}"
    assert not logged
    assert not monitor.stop
    assert model.training
    [record] = caplog.records
    assert record.levelno == logging.WARNING
    assert "the training goes on" in record.getMessage()


def test_a_logger_that_fails_ends_nothing(caplog):
    def log(values):
        raise ModuleNotFoundError("No module named 'tensorboard'")

    monitor, model = Monitor(batches_of(N), train=batches_of(N), embed=embed, budget=1.0), Towers()
    monitor.begin(model)
    monitor.measure(1, model, log)
    monitor.measure(2, model, log)
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "tensorboard" in monitor.failure
    assert len(monitor.history) == 2


def test_of_several_validation_sets_the_first_is_used():
    collate = torch.utils.data.default_collate
    monitor = Monitor(train=loader(1), embed=embed, pairs=N)
    monitor.begin(Towers(), held_out={"a": loader(2), "b": loader(3)})
    other = Monitor(loader(2), train=loader(1), embed=embed, pairs=N)
    other.begin(Towers(), collate=collate)
    assert monitor.history == other.history
