"""The files around the code: workflows name what exists, actions are pinned by hash, versions agree."""

import json
import re
import subprocess
import sys
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


def lint(*arguments, text=None):
    words = [sys.executable, "-m", "ruff", "check", *arguments]
    return subprocess.run(words, cwd=ROOT, input=text, capture_output=True, text=True, check=False).stdout


# src is left to basedpyright, which is not confused by the shapes of tensors
@pytest.mark.parametrize("folder", ["benchmarks/suites", "examples", "experiments/curate", "scripts", "tests/unit"])
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
