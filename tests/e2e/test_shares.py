"""Embeddings in parts: by one process, by a pool, in shares as a scheduler's array does them; always the same bytes."""

import os
import pickle
import signal
import subprocess
import sys
import time

import polars as pl
import pytest

import clipmem
from clipmem.base.errors import InputError, Unfinished
from clipmem.cli import main
from clipmem.models import embeddings, openclip
from clipmem.study import pool
from clipmem.study.engines import share_of
from clipmem.study.score_inputs import read_pairs
from tests.tiny import encoded_image

N, BLOCK = 42, 1  # six parts of 8 pairs


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shares")
    images = [b"\x89PNG\r\n\x1a\n no image" if k == 9 else encoded_image(k) for k in range(N)]
    table = pl.DataFrame({"image": images, "captions": [f"thing {k}" for k in range(N)]})
    table.write_parquet(folder / "pairs.parquet")
    openclip.create("clipmem-micro", seed=1).save(folder / "small")
    openclip.create("clipmem-micro", seed=2).save(folder / "other")
    return folder


@pytest.fixture
def small_parts(monkeypatch):
    monkeypatch.setattr(embeddings, "BLOCK", BLOCK)
    monkeypatch.setattr(pool, "_FEW", 1000)  # by this process


@pytest.fixture
def by_one_process(world, small_parts):
    """The files of all parts done in this process."""
    embed(world, world / "whole")
    return files(world / "whole")


def kill_share(words, out, setting=""):
    """Run a command that embeds, half a second a part, and kill it and its processes once the first part is done."""
    step = (
        f"import sys, time\nfrom clipmem.models import embeddings\n{setting}write = embeddings.write_part\n"
        "def slow(*given):\n    time.sleep(0.5)\n    return write(*given)\n"
        "embeddings.write_part = slow\nfrom clipmem.cli import main\nmain(sys.argv[1:])\n"
    )
    process = subprocess.Popen([sys.executable, "-c", step, *map(str, words)], start_new_session=True)
    deadline = time.monotonic() + 120
    while not (out / "markers" / "part-000000.json").is_file():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def files(folder):
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def embed(world, out, *more, model="small", data=None):
    data = data or world / "pairs.parquet"
    try:
        main(["export", "embeddings", "--model", f"{world / model}", "--data", f"{data}", "--out", f"{out}", *more])
    except SystemExit as end:
        return end.code or 0
    return 0


@pytest.mark.slow
def test_a_pool_gives_the_bytes_of_one_process(world, tmp_path, by_one_process, monkeypatch):
    monkeypatch.setattr(pool, "cores", lambda: 2)
    monkeypatch.setattr(pool, "_FEW", 2)
    ran, run = [], pool.LocalEngine.run
    monkeypatch.setattr(
        pool.LocalEngine, "run", lambda self, parts, *more, **how: (ran.extend(parts), run(self, parts, *more, **how))
    )
    assert embed(world, tmp_path / "emb") == 0
    assert ran == [f"part {k}" for k in range(6)]
    assert files(tmp_path / "emb") == by_one_process


@pytest.mark.parametrize("count", [1, 4, 16])
def test_shares_in_any_order_give_the_bytes_of_the_whole(world, tmp_path, by_one_process, capsys, count):
    out = tmp_path / "emb"
    for number in range(count, 0, -1):
        capsys.readouterr()
        assert embed(world, out, "--part", f"{number}/{count}") == 0
        told = capsys.readouterr()
        if count > 1:
            done = sum(k % count >= number - 1 for k in range(6))
            left = f"{6 - done} of 6 parts are left" if done < 6 else "all parts are done"
            assert f"share {number}/{count} is done, {left}" in told.err
            assert told.out == ""
            assert (out / "skipped.parquet").exists() == (done == 6)  # finished by the share that is the last one
    assert embed(world, out) == 0
    assert files(out) == by_one_process


