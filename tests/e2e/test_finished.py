"""A finished study that is run again: its source is not read, unless its files have changed."""

import os
import shutil

import pytest

import clipmem
from clipmem.base.errors import InputError
from clipmem.base.sections import DataSection
from clipmem.data.sources import emoji, files_state, huggingface
from tests.tiny import tiny_recipe, write_parquet

SMALL = ("split.shared=8", "split.candidate=4", "split.independent=4", "split.external=4", "split.planted=0")


@pytest.fixture
def unread(monkeypatch):
    """Sources that must not be read."""

    def pairs(self):
        raise AssertionError(f"{self} was read")

    for source in (emoji.EmojiSource, huggingface.ParquetSource):
        monkeypatch.setattr(source, "pairs", pairs)


def test_a_finished_study_is_not_read_again(finished, tmp_path, unread):
    shutil.copytree(finished.path, tmp_path / "run")
    again = clipmem.run(finished.recipe, tmp_path / "run")
    assert again.summary == finished.summary


def test_changed_files_are_read_and_refused(tmp_path, request):
    path, out = tmp_path / "pairs.parquet", tmp_path / "run"
    write_parquet(path, n=24)
    recipe = tiny_recipe(
        *SMALL, f"data.path={str(path)!r}", "train.epochs=1", "train.seeds=[0]", "model.name=clipmem-micro"
    )
    clipmem.run(recipe, out)
    stat = path.stat()
    write_parquet(path, n=25)
    with pytest.raises(InputError) as error:
        clipmem.run(recipe, out)
    assert "data" in error.value.what
    write_parquet(path, n=24)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    request.getfixturevalue("unread")
    clipmem.run(recipe, out)


def test_files_that_cannot_be_listed_or_read(tmp_path):
    (tmp_path / "link.png").symlink_to(tmp_path / "nothing")
    before = files_state(DataSection.model_validate({"path": str(tmp_path)}))
    (tmp_path / "b\udcff.png").write_bytes(b"x")  # a name that is no UTF-8
    after = files_state(DataSection.model_validate({"path": str(tmp_path)}))
    assert len(before) == len(after) == 64
    assert before != after
    assert not files_state(DataSection.model_validate({"path": str(tmp_path / "none")}))
