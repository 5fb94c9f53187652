"""The processes that train and embed: their tasks, what is kept of them, how they stop, and how they die."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time

import pytest

import clipmem
from clipmem.base.errors import InputError, RunError
from clipmem.base.folder import RunFolder
from clipmem.base.recipes import dump_recipe
from clipmem.study import child, pool, tasks
from clipmem.study import pool as local
from clipmem.study.plan import PlannedStudy
from tests.e2e.running import clip
from tests.e2e.test_study import contents
from tests.tiny import tiny_recipe

pytestmark = pytest.mark.slow

ONE = ("train.seeds=[0]",)


@pytest.fixture
def planned(finished, tmp_path):
    """The finished tiny study without its models and what came after."""
    out = tmp_path / "run"
    shutil.copytree(finished.path, out, ignore=shutil.ignore_patterns("models", "embeddings", "train*", "embed*"))
    return PlannedStudy(out)


def same_model(finished, study, side, seed):
    a, b = (RunFolder(path).model_dir(side, seed) for path in (finished.path, study.folder.path))
    assert sorted(file.name for file in a.iterdir()) == sorted(file.name for file in b.iterdir())
    assert all(file.read_bytes() == (b / file.name).read_bytes() for file in a.iterdir())


def train(study, models, told=None, task=tasks.train_task):
    parts = pool.model_parts(task, study, models)
    told = [] if told is None else told
    pool.LocalEngine().run(parts, study.execution, study.folder.path, progress=lambda *one: told.append(one))


def pids(executor):
    return set(executor._processes)


def test_what_was_trained_before_in_a_process_changes_nothing(finished, planned, fresh):
    told = []
    # the study's own processes took other models first
    models = [planned.model("g", 1), planned.model("f", 0), planned.model("g", 0)]
    train(planned, models, told)
    for model in models:
        same_model(finished, planned, model.side, model.seed)
        assert planned.folder.is_done(f"train-{model.side}-seed-{model.seed}")
    # the steps of all three models, each told once
    assert sum(steps for steps, _ in told) == 3 * 2 * models[0].batch_count(planned.recipe.train.batch_size)
    assert all("pairs/s" in note for _, note in told)
    marker = json.loads(planned.folder.marker("train-f-seed-0").read_text())
    record = json.loads((planned.folder.model_dir("f", 0) / "record.json").read_text())
    assert marker["pairs"] == record["samples_seen"] == 2 * 80
    assert marker["pairs_per_second"] > 0
    assert not pool._reusable  # nobody asked for it
    # interpreter and torch alone are some 200 MB
    assert 1e8 < marker["peak_memory_bytes"] < 4e9
    assert marker["seconds"] >= marker["compute_seconds"] > 0


def test_kept_processes_train_the_next_study_and_change_nothing_in_it(finished, fresh, tmp_path, monkeypatch):
    with pool.reused():
        clipmem.run(tiny_recipe(*ONE, "train.epochs=1", "train.lr=0.01"), tmp_path / "other")
        [executor] = pool._reusable.values()
        first = pids(executor)
        assert first
        with pool.reused():  # inside another block it changes nothing
            monkeypatch.chdir(tmp_path)  # nor is its folder looked for where they were started
            clipmem.run(tiny_recipe(), "kept")
        assert [pids(one) for one in pool._reusable.values()] == [first]
    assert not pool._reusable
    assert contents(tmp_path / "kept") == contents(finished.path)


def test_a_process_that_died_while_it_was_kept_is_replaced(fresh, tmp_path):
    with pool.reused():
        clipmem.run(tiny_recipe(*ONE), tmp_path / "one")
        [executor] = pool._reusable.values()
        os.kill(next(iter(pids(executor))), signal.SIGKILL)
        time.sleep(1)
        clipmem.run(tiny_recipe(*ONE), tmp_path / "two")
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_a_study_that_fails_ends_its_processes_and_the_next_has_new_ones(fresh, tmp_path):
    recipe = tmp_path / "study.toml"
    recipe.write_text(dump_recipe(tiny_recipe(*ONE, "train.lr=1e6", "train.weight_decay=1e6", "train.warmup=0.0")))
    with pool.reused():
        done = clip("run", recipe, "--out", tmp_path / "bad")
        assert done.returncode == 1
        last = done.stderr.splitlines()[-1]
        assert last.startswith("clipmem: training ")
        assert ": the loss is nan at step " in last
        assert last.endswith("Try a smaller train.lr, a longer train.warmup, or train.precision = 'fp32'.")
        # nothing of it passes for a trained model
        assert not list((tmp_path / "bad").rglob("open_clip_model.safetensors"))
        assert not RunFolder(tmp_path / "bad").is_done("train")
        assert not pool._reusable
        assert clipmem.run(tiny_recipe(*ONE), tmp_path / "good").summary.roles["candidate"].n == 20


def dying_task(board, directory, folder, side, seed, **options):
    """As `tasks.train_task`, but for one model."""
    if (side, seed) == ("g", 1):
        until = time.monotonic() + 120  # until another model is kept
        while not RunFolder(folder).is_done("train-f-seed-0") and time.monotonic() < until:
            time.sleep(0.05)
        sys.stderr.write("boom\n")
        sys.stderr.flush()
        os._exit(3)
    tasks.train_task(board, directory, folder, side, seed, **options)


def test_a_process_that_dies_is_reported_and_the_rest_is_kept(fresh, tmp_path, monkeypatch):
    monkeypatch.setattr(local.tasks, "train_task", dying_task)
    with pytest.raises(RunError) as error:
        clipmem.run(tiny_recipe(), tmp_path / "run")
    assert "g, seed 1" in str(error.value)
    assert "(3)" in str(error.value)
    assert ": boom. Run the same command again" in str(error.value)
    assert RunFolder(tmp_path / "run").is_done("train-f-seed-0")
    assert not RunFolder(tmp_path / "run").is_done("train")


def test_a_stop_is_met_after_the_step_and_the_training_resumes(finished, planned, tmp_path):
    board = tmp_path / "board"
    board.mkdir()
    (board / child.STOP).touch()
    model = planned.model("f", 0)
    with pytest.raises(tasks.TrainingStopped):
        tasks.train_task(board, str(tmp_path), str(planned.folder.path), "f", 0)
    with pytest.raises(tasks.TrainingStopped):
        tasks.train_one(planned, model, stop=lambda: True)
    assert (planned.folder.model_dir("f", 0) / "checkpoint.safetensors").is_file()
    train(planned, [model])
    same_model(finished, planned, "f", 0)


def waiting_task(board, side, seed, **_):
    """Say which process this is, and wait for the end."""
    (board.parent / "pid").write_text(str(os.getpid()))
    while not child.stop_requested(board):
        time.sleep(0.01)
    raise tasks.TrainingStopped


def test_a_process_that_is_asked_to_stop_ends_the_study_in_a_line(planned, fresh, tmp_path, monkeypatch):
    """SIGTERM to a process, as a batch system sends it to all of a job."""
    monkeypatch.setattr(pool.tempfile, "tempdir", str(tmp_path))

    def terminate():
        until = time.monotonic() + 60
        while not (tmp_path / "pid").exists() and time.monotonic() < until:
            time.sleep(0.01)
        time.sleep(0.1)
        os.kill(int((tmp_path / "pid").read_text()), signal.SIGTERM)

    thread = threading.Thread(target=terminate)
    thread.start()
    with pytest.raises(RunError, match="was stopped"):
        train(planned, planned.models[:1], task=waiting_task)
    thread.join()


def test_a_checkpoint_interval_that_is_no_number(planned, tmp_path, monkeypatch):
    monkeypatch.setenv(tasks.EVERY_VARIABLE, "often")
    with pytest.raises(InputError, match="got 'often', expected a number of seconds"):
        tasks.train_task(tmp_path, ".", str(planned.folder.path), "f", 0)


def test_a_study_is_not_finished_with_other_processes(finished):
    study = PlannedStudy(finished.path)
    local.check_processes(study, study.models, 1)
    local.check_processes(study, [], 2)  # nothing is left to train
    with pytest.raises(InputError) as caught:
        local.check_processes(study, study.models, 2)
    assert caught.value.what == f"run folder {finished.path}"
    assert caught.value.got == "2 processes per model, in a study started with 1"


def test_a_study_runs_where_parts_of_the_operating_system_are_missing(tmp_path):
    """As on macOS and Windows: no affinity, and no modules `fcntl` and `resource`, in all processes."""
    (tmp_path / "sitecustomize.py").write_text(
        "import os, sys\n"
        "sys.modules['fcntl'] = sys.modules['resource'] = None\n"
        "if hasattr(os, 'sched_getaffinity'): del os.sched_getaffinity\n"
    )
    recipe = tmp_path / "study.toml"
    recipe.write_text(dump_recipe(tiny_recipe(*ONE, "train.epochs=1")))
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, "-m", "clipmem", "run", str(recipe), "--out", str(tmp_path / "run")],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": path, "PYTHONWARNINGS": "ignore"},
    )
    assert done.returncode == 0, done.stderr
    assert clipmem.load_run(tmp_path / "run").summary.roles["candidate"].n == 20
