"""Near means and embeddings of pairs on an accelerator agree with the processor; skipped without one."""

import numpy as np
import polars as pl
import pytest
import torch
from tests.e2e.running import clip
from tests.tiny import encoded_image

from clipmem.models import openclip
from clipmem.models.embeddings import Embeddings, embed
from clipmem.stats.cells import Cells
from clipmem.study.score_inputs import Settings, read_pairs

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device, and torch sees none here"),
]

N, BROKEN = 40, 5
UNIT = 2e-5  # unit embeddings in fp32; tf32 in the weights alone changes them by 8e-5 and more


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cuda")
    images = [b"\x89PNG\r\n\x1a\n no image" if k == BROKEN else encoded_image(k) for k in range(N)]
    captions = [[f"thing {k}", f"another caption of {k}"][: 1 + k % 2] for k in range(N)]
    pl.DataFrame({"image": images, "captions": captions}).write_parquet(folder / "pairs.parquet")
    openclip.create("clipmem-micro", seed=1).save(folder / "model")
    return folder


def agree(on_device, on_cpu):
    """The same pairs in the same order, and the same unit embeddings up to `UNIT`."""
    assert on_device.uids.to_list() == on_cpu.uids.to_list()
    assert [(problem.key, problem.reason) for problem in on_device.problems] == [
        (problem.key, problem.reason) for problem in on_cpu.problems
    ]
    for values, expected in zip(on_device.means()[:2], on_cpu.means()[:2], strict=True):
        torch.testing.assert_close(values, expected, rtol=0, atol=UNIT)


@pytest.mark.parametrize("grouped", [False, True])
def test_near_means(grouped):
    stream, n = np.random.default_rng(0), 3000
    # around 50 directions: near rows weigh alike; the last rows repeat the first, with ties
    query = stream.normal(size=(50, 64))[stream.integers(50, size=n)] + stream.normal(size=(n, 64))
    query[-100:] = query[:100]
    query, value = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (query, stream.normal(size=(n, 32))))
    query = query.astype(np.float16).astype(np.float64)  # as rows are compared, so that ties stay ties
    cells = Cells(query.astype(np.float32), probes=4)
    group = stream.integers(n // 3, size=n) if grouped else None
    count = 0
    by_device = [
        cells.means(value.astype(np.float32), 5, group, temperature=0.07, device=device) for device in ("cuda", "cpu")
    ]
    for on_device, on_cpu in zip(*by_device, strict=True):
        assert on_device.rows.tolist() == on_cpu.rows.tolist()
        np.testing.assert_allclose(on_device.mean, on_cpu.mean, rtol=0, atol=1e-5)
        # in the place of a near row only one as near
        assert ((on_device.near < 0) == (on_cpu.near < 0)).all()
        assert all(len(set(near)) == len(near) for near in on_device.near.tolist() if min(near) >= 0)
        cosine = [np.einsum("bd,bkd->bk", query[on_cpu.rows], query[each.near]) for each in (on_device, on_cpu)]
        np.testing.assert_allclose(*cosine, rtol=0, atol=1e-6)
        count += len(on_device.rows)
    assert count == n


@pytest.mark.parametrize("views", [0, 2])
def test_embeddings_in_parts(world, tmp_path, views):
    by_device = {}
    for device in ("cuda", "cpu"):
        settings = Settings.of(views=views, batch_size=7, device=device)
        pairs = read_pairs(str(world / "pairs.parquet"), None, "--data")
        model, folder = settings.model(str(world / "model")), tmp_path / device
        [by_device[device]] = embed({folder: model}, pairs, settings.made_with(), block=8)
        assert next(model.encoder.module.parameters()).device.type == device
    agree(by_device["cuda"], by_device["cpu"])
    assert len(by_device["cuda"]) == N - 1


def test_texts_of_a_model(world):
    texts = ["a cat", "a photo of two dogs on a beach", "thing 7"]
    values = [Settings.of(device=device).model(str(world / "model")).embed_texts(texts) for device in ("cuda", "cpu")]
    on_device, on_cpu = (torch.nn.functional.normalize(x.cpu(), dim=-1) for x in values)
    torch.testing.assert_close(on_device, on_cpu, rtol=0, atol=UNIT)


def test_exported_embeddings_open(world, tmp_path):
    for device in ("cuda", "cpu"):
        words = ["--model", world / "model", "--data", world / "pairs.parquet", "--out", tmp_path / device]
        done = clip("export", "embeddings", *words, "--device", device)
        assert done.returncode == 0, done.stderr
    on_device = Embeddings.open(tmp_path / "cuda")
    [card] = on_device.cards.values()
    assert card is not None
    assert card["device"] == "cuda"
    agree(on_device, Embeddings.open(tmp_path / "cpu"))
