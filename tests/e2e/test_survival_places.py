"""Folders that are in use, read-only, or lose a file in the middle."""

import os
import signal
import time

import pytest

import clipmem
from clipmem.base.errors import InputError
from clipmem.base.folder import RunFolder
from clipmem.base.recipes import dump_recipe
from tests.e2e.running import Saboteur, clip, ends_well, start
from tests.e2e.test_study import contents
from tests.tiny import tiny_recipe, write_parquet

STUDY = ("train.seeds=[0]", "train.epochs=2")


@pytest.fixture
def recipe(tmp_path):
    file = tmp_path / "study.toml"
    file.write_text(dump_recipe(tiny_recipe(*STUDY)))
    return file


@pytest.mark.slow
def test_two_processes_on_one_folder(recipe, tmp_path):
    out = tmp_path / "run"
    first = start(recipe, out)
    until = time.monotonic() + 240
    while not RunFolder(out).marker("decode").is_file():
        assert first.poll() is None, first.stderr.read()
        assert time.monotonic() < until
        time.sleep(0.01)
    first.send_signal(signal.SIGSTOP)  # it holds the folder for as long as we like
    try:
        second = clip("run", recipe, "--out", out)
    finally:
        first.send_signal(signal.SIGCONT)
    assert second.returncode == 1
    assert second.stderr.splitlines()[-1] == (
        f"clipmem: another clipmem process uses {out}. Wait for it to end, or choose another --out DIR."
    )
    ends_well(first)
    assert clip("run", recipe, "--out", out).stderr.count("done before") == 7


@pytest.mark.slow
def test_a_read_only_disk(recipe, disk):
    place, remount = disk
    assert remount("size=256m,ro").returncode == 0
    fresh = clip("run", recipe, "--out", place / "run")
    assert (fresh.returncode, fresh.stderr) == (
        2,
        f"clipmem: cannot write {place / 'run'}: got Read-only file system, expected a writable folder. "
        "Choose another --out DIR.\n",
    )
    assert remount("rw").returncode == 0
    clipmem.run(recipe, place / "run")
    assert remount("ro").returncode == 0
    finished = clip("run", recipe, "--out", place / "run")
    assert finished.returncode == 2
    assert finished.stderr.startswith(f"clipmem: cannot write {place / 'run'}: got Read-only file system")
    # reading it needs no writing
    assert len(clipmem.load_run(place / "run").scores) == 120


def test_a_folder_without_the_right_to_write(recipe, tmp_path):
    if os.access("/", os.W_OK) and os.geteuid() == 0:
        pytest.skip("root may write everywhere; the read-only disk is tested instead")
    (tmp_path / "locked").mkdir(mode=0o555)
    done = clip("run", recipe, "--out", tmp_path / "locked" / "run")
    assert done.returncode == 2
    assert f"cannot write {tmp_path / 'locked' / 'run'}: got Permission denied" in done.stderr


def parquet_recipe(folder, shards=2):
    """Pairs in several Parquet files."""
    (folder / "pairs").mkdir()
    import polars as pl

    whole = pl.read_parquet(write_parquet(folder / "all.parquet", 130))
    for shard in range(shards):
        whole.gather_every(shards, shard).write_parquet(folder / "pairs" / f"{shard}.parquet")
    return tiny_recipe(
        *STUDY, "data.source=parquet", f"data.path={folder / 'pairs'}", "split.near_duplicates=false", "split.planted=0"
    )


def test_a_shard_that_is_gone_when_a_study_goes_on(tmp_path):
    recipe, out = parquet_recipe(tmp_path), tmp_path / "run"

    class Stop(Exception):
        pass

    def stop():
        raise Stop

    with pytest.raises(Stop):
        clipmem.run(recipe, out, reporter=Saboteur("train", stop))
    gone = tmp_path / "pairs" / "1.parquet"
    kept = gone.read_bytes()
    gone.unlink()
    with pytest.raises(InputError) as caught:
        clipmem.run(recipe, out)
    # half of the pairs are not enough
    assert "pairs (shared" in str(caught.value)
    assert "65 in the data" in str(caught.value)
    gone.write_bytes(kept[: len(kept) // 2])
    with pytest.raises(InputError) as caught:
        clipmem.run(recipe, out)
    assert "not readable as Parquet" in str(caught.value)
    gone.write_bytes(kept)
    assert clipmem.run(recipe, out).summary.roles["candidate"].n == 20


@pytest.mark.slow
def test_images_that_vanish_before_they_are_decoded_or_trained_on(tmp_path):
    recipe, out = parquet_recipe(tmp_path), tmp_path / "run"
    cache = out / "cache" / "pixels.npy"
    with pytest.raises(InputError) as caught:
        clipmem.run(recipe, out, reporter=Saboteur("train", cache.unlink))
    assert str(caught.value) == (
        f"pixel cache {cache}: got [Errno 2] No such file or directory: '{cache}'. "
        "Delete it and run the study again: only that stage is repeated."
    )
    run = clipmem.run(recipe, out)
    assert contents(out) == contents(clipmem.run(recipe, tmp_path / "undisturbed").path)
    assert run.summary.roles["candidate"].n == 20


@pytest.mark.slow
def test_a_model_that_vanishes_before_it_embeds(tmp_path):
    out = tmp_path / "run"
    weights = out / "models" / "g" / "seed-0" / "open_clip_model.safetensors"
    with pytest.raises(InputError) as caught:
        clipmem.run(tiny_recipe(*STUDY), out, reporter=Saboteur("embed", weights.unlink))
    error = caught.value
    assert (error.what, error.got) == (f"model folder {weights.parent}", "no open_clip_model.safetensors")
    assert error.expected
    assert error.hint
    clipmem.run(tiny_recipe(*STUDY), out)
    assert contents(out) == contents(clipmem.run(tiny_recipe(*STUDY), tmp_path / "undisturbed").path)
