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
    steps = [step["run"] for job in workflow["jobs"].values() for step in job["steps"] if "run" in step]
    # by its marker and nothing else, and those of the other package: a file or `-k` would leave tests in no job
    arguments = [words[words.index("pytest") + 1 :] for words in map(shlex.split, steps) if "pytest" in words]
    assert arguments == [["-m", "slow", "--durations=0"], ["-m", "slow", "--durations=0", "reproduce/tests"]]
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    installed = re.search(r'pip install -q -e "\.\[([\w,]+)\]"', text)[1].split(",")
    assert set(installed) == extras.keys() - {"all", "docs"}


def selections():
    """The arguments of pytest in each line of `.ci/run`, with braces expanded."""
    text = (ROOT / ".ci" / "run").read_text(encoding="utf-8").replace("\\\n", " ")
    for line in re.findall(r"^.*\.venv/bin/pytest (.+)$", text, flags=re.MULTILINE):
        expanded = subprocess.run(["bash", "-c", f"printf '%s\\n' {line}"], capture_output=True, text=True, check=True)
        yield expanded.stdout.splitlines()


def test_the_fast_job_names_tests_that_exist():
    slow = 0
    for words in selections():
        files = [ROOT / word for word in words if word.startswith(("tests/", "reproduce/tests/"))]
        assert all(file.is_file() for file in files), words
        texts = {file: file.read_text(encoding="utf-8") for file in files}
        if "slow" in words:
            slow += 1
            assert all("mark.slow" in text for text in texts.values()), words
        if "-k" in words:
            asked = set(re.findall(r"\w+", words[words.index("-k") + 1])) - {"not", "or", "and"}
            names = {file.stem for file in files}.union(*(re.findall(r"def (test_\w+)", x) for x in texts.values()))
            assert {word for word in asked if not any(word in name for name in names)} == set()
    assert slow > 3


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
