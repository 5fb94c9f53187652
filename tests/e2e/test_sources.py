"""A study from the formats that users have: the command on a CSV, and the same scores from every format."""

import json

import polars as pl
import pytest

import clipmem
from tests.e2e.running import clip
from tests.tiny import tiny_recipe
from tests.unit.data.sources import formats
from tests.unit.data.sources.formats import some_pairs

pytestmark = pytest.mark.slow

STUDY = ("train.seeds=[0]", "train.epochs=1", "split.near_duplicates=false")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The same 130 pairs, shuffled and in three formats, and a study of each."""
    made = {}
    for number, name in enumerate(("tsv", "webdataset", "parquet-struct")):
        folder = tmp_path_factory.mktemp(name)
        path = formats.FORMATS[name][1](folder / "set", formats.seeded_shuffle(some_pairs(130), number))
        made[name] = clipmem.run(tiny_recipe(*STUDY, f"data.path={path}"), folder / "run")
    return made


def test_every_format_gives_the_same_scores(runs):
    first, *others = runs.values()
    assert first.scores.height == 120
    for run in others:
        for table in ("splits.parquet", "scores.parquet", "seed_scores.parquet", "cache/pixels.npy"):
            assert (run.path / table).read_bytes() == (first.path / table).read_bytes()
        assert run.pairs.select("uid", "captions").equals(first.pairs.select("uid", "captions"))
        assert run.manifest["data_sha256"] == first.manifest["data_sha256"]


def test_images_of_a_finished_run_are_read_from_its_source(runs):
    found = [run.images(sorted(run.scores["uid"])[:5]) for run in runs.values()]
    assert found[0] == found[1] == found[2]
    assert len(found[0]) == 5


def test_the_command_on_a_csv_with_broken_records(tmp_path):
    pairs = some_pairs(124)
    path = formats.csv_file(tmp_path / "set", pairs)
    with path.open("a") as table:
        table.write("gone.png,never there\n0000.png,\n")
    (tmp_path / "set" / "0001.png").write_bytes(b"")
    (tmp_path / "study.toml").write_text(f"[data]\npath = {json.dumps(str(path))}\n")
    roles = ("shared=60", "candidate=20", "independent=20", "external=20", "planted=4")
    settings = [*(f"split.{role}" for role in roles), *STUDY, "model.name=clipmem-micro", "train.batch_size=32"]
    words = [word for setting in settings for word in ("--set", setting)]
    done = clip("run", tmp_path / "study.toml", *words, "--out", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    table = pl.read_parquet(tmp_path / "run" / "pairs.parquet")
    assert table.height == 123
    assert "0001.png" not in table["key"].to_list()
    assert (tmp_path / "run" / "report" / "index.html").is_file()
    wrong = clip("run", tmp_path / "study.toml", "--set", f"data.path={tmp_path / 'none'}", "--out", tmp_path / "other")
    assert wrong.returncode == 2
    assert wrong.stderr.startswith(f"clipmem: [data] path: got '{tmp_path / 'none'}', no such file or folder, expected")
