"""A study by Ray tasks on this machine: the bytes of the local engine, also when a task's process is killed."""

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import clipmem
from clipmem.base.folder import RunFolder
from clipmem.models import openclip
from tests.e2e import running
from tests.e2e.test_study import contents
from tests.e2e.test_torchrun import losses
from tests.tiny import write_parquet

pytest.importorskip("ray", reason="the extra `ray` is not installed: pip install '.[ray]'")

# 120 pairs in passes of 6: more than one Ray task a model
STUDY = ("train.seeds=[0]", "train.epochs=30", "embed.batch_size=6", "embed.views=2", "evaluate.wordings=5")
# Ray runs tasks at niceness 15: on a busy machine a test would wait for minutes
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"} | {
    "RAY_worker_niceness": "0"
}


start = partial(running.start, python=("-W", "error"), environment=ENVIRONMENT)


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    return running.undisturbed_study(tmp_path_factory.mktemp("local"), STUDY)


def status(pid):
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        title = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0].decode(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return 0, ""
    return next(int(line.split()[1]) for line in lines if line.startswith("PPid:")), title


def descends(pid, ancestor):
    while pid > 1:
        pid = status(pid)[0]
        if pid == ancestor:
            return True
    return False


def running_tasks(title):
    """Return the processes in which Ray tasks run whose names begin so."""
    numbers = (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())
    return [number for number in numbers if status(number)[1].startswith(title)]


def task_of(process, title):
    """Return a process in which such a task of a command runs, 0 if there is none now."""
    return next((number for number in running_tasks(title) if descends(number, process.pid)), 0)


def wait_for(process, condition, seconds=240):
    until = time.monotonic() + seconds
    while not (found := condition()):
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < until
        time.sleep(0.02)
    return found


def test_ray_gives_the_bytes_of_the_local_engine(local, tmp_path):
    recipe, expected = local
    out = tmp_path / "run"
    process = start(recipe, out, "--engine", "ray")
    stderr = process.communicate()[1]
    assert process.returncode == 0, stderr
    assert contents(out) == expected
    assert "train " in stderr
    assert RunFolder(out).read_json("manifest.json")["command"].endswith("--engine ray")


@pytest.mark.slow
def test_ray_gives_the_bytes_of_shadow_models(tmp_path):
    halves = ("protocol=halves", "halves.pairs=2", "train.record=true", "train.epochs=1")
    pool = ("split.shared=100", "split.candidate=60", "split.independent=60", "split.planted=0")
    recipe, expected = running.undisturbed_study(tmp_path, (*halves, *pool))
    out = tmp_path / "by-ray"
    process = start(recipe, out, "--engine", "ray")
    stderr = process.communicate()[1]
    assert process.returncode == 0, stderr
    assert contents(out) == expected
    assert len(list(out.glob("models/half-*/seed-*/record.json"))) == 4


@pytest.mark.parametrize(
    ("task", "marker"),
    [
        ("train model f, seed 0", "train-f-seed-0"),
        pytest.param("embed model g, seed 0", "embed", marks=pytest.mark.slow),
    ],
)
def test_a_killed_ray_worker_costs_a_retry(local, tmp_path, task, marker):
    recipe, expected = local
    out = tmp_path / "run"
    process = start(recipe, out, "--engine", "ray")
    first = wait_for(process, lambda: task_of(process, f"ray::{task}"))
    os.kill(first, signal.SIGSTOP)
    # the kill hits a task at work: stopped as soon as it was seen, it has not finished
    assert not RunFolder(out).is_done(marker)
    os.kill(first, signal.SIGKILL)
    # a killed process keeps its title until it is scheduled to die
    wait_for(process, lambda: task_of(process, f"ray::{task}") not in (0, first))
    stderr = process.communicate()[1]
    assert process.returncode == 0, stderr
    assert contents(out) == expected


@pytest.mark.slow
@pytest.mark.parametrize("how", ["in-turn", "dies", "at-once"])
def test_two_processes_train_each_model_together(tmp_path, how):
    """By Ray Train, around the same function; if one of the processes dies, the same command resumes.

    On four cores, both models train at the same time.
    """
    from ray.cluster_utils import Cluster

    recipe, expected = running.undisturbed_study(tmp_path, (*STUDY, "train.precision=fp32"))
    out, environment, cluster = tmp_path / "together", ENVIRONMENT, None
    if how == "at-once":
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 4, "include_dashboard": False})
        environment = ENVIRONMENT | {"RAY_ADDRESS": cluster.address}
    process = start(recipe, out, "--engine", "ray", "--processes", "2", environment=environment)
    if cluster:
        try:
            wait_for(process, lambda: len(running_tasks("ray::RayTrainWorker.run_train_fn")) == 4)
            assert not RunFolder(out).is_done("train")
            stderr = process.communicate()[1]
        finally:
            process.kill()
            cluster.shutdown()
    if how == "dies":
        worker = wait_for(process, lambda: task_of(process, "ray::RayTrainWorker.run_train_fn"))
        os.kill(worker, signal.SIGSTOP)
        assert not RunFolder(out).is_done("train")
        os.kill(worker, signal.SIGKILL)
        assert "Run the same command again" in process.communicate()[1]
        assert process.returncode == 1
        process = start(recipe, out, "--engine", "ray", "--processes", "2")
    stderr = stderr if cluster else process.communicate()[1]
    assert process.returncode == 0, stderr
    for side in ("f", "g"):
        alone = losses(tmp_path / "run", side)
        assert losses(out, side) == pytest.approx(alone, abs=1e-4)
        assert alone[0] - alone[-1] > 0.1
    assert contents(out).keys() == expected.keys()
    assert RunFolder(out).read_json("manifest.json")["processes"] == 2


