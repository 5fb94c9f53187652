"""What every command prints in the same way: --json, --version, without colors, and the completion of a shell."""

import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import clipmem
from clipmem.cli.app import app
from clipmem.report.run import read_run
from clipmem.report.terminal import AS_JSON, document_of, print_json
from tests.e2e.running import clip, clip_alone
from tests.unit.report.other_runs import add_localize
from tests.unit.report.run_folder import build_run

WITHOUT_TABLES = {"init", "pairs", "ids", "embeddings"}  # these write files and print one sentence


def leaves(parent, *words):
    """All commands, as (words, application)."""
    for name in parent:
        if not name.startswith("-"):
            command = parent[name]
            if command.default_command is None:
                yield from leaves(command, *words, name)
            else:
                yield (*words, name), command


@pytest.mark.parametrize(("words", "command"), [pytest.param(*one, id=" ".join(one[0])) for one in leaves(app)])
def test_every_command_with_a_table_has_json_and_verbose(words, command):
    flags = {name for argument in command.assemble_argument_collection() for name in argument.names}
    for flag in ("--json", "--verbose"):
        assert (flag in flags) == (words[-1] not in WITHOUT_TABLES)


def as_json(*arguments):
    done = clip(*arguments, "--json")
    assert done.returncode == 0, done.stderr
    assert not AS_JSON.get()
    return json.loads(done.stdout)  # nothing but the document


@pytest.mark.slow
def test_the_screens_of_a_run_are_its_documents(finished, tmp_path):
    run = shutil.copytree(finished.path, tmp_path / "run")
    assert as_json("view", run, "--report") == json.loads((run / "summary.json").read_text())
    shown = clip("view", run, "--report").stdout
    assert ": mean " in shown.splitlines()[0]
    assert len(shown) < len(clip("view", run, "--report", "--verbose").stdout)


@pytest.mark.slow
def test_documents_of_data_and_declarations():
    inspected = as_json("inspect", "emoji")
    assert inspected["usable"]
    declared = as_json("doctor", "--declared")
    assert declared["protocol"].keys() >= {"four-way", "subsample", "given"}


def test_what_json_cannot_hold(capsys):
    print_json(
        {"a": float("nan"), "b": [float("inf"), 1.5, True, None], "c": Path("x"), "d": {1: (2,)}, "e": "\x1b[2J"}
    )
    printed = capsys.readouterr().out
    assert json.loads(printed) == {"a": None, "b": [None, 1.5, True, None], "c": "x", "d": {"1": [2]}, "e": "\x1b[2J"}
    assert "\x1b" not in printed


def test_the_document_of_a_localization(tmp_path):
    built = build_run(tmp_path / "study", planted=2)
    add_localize(built)
    document = document_of("localize", read_run(built.folder))
    assert set(document) == {"units", "layers", "towers"}
    assert document["layers"][0].keys() >= {"tower", "layer", "layermem", "low", "high"}


def test_bad_input_is_reported_as_without_it(tmp_path):
    done = clip("view", tmp_path, "--report", "--json")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == clip("view", tmp_path, "--report").stderr


def test_version_names_the_libraries_without_importing_them():
    code = "import sys, clipmem.cli as c\ntry: c.main(['--version'])\nexcept SystemExit: pass\n"
    code += "assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    for name in ("torch", "open_clip_torch"):
        assert importlib.metadata.version(name) in done.stdout
    assert done.stdout.startswith(f"clipmem {clipmem.__version__} (")
    assert done.stdout.count("\n") == 1


@pytest.mark.parametrize(("more", "colored"), [({}, True), ({"NO_COLOR": "1"}, False)])
def test_no_color(more, colored):
    environment = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
    done = clip_alone("export", "--help", env={**environment, "FORCE_COLOR": "1", **more})
    assert ("\x1b[36m" in done.stdout) == colored


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_can_be_installed(shell, tmp_path):
    done = clip_alone("--install-completion", "--shell", shell, env={**os.environ, "HOME": str(tmp_path)})
    assert done.returncode == 0, done.stderr
    scripts = [path for path in tmp_path.rglob("*clipmem*") if path.is_file()]
    assert any("validate-estimators" in path.read_text() for path in scripts)
