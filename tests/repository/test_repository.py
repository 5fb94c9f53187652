"""The files around the code: workflows name what exists, actions are pinned by hash, versions agree."""

import json
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

import clipmem

OWN = "tests/repository/test_repository.py"
ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.stem)
def test_workflows_pin_actions_and_grant_nothing_by_default(file):
    text = file.read_text(encoding="utf-8")
    used = re.findall(r"uses: (.+)", text)
    assert used
    assert all(re.fullmatch(r"[\w.-]+/[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", one) for one in used), used
    workflow = yaml.safe_load(text)
    assert workflow["permissions"] == {}
    assert all("permissions" in job for job in workflow["jobs"].values())
    scripts = re.findall(r"(?:scripts|\.ci)/\w+", text)
    assert all((ROOT / one).is_file() for one in scripts), scripts


def test_an_action_has_one_hash_everywhere():
    used = {one for file in WORKFLOWS for one in re.findall(r"uses: (.+)", file.read_text(encoding="utf-8"))}
    assert len({one.partition("@")[0] for one in used}) == len(used)


def test_issue_forms_are_forms():
    for file in (ROOT / ".github" / "ISSUE_TEMPLATE").glob("[!c]*.yml"):
        form = yaml.safe_load(file.read_text(encoding="utf-8"))
        assert form["name"]
        assert form["description"]
        assert all(one["type"] in {"textarea", "input", "checkboxes"} for one in form["body"])


def test_versions_agree():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == clipmem.__version__


def test_the_image_of_the_container_satisfies_the_lowest_versions():
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    lowest = re.search(r'"torch>=([\d.]+)"', project)[1]
    tag = re.search(r"pytorch/pytorch:([\d.]+)-", (ROOT / "Dockerfile").read_text(encoding="utf-8"))[1]
    assert [int(one) for one in tag.split(".")] >= [int(one) for one in lowest.split(".")]
    copied = re.findall(r"^COPY (.+) (?:\S+)$", (ROOT / "Dockerfile").read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert all((ROOT / name).exists() for line in copied for name in line.split())


def test_the_nightly_job_runs_every_slow_test_with_every_extra():
    text = (ROOT / ".github" / "workflows" / "nightly.yml").read_text(encoding="utf-8")
    workflow = yaml.safe_load(text)
    assert workflow[True].keys() == {"schedule", "workflow_dispatch"}  # YAML reads `on` as true
    steps = [step["run"] for step in workflow["jobs"]["slow"]["steps"] if "run" in step]
    # by its marker and nothing else, and those of the other package: a file or `-k` would leave tests in no job
    arguments = [words[words.index("pytest") + 1 :] for words in map(shlex.split, steps) if "pytest" in words]
    assert arguments == [["-m", "slow", "--durations=0"], ["-m", "slow", "--durations=0", "reproduce/tests"]]
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    installed = re.search(r'pip install -q -e "\.\[([\w,]+)\]"', text)[1].split(",")
    assert set(installed) == extras.keys() - {"all", "docs"}
    fast = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert re.search(rf'pip install -q -e "\.\[{",".join(installed)}\]"', fast)


def test_a_table_says_when_each_file_with_slow_tests_runs():
    table = tomllib.loads((ROOT / "tests" / "slow.toml").read_text(encoding="utf-8"))
    every = [*(ROOT / "tests").rglob("test_*.py"), *(ROOT / "reproduce" / "tests").glob("test_*.py")]
    texts = {file.relative_to(ROOT).as_posix(): file.read_text(encoding="utf-8") for file in every}
    assert table.keys() == {file for file, text in texts.items() if re.search(r"mark\.slow\b", text)} - {OWN}
    rooms = {folder.name for folder in (ROOT / "src" / "clipmem").iterdir() if folder.is_dir()}
    for file, entry in table.items():
        assert entry["rooms"], file
        assert set(entry["rooms"]) <= rooms, file
        assert entry["minutes"] > 0, file
        names = re.findall(r"def (test_\w+)", texts[file])
        for word in re.findall(r"\w+", entry.get("promise", "")):
            assert word in {"not", "or", "and"} or any(word in name for name in names), (file, word)
    assert sum("promise" in entry for entry in table.values()) > 5


# unit tests that are named for no module
SEVERAL = dict.fromkeys(("data/test_examples", "measure/test_examples", "mitigate/test_examples"), "several modules")
NO_MODULE = SEVERAL | {"report/test_screens": "the pages and screens of tests/screens.py"}


def test_unit_tests_lie_where_their_module_does():
    unit, source, elsewhere = ROOT / "tests" / "unit", ROOT / "src" / "clipmem", set()
    for file in unit.rglob("test_*.py"):
        path = file.relative_to(unit).with_suffix("")
        assert (file.parent / "__init__.py").is_file(), path  # names repeat from room to room
        package = source / path.parent
        assert (package / "__init__.py").is_file(), f"{path}: src/clipmem has no room {path.parent}"
        modules = {
            entry.stem for entry in package.iterdir() if entry.suffix == ".py" or (entry / "__init__.py").is_file()
        }
        if not any(f"{path.name}_".startswith(f"test_{module}_") for module in modules):
            elsewhere.add(path.as_posix())
    assert elsewhere == NO_MODULE.keys()


def test_the_fast_job_names_tests_that_exist_and_those_of_the_table():
    text = (ROOT / ".ci" / "run").read_text(encoding="utf-8").replace("\\\n", " ")
    assert re.search(r"^\.venv/bin/python scripts/slow --changed ", text, flags=re.MULTILINE)
    for line in re.findall(r"^(?:.*\.venv/bin/pytest|tests) (.+)$", text, flags=re.MULTILINE):
        expanded = subprocess.run(["bash", "-c", f"printf '%s\\n' {line}"], capture_output=True, text=True, check=True)
        words = expanded.stdout.splitlines()
        assert all((ROOT / word).exists() for word in words if word.startswith(("tests/", "reproduce/tests"))), words


def lint(*arguments, text=None):
    words = [sys.executable, "-m", "ruff", "check", *arguments]
    return subprocess.run(words, cwd=ROOT, input=text, capture_output=True, text=True, check=False).stdout


@pytest.mark.parametrize(
    "folder", ["benchmarks/suites", "examples", "experiments/curate", "scripts", "src/clipmem", "tests"]
)
def test_an_undefined_name_fails_the_lint(folder):
    name = f"{folder}/probe.py"
    errors = lint("--output-format", "json", "--stdin-filename", name, "-", text="x = machine.cores()\n")
    assert "F821" in {error["code"] for error in json.loads(errors)}


def test_scripts_without_a_suffix_are_linted():
    files = [file for file in (ROOT / "scripts").iterdir() if file.is_file()]
    scripts = {file for file in files if "python" in file.read_text(encoding="utf-8").partition("\n")[0]}
    linted = {Path(line) for line in lint("--show-files", "scripts").splitlines()}
    assert len(scripts) > 3
    assert scripts <= linted


def test_pages_are_short():
    lengths = {page.name: len(page.read_text(encoding="utf-8").splitlines()) for page in (ROOT / "docs").glob("*.md")}
    assert max(lengths.values()) <= 150, lengths
    assert sum(lengths.values()) <= 2000