@pytest.mark.slow
def test_an_error_of_processes_that_train_together_is_the_one_of_one_process(tmp_path):
    recipe = running.recipe_file(tmp_path, (*STUDY, "train.lr=1e6", "train.weight_decay=1e6", "train.warmup=0.0"))
    process = start(recipe, tmp_path / "together", "--engine", "ray", "--processes", "2")
    stderr = process.communicate()[1]
    assert process.returncode == 1, stderr
    assert ": the loss is nan at step " in stderr.strip().splitlines()[-1]


def test_more_processes_than_cores_are_refused(local, tmp_path):
    process = start(local[0], tmp_path / "run", "--engine", "ray", "--processes", "100000")
    assert process.communicate()[1].strip().splitlines()[-1].startswith("clipmem: --processes 100000: got ")
    assert process.returncode == 2


@pytest.mark.slow
def test_a_cluster_that_is_too_small_is_said_and_waited_for(local, tmp_path):
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        environment = ENVIRONMENT | {"RAY_ADDRESS": cluster.address}
        words = ("--engine", "ray", "--processes", "2")
        process = running.start(local[0], tmp_path / "run", *words, environment=environment)
        lines = list[str]()
        while "fewer than 2 CPU" not in "".join(lines[-1:]):
            lines.append(process.stderr.readline())
            assert lines[-1], lines
        cluster.add_node(num_cpus=1)
        running.ends_well(process)
    finally:
        cluster.shutdown()
    assert RunFolder(tmp_path / "run").is_done("train")


def test_killed_with_its_ray_and_run_again_locally(local, tmp_path):
    recipe, expected = local
    out = tmp_path / "run"
    process = start(recipe, out, "--engine", "ray")
    task = wait_for(process, lambda: task_of(process, "ray::train model f, seed 0"))
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    until = time.monotonic() + 60
    while status(task)[1].startswith("ray::"):  # nobody goes on working on the folder
        assert time.monotonic() < until
        time.sleep(0.1)
    again = running.clip("run", recipe, "--out", out)
    assert again.returncode == 0, again.stderr
    assert {name: data for name, data in contents(out).items() if not name.endswith(".tmp")} == expected


