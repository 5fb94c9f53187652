"""Engines: their names, what they refuse, and that parts of an embedding are those of the whole."""

import sys
from dataclasses import asdict
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from clipmem.base.errors import InputError
from clipmem.base.recipes import load_recipe
from clipmem.data.decoding import decode
from clipmem.models import openclip, passes
from clipmem.study import engines
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
