"""Bare environments: no HOME, the C locale, captions in any script; and folders that another clipmem wrote.

Libraries keep what is theirs: matplotlib a list of fonts in the user's cache, torch an empty temporary folder.
"""

import json
import os
import subprocess
import sys

import pytest

import clipmem
from clipmem.base.errors import InputError
from clipmem.base.recipes import dump_recipe
from tests.tiny import tiny_recipe, write_parquet

SCRIPTS = [
    *(
        "Ein Fuß im Gärtchen",
        "красная машина",
        "赤い車と犬",
        "سيارة حمراء",
        "रेल गाड़ी",
        "빨간 자동차",
        "🚗🏽‍♂️ car",
        "καφέ",
    ),
    *("plain ascii", "nul\x00 and \x1b[31m escape", "\u202eright to left", "lone \ufeff mark"),
]


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    captions = [[f"{SCRIPTS[k % len(SCRIPTS)]} {k}"] for k in range(130)]
    return write_parquet(tmp_path_factory.mktemp("scripts") / "pairs.parquet", 130, captions=captions)


def bare(folder, *arguments):
    """Run clipmem with nothing in its environment but PATH and the C locale, in a folder of its own."""
    folder.mkdir(exist_ok=True)
    environment = {"PATH": os.environ["PATH"], "LC_ALL": "C", "LANG": "C"}
    return subprocess.run(
        [sys.executable, "-X", "utf8=0", "-m", "clipmem", *map(str, arguments)],
        capture_output=True,
        env=environment,
        cwd=folder,
        check=False,
    )


@pytest.mark.slow
def test_the_c_locale_without_a_home(pairs, tmp_path):
    told = bare(tmp_path / "cwd", "inspect", pairs)
    assert told.returncode == 0
    # a slow machine is told how long the reading takes so far
    assert [line for line in told.stderr.decode("ascii").splitlines() if not line.startswith("read ")] == []
    assert b"130" in told.stdout
    assert all(one < 128 for one in told.stdout)  # what the locale lacks is written out
    assert b"\x1b" not in told.stdout
    assert bare(tmp_path / "cwd", "--help").returncode == 0
    assert list((tmp_path / "cwd").iterdir()) == []


@pytest.mark.slow
def test_a_study_in_the_c_locale_without_a_home_writes_into_its_folder_only(pairs, tmp_path):
    recipe, out = tmp_path / "study.toml", tmp_path / "run"
    settings = ("data.source=parquet", f"data.path={pairs}", "train.seeds=[0]", "train.epochs=1", "split.planted=0")
    made = tiny_recipe(*settings)
    recipe.write_text(dump_recipe(made), encoding="utf-8")
    done = bare(tmp_path / "cwd", "run", recipe, "--out", out)
    assert done.returncode == 0, done.stderr
    lines = done.stderr.decode("ascii").splitlines()
    assert not [line for line in lines if "warning" in line.lower() or "matplotlib" in line.lower()]
    assert list((tmp_path / "cwd").iterdir()) == []
    page = (out / "report" / "index.html").read_text(encoding="utf-8")
    assert any(text in page for text in SCRIPTS[:8])
    usual = clipmem.run(made, tmp_path / "usual")
    assert usual.scores.equals(clipmem.load_run(out).scores)


def test_a_changed_recipe_is_refused_with_both_sides(finished):
    with pytest.raises(InputError) as caught:
        clipmem.run(tiny_recipe("train.lr=0.123", "train.epochs=7"), finished.path)
    told = str(caught.value)
    assert caught.value.exit_code == 2
    assert "train.epochs = 2 there, 7 now" in told
    assert "0.123 now" in told


@pytest.mark.parametrize("command", ["run", "load"])
def test_a_run_folder_of_a_newer_clipmem_is_refused(finished, tmp_path, command):
    out = tmp_path / "run"
    out.mkdir()
    for name in ("recipe.toml", "manifest.json", "summary.json"):
        (out / name).write_bytes((finished.path / name).read_bytes())
    manifest = json.loads((out / "manifest.json").read_text())
    (out / "manifest.json").write_text(json.dumps(manifest | {"format": 99, "clipmem": "9.8.7"}))
    with pytest.raises(InputError) as caught:
        clipmem.load_run(out) if command == "load" else clipmem.run(tiny_recipe(), out)
    assert caught.value.exit_code == 2
    assert "format 99" in str(caught.value)
    assert "9.8.7" in str(caught.value)


@pytest.mark.slow
def test_no_module_uses_what_python_deprecates():
    code = (
        "import importlib, pkgutil, clipmem\n"
        "for module in pkgutil.walk_packages(clipmem.__path__, 'clipmem.'):\n"
        "    if not module.name.endswith('__main__'): importlib.import_module(module.name)\n"
    )
    # ours only: what a library warns of on import is its own
    options = ["-W", "error::DeprecationWarning:clipmem", "-W", "error::SyntaxWarning"]
    done = subprocess.run([sys.executable, *options, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
