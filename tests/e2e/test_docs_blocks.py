"""Every code block of README, docs and results: Python runs, commands and their options exist, TOML is read."""

import json
import re
import shlex
import shutil
import tomllib
from pathlib import Path

import matplotlib as mpl
import pytest

from clipmem.base.recipes import load_recipe
from clipmem.cli.app import app
from clipmem.study.localizing import localize_run

ROOT = Path(__file__).parents[2]
RESULTS = [*sorted(ROOT.glob("experiments/*/RESULTS.md")), ROOT / "benchmarks" / "RESULTS.md"]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *RESULTS]
BLOCKS = [
    (page.parent.name if page in RESULTS else page.name, number, language, text)
    for page in PAGES
    for number, (language, text) in enumerate(
        re.findall(r"^```(\w*)[^\n]*\n(.*?)^```", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    )
]
# blocks that tests of their pages run or compare whole
ELSEWHERE = {
    "README.md",
    "export.md",
    "finetune.md",
    "mismatched-captions.md",
    "mitigations.md",
    "models.md",
    "noisy-captions.md",
    "plugins.md",
    "score.md",
}
RUNNABLE = {"sh", "bash", "python", "toml"}


def of(*languages):
    found = [one for one in BLOCKS if one[2] in languages]
    return [pytest.param(page, text, id=f"{page}-{number}") for page, number, _, text in found]


def test_blocks_have_a_language_and_are_many():
    assert {language for _, _, language, _ in BLOCKS} == RUNNABLE | {"text", "json"}
    assert sum(language in RUNNABLE for _, _, language, _ in BLOCKS) >= 65


@pytest.mark.parametrize(("page", "text"), of("json"))
def test_json_lines_can_be_read(page, text):
    assert all(json.loads(line) for line in text.splitlines())


def commands(text):
    """The command lines of clipmem in a block, without what is around them."""
    for line in text.replace("\\\n", " ").splitlines():
        found = re.search(r"(?:^|[ /])clipmem (?!memory)(.*)$", line)
        if found and not line.lstrip().startswith("#"):
            yield shlex.split(re.split(r" (?:&&|\||>) |;", found[1])[0], comments=True)


@pytest.mark.parametrize(("page", "text"), of("sh", "bash"))
def test_the_commands_exist_with_their_options(page, text):
    for words in commands(text):
        if words[0] == "reproduce":  # of a package of its own, which checks its pages: reproduce/tests
            continue
        command, _, _ = app.parse_args(words, exit_on_error=False, print_error=False)
        assert command
    for script in re.findall(r"(?:python3? |^|\s)((?:scripts|experiments|benchmarks|examples)/[\w/.-]+\.py)", text):
        assert (ROOT / script).is_file(), script


@pytest.mark.parametrize(("page", "text"), of("toml"))
def test_toml_is_read(page, text):
    keys = tomllib.loads(text)
    if page not in ELSEWHERE and not keys.keys() & {"build-system", "project"}:
        load_recipe(text)


@pytest.mark.parametrize("recipe", sorted((ROOT / "experiments").glob("*/*.toml")), ids=lambda path: path.parent.name)
def test_recipes_of_experiments_are_read(recipe):
    load_recipe(recipe.read_text(encoding="utf-8"))


@pytest.mark.slow
@pytest.mark.parametrize(("page", "text"), of("python"))
def test_python_runs(page, text, finished, tmp_path, monkeypatch, capsys):
    if page in ELSEWHERE:
        compile(text, page, "exec")
        return
    if "pandas" in text:
        pytest.importorskip("pandas", reason="the extra bench is not installed")
    mpl.use("Agg")
    monkeypatch.chdir(tmp_path)
    Path("runs").mkdir()
    if "localize/" in text:
        localize_run(shutil.copytree(finished.path, "runs/mine"), views=1, pairs=4)
    elif "clipmem.view" in text:  # which keeps its columns in the run
        shutil.copytree(finished.path, "runs/mine")
    else:
        Path("runs/mine").symlink_to(finished.path)
    text = text.replace('clipmem.run("quick", "my-run")', 'clipmem.load_run("runs/mine")')  # the same, in seconds
    exec(compile(text, page, "exec"), {})
    assert capsys.readouterr().out
