"""Engines: their names, what they refuse, and that parts of an embedding are those of the whole."""

import sys
from dataclasses import asdict
from functools import partial
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from clipmem.base.errors import InputError
from clipmem.base.recipes import load_recipe
from clipmem.data.decoding import decode
from clipmem.models import openclip, passes
from clipmem.study import engines, pool
from clipmem.study.engines import ray
from clipmem.study.execution import Execution, from_manifest
from tests.tiny import encoded_image

HOW = Execution("cpu", "fp32", 1, 2)


def message(call, *arguments):
    with pytest.raises(InputError) as caught:
        call(*arguments)
    return str(caught.value)


def test_engines_are_known_by_name(monkeypatch):
    for name in ("local", "ray"):
        engines.check_name(name)
    assert message(engines.check_name, "rya") == (
        "--engine rya: got an unknown engine, expected local or ray. Did you mean 'ray'?"
    )
    for name, processes in (("local", 2), ("ray", 0), ("ray", -1)):
        assert message(engines.check_name, name, processes).startswith(f"--processes {processes}: got --engine {name}")
    assert engines.is_first()
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    assert not engines.is_first()
    assert message(engines.check_name, "ray") == (
        "--engine ray under torchrun: got two engines, expected one of them. Omit --engine, or start without torchrun."
    )


def test_ray_that_is_not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError) as caught, ray.connect():
        pass
    assert str(caught.value) == (
        "--engine ray: got no package ray, expected the extra `ray`. Install it in the checkout: pip install '.[ray]'."
    )


def test_folders_from_before_there_were_engines_are_read():
    there = asdict(HOW)
    assert from_manifest(there) == HOW
    del there["processes"]
    assert from_manifest(there) == HOW


