"""A disk that is full in any stage: one line that says so, nothing half-written, and the same bytes once there is room.

The disk is real and small; before a stage begins, all of it but `room` is taken. Smaller rooms stop a stage at its
first file, larger ones at a later file, or in the middle of one.
"""

import json
import os

import pytest

import clipmem
from clipmem.base.errors import RunError
from clipmem.base.folder import RunFolder
from clipmem.base.hashing import file_sha256
from clipmem.base.progress import Quiet
from clipmem.base.recipes import dump_recipe
from clipmem.report.run import STAGES
from tests.e2e.running import clip
from tests.e2e.test_study import contents
from tests.tiny import tiny_recipe


class Filler(Quiet):
    """Takes the room of a disk before `stage` begins."""

    def __init__(self, place, stage, room):
        self.place, self.stage, self.room = place, stage, room

    def begin(self, stage, total=None, unit=""):
        if stage == self.stage and not (self.place / "ballast").exists():
            fill(self.place, self.room)


def fill(place, room):
    disk = os.statvfs(place)
    with (place / "ballast").open("wb") as stream:
        os.posix_fallocate(stream.fileno(), 0, disk.f_bavail * disk.f_frsize - room)


def sizes(out):
    """Return the bytes of each stage's outputs."""
    found = {file.stem: json.loads(file.read_text())["outputs"] for file in out.glob("stages/*.json")}
    return {stage: sum(output["bytes"] for output in outputs.values()) for stage, outputs in found.items()}


def nothing_false(out):
    """What a marker calls finished is whole, and there is nothing else that looks finished."""
    assert not list(out.rglob("*.tmp"))
    for file in out.glob("stages/*.json"):
        for name, output in json.loads(file.read_text())["outputs"].items():
            assert file_sha256(out / name) == output["sha256"]


def fails_in(stage, out, place, room):
    with pytest.raises(RunError) as caught:
        clipmem.run(tiny_recipe(), out, reporter=Filler(place, stage, room))
    told = str(caught.value)
    assert told.startswith(f"could not write {out}/")
    assert "No space left on device" in told
    assert "MB free" in told
    assert len(told.splitlines()) == 1
    assert not RunFolder(out).is_done(stage)
    nothing_false(out)
    (place / "ballast").unlink()


@pytest.mark.slow
def test_full_in_every_stage_in_turn(finished, disk):
    place, remount = disk
    assert remount("size=256m").returncode == 0
    for stage in STAGES:
        fails_in(stage, place / "run", place, 0)
    clipmem.run(tiny_recipe(), place / "run")
    assert contents(place / "run") == contents(finished.path)


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
def test_full_at_several_moments_of_a_stage(finished, disk, fresh, monkeypatch, stage):
    # a checkpoint after every step, so that a disk may be full of those
    monkeypatch.setenv("CLIPMEM_CHECKPOINT_SECONDS", "0")
    place, remount = disk
    assert remount("size=256m").returncode == 0
    size = sum(value for name, value in sizes(finished.path).items() if name.split("-")[0] == stage)
    # ever less room than is left to write: what a failed try has finished stays
    for share in (0.5, 0.2, 0.05):
        fails_in(stage, place / "run", place, int(share * size))
    clipmem.run(tiny_recipe(), place / "run")
    assert contents(place / "run") == contents(finished.path)


# full while images are decoded, tables written, a model written; test_cli has a shorter one
@pytest.mark.slow
@pytest.mark.parametrize("size", ["256k", "8m"])  # too little for the models, which is refused; too little for the rest
def test_the_command_says_so_and_a_second_one_completes(finished, tmp_path, disk, size):
    recipe = tmp_path / "study.toml"
    recipe.write_text(dump_recipe(tiny_recipe()))
    place, remount = disk
    out = place / "run"
    assert remount(f"size={size}").returncode == 0
    full = clip("run", recipe, "--out", out)
    assert full.returncode == (2 if size == "256k" else 1), full.stderr
    last = full.stderr.splitlines()[-1]
    if size == "256k":
        assert last.startswith("clipmem: disk space of the study")
        assert f"the free space at {place}" in last
    else:
        assert last.startswith(f"clipmem: could not write {out}/")
        assert "No space left on device" in last
        assert "MB free" in last
    assert "Traceback" not in full.stderr
    nothing_false(out)
    assert remount("size=256m").returncode == 0
    again = clip("run", recipe, "--out", out)
    assert again.returncode == 0, again.stderr
    assert contents(out) == contents(finished.path)
