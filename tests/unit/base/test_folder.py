"""The run folder: nothing mixed up, one process at a time."""

import json
import subprocess
import sys

import polars as pl
import pytest

from clipmem.base.errors import InputError, RunError
from clipmem.base.folder import Job, RunFolder
from clipmem.base.hashing import file_sha256
from clipmem.base.recipes import Recipe, dump_recipe, load_recipe

SPLITS = pl.DataFrame({"uid": ["a"], "role": ["shared"], "group": ["g"], "planted": [False], "captions_from": ["a"]})


def test_a_folder_of_another_recipe_is_refused_with_both_sides(tmp_path):
    folder = RunFolder(tmp_path / "run")
    folder.claim(Recipe(), dump_recipe(Recipe()))
    folder.claim(Recipe(), dump_recipe(Recipe()))
    other = load_recipe("", ["train.lr=0.5", "split.seed=4"])
    with pytest.raises(InputError) as error:
        folder.claim(other, dump_recipe(other))
    assert error.value.what == f"run folder {folder.path} was made with another recipe"
    assert error.value.got == "split.seed = 0 there, 4 now; train.lr = 0.001 there, 0.5 now"


def test_a_folder_with_other_files_is_refused(tmp_path):
    (tmp_path / ".recipe.toml.4711.tmp").touch()
    (tmp_path / ".clipmem-x.tmp").mkdir()
    assert RunFolder(tmp_path).check_claim(Recipe())  # what a killed command left is no other file
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(InputError, match="a folder with other files and no recipe.toml"):
        RunFolder(tmp_path).claim(Recipe(), dump_recipe(Recipe()))
    with pytest.raises(InputError, match=r"no recipe.toml in it, expected a folder created by `clipmem run`"):
        RunFolder(tmp_path).recipe()
    with pytest.raises(InputError, match="no such folder"):
        RunFolder(tmp_path / "none").recipe()


def test_a_stage_is_done_when_marker_and_outputs_are_there(tmp_path):
    folder = RunFolder(tmp_path)
    output = folder.write("splits", SPLITS)
    assert not folder.is_done("plan")
    folder.finish("plan", [output], 1.23456)
    assert folder.is_done("plan")
    assert folder.seconds() == {"plan": 1.235}
    marker = json.loads(folder.marker("plan").read_text())
    assert marker["outputs"]["splits.parquet"] == {
        "bytes": output.stat().st_size,
        "sha256": file_sha256(output),
    }
    output.write_bytes(output.read_bytes()[:-1])
    assert not folder.is_done("plan")
    output.unlink()
    assert not folder.is_done("plan")


def test_a_discarded_piece_is_to_be_done_again_and_the_others_stay(tmp_path):
    job = Job(tmp_path)
    for name in ("a", "b"):
        (tmp_path / f"{name}.npy").write_bytes(b"x")
        job.finish(name, [tmp_path / f"{name}.npy"], 0.0)
    job.discard("a")
    assert [job.is_done(name) for name in ("a", "b")] == [False, True]
    assert sorted(file.name for file in tmp_path.rglob("*.*")) == ["b.json", "b.npy"]
    with pytest.raises(RunError):
        job.discard("a")


def test_two_processes_exclude_each_other(tmp_path):
    folder = RunFolder(tmp_path)
    code = f"from clipmem.base.folder import Job, RunFolder\nwith RunFolder({str(tmp_path)!r}).locked(): print('in')"
    with folder.locked():
        other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert f"another clipmem process uses {tmp_path}. Wait for it to end" in other.stderr
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert other.stdout == "in\n"


def test_documents_that_are_not_json_are_explained(tmp_path):
    (tmp_path / "summary.json").write_text("{")
    with pytest.raises(InputError, match="text that is not JSON"):
        RunFolder(tmp_path).read_json("summary.json")
    with pytest.raises(InputError, match=r"no other.json in it"):
        RunFolder(tmp_path).read_json("other.json")