@given(total=st.integers(0, 300), batch_size=st.integers(1, 40), count=st.integers(1, 30))
def test_parts_are_whole_passes_and_cover_everything_once(total, batch_size, count):
    ranges = [passes.Part(index, count).rows(total, batch_size) for index in range(count)]
    assert ranges[0][0] == 0
    assert ranges[-1][1] == total
    assert all(after[0] == before[1] for before, after in pairwise(ranges))
    assert all(start % batch_size == 0 or start == total for start, _ in ranges)
    if count <= -(-total // batch_size):
        assert all(start < end for start, end in ranges)


@pytest.mark.parametrize(("views", "edits", "more"), [(0, 0, None), (2, 3, 0), (0, 2, 60), (0, 0, 9)])
def test_parts_have_the_bytes_of_the_whole(views, edits, more):
    n = 11
    pixels = np.stack([decode(encoded_image(k), size=32, name=str(k)) for k in range(n)])
    captions = [[f"thing {k}" + " and more" * (k % 5), *(["again"] * (k % 3))] for k in range(n)]
    uids = [f"{k:032x}" for k in range(n)]
    recipe = load_recipe("", ["embed.batch_size=2", f"embed.views={views}", f"embed.caption_edits={edits}"])
    encoder = openclip.create("clipmem-micro", seed=0)
    wordings = (
        None if more is None else [[f"wording {k}" for k in range(more if pair == 4 else 0)] for pair in range(n)]
    )

    def embed(part):
        inputs = passes.Inputs(pixels, np.arange(n), captions, uids, wordings, part)
        return passes.embed(encoder, inputs, recipe.embed, recipe.train)

    joined = passes.join([embed(passes.Part(index, 3)) for index in range(3)])
    found = embed(passes.WHOLE)
    assert (found.text_edits is None) == (edits == 0)
    assert (found.wordings is None) == (more is None)
    for whole, of_parts in zip(found, joined, strict=True):
        if whole is None:
            assert of_parts is None
            continue
        assert torch.equal(whole, of_parts)
        assert whole.dtype == of_parts.dtype


@pytest.mark.parametrize(("total", "left", "by_processes"), [(4, 1, True), (4, 4, True), (3, 3, False), (40, 0, False)])
def test_a_share_and_a_stopped_call_compute_with_as_many_threads_as_the_whole(
    tmp_path, monkeypatch, total, left, by_processes
):
    """A tower of width 512 gives other last digits with other numbers of threads."""
    ran = []
    monkeypatch.setattr(pool, "cores", lambda: 2)
    monkeypatch.setattr(
        pool.LocalEngine, "run", lambda self, parts, how, *_, **__: ran.append((how.workers, how.threads, len(parts)))
    )
    parts = {k: ("arguments",) if k < left else () for k in range(total)}
    monkeypatch.setattr(pool, "in_turn", lambda function, mine, progress: ran.append(len(mine)))
    pool.LocalEngine().runner((1, 1), "cpu", tmp_path)(print, parts, print)
    assert ran == ([(2, 1, left)] if by_processes else [left])


@pytest.mark.parametrize("threads", [1, 3])
def test_few_parts_elsewhere_compute_with_the_threads_that_this_process_would_use(tmp_path, monkeypatch, threads):
    """By OMP_NUM_THREADS, or the cores without hyper-threading."""
    ran = []
    monkeypatch.setattr(pool, "cores", lambda: 64)
    monkeypatch.setattr(pool.torch, "get_num_threads", lambda: threads)
    engine = pool.LocalEngine()
    monkeypatch.setattr(engine, "here", False, raising=False)
    monkeypatch.setattr(engine, "run", lambda parts, how, *_, **__: ran.append((how.workers, how.threads)))
    engine.runner((1, 1), "cpu", tmp_path)(print, {0: ("arguments",)}, print)
    engine.runner((1, 1), "cpu", tmp_path, processes=1)(print, dict.fromkeys(range(20), ("arguments",)), print)
    engine.runner((1, 1), "cpu", tmp_path)(print, dict.fromkeys(range(20), ("arguments",)), print)
    assert ran == [(1, threads), (1, threads), (4, 16)]


class FakeRay(SimpleNamespace):
    """A cluster of one node with 8 GPUs and 64 cores; tasks are recorded, not run."""

    def __init__(self):
        super().__init__(nodes=[{"Alive": True, "Resources": {"CPU": 64.0, "GPU": 8.0}}], asked=[])

    def cluster_resources(self):
        return {"CPU": 64.0, "GPU": 8.0}

    def remote(self, function):
        ask = SimpleNamespace(remote=lambda *_, **__: len(self.asked))
        return SimpleNamespace(options=lambda **options: self.asked.append(options) or ask)

    def wait(self, waiting, timeout):
        return waiting, []

    def get(self, reference):
        return "", 0


@pytest.mark.parametrize(("device", "each", "threads"), [("cpu", 64, "64"), ("cuda", 8, "8")])
def test_every_gpu_of_a_node_gets_a_task(tmp_path, device, each, threads):
    fake = FakeRay()
    engine = ray.RayEngine(fake, ray.largest_tasks(fake.nodes), 1)
    task = partial(print)
    engine.run({"part 0": task}, Execution(device, "", 64, 1), tmp_path, progress=print)
    [asked] = fake.asked
    assert (asked["num_cpus"], asked["num_gpus"]) == (each, int(device == "cuda"))
    assert asked["runtime_env"]["env_vars"]["OMP_NUM_THREADS"] == threads


def test_the_smallest_share_of_a_gpu_is_that_of_all():
    nodes = [
        {"Alive": True, "Resources": {"CPU": 16.0}},
        {"Alive": True, "Resources": {"CPU": 64.0, "GPU": 8.0}},
        {"Alive": True, "Resources": {"CPU": 12.0, "GPU": 4.0}},
        {"Alive": False, "Resources": {"CPU": 1.0, "GPU": 1.0}},
    ]
    assert ray.largest_tasks(nodes) == {"cpu": 64, "cuda": 3}
    assert ray.largest_tasks(nodes[:1]) == {"cpu": 16, "cuda": 1}
