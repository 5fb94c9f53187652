"""examples/hub/clean_dataset.py: data sets with swapped captions, and what is refused."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
import pytest

from clipmem.data.sources.emoji import emoji_table
from tests.e2e.running import Done
from tests.scripts import load_script

datasets = pytest.importorskip("datasets", reason="the extra hf is not installed")

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "examples" / "hub" / "clean_dataset.py"
N, SWAPPED = 240, 40


class Planted(NamedTuple):
    """A data set of emoji, the rows with the caption of another one, and the right captions."""

    dataset: "datasets.Dataset"
    rows: set[int]
    captions: list[str]


@pytest.fixture(scope="module")
def planted():
    table = emoji_table().unique("unicode", keep="first", maintain_order=True).head(N)
    right = [texts[0] for texts in table["captions"].to_list()]
    rows, captions = np.random.default_rng(0).permutation(N)[:SWAPPED], list(right)
    for row, other in zip(rows, np.roll(rows, 1), strict=True):
        captions[row] = right[other]
    images = [{"bytes": image["bytes"], "path": None} for image in table["image"].to_list()]
    features = datasets.Features({"photo": datasets.Image(), "words": datasets.Value("string")})
    features["number"] = datasets.Value("int64")
    data = {"photo": images, "words": captions, "number": list(range(N))}
    return Planted(datasets.Dataset.from_dict(data, features=features), {int(row) for row in rows}, right)


def run_alone(folder, *words):
    """Run the script in a process of its own in `folder`, without a network."""
    cache = {"HF_HOME": str(folder / "cache"), "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    return subprocess.run(
        [sys.executable, SCRIPT, *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src"), **cache},
        timeout=300,
    )


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """The script in this process, which has the libraries imported."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.chdir(tmp_path)
    main = load_script(SCRIPT).main

    def call(*words):
        code = 0
        try:
            main([str(word) for word in words])
        except SystemExit as end:
            code = end.code
        captured = capsys.readouterr()
        return Done(code, captured.out, captured.err)

    return call


COLUMNS = ("--image", "photo", "--caption", "words")


@pytest.mark.parametrize("form", ["saved", "splits", "parquet"])
def test_swapped_captions_go(planted, run, tmp_path, form):
    data, split = tmp_path / "data", ("--split", "test") if form == "splits" else ()
    if form == "saved":
        planted.dataset.save_to_disk(data)
    elif form == "splits":
        datasets.DatasetDict({"test": planted.dataset, "more": planted.dataset.select(range(5))}).save_to_disk(data)
    else:
        data.mkdir()
        for part in range(2):
            planted.dataset.shard(2, part, contiguous=True).to_parquet(data / f"train-{part:05d}-of-00002.parquet")
    words = (data, "--out", "out", "--suspects", SWAPPED, *COLUMNS, *split)
    done = run_alone(tmp_path, *words) if form == "saved" else run(*words)
    assert done.returncode == 0, done.stderr
    suspects = pl.read_parquet(tmp_path / "out" / "suspects.parquet")
    assert suspects["probability"].is_sorted(descending=True)
    assert suspects["probability"].is_between(0, 1).all()
    assert suspects["captions"].list.first().to_list() == [planted.dataset["words"][row] for row in suspects["row"]]
    assert suspects["reason"].null_count() == 0
    right = planted.rows.intersection(suspects["row"])
    assert len(right) > 3 * suspects.height * SWAPPED / N  # more than three times as many as by chance
    # as `datasets` finds it on the hub, with the list beside it
    name = split[1] if split else "train"
    cleaned = datasets.load_dataset(str(tmp_path / "out"), split=name, cache_dir=str(tmp_path / "read"))
    assert cleaned["number"] == [row for row in range(N) if row not in set(suspects["row"])]
    assert cleaned.features == planted.dataset.features
    before = planted.dataset.cast_column("photo", datasets.Image(decode=False))
    after = cleaned.cast_column("photo", datasets.Image(decode=False))
    assert [row["bytes"] for row in after["photo"]] == [
        before[number]["photo"]["bytes"] for number in cleaned["number"]
    ]
    assert f"{N} rows, {suspects.height} suspects; {len(cleaned)} rows in" in done.stdout


def test_what_is_refused(planted, run, tmp_path):
    data = tmp_path / "data"
    datasets.DatasetDict({"a": planted.dataset, "b": planted.dataset}).save_to_disk(data)
    (tmp_path / "there").mkdir()
    for words, complaint in (
        ((data, "--out", "there"), "an existing path"),
        ((data, "--out", "out"), "--split"),
        ((data, "--out", "out", "--split", "c"), "--split"),
        ((data, "--out", "out", "--split", "a", "--caption", "text"), "caption_column"),
        (("nobody/nothing", "--out", "out"), "nobody/nothing"),
    ):
        done = run_alone(tmp_path, *words) if words[0] == "nobody/nothing" else run(*words)
        assert done.returncode == 2, done.stderr
        assert complaint in done.stderr
        assert "Traceback" not in done.stderr
        assert not (tmp_path / "out").exists()


def test_its_metadata_names_this_project():
    """PEP 723: what `uv run` reads; Python as pyproject.toml has it, and the package by the path of this checkout."""
    [block] = re.findall(r"(?m)^# /// script$\s((?:^#(?:| .*)$\s)+)^# ///$", SCRIPT.read_text(encoding="utf-8"))
    metadata = tomllib.loads("".join(line[2:] or "\n" for line in block.splitlines(keepends=True)))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert metadata["requires-python"] == project["requires-python"]
    extra = [name for name in project["optional-dependencies"]["hf"] if name.startswith("datasets")]
    assert metadata["dependencies"] == [project["name"], *extra]
    path = metadata["tool"]["uv"]["sources"][project["name"]]["path"]
    assert (SCRIPT.parent / path).resolve() == ROOT
