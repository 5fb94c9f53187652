"""Atomic writes, tables, manifest and run folder: nothing half-written, nothing mixed up."""

import errno
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from clipmem.base import manifest
from clipmem.base.errors import InputError, RunError
from clipmem.base.folder import RunFolder
from clipmem.base.hashing import data_fingerprint, file_sha256, json_sha256, pair_uid
from clipmem.base.paths import atomic_file, atomic_write, make_folder
from clipmem.base.recipes import Recipe, dump_recipe, load_recipe
from clipmem.base.tables import SCHEMAS, read_table, write_table

SPLITS = pl.DataFrame({"uid": ["a"], "role": ["shared"], "group": ["g"], "planted": [False], "captions_from": ["a"]})


def test_a_failed_write_leaves_the_old_file(tmp_path):
    file = tmp_path / "x"
    atomic_write(file, b"old")

    def fail():
        with atomic_file(file) as stream:
            stream.write(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert file.read_bytes() == b"old"
    assert [file.name for file in tmp_path.iterdir()] == ["x"]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_one_message_and_exit_code_1(tmp_path, code):
    file = tmp_path / "x"
    with pytest.raises(RunError) as error, atomic_file(file) as stream:  # noqa: PT012
        stream.write(b"half")
        raise OSError(code, os.strerror(code))
    told = str(error.value)
    assert told.startswith(f"could not write {file}: {os.strerror(code)}")
    assert ("MB free" in told) == (code == errno.ENOSPC)  # a quota has numbers of its own
    assert error.value.exit_code == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_really_full_device(monkeypatch, tmp_path):
    full = Path("/dev/full").open("wb", buffering=0)  # noqa: SIM115
    monkeypatch.setattr(Path, "open", lambda *_: full)
    monkeypatch.setattr(Path, "unlink", lambda *_, **__: None)
    with pytest.raises(RunError, match="No space left on device"):
        atomic_write(tmp_path / "x", b"data")
    full.close()


def test_an_unwritable_place_is_the_users_to_mend(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError) as error:
        make_folder(tmp_path / "file" / "inner")
    assert str(error.value) == (
        f"cannot write {tmp_path / 'file' / 'inner'}: got Not a directory, expected a writable folder. "
        "Choose another --out DIR."
    )


def test_uid_tells_parts_apart():
    assert len(pair_uid(b"x", ["a"])) == 32
    assert pair_uid(b"x", ["ab"]) != pair_uid(b"x", ["a", "b"])
    assert pair_uid(b"xa", []) != pair_uid(b"x", ["a"])
    assert pair_uid(b"", ["\ud800"]) != pair_uid(b"", ["?"])  # a lone surrogate is hashed, not refused
    assert data_fingerprint(["a", "b"]) == data_fingerprint(["b", "a"]) != data_fingerprint(["a"])
    text = '{"a":[1.5,"ü"],"b":1}'
    assert json_sha256({"b": 1, "a": [1.5, "ü"]}) == hashlib.sha256(text.encode()).hexdigest()


def test_tables_keep_their_schema(tmp_path):
    file = tmp_path / "splits.parquet"
    write_table(file, "splits", SPLITS.select(reversed(SPLITS.columns)))
    assert read_table(file, "splits").schema == pl.Schema(SCHEMAS["splits"])
    write_table(tmp_path / "again.parquet", "splits", SPLITS)
    assert (tmp_path / "again.parquet").read_bytes() == file.read_bytes()
    with pytest.raises(InputError) as error:
        write_table(file, "splits", SPLITS.drop("group").with_columns(x=1))
    assert "columns missing ['group'], unknown ['x']" in str(error.value)


def test_broken_tables_are_explained(tmp_path):
    file = tmp_path / "splits.parquet"
    with pytest.raises(InputError, match=r"got no file .*splits.parquet"):
        read_table(file, "splits")
    file.write_bytes(b"PAR1 not really")
    with pytest.raises(InputError, match="is not readable as Parquet"):
        read_table(file, "splits")
    SPLITS.drop("planted").write_parquet(file)
    with pytest.raises(InputError, match=r"expected also \['planted'\]"):
        read_table(file, "splits")


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


def test_two_processes_exclude_each_other(tmp_path):
    folder = RunFolder(tmp_path)
    code = f"from clipmem.base.folder import RunFolder\nwith RunFolder({str(tmp_path)!r}).locked(): print('in')"
    with folder.locked():
        other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert f"another clipmem process uses {tmp_path}. Wait for it to end" in other.stderr
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert other.stdout == "in\n"


def test_the_manifest_knows_and_refuses(tmp_path):
    folder = RunFolder(tmp_path)
    made = manifest.build(
        Recipe(),
        data_sha256="d" * 64,
        command="clipmem demo",
        user_set=["a.b=1"],
        execution={"device": "cpu"},
    )
    folder.write_json("manifest.json", made)
    assert manifest.read(folder) == made
    assert made["recipe_sha256"] == manifest.recipe_hash(load_recipe(dump_recipe(Recipe(), comments=True)))
    assert made["recipe_sha256"] != manifest.recipe_hash(load_recipe("", ["train.lr=0.5"]))
    assert {"torch", "open_clip_torch"} <= set(made["packages"])
    manifest.check_data(folder, "d" * 64)
    with pytest.raises(InputError) as error:
        manifest.check_data(folder, "e" * 64)
    assert f"got fingerprint {'d' * 16} there, {'e' * 16} now" in str(error.value)
    folder.write_json("manifest.json", {**made, "format": 2})
    with pytest.raises(InputError, match=r"got format 2, made by clipmem .* Update clipmem\."):
        manifest.read(folder)


def test_documents_that_are_not_json_are_explained(tmp_path):
    (tmp_path / "summary.json").write_text("{")
    with pytest.raises(InputError, match="text that is not JSON"):
        RunFolder(tmp_path).read_json("summary.json")
    with pytest.raises(InputError, match=r"no other.json in it"):
        RunFolder(tmp_path).read_json("other.json")