@pytest.mark.slow
def test_what_is_scored_in_shares_is_what_is_scored_at_once(world, tmp_path, small_parts):
    data = str(world / "pairs.parquet")
    whole, out = tmp_path / "whole.parquet", tmp_path / "scores.parquet"
    score = clipmem.study.api.Inputs([str(world / "small")], [str(world / "other")], data, data)
    clipmem.study.api.score_into(whole, score)
    for number in (2, 1, 2):  # a share that is done is not done again
        with pytest.raises(Unfinished) as ended:
            clipmem.study.api.score_into(out, score, part=f"{number}/2")
        assert ended.value.total == 6
        assert not out.exists()
    assert ended.value.remaining == 0
    clipmem.study.api.score_into(out, score)
    assert out.read_bytes() == whole.read_bytes()
    assert out.with_suffix(".json").read_bytes() == whole.with_suffix(".json").read_bytes()
    assert not out.with_suffix(".parts").exists()


@pytest.mark.slow
def test_a_share_that_is_killed_is_done_again(world, tmp_path, by_one_process):
    out = tmp_path / "emb"
    words = ["export", "embeddings", "--model", world / "small", "--data", world / "pairs.parquet", "--out", out]
    kill_share([*words, "--part", "1/2"], out, "embeddings.BLOCK = 1\n")
    assert not (out / "markers" / "part-000004.json").is_file()
    for part in ("2/2", "1/2"):
        assert embed(world, out, "--part", part) == 0
    assert embed(world, out) == 0
    assert files(out) == by_one_process


@pytest.mark.parametrize("part", ["5/4", "0/4", "-1/4", "1/0", "3", "a/b", "1/2/3", "1.5/2", "9999999/9999999"])
def test_a_share_that_does_not_exist(world, tmp_path, capsys, part):
    with pytest.raises(InputError) as caught:
        share_of(part)
    assert (caught.value.what, caught.value.got) == ("--part", repr(part))
    assert embed(world, tmp_path / "emb", f"--part={part}") == 2
    assert "--part: got" in capsys.readouterr().err
    assert not (tmp_path / "emb").exists()


def test_a_share_of_other_data_or_of_another_model_is_refused(world, tmp_path, small_parts, capsys):
    out = tmp_path / "emb"
    assert embed(world, out, "--part", "1/2") == 0
    capsys.readouterr()
    assert embed(world, out, "--part", "2/2", model="other") == 2
    shown = capsys.readouterr().err
    assert f"{world / 'small'} (files " in shown
    assert f"{world / 'other'} (files " in shown
    table = pl.read_parquet(world / "pairs.parquet")
    table.head(20).write_parquet(tmp_path / "fewer.parquet")
    assert embed(world, out, "--part", "2/2", data=tmp_path / "fewer.parquet") == 2
    assert "pairs = 42 there, 20 now" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["file", "table", "shipped"])
def test_another_process_opens_the_same_data(world, kind):
    table = pl.read_parquet(world / "pairs.parquet").filter(pl.col("captions") != "thing 9")
    data = {"file": str(world / "pairs.parquet"), "table": clipmem.load_pairs(table), "shipped": "emoji"}[kind]
    pairs = read_pairs(data, None, "--data")
    sent = pickle.loads(pickle.dumps(pairs))
    assert sent.table.equals(pairs.table)
    references = pairs.table["image"].head(3).to_list()
    assert sent.source is not pairs.source
    assert sent.source.read(references) == pairs.source.read(references)


def test_shares_and_engines_need_pairs_to_embed(world, tmp_path, capsys):
    assert embed(world, tmp_path / "emb") == 0
    stored, out = str(tmp_path / "emb"), tmp_path / "scores.parquet"
    commands = (
        ["score", "--target", stored, "--reference", stored, "--bank-size", "5", "--out", str(out)],
        ["curate", str(world / "pairs.parquet"), "--out", str(tmp_path / "out")],
        ["curate", "--model", stored, "--out", str(tmp_path / "out")],
    )
    for command in commands:
        for option, value in {"--part": "1/2", "--engine": "ray"}.items():
            capsys.readouterr()
            with pytest.raises(SystemExit) as ended:
                main([*command, option, value])
            assert ended.value.code == 2
            assert f"{option}: got no pairs to embed" in capsys.readouterr().err
    assert not out.exists()
