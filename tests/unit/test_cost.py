"""The memory of a training: what this process took at most since it was asked."""

import sys

import numpy as np
import pytest

from clipmem.study import cost

MB = 2**20


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux forgets an earlier peak")
def test_an_earlier_peak_is_forgotten():
    block = np.ones(300 * MB // 8)
    before = cost.PeakMemory("cpu").measured()["peak_memory_bytes"]
    del block
    memory = cost.PeakMemory("cpu")
    assert memory.measured()["peak_memory_bytes"] < before - 200 * MB
    block = np.ones(100 * MB // 8)
    assert block.sum() > 0
    del block
    assert 80 * MB < memory.measured()["peak_memory_bytes"] - (before - 300 * MB) < 200 * MB


def test_where_it_cannot_be_forgotten_it_is_that_of_the_process(monkeypatch, tmp_path):
    monkeypatch.setattr(cost, "_CLEAR", tmp_path / "nowhere" / "clear_refs")
    assert cost.PeakMemory("cpu").measured()["peak_memory_bytes"] > 50 * MB
