"""How many batches a study makes ahead."""

import pytest

from clipmem.study import execution
from clipmem.study.execution import Execution, batches_ahead


@pytest.mark.parametrize(
    ("cores", "processes", "threads", "expected"),
    [(2, 2, 1, 0), (2, 1, 1, 1), (2, 1, 2, 0), (4, 2, 1, 1), (3, 2, 1, 0), (16, 4, 4, 0), (8, 3, 2, 0), (9, 3, 2, 1)],
)
def test_threads_never_outnumber_free_cores(monkeypatch, cores, processes, threads, expected):
    monkeypatch.setattr(execution, "cores", lambda: cores)
    ahead = batches_ahead(Execution("cpu", "fp32", threads, processes), processes)
    assert ahead == expected
    assert not ahead or processes * threads + processes <= cores


def test_on_a_gpu_there_are_always_some(monkeypatch):
    monkeypatch.setattr(execution, "cores", lambda: 1)
    assert batches_ahead(Execution("cuda", "bf16", 1, 1), 1) == 2
