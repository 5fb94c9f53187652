"""One model on several processes through torchrun: the numbers of one process, who writes, and what an error does."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import clipmem
from clipmem.base.folder import RunFolder
from clipmem.base.recipes import dump_recipe
from clipmem.train.recorder import read_trajectory
from tests.tiny import tiny_recipe
from tests.torchrun_train import UIDS

ROOT = Path(__file__).parents[2]
TORCHRUN = (sys.executable, "-m", "torch.distributed.run")
OBJECTIVES = ("clip", "siglip", "simclr", "supervised")


def start(processes, *arguments):
    return subprocess.Popen(
        [*TORCHRUN, "--standalone", f"--nproc-per-node={processes}", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}", "OMP_NUM_THREADS": "1"},
    )


def run(processes, *arguments):
    process = start(processes, *arguments)
    output, stderr = process.communicate(timeout=540)
    return process.returncode, output, stderr


def losses(folder, side):
    lines = (folder / "models" / side / "seed-0" / "log.jsonl").read_text().splitlines()
    return [json.loads(line)["loss"] for line in lines]


@pytest.fixture
def recipe(tmp_path):
    file = tmp_path / "study.toml"
    file.write_text(dump_recipe(tiny_recipe("train.seeds=[0]", "train.epochs=8", "train.precision=fp32")))
    return file


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    out = tmp_path_factory.mktemp("together")
    code, _, stderr = run(3, ROOT / "tests" / "torchrun_train.py", out)
    assert code == 0, stderr
    return out, [json.loads((out / f"rank-{rank}.json").read_text()) for rank in range(3)]


@pytest.mark.slow
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_three_processes_have_the_gradients_of_one(found, objective):
    for of_rank in found[1]:
        one = of_rank[objective]
        assert one["loss"][1] == pytest.approx(one["loss"][0], abs=1e-5)
        # AdamW would hide a gradient of another scale: the gradients themselves are compared
        assert one["gradient"] <= 1e-5 * one["largest"] + 1e-7


@pytest.mark.slow
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_three_processes_have_the_losses_of_one_and_the_same_weights(found, objective):
    for of_rank in found[1]:
        alone, together = of_rank[objective]["losses"]
        assert len(alone) == 9
        assert together == pytest.approx(alone, abs=1e-4)
        assert abs(alone[0] - alone[-1]) > 1e-2  # something was learned: the agreement means something
    assert len({of_rank[objective]["weights"][1] for of_rank in found[1]}) == 1


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["clip", "siglip"])
def test_three_processes_record_what_one_does(found, objective):
    one, three = (read_trajectory(found[0] / objective / name, UIDS) for name in ("alone-0", "together"))
    assert not np.isnan(one.margin).any()
    assert three.similarity == pytest.approx(one.similarity, abs=1e-4)
    assert three.margin == pytest.approx(one.margin, abs=1e-4)


@pytest.mark.slow
def test_a_study_by_torchrun(recipe, tmp_path):
    one = clipmem.run(recipe, tmp_path / "one")
    code, output, stderr = run(2, "-m", "clipmem", "run", recipe, "--out", tmp_path / "two")
    assert code == 0, stderr
    two = clipmem.load_run(tmp_path / "two")
    for side in ("f", "g"):
        assert losses(two.path, side) == pytest.approx(losses(one.path, side), abs=1e-4)
    assert two.scores["clipmem"].to_list() == pytest.approx(one.scores["clipmem"].to_list(), abs=1e-3)
    # one process does the talking and the writing
    assert output.count("CLIPMem by role") == 1
    assert len(re.findall(r"^embed +[\d.]+ s$", stderr, re.MULTILINE)) == 1
    assert not list(two.path.rglob("*.tmp"))
    assert two.manifest["processes"] == 2
    assert one.manifest["processes"] == 1
    names = [sorted(str(file.relative_to(run.path)) for file in run.path.rglob("*")) for run in (one, two)]
    assert names[0] == names[1]


@pytest.mark.slow
def test_shadow_models_by_torchrun(tmp_path):
    halves = ("protocol=halves", "halves.pairs=2", "halves.estimator=raw", "train.epochs=2", "train.precision=fp32")
    pool = ("split.shared=100", "split.candidate=60", "split.independent=60", "split.planted=0")
    recipe = tmp_path / "study.toml"
    recipe.write_text(dump_recipe(tiny_recipe(*halves, *pool)))
    one = clipmem.run(recipe, tmp_path / "one")
    code, _, stderr = run(2, "-m", "clipmem", "run", recipe, "--out", tmp_path / "two")
    assert code == 0, stderr
    two = clipmem.load_run(tmp_path / "two")
    for side in ("f", "half-a", "half-b"):
        assert losses(two.path, side) == pytest.approx(losses(one.path, side), abs=1e-4)
    assert two.scores["clipmem"].to_list() == pytest.approx(one.scores["clipmem"].to_list(), abs=1e-3)


@pytest.mark.slow
def test_the_rest_of_a_study_is_trained_alike(recipe, tmp_path):
    out = tmp_path / "run"
    assert run(2, "-m", "clipmem", "run", recipe, "--out", out)[0] == 0
    for marker in ("train-g-seed-0", "train"):
        RunFolder(out).marker(marker).unlink()
    with pytest.raises(clipmem.InputError) as caught:
        clipmem.run(recipe, out)
    assert caught.value.got == "1 processes per model, in a study started with 2"
    assert "torchrun --nproc-per-node 2" in caught.value.hint


@pytest.mark.slow
def test_an_error_of_the_first_process_ends_all_with_one_line(tmp_path):
    code, _, stderr = run(2, "-m", "clipmem", "run", tmp_path / "none.toml")
    assert code != 0
    assert stderr.count("clipmem: recipe") == 1
    assert "(exitcode: 2)" in stderr or "exitcode  : 2" in stderr


@pytest.mark.slow
def test_a_loss_that_is_not_finite_is_said_once(recipe, tmp_path):
    code, _, stderr = run(
        2,
        "-m",
        "clipmem",
        "run",
        recipe,
        "--out",
        tmp_path / "run",
        "--set",
        "train.lr=1e6",
        "--set",
        "train.weight_decay=1e6",
        "--set",
        "train.warmup=0",
    )
    assert code != 0
    assert stderr.count("clipmem: training f, seed 0: the loss is ") == 1
    assert "exitcode: 1" in stderr or "exitcode  : 1" in stderr


@pytest.mark.slow
def test_too_many_processes_for_a_batch(recipe, tmp_path):
    code, _, stderr = run(3, "-m", "clipmem", "run", recipe, "--out", tmp_path / "run", "--set", "train.batch_size=2")
    assert code != 0
    assert (
        "clipmem: [train] batch_size: got batches of 2 pairs for 3 processes, expected at least one pair per "
        "process. Use larger batches, or fewer processes."
    ) in stderr


@pytest.mark.slow
def test_a_killed_process_ends_all_and_a_second_run_goes_on(recipe, tmp_path):
    out = tmp_path / "run"
    arguments = ("-m", "clipmem", "run", recipe, "--out", out, "--set", "train.epochs=60")
    process = start(2, *arguments)
    until = time.monotonic() + 240
    while not RunFolder(out).marker("train-f-seed-0").is_file():
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < until
        time.sleep(0.01)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    helper = next(int(pid) for pid in children if b"\0RANK=1\0" in b"\0" + Path(f"/proc/{pid}/environ").read_bytes())
    os.kill(helper, signal.SIGKILL)
    assert process.wait(timeout=120) != 0
    process.communicate()
    first = (out / "models" / "f" / "seed-0" / "open_clip_model.safetensors").stat().st_mtime_ns
    code, _, stderr = run(2, *arguments)
    assert code == 0, stderr
    assert (out / "models" / "f" / "seed-0" / "open_clip_model.safetensors").stat().st_mtime_ns == first
