"""Training processes that are kept from one study to the next."""

import queue
import signal

import pytest

import clipmem
from clipmem.base.errors import RunError
from clipmem.study import workers
from clipmem.testing.tiny import tiny_recipe
from tests.e2e.test_study import contents

ONE = ("train.seeds=[0]",)


def test_kept_processes_train_the_next_study_and_change_nothing_in_it(fresh, tmp_path, monkeypatch):
    with workers.kept():
        clipmem.run(tiny_recipe(*ONE, "train.epochs=1", "model.name=clipmem-micro"), tmp_path / "other")
        first = {worker.process.pid for worker in workers._idle}
        assert first
        with workers.kept():  # inside another block it changes nothing
            monkeypatch.chdir(tmp_path)  # nor is its folder looked for where they were started
            clipmem.run(tiny_recipe(*ONE), "kept")
        kept = list(workers._idle)
        assert {worker.process.pid for worker in kept} == first
        assert all(worker.process.poll() is None for worker in kept)
    assert workers._idle is None
    assert [worker.process.returncode for worker in kept] == [0] * len(kept)
    clipmem.run(tiny_recipe(*ONE), tmp_path / "new")
    assert workers._idle is None
    assert contents(tmp_path / "kept") == contents(tmp_path / "new")


@pytest.mark.slow
def test_a_process_that_died_while_it_was_kept_is_replaced(fresh, tmp_path):
    with workers.kept():
        clipmem.run(tiny_recipe(*ONE), tmp_path / "one")
        dead = workers._idle[0]
        dead.process.send_signal(signal.SIGKILL)
        dead.process.wait()
        clipmem.run(tiny_recipe(*ONE), tmp_path / "two")
        assert dead not in workers._idle
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_a_process_that_dies_as_it_is_taken_is_met(fresh):
    with workers.kept():
        (worker,) = workers.take(1, 1, before := queue.Queue())
        assert before.get(timeout=120) == (worker, {"ready": True})
        worker.process.send_signal(signal.SIGKILL)
        worker.process.wait()
        assert before.get(timeout=60) == (worker, None)
        worker.begin(after := queue.Queue())
        assert after.get(timeout=60) == (worker, None)
        worker.stop()


@pytest.mark.slow
def test_a_study_that_fails_ends_its_processes_and_the_next_has_new_ones(fresh, tmp_path):
    with workers.kept():
        with pytest.raises(RunError, match="loss is nan"):
            clipmem.run(tiny_recipe(*ONE, "train.lr=1e30", "train.warmup=0.0"), tmp_path / "bad")
        assert workers._idle == []
        assert clipmem.run(tiny_recipe(*ONE), tmp_path / "good").summary["roles"]["candidate"]["n"] == 20
