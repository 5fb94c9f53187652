"""Attacks on one model, without a run: passes that drop attention."""

import shutil

import numpy as np
import polars as pl
import pytest
import torch
from scipy.stats import t as student
from torch import nn

from clipmem.base.errors import InputError, Unfinished
from clipmem.base.folder import Job
from clipmem.base.progress import Quiet
from clipmem.models import openclip
from clipmem.stats.ranking import target_means
from clipmem.study import auditing
from clipmem.study.score_inputs import Settings, read_pairs
from tests.tiny import encoded_image

DROPPING = {"number": 0.0, "layer": 0.1}


class Attention(nn.Module):
    """Attention as transformers (a number) or timm (a layer) write it: half of the output with dropout."""

    def __init__(self, kind):
        super().__init__()
        if kind == "number":
            self.dropout = DROPPING[kind]
        else:
            self.attn_drop = nn.Dropout(DROPPING[kind])

    def forward(self, x):
        if hasattr(self, "dropout"):
            return nn.functional.dropout(x, self.dropout, training=self.training)
        return self.attn_drop(x)


class Encoder:
    """Both towers are an attention layer over pixels, or over numbers that stand for the caption."""

    image_size, resize_mode, interpolation = 2, "squash", "bicubic"
    mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)

    def __init__(self, layer):
        self.module = nn.ModuleList([layer]).eval()

    def encode_image(self, values):
        return self.module[0](values.flatten(1))

    def encode_text(self, tokens):
        return self.module[0](tokens.float())

    def logit_scale(self):
        return torch.tensor(10.0)

    def save(self, folder):
        raise NotImplementedError(folder)

    def tokenize(self, captions):
        return torch.stack([torch.arange(12) % (1 + len(caption)) for caption in captions])


PAIR = np.random.default_rng(0).integers(256, size=(1, 2, 2, 3), dtype=np.uint8), ["a cat", "another"]


@pytest.mark.parametrize("kind", ["number", "layer"])
def test_attention_drops_and_is_as_before(kind):
    encoder = Encoder(Attention(kind))
    plain = float(auditing.similarity_of(encoder, PAIR[0], PAIR[1][:1], "cpu"))
    state = torch.random.get_rng_state()
    with auditing.dropping_attention(encoder.module) as dropping:
        assert dropping
        first, again, other = (auditing._with_dropout(encoder, PAIR, "cpu", uid) for uid in ("a", "a", "b"))
    assert first == again != other
    assert 0 < abs(first - plain) < 0.3
    assert torch.equal(torch.random.get_rng_state(), state)
    layer = encoder.module[0]
    assert not any(module.training for module in encoder.module.modules())
    assert DROPPING[kind] == (layer.dropout if kind == "number" else layer.attn_drop.p)
    assert float(auditing.similarity_of(encoder, PAIR[0], PAIR[1][:1], "cpu")) == plain


def test_the_mean_is_over_passes_with_other_weights_dropped(monkeypatch):
    encoder = Encoder(Attention("number"))
    seen = []
    monkeypatch.setattr(
        auditing,
        "similarity_of",
        lambda _, pixels, captions, device: seen.append((pixels, captions)) or torch.arange(10.0),
    )
    assert auditing._with_dropout(encoder, PAIR, "cpu", "a") == 4.5
    [(pixels, captions)] = seen
    assert captions == ["a cat"] * 10
    assert (pixels == PAIR[0]).all()
    assert len(pixels) == 10


def test_a_model_without_attention_has_no_such_attack():
    with auditing.dropping_attention(nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.5))) as dropping:
        assert not dropping


def test_open_clip_drops_attention():
    attention = nn.MultiheadAttention(8, 2, batch_first=True)
    x = torch.randn(1, 5, 8, generator=torch.Generator().manual_seed(0))
    module = nn.Sequential(attention).eval()
    with torch.no_grad(), auditing.dropping_attention(module):
        values = {float(attention(x, x, x, need_weights=False)[0].sum()) for _ in range(20)}
    assert len(values) > 1
    assert (attention.dropout, attention.training) == (0.0, False)


