"""The training process by itself: its tasks, its messages, its signals."""

import json
import os
import shutil
import signal
import subprocess
import sys

import pytest

from clipmem.store.folder import RunFolder


def begin(*arguments, **environment):
    return subprocess.Popen(
        [sys.executable, "-m", "clipmem.study.worker", *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )


@pytest.fixture
def planned(finished, tmp_path):
    """The finished tiny study without its models and what came after."""
    out = tmp_path / "run"
    shutil.copytree(finished.path, out, ignore=shutil.ignore_patterns("models", "embeddings", "train*", "embed*"))
    return out


def same_model(finished, out, side, seed):
    a, b = (RunFolder(path).model_dir(side, seed) for path in (finished.path, out))
    assert sorted(file.name for file in a.iterdir()) == sorted(file.name for file in b.iterdir())
    assert all(file.read_bytes() == (b / file.name).read_bytes() for file in a.iterdir())


def test_what_was_trained_before_in_the_process_changes_nothing(finished, planned):
    # the study's own workers took other models first
    process = begin(planned, "g", "1", "f", "0", "g", "0")
    told, complaints = process.communicate()
    assert process.returncode == 0, complaints
    for side, seed in (("g", 1), ("f", 0), ("g", 0)):
        same_model(finished, planned, side, seed)
        assert RunFolder(planned).is_done(f"train-{side}-seed-{seed}")
    messages = [json.loads(line) for line in told.splitlines()]
    assert [set(m) for m in messages if "done" in m] == [{"done", "data_seconds", "compute_seconds"}] * 3
    assert all(0 <= m["data"] <= 1 and m["rate"] > 0 for m in messages if "step" in m)
    marker = json.loads(RunFolder(planned).marker("train-f-seed-0").read_text())
    assert marker["pairs_per_second"] > 0
    record = json.loads((RunFolder(planned).model_dir("f", 0) / "record.json").read_text())
    assert marker["pairs"] == record["presentations"] == 2 * 80
    # interpreter and torch alone are some 200 MB
    assert 1e8 < marker["peak_memory_bytes"] < 4e9
    assert marker["seconds"] >= marker["compute_seconds"] > 0


def test_tasks_from_the_input_until_it_ends(finished, planned):
    process = begin()
    assert json.loads(process.stdout.readline()) == {"ready": True}
    process.stdin.write(json.dumps({"folder": str(planned), "side": "f", "seed": 1}) + "\n")
    process.stdin.flush()
    lines = [json.loads(process.stdout.readline())]
    while "ready" not in lines[-1]:
        lines.append(json.loads(process.stdout.readline()))
    assert "done" in lines[-2]
    process.stdin.close()
    assert process.wait() == 0
    process.stdout.close()
    process.stderr.close()
    same_model(finished, planned, "f", 1)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_asked_to_stop_while_it_waits(planned, number):
    process = begin()
    process.stdout.readline()
    process.send_signal(number)
    _, complaints = process.communicate(timeout=60)
    assert (process.returncode, complaints) == (130, "")


def test_asked_to_stop_in_a_training(finished, planned):
    process = begin()
    process.stdout.readline()
    process.stdin.write(json.dumps({"folder": str(planned), "side": "f", "seed": 0}) + "\n")
    process.stdin.flush()
    process.send_signal(signal.SIGTERM)  # met while it works on the task, or at the latest while it waits again
    _, complaints = process.communicate(timeout=120)
    assert (process.returncode, complaints) == (130, "")
    process = begin(planned, "f", "0")
    assert process.communicate()[1] == ""
    same_model(finished, planned, "f", 0)


def test_a_checkpoint_interval_that_is_no_number(planned):
    process = begin(planned, "f", "0", CLIPMEM_CHECKPOINT_SECONDS="often")
    told, _ = process.communicate()
    assert process.returncode == 2
    assert json.loads(told) == {
        "error": "environment variable CLIPMEM_CHECKPOINT_SECONDS: got 'often', expected a number of seconds. "
        "Unset it.",
        "exit_code": 2,
    }
