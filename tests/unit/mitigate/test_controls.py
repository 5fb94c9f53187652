"""Controls: weight decay and early stopping."""

import pytest

from clipmem.base.mitigations import (
    EarlyStoppingSection,
    WeightDecaySection,
)
from clipmem.mitigate.controls import EarlyStopping, WeightDecay
from clipmem.train.schedule import epoch_batches
from tests.unit.mitigate.test_base import fit
from tests.unit.train.test_loop import N


def test_weight_decay_is_multiplied(tmp_path):
    record, _ = fit(tmp_path / "a", WeightDecay(WeightDecaySection(factor=3.0)))
    same, _ = fit(tmp_path / "b", weight_decay=0.2 * 3.0)
    assert record["final_sha256"] == same["final_sha256"]
    assert record["mitigate"] == {"weight_decay": {"factor": 3.0}}
    one, _ = fit(tmp_path / "c", WeightDecay(WeightDecaySection(factor=1.0)))
    plain, _ = fit(tmp_path / "d")
    assert one["final_sha256"] == plain["final_sha256"] != record["final_sha256"]


@pytest.mark.parametrize(("share", "steps"), [(0.5, 3), (0.01, 1), (0.9, 5), (1.0, 6)])
def test_early_stopping_is_the_beginning_of_the_whole_training(tmp_path, share, steps):
    whole, log = fit(tmp_path / "whole")
    record, begun = fit(tmp_path / "short", EarlyStopping(EarlyStoppingSection(share=share)))
    assert begun == log[:steps]
    assert record["steps"] == steps
    sizes = [len(batch) for epoch in range(2) for batch in epoch_batches(N, 8, seed=0, epoch=epoch)]
    assert record["presentations"] == sum(sizes[:steps])
    assert whole["presentations"] == 2 * N
    assert (record["final_sha256"] == whole["final_sha256"]) == (share == 1)
