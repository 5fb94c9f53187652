"""The way in of docs/own-data.md, typed as it stands there, on the shipped emoji in the formats that people have."""

import re
import shlex
from pathlib import Path

import pytest

import clipmem
from clipmem.base.recipes import load_recipe
from clipmem.cli import main
from clipmem.data.sources import open_source
from tests.unit.data.sources import formats

PAGE = (Path(__file__).parents[2] / "docs" / "own-data.md").read_text(encoding="utf-8")
PAIRS = 60


def section():
    """The text of the page's first section."""
    return PAGE.partition("\n## ")[0]


def commands():
    """The commands of the section, with the setting that it gives for a first try."""
    [block] = re.findall(r"```sh\n(.*?)```", section(), flags=re.DOTALL)
    [setting] = re.findall(r"add `(--set [^`]+)` to `clipmem init`", " ".join(section().split()))
    typed = [shlex.split(line, comments=True) for line in block.splitlines()]
    return [command + shlex.split(setting) * (command[1] == "init") for command in typed]


def emoji_pairs(n):
    """Names, bytes and up to five captions of shipped pairs."""
    source = open_source(load_recipe("").data)
    rows = source.pairs().head(n)
    data = source.read(rows["image"].to_list())
    return [
        (f"{k:04d}.webp", one, texts[:5]) for k, (one, texts) in enumerate(zip(data, rows["captions"], strict=True))
    ]


def typed(command):
    """Run a command line in this process; return its exit code."""
    try:
        main(command[1:])
    except SystemExit as end:
        return end.code or 0
    return 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("write", "source", "path"),
    [
        pytest.param(formats.tsv_file, "csv", "photos/train.tsv", id="open_clip's CSV"),
        pytest.param(formats.webdataset, "webdataset", "photos/", id="tars"),
        pytest.param(formats.imagefolder_txt, "imagefolder", "photos/", id="images and texts"),
    ],
)
def test_the_commands_work_as_they_stand(write, source, path, tmp_path, monkeypatch, capsys):
    write(tmp_path / "photos", [(name, data, list(texts)) for name, data, texts in emoji_pairs(PAIRS)])
    monkeypatch.chdir(tmp_path)
    every = commands()
    assert [command[1] for command in every] == ["inspect", "init", "run", "localize", "view"]
    for command in every:
        assert typed(command) == 0, (command, capsys.readouterr().err)
    recipe = load_recipe(Path("study.toml").read_text(encoding="utf-8"))
    assert (recipe.data.source, recipe.data.path) == (source, path)
    assert (recipe.split.planted, recipe.train.captions, recipe.train.epochs) == (0, 1, 1)
    run = clipmem.load_run("runs/mine")
    assert run.scores.height == 39 + 3 * 6
    assert run.splits["planted"].sum() == 0
    assert run.pairs.height == PAIRS
    assert Path("runs/mine/localize/layers.parquet").is_file()
    assert Path("runs/mine/report/index.html").is_file()