def test_an_attack_on_targets_is_above_chance_at_the_level_of_all_attacks():
    """By the interval over targets and pairs, above .5 for one attack; at a seventh of the level not."""
    rng, member = np.random.default_rng(3), np.tile(np.arange(60) % 2 == 0, (4, 1))
    scores, groups = rng.normal(size=(4, 60)) + 0.4 * member, np.arange(60) // 2
    for several in (1, 7):
        table = auditing._over_targets(dict.fromkeys("abcdefg"[:several], scores), member, groups, 0.95)
        [auc] = target_means(scores, member, groups, np.array([]), confidence=1 - 0.05 / several)
        assert table["a"]["above"] == (auc.low > 0.5) == (several == 1)
        assert table["a"]["auc"]["low"] > 0.5  # as printed: the interval of the attack alone
    perfect = auditing._over_targets({"a": 1.0 * member}, member, groups, 0.95)["a"]
    assert perfect["above"]
    assert perfect["auc"] == {"mean": 1.0, "low": None, "high": None}


def test_targets_that_agree_by_chance_are_not_above_it():
    """Four targets that one set of scores happens to separate: the t interval of their AUCs is above .5."""
    rng, member = np.random.default_rng(6), np.tile(np.arange(100) % 2 == 0, (4, 1))
    shared = rng.normal(size=100)
    shared += (0.15 - shared[::2].mean() + shared[1::2].mean()) * member[0]
    scores = shared + rng.normal(0, 0.02, (4, 100))
    areas = [np.mean(row[::2][:, None] > row[1::2]) for row in scores]
    assert np.mean(areas) - student.ppf(0.975, 3) * np.std(areas, ddof=1) / 2 > 0.5
    assert not auditing._over_targets({"a": scores}, member, np.arange(100), 0.95)["a"]["above"]


def test_an_attack_on_pairs_is_above_chance_at_the_level_of_all_attacks():
    """Gaussian scores 0.22 apart: the interval of one attack is above .5, at a seventh of the level it is not."""
    rng, member = np.random.default_rng(5), np.arange(400) % 2 == 0
    scores = rng.normal(size=400) + 0.22 * member
    above = [auditing._over_pairs(dict.fromkeys("abcdefg"[:k], scores), member, 0.95)["a"]["above"] for k in (1, 7)]
    low = auditing._over_pairs({"a": scores}, member, 0.95)["a"]["auc"]["low"]
    assert above == [True, False]
    assert low > 0.5  # as printed: the interval of the attack alone


@pytest.fixture
def attack(tmp_path, monkeypatch):
    """Attack 8 and 4 pairs, in parts of 4, by a share or all; with other orders of the first 8."""
    monkeypatch.setattr(auditing, "_PART", 4)
    openclip.create("clipmem-micro", seed=1).save(tmp_path / "model")
    table = pl.DataFrame(
        {"image": [encoded_image(k) for k in range(12)], "captions": [f"thing {k}" for k in range(12)]}
    )
    table[8:].write_parquet(tmp_path / "nonmembers.parquet")

    def attacked(part="", order=slice(None)):
        table[:8][order].write_parquet(tmp_path / "members.parquet")
        sets = [read_pairs(str(tmp_path / f"{name}.parquet"), 1, "--members") for name in ("members", "nonmembers")]
        settings = Settings.of(device="cpu", part=part)
        return auditing._attack(settings.model(str(tmp_path / "model")), sets, job, settings, Quiet())

    job = Job(tmp_path / "audit.parts")
    return attacked, job


def test_parts_of_pairs_in_another_order_are_refused(attack):
    attacked, _ = attack
    with pytest.raises(Unfinished):
        attacked("1/2")
    with pytest.raises(InputError) as error:
        attacked(order=list(range(7, -1, -1)))
    assert error.value.got.startswith("pairs = ")
    assert attacked().height == 12


def test_a_damaged_part_is_attacked_again_by_the_last_call(attack):
    attacked, job = attack
    table = attacked()
    file = job.path / "part-000001.parquet"
    file.write_bytes(bytes(file.stat().st_size))
    assert attacked().equals(table)


def test_a_share_does_not_create_a_folder_that_was_deleted(attack, monkeypatch):
    attacked, job = attack
    signals = auditing._signals

    def deleting(*arguments):
        shutil.rmtree(job.path)
        return signals(*arguments)

    monkeypatch.setattr(auditing, "_signals", deleting)
    with pytest.raises(InputError, match="deleted meanwhile"):
        attacked("1/2")
    assert not job.path.exists()