def test_wrong_addresses(local, tmp_path):
    recipe, _ = local
    environment = ENVIRONMENT | {"RAY_ADDRESS": "127.0.0.1:1"}
    process = start(recipe, tmp_path / "run", "--engine", "ray", environment=environment)
    stderr = process.communicate()[1]
    assert process.returncode == 2
    last = stderr.strip().splitlines()[-1]
    assert last.startswith("clipmem: --engine ray: got no Ray at 127.0.0.1:1 (")
    assert "RAY_ADDRESS" in last
    assert "Traceback" not in stderr


SHARED = """
import sys
from clipmem.models import embeddings
embeddings.BLOCK = 1
from clipmem.cli import main
main(sys.argv[1:])
"""


@pytest.mark.slow
@pytest.mark.parametrize("dies", [False, True])
def test_two_nodes_embed_the_same_bytes_as_the_local_engine(tmp_path, dies):
    """Also if a node dies meanwhile: its parts are done by the other."""
    from ray.cluster_utils import Cluster

    openclip.create("clipmem-micro", seed=1).save(tmp_path / "model")
    write_parquet(tmp_path / "pairs.parquet", 200)
    words = ["export", "embeddings", "--model", f"{tmp_path / 'model'}", "--data", f"{tmp_path / 'pairs.parquet'}"]
    one = [sys.executable, "-c", SHARED, *words, "--out", f"{tmp_path / 'one'}"]
    assert subprocess.run(one, env=ENVIRONMENT, check=False).returncode == 0
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        node = cluster.add_node(num_cpus=1)
        command = [sys.executable, "-c", SHARED, *words, "--out", f"{tmp_path / 'two'}", "--engine", "ray"]
        environment = ENVIRONMENT | {"RAY_ADDRESS": cluster.address}
        process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
        if dies:
            wait_for(process, lambda: list((tmp_path / "two" / "markers").glob("*.json")))
            cluster.remove_node(node, allow_graceful=False)
        stderr = process.communicate()[1]
        assert process.returncode == 0, stderr
    finally:
        cluster.shutdown()
    places = [tmp_path / name for name in ("one", "two")]
    found = [{str(file.relative_to(place)): file.read_bytes() for file in place.rglob("*.*")} for place in places]
    assert found[0] == found[1]
    assert sum(name.startswith("markers") for name in found[0]) == 25


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """Two models, and pairs: all of them, and two halves."""
    folder = tmp_path_factory.mktemp("pairs")
    for name, seed in (("model", 1), ("other", 2)):
        openclip.create("clipmem-micro", seed=seed).save(folder / name)
    captions = [[f"a {('red', 'blue', 'green')[k % 3]} thing in room {k % 7}"] for k in range(240)]
    table = pl.read_parquet(write_parquet(folder / "pairs.parquet", 240, captions=captions))
    order = np.random.default_rng(0).permutation(240)
    for name, rows in (("members", order[:120]), ("nonmembers", order[120:])):
        table[rows].write_parquet(folder / f"{name}.parquet")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "out", "same"),
    [
        ("audit --model model --members members.parquet --nonmembers nonmembers.parquet", "{}.json", "{}.json"),
        (
            "score --target model --reference other --data members.parquet --bank nonmembers.parquet",
            "{}.parquet",
            "{}.parquet",
        ),
        ("curate pairs.parquet --model model", "{}", "{}/suspects.parquet"),
    ],
    ids=["audit", "score", "curate"],
)
def test_ray_embeds_for_a_verb_and_gives_the_bytes_of_the_local_engine(pairs, words, out, same):
    """In parts of 50 pairs, at least five of each data set or model."""
    code = (
        "import sys\nfrom clipmem.models import embeddings\nfrom clipmem.study import auditing\n"
        "auditing._PART, embeddings.BLOCK = 50, 50 // 8\nfrom clipmem.cli import main\nmain(sys.argv[1:])\n"
    )
    for engine in ("local", "ray"):
        place = out.format(f"{words.split()[0]}-{engine}")
        command = [sys.executable, "-c", code, *words.split(), "--out", place, "--engine", engine]
        done = subprocess.run(command, env=ENVIRONMENT, cwd=pairs, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    name = same.format(f"{words.split()[0]}-{{}}")
    assert (pairs / name.format("ray")).read_bytes() == (pairs / name.format("local")).read_bytes()
    assert not list(pairs.rglob("*.parts"))


COMPARED = """
import sys
from clipmem.scoring import evidence
from clipmem.study import curating
evidence.EXACT = curating.EXACT = 100
evidence._SPAN = 5
from clipmem.cli import main
main(sys.argv[1:])
"""


@pytest.mark.slow
@pytest.mark.parametrize("dies", [False, True])
def test_two_nodes_compare_pairs_with_the_bytes_of_the_local_engine(pairs, tmp_path, dies):
    from ray.cluster_utils import Cluster

    embed = ["export", "embeddings", "--model", str(pairs / "model"), "--data", str(pairs / "pairs.parquet")]
    assert running.clip(*embed, "--out", tmp_path / "E").returncode == 0
    curate = [sys.executable, "-c", COMPARED, "curate", "--model", str(tmp_path / "E"), "--out"]
    subprocess.run([*curate, str(tmp_path / "one")], env=ENVIRONMENT, check=True, capture_output=True)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        node = cluster.add_node(num_cpus=1)
        environment = ENVIRONMENT | {"RAY_ADDRESS": cluster.address}
        words = [*curate, str(tmp_path / "two"), "--engine", "ray"]
        process = subprocess.Popen(words, env=environment, stderr=subprocess.PIPE, text=True)
        wait_for(process, lambda: list((tmp_path / "two" / "comparing" / "markers").glob("sort-*-*-*.json")))
        if dies:
            cluster.remove_node(node, allow_graceful=False)
        stderr = process.communicate()[1]
        assert process.returncode == 0, stderr
    finally:
        cluster.shutdown()
    one, two = (tmp_path / name / "suspects.parquet" for name in ("one", "two"))
    assert one.read_bytes() == two.read_bytes()


@pytest.mark.slow
def test_ray_data_embeds_a_webdataset(tmp_path):
    """The example at the top of `clipmem.integrations.ray`, with Ray Data itself."""
    code = f"""
import ray, polars as pl, pyarrow as pa
ray.init(address="local", num_cpus=4, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
from clipmem.integrations.ray import Embed, Records
pairs = ray.data.read_webdataset("{tmp_path / "tars" / "00000.tar"}", decoder=None)
pairs = pairs.map_batches(Records, batch_format="pyarrow", compute=ray.data.ActorPoolStrategy(size=1))
embedded = pairs.map_batches(
    Embed, fn_constructor_kwargs={{"model": "{tmp_path / "model"}"}}, batch_format="pyarrow", batch_size=16,
    compute=ray.data.ActorPoolStrategy(size=1),
)
rows = embedded.take_all()
print(sorted(row["uid"] for row in rows), {{len(row["image_embedding"]) for row in rows}}, sep="\\n")
"""
    openclip.create("clipmem-micro", seed=1).save(tmp_path / "model")
    write_parquet(tmp_path / "pairs.parquet", 40)
    main = [sys.executable, "-m", "clipmem", "export", "pairs", f"{tmp_path / 'pairs.parquet'}"]
    made = [*main, "--to", "webdataset", "--out", f"{tmp_path / 'tars'}"]
    assert subprocess.run(made, env=ENVIRONMENT, check=False).returncode == 0
    done = subprocess.run([sys.executable, "-c", code], env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    uids, widths = done.stdout.strip().splitlines()[-2:]
    assert uids == str(sorted(clipmem.load_pairs(tmp_path / "pairs.parquet").pairs()["uid"]))
    assert widths == "{32}"
