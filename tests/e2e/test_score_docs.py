"""The commands and the Python example of docs/score.md, run as they stand, on the smallest model."""

import contextlib
import re
import shlex
from pathlib import Path

import polars as pl
import pytest

import clipmem
from clipmem.cli import main

ROOT = Path(__file__).parents[2]
PAGE, MEANING = ((ROOT / "docs" / name).read_text(encoding="utf-8") for name in ("score.md", "meaning.md"))


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", PAGE, flags=re.DOTALL)


def run(command, *more):
    words = [*shlex.split(command), *more]
    assert words[0] == "clipmem"
    with contextlib.suppress(SystemExit):
        main(words[1:])


@pytest.mark.slow
def test_the_commands_and_the_example_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    [example, stored, _] = blocks("sh")  # the last one is run by test_given.py
    trained, scores = example.splitlines()
    run(trained, "--set", "model.name=clipmem-micro", "--set", "train.epochs=1", "--set", "score.draws=100")
    capsys.readouterr()
    run(scores)
    shown = " ".join(capsys.readouterr().out.split())
    assert "8,588 pairs scored against 400 held-out pairs (from trained/splits.parquet)." in shown
    for command in stored.splitlines():
        run(command)
    ours = pl.read_parquet("scores.parquet")
    again = pl.read_parquet("stored.parquet")
    assert again.select("uid", "role").equals(ours.select("uid", "role"))
    assert (again["clipmem"] - ours["clipmem"]).abs().max() < 1e-6
    trained = clipmem.load_run("trained").scores.filter(planted=False)  # those scored with their own captions
    both = ours.join(trained, on="uid", suffix="_there")
    assert both.height == trained.height
    assert (both["clipmem"] - both["clipmem_there"]).abs().max() < 1e-6
    [python] = blocks("python")
    exec(compile(python, "score.md", "exec"), {})
    assert "shape: (3, 2)" in capsys.readouterr().out


def test_the_files_it_names_are_there():
    named = set(re.findall(r"tests/[\w/]+\.py", PAGE + MEANING))
    assert len(named) == 3
    assert all((ROOT / name).is_file() for name in named)
