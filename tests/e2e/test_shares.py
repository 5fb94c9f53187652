"""Embeddings in parts: by one process, by a pool, in shares as a scheduler's array does them; always the same bytes."""

import json
import os
import pickle
import shutil
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
from clipmem.study.score_inputs import Settings, read_pairs
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


def during_the_first_part(monkeypatch, happens):
    """Let something happen while the first part of a call is embedded."""
    rows, happened = embeddings._embed_rows, []

    def embed_rows(*arguments, **options):
        if not happened:
            happened.append(None)
            happened.append(happens())
        return rows(*arguments, **options)

    monkeypatch.setattr(embeddings, "_embed_rows", embed_rows)
    return happened


def test_of_jobs_of_two_models_that_start_together_one_is_refused(world, tmp_path, small_parts, monkeypatch, capsys):
    out = tmp_path / "emb"
    ended = during_the_first_part(monkeypatch, lambda: embed(world, out, "--part", "2/2", model="other"))
    assert embed(world, out, "--part", "1/2") == 2
    assert ended[1] == 0
    shown = capsys.readouterr().err
    assert f"{world / 'small'} (files " in shown
    assert f"{world / 'other'} (files " in shown
    assert {file.stem for file in (out / "markers").iterdir()} == {f"part-{k:06d}" for k in (1, 3, 5)}
    for folder in (out, tmp_path / "whole"):
        assert embed(world, folder, model="other") == 0
    assert files(out) == files(tmp_path / "whole")


def test_a_part_of_other_pairs_is_not_done(world, tmp_path, small_parts, capsys):
    out = tmp_path / "emb"
    assert embed(world, out, "--part", "1/2") == 0
    marker = out / "markers" / "part-000002.json"
    marker.write_text(json.dumps({**json.loads(marker.read_text()), "key": "0" * 64}))
    capsys.readouterr()
    assert embed(world, out, "--part", "2/2") == 0
    assert "1 of 6 parts are left" in capsys.readouterr().err


def test_a_share_of_the_pairs_in_another_order_is_refused(world, tmp_path, small_parts, capsys):
    table = pl.read_parquet(world / "pairs.parquet").with_row_index().filter(pl.col("index") != 9).drop("index")
    for name, rows in (("forward", table), ("backward", table.reverse())):
        rows.write_parquet(tmp_path / f"{name}.parquet")
    assert embed(world, tmp_path / "emb", "--part", "2/2", data=tmp_path / "forward.parquet") == 0
    assert embed(world, tmp_path / "emb", "--part", "1/2", data=tmp_path / "backward.parquet") == 2
    assert "data = " in capsys.readouterr().err


@pytest.mark.parametrize("name", ["img_emb/img_emb_1.npy", "metadata/metadata_3.parquet", "markers/part-000002.json"])
def test_a_damaged_file_is_done_again_by_the_last_call(world, tmp_path, by_one_process, name):
    out = tmp_path / "emb"
    for part in ("1/2", "2/2"):
        assert embed(world, out, "--part", part) == 0
    (out / name).write_bytes(b"{}" if name.endswith("json") else bytes((out / name).stat().st_size))
    assert embed(world, out) == 0
    assert files(out) == by_one_process


@pytest.mark.parametrize("name", ["img_emb/img_emb_9.npy", "metadata/metadata_9.parquet"])
def test_a_file_of_another_part_is_named(world, tmp_path, small_parts, capsys, name):
    assert embed(world, tmp_path / "emb") == 0
    file = tmp_path / "emb" / name
    shutil.copy(file.with_stem(file.stem.replace("9", "0")), file)
    assert embed(world, tmp_path / "emb") == 2
    assert f"{file}: got part 9" in capsys.readouterr().err


def test_a_share_does_not_create_a_folder_that_was_deleted(world, tmp_path, small_parts, monkeypatch, capsys):
    out = tmp_path / "emb"
    assert embed(world, out, "--part", "2/2") == 0
    during_the_first_part(monkeypatch, lambda: shutil.rmtree(out))
    assert embed(world, out, "--part", "1/2") == 2
    assert f"{out}: got a folder that another call deleted" in capsys.readouterr().err
    assert not out.exists()


def test_parts_of_a_gpu_are_finished_without_one(world, tmp_path, small_parts, monkeypatch, capsys):
    out, made_with = tmp_path / "emb", Settings.made_with
    with monkeypatch.context() as of_gpu:
        of_gpu.setattr(Settings, "made_with", lambda self, *_: {**made_with(self), "device": "cuda"})
        of_gpu.setattr(embeddings, "check_device", lambda *_: None)
        for part in ("1/2", "2/2"):
            assert embed(world, out, "--part", part) == 0
    before = files(out)
    assert embed(world, out) == 0
    assert files(out) == before
    assert embed(world, out, "--device", "cpu") == 2
    assert "device = 'cuda' there, 'cpu' now" in capsys.readouterr().err
    (out / "markers" / "part-000004.json").unlink()
    assert embed(world, out) == 2
    shown = capsys.readouterr().err
    assert "got missing parts, and device 'cpu'" in shown
    assert "Run it with --device cuda, on a machine with it." in shown


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
